"""PixelCNN and Gated PixelCNN: convolutions over the pixels before.

    PixelCNN  h ← h + W₃ relu(K ∗ relu(W₁ relu(h))),     K: the pixels before of 3×3
    Gated     v ← tanh(a) σ(b),  (a, b) = Kᵥ ∗ v,        the rows above
              h ← h + W (tanh(c) σ(d)),  (c, d) = Kₕ ∗ h + U (a, b),     its own row

The C channels of a pixel come one after the other: features are C groups, and group c
hears those up to c of its own pixel (mask B), in the first layer those below c (mask
A). No other tap needs a mask, as kernels have none but those before the centre. Windows
of 3×3 go one column to the right with every row they go up: what PixelCNN does not see
to the right of that is its blind spot, and the vertical stack's reason.

Each network is one body, `conv(h)` being the next convolution, read in two ways: over
whole images, and at one symbol. There each convolution keeps the row it is in. When a
row begins all rows above are known, and what they say is one product for the whole row.

van den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759, section 3.4, figure
5, table 1; van den Oord et al. 2016, arXiv:1606.05328, sections 2.1 to 2.3, figure 2.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.images import to_unit
from gengen.nets.layers import context_vector, zeros
from gengen.types import Array, BadInput

lecun = nn.initializers.variance_scaling(
    1.0, "fan_in", "truncated_normal", in_axis=-2, out_axis=-1, batch_axis=0
)


def convolve(h: Array, kernel: Array, stride: int = 1) -> Array:
    """The correlation of h [B, H, W, F] with [R, K, F, F'], nothing padded."""
    dims = ("NHWC", "HWIO", "NHWC")
    strides = (stride, stride)
    return jax.lax.conv_general_dilated(h, kernel, strides, "VALID", None, None, dims)


def down(h: Array, rows: int = 1) -> Array:
    """h [B, H, W, F] moved down: zeros come in, the last rows drop out."""
    return jnp.pad(h, ((0, 0), (rows, 0), (0, 0), (0, 0)))[:, : h.shape[1]]


def gate(h: Array) -> Array:
    """tanh(a) σ(b), (a, b) the halves of the features."""
    a, b = jnp.split(h, 2, axis=-1)
    return jnp.tanh(a) * jax.nn.sigmoid(b)


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


def following(layers, apply: Callable) -> Callable:
    """conv(h): at its n-th call, apply(n, layers[n], h)."""
    calls = iter(enumerate(layers))
    return lambda h: apply(*next(calls), h)


def over_images(layers, extras, drop: Callable = lambda h: h) -> Callable:
    """conv(h) over whole images; extras[n] is added to what layer n says.

    drop: dropout of what layers hear, the first, of the image itself, excepted.
    """

    def apply(n, layer, h):
        return layer(drop(h) if n else h) + extras[n]

    return following(layers, apply)


def at_symbol(layers, windows, s) -> tuple[Callable, list]:
    """(conv(h) at place s, the h of every call, in a list that it fills)."""
    heard = []

    def apply(n, layer, h):
        heard.append(h)
        return layer.at(h, windows[n], s)

    return following(layers, apply), heard


class RasterNet(nn.Module):
    """What networks of RasterConvs over the channels of an image share.

    x int32 [B, H · W · C], subpixels in raster order -> features [B, H · W · C, F].
    A network has `convs` in the order that its `body(conv, x)` calls them, and their
    `extras`, which know the label and the rows above.
    """

    features: int
    shape: tuple[int, int, int]
    levels: int = 256
    width: int = 128
    blocks: int = 15
    num_classes: int = 0
    dropout: float = 0.0
    dtype: Any = None

    def setup(self):
        self.drop = nn.Dropout(self.dropout)

    @property
    def line(self) -> int:
        """Subpixels in a row."""
        return self.shape[1] * self.shape[2]

    def conv(self, inputs, features, left=0, **kwargs):
        """A RasterConv of this network; masks and dtype its own."""
        kwargs = {"groups": self.shape[2], "dtype": self.dtype} | kwargs
        return RasterConv(inputs, features, left=left, **kwargs)

    def _readout(self, width):
        """Two 1×1 convolutions, the last in float32."""
        out = self.conv(width, self.features * self.shape[2], dtype=None)
        return [self.conv(width, width), out]

    def _vector(self, context):
        return context_vector(context, self.num_classes)

    def _biases(self, layers, context):
        """The vector seen by each of `layers`, [B, 1, 1, C, F]; zeros without."""
        vector = self._vector(context)
        if vector is None:
            return [0.0] * len(layers)
        shape = len(vector), 1, 1, self.shape[2], -1
        return [layer(vector).reshape(shape) for layer in layers]

    def __call__(self, x, context=None, train: bool = False):
        h, w, c = self.shape
        image = to_unit(x, self.levels).reshape(-1, h, w, c)
        extras = self.extras(self.over_rows(image, context), context)
        drop = partial(self.drop, deterministic=not train)
        conv = over_images(self.convs, extras, drop)
        hidden = self.body(conv, image)
        self.sow("intermediates", "features", hidden)
        return conv(hidden).reshape(*x.shape, self.features)

    def start(self, num: int, context=None):
        """Of every convolution its rows; of a vertical stack its own."""
        caches = [conv.start(num, self.shape[1]) for conv in self.convs]
        return caches, self.start_rows(num)

    def turn(self, symbol, line, cache, context=None):
        caches, rows = cache
        first = self._enter(caches[0], symbol, self.line, line == 0)
        said, rows = self.next_row(self.convs[0].seen(first), rows, context)
        caches = [first, *caches[1:]]
        all_ = zip(self.convs, caches, self.extras(said, context), strict=True)
        return [conv.turn(cache, extra) for conv, cache, extra in all_], rows

    def decode(self, symbol, t, cache, context=None):
        """Features [B, F] at subpixel t, after x_{t-1} [B] (t = 0: any)."""
        caches, rows = cache
        s = t % self.line
        caches = [self._enter(caches[0], symbol, s, s == 0), *caches[1:]]
        both = list(zip(self.convs, caches, strict=True))
        windows = [conv.look(cache, s) for conv, cache in both]
        conv, heard = at_symbol(self.convs, windows, s)
        out = conv(self.body(conv, None))
        each = zip(both[1:], heard[1:], strict=True)
        kept = [conv.keep(old, h, s) for (conv, old), h in each]
        return out, ([caches[0], *kept], rows)

    def _enter(self, cache, symbol, s, nothing):
        """x_{s-1} in the row of the first convolution; outside of it there is zero."""
        x = jnp.where(nothing, 0.0, to_unit(symbol, self.levels))
        return self.convs[0].keep(cache, x[:, None], s - 1)


class PixelCNN(RasterNet):
    """A 7×7 convolution of mask A, residual blocks of mask B, two 1×1 of mask B.

    features: the head's, of a subpixel. shape: (H, W, C). width: of the residual
    stream, 2h of the paper, a multiple of 2 C. num_classes: the context is labels [B],
    else any vector [B, D] or none, a bias of each block. dropout: of what each layer
    but the first hears. dtype: of the layers, bfloat16 or None for float32. The last
    hidden layer is sown as "features".
    """

    def setup(self):
        super().setup()
        width, half = self.width, self.width // 2
        convs = [self.conv(self.shape[2], width, 3, rows=3, right=3, strict=True)]
        for _ in range(self.blocks):
            convs += [self.conv(width, half), self.conv(half, half, 1, rows=1, right=1)]
            convs += [self.conv(half, width)]
        self.convs = [*convs, *self._readout(width)]
        self.biases = [nn.Dense(half, use_bias=False) for _ in range(self.blocks)]

    def body(self, conv, x):
        relu, h = nn.relu, conv(x)
        for _ in range(self.blocks):
            h = h + conv(relu(conv(relu(conv(relu(h))))))
        return relu(conv(relu(h)))

    def extras(self, said, context):
        biases = self._biases(self.biases, context)
        return [0.0, *(e for bias in biases for e in (0.0, bias, 0.0)), 0.0, 0.0]

    def over_rows(self, image, context):
        return None

    def start_rows(self, num):
        return None

    def next_row(self, row, cache, context):
        return None, None


class GatedPixelCNN(RasterNet):
    """Gated PixelCNN: a vertical stack for the rows above, a horizontal for its own.

    As PixelCNN; size: of the windows after the first, 7×7; width: a multiple of C.
    The vector is a bias of every gate, of both stacks. No blind spot.
    """

    width: int = 64
    blocks: int = 10
    size: int = 3

    def setup(self):
        super().setup()
        width, c = self.width, self.shape[2]
        layers, half = self.blocks, self.size // 2
        lefts = [3, *[half] * (layers - 1)]
        convs, vertical = [], []
        for n, left in enumerate(lefts):
            ins = width if n else c
            convs += [self.conv(ins, 2 * width, left, strict=n == 0)]
            convs += [self.conv(width, width)]
            rows = left + (n > 0)
            pads = (0, 0), (left, left)
            vertical += [
                nn.Conv(2 * width, (rows, 2 * left + 1), padding=pads, dtype=self.dtype)
            ]
        self.convs = [*convs, *self._readout(width)]
        self.vertical = vertical
        dense = [nn.Dense(2 * width, dtype=self.dtype) for _ in range(3 * layers)]
        self.links = dense[:layers]
        self.biases_v, self.biases_h = dense[layers : 2 * layers], dense[2 * layers :]

    def body(self, conv, x):
        h = conv(gate(conv(x)))
        for _ in range(self.blocks - 1):
            h = h + conv(gate(conv(h)))
        return nn.relu(conv(nn.relu(h)))

    def extras(self, said, context):
        extras = []
        for v, bias in zip(said, self._biases(self.biases_h, context), strict=True):
            extras += [v.reshape(*v.shape[:3], self.shape[2], -1) + bias, 0.0]
        return [*extras, 0.0, 0.0]

    def _upper(self, conv, v, context):
        """What the vertical stack says to each layer of the horizontal one."""
        vector, said = self._vector(context), []
        for link, bias in zip(self.links, self.biases_v, strict=True):
            v = conv(v)
            v = v if vector is None else v + bias(vector)[:, None, None]
            said.append(link(v))
            v = gate(v)
        return said

    def over_rows(self, image, context):
        def apply(n, layer, v):
            above = layer.kernel_size[0] - 1
            return layer(jnp.pad(v, ((0, 0), (above, 0), (0, 0), (0, 0))))

        return self._upper(following(self.vertical, apply), down(image), context)

    def start_rows(self, num):
        """The rows above that each vertical convolution looks at."""
        inputs = [self.shape[2], *[self.width] * (self.blocks - 1)]
        dtype = self.dtype or jnp.float32
        return [
            jnp.zeros((num, layer.kernel_size[0] - 1, self.shape[1], n), dtype)
            for layer, n in zip(self.vertical, inputs, strict=True)
        ]

    def next_row(self, row, cache, context):
        new = []

        def apply(n, layer, v):
            rows = jnp.concatenate([cache[n], v.astype(cache[n].dtype)], axis=1)
            new.append(rows[:, 1:])
            return layer(rows)

        return self._upper(following(self.vertical, apply), row, context), new
