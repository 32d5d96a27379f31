"""Convolutions over the pixels before, in raster order, and the same at one symbol.

The kernel has taps for what comes before the centre and no others, so that nothing has
to be masked, except at the centre of a pixel with several channels. There the features
are C groups, one a channel: group c hears those up to c of its own pixel (mask B), or,
in a first layer, those below c (mask A).

van den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759, section 3.4.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.nets.layers import zeros
from gengen.types import Array

lecun = nn.initializers.variance_scaling(
    1.0, "fan_in", "truncated_normal", in_axis=-2, out_axis=-1, batch_axis=0
)


def convolve(h: Array, kernel: Array, stride: int = 1) -> Array:
    """The correlation of h [B, H, W, F] with [R, K, F, F'], nothing padded."""
    dims = ("NHWC", "HWIO", "NHWC")
    strides = (stride, stride)
    return jax.lax.conv_general_dilated(h, kernel, strides, "VALID", None, None, dims)


class RasterConv(nn.Module):
    """h [B, H, W, C, F/C] -> [B, H, W, C, F'/C] from the pixels before, and its own.

    The window: columns j - left … j + right of `rows` rows above, j - left … j of its
    own. groups: C, of which group c hears those up to c of its own pixel; strict
    (mask A): those below c. stride: of rows and columns, without groups. A parameter
    `kernel` [C, taps · F, F'/C] for both views, taps in raster order.

    One symbol at place s of a row of W · C, with everything above summed up beforehand:

        cache = start(num, width)
        cache = turn(cache, extra)                       a new row
        window = look(cache, s)                          small: what symbol s looks at
        at(h, window, s) -> [B, F'/C]
        cache = keep(cache, h, s)

    h [B, F/C] is the input at s; strict: unused in `at`, as the window holds s - 1.
    """

    inputs: int
    features: int
    rows: int = 0
    left: int = 0
    right: int = 0
    groups: int = 1
    strict: bool = False
    stride: int = 1
    kernel_init: Callable = lecun
    dtype: Any = None

    def setup(self):
        for channels in (self.inputs, self.features):
            if channels % self.groups:
                raise BadInput(
                    f"{channels} features cannot be shared by {self.groups} channels: "
                    f"take a multiple of {self.groups}"
                )
        taps = self.rows * (self.left + 1 + self.right) + self.taps
        each = self.features // self.groups
        shape = self.groups, taps * self.inputs, each
        self.kernel = self.param("kernel", self.kernel_init, shape)
        self.bias = self.param("bias", zeros, (self.groups, each))

    @property
    def taps(self) -> int:
        """Of its own row; the centre is none if it would be all mask."""
        return self.left + (self.groups > 1 or not self.strict)

    def _kernels(self):
        """Those above [C, rows · columns · F, F'/C] and of its own row."""
        (kernel,) = nn.dtypes.promote_dtype(self.kernel, dtype=self.dtype)
        return jnp.split(kernel, [kernel.shape[1] - self.taps * self.inputs], axis=1)

    def _above(self, h):
        """Heard of rows above: [B, R, W, F] -> [B, R - rows + 1, W, C, F'/C]."""
        columns = self.left + 1 + self.right
        kernel = self._kernels()[0]
        kernel = kernel.reshape(self.groups, self.rows, columns, self.inputs, -1)
        kernel = jnp.moveaxis(kernel, 0, 3).reshape(*kernel.shape[1:4], self.features)
        h = jnp.pad(h, ((0, 0), (0, 0), (self.left, self.right), (0, 0)))
        out = convolve(h, kernel, self.stride)
        return out.reshape(*out.shape[:3], self.groups, -1)

    def _beside(self, h):
        """Heard of its own row: [B, H, W, F] -> [B, H, W, C, F'/C]."""
        c = self.groups
        kernel = self._kernels()[1].reshape(c, self.taps, c, self.inputs // c, -1)
        if c > 1:
            mask = jnp.tri(c, k=-1 if self.strict else 0)[:, :, None, None]
            kernel = kernel.at[:, -1].multiply(mask.astype(kernel.dtype))
        kernel = jnp.moveaxis(kernel, 0, 3)
        kernel = kernel.reshape(1, self.taps, self.inputs, self.features)
        h = h if self.taps > self.left else h[:, :, :-1]
        h = jnp.pad(h, ((0, 0), (0, 0), (self.left, 0), (0, 0)))
        out = convolve(h, kernel, self.stride)
        return out.reshape(*out.shape[:3], c, -1)

    def __call__(self, h):
        h, bias = nn.dtypes.promote_dtype(h, self.bias, dtype=self.dtype)
        h = h.reshape(*h.shape[:3], -1)
        out = self._beside(h) + bias
        if self.rows:
            above = jnp.pad(h[:, :-1], ((0, 0), (self.rows, 0), (0, 0), (0, 0)))
            out += self._above(above)
        return out

    def start(self, num: int, width: int):
        """(the rows above, the row it is in, the sums for this row), nothing seen."""
        row = (self.left + width) * self.groups, self.inputs // self.groups
        sums = width // self.stride * self.groups, self.features // self.groups
        shapes = (self.rows, width, self.inputs), row, sums
        return tuple(jnp.zeros((num, *s), self.dtype or jnp.float32) for s in shapes)

    def seen(self, cache):
        """The row it is in, [B, 1, W, F]."""
        rows, row, _ = cache
        row = row[:, self.left * self.groups :]
        return row.reshape(len(row), 1, *rows.shape[2:])

    def turn(self, cache, extra: Array | float = 0.0):
        """A new row, and what it hears from above and of `extra` [B, 1, W, …]."""
        rows, row, sums = cache
        rows = jnp.concatenate([rows, self.seen(cache)], axis=1)[:, 1:]
        extra = jnp.asarray(extra)
        if extra.ndim:
            extra = extra.reshape(*extra.shape[:3], *self.bias.shape)
        heard = self.bias + extra
        if self.rows:
            heard += self._above(rows)
        shape = (*sums.shape[:1], 1, sums.shape[1] // self.groups, *self.bias.shape)
        heard = jnp.broadcast_to(heard, shape).astype(sums.dtype).reshape(sums.shape)
        return rows, jnp.zeros_like(row), heard

    def look(self, cache, s):
        _, row, sums = cache
        start = s // self.groups * self.groups
        size = self.taps * self.groups
        window = jax.lax.dynamic_slice_in_dim(row, start, size, axis=1)
        heard = jax.lax.dynamic_index_in_dim(sums, s // self.stride, 1, keepdims=False)
        return window, heard

    def at(self, h, window, s):
        window, heard = window
        c = s % self.groups
        if not self.strict:
            h, place = h[:, None].astype(window.dtype), self.left * self.groups + c
            window = jax.lax.dynamic_update_slice_in_dim(window, h, place, axis=1)
        return window.reshape(len(window), -1) @ self._kernels()[1][c] + heard

    def recall(self, cache, s):
        """What was kept at s, [B, F/C]."""
        place = self.left * self.groups + s
        return jax.lax.dynamic_index_in_dim(cache[1], place, 1, keepdims=False)

    def keep(self, cache, h, s):
        rows, row, sums = cache
        h, place = h[:, None].astype(row.dtype), self.left * self.groups + s
        return rows, jax.lax.dynamic_update_slice_in_dim(row, h, place, axis=1), sums
