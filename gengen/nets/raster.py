"""Convolutions over the pixels before, in raster order, and the same at one symbol.

The kernel has taps for what comes before the centre and no others, so nothing has to be
masked, except at the centre of a pixel with several channels. There the features are C
groups, one per channel: group c may depend on the groups up to c of its own pixel (mask
B), or, in a first layer, on those below c (mask A).

van den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759, section 3.4.
"""

from collections.abc import Callable
from typing import Any

import chex
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
    """The correlation of an image with a kernel, without padding.

    Args:
        h: [B, H, W, F].
        kernel: [R, K, F, F'].
        stride: the stride of rows and columns.

    >>> convolve(jnp.ones((1, 2, 2, 1)), jnp.ones((2, 2, 1, 1))).item()
    4.0
    """
    chex.assert_rank([h, kernel], 4)
    chex.assert_type([h, kernel], float)
    dims = ("NHWC", "HWIO", "NHWC")
    strides = (stride, stride)
    return jax.lax.conv_general_dilated(h, kernel, strides, "VALID", None, None, dims)


class RasterConv(nn.Module):
    """h [B, H, W, C, F/C] -> [B, H, W, C, F'/C] from the pixels before, and its own.

    The window: columns j - left … j + right of `rows` rows above, j - left … j of its
    own row. The parameter `kernel` [C, taps · F, F'/C] serves both views; its taps are
    in raster order.

    One symbol, at place s of a row of W · C, with everything above summed beforehand:

        cache = start(num, width)
        cache = start_row(cache, added)                  a new row
        window = read_window(cache, s)                   small: what symbol s sees
        apply_at(h, window, s) -> [B, F'/C]
        cache = write(cache, h, s)

    h [B, F/C] is the input at s. With `strict`, `apply_at` does not use it, as the
    window ends at s - 1.
    """

    inputs: int
    """F, the input features of a pixel, a multiple of `groups`."""
    features: int
    """F', the output features of a pixel, a multiple of `groups`."""
    rows: int = 0
    """The rows above that the window covers."""
    left: int = 0
    """The columns to the left that the window covers."""
    right: int = 0
    """The columns to the right that the window covers, in the rows above."""
    groups: int = 1
    """C, the channels of the image: group c may depend on groups <= c of its pixel."""
    strict: bool = False
    """Whether group c may only depend on groups < c of its own pixel (mask A)."""
    stride: int = 1
    """The stride of rows and columns; 1 with several groups."""
    kernel_init: Callable = lecun
    """The initialiser of the kernel."""
    dtype: Any = None
    """The layer's type: bfloat16, or None for the parameters'."""

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
        """The taps in its own row; the centre is none if all of it were masked."""
        return self.left + (self.groups > 1 or not self.strict)

    def _kernels(self):
        """The kernels of the rows above, [C, rows · columns · F, F'/C], and its own."""
        (kernel,) = nn.dtypes.promote_dtype(self.kernel, dtype=self.dtype)
        return jnp.split(kernel, [kernel.shape[1] - self.taps * self.inputs], axis=1)

    def _above(self, h):
        """The part of rows above: [B, R, W, F] -> [B, R - rows + 1, W, C, F'/C]."""
        columns = self.left + 1 + self.right
        kernel = self._kernels()[0]
        kernel = kernel.reshape(self.groups, self.rows, columns, self.inputs, -1)
        kernel = jnp.moveaxis(kernel, 0, 3).reshape(*kernel.shape[1:4], self.features)
        h = jnp.pad(h, ((0, 0), (0, 0), (self.left, self.right), (0, 0)))
        out = convolve(h, kernel, self.stride)
        return out.reshape(*out.shape[:3], self.groups, -1)

    def _own_row(self, h):
        """The part of its own row: [B, H, W, F] -> [B, H, W, C, F'/C]."""
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

    def __call__(self, h: Array) -> Array:
        chex.assert_rank(h, {4, 5})
        h, bias = nn.dtypes.promote_dtype(h, self.bias, dtype=self.dtype)
        h = h.reshape(*h.shape[:3], -1)
        out = self._own_row(h) + bias
        if self.rows:
            above = jnp.pad(h[:, :-1], ((0, 0), (self.rows, 0), (0, 0), (0, 0)))
            out += self._above(above)
        return out

    def start(self, num: int, width: int):
        """(the rows above, the current row, the sums of its places), all zeros."""
        row = (self.left + width) * self.groups, self.inputs // self.groups
        sums = width // self.stride * self.groups, self.features // self.groups
        shapes = (self.rows, width, self.inputs), row, sums
        return tuple(
            jnp.zeros((num, *s), self.dtype or self.kernel.dtype) for s in shapes
        )

    def current_row(self, cache):
        """The current row, [B, 1, W, F]."""
        rows, row, _ = cache
        row = row[:, self.left * self.groups :]
        return row.reshape(len(row), 1, *rows.shape[2:])

    def start_row(self, cache, added: Array | float = 0.0):
        """The cache of a new row: its sums are of the rows above, and `added`.

        added: [B, 1, W, …], or [B, 1, 1, …].
        """
        rows, row, sums = cache
        rows = jnp.concatenate([rows, self.current_row(cache)], axis=1)[:, 1:]
        if jnp.ndim(added):
            added = added.reshape(*added.shape[:3], *self.bias.shape)
        total = self.bias + added
        if self.rows:
            total += self._above(rows)
        shape = (*sums.shape[:1], 1, sums.shape[1] // self.groups, *self.bias.shape)
        total = jnp.broadcast_to(total, shape).astype(sums.dtype).reshape(sums.shape)
        return rows, jnp.zeros_like(row), total

    def read_window(self, cache, s):
        """What symbol s sees of its row, and the sum of everything above."""
        _, row, sums = cache
        start = s // self.groups * self.groups
        size = self.taps * self.groups
        window = jax.lax.dynamic_slice_in_dim(row, start, size, axis=1)
        above = jax.lax.dynamic_index_in_dim(sums, s // self.stride, 1, keepdims=False)
        return window, above

    def apply_at(self, h, window, s):
        """The output of symbol s, [B, F'/C]."""
        window, above = window
        c = s % self.groups
        if not self.strict:
            h, place = h[:, None].astype(window.dtype), self.left * self.groups + c
            window = jax.lax.dynamic_update_slice_in_dim(window, h, place, axis=1)
        return window.reshape(len(window), -1) @ self._kernels()[1][c] + above

    def read(self, cache, s):
        """The input that was written at s, [B, F/C]."""
        place = self.left * self.groups + s
        return jax.lax.dynamic_index_in_dim(cache[1], place, 1, keepdims=False)

    def write(self, cache, h, s):
        """The cache with the input h [B, F/C] at s."""
        rows, row, sums = cache
        h, place = h[:, None].astype(row.dtype), self.left * self.groups + s
        return rows, jax.lax.dynamic_update_slice_in_dim(row, h, place, axis=1), sums
