"""PixelRNN: LSTMs that run over the rows or the diagonals of an image.

    [o, f, i, g] = K_is ∗ x + K_ss ∗ h'
    c = σ(f) c' + σ(i) tanh(g),   h = σ(o) tanh(c)                        (equation 3)

Row LSTM, all of a row at once: h' is the row above, of which K_ss sees columns j-1 …
j+1, and K_is columns j-1 and j of x; c' is c above. What h(i, j) sees is a triangle.

Diagonal BiLSTM, all of a diagonal i + j at once, in an image skewed so that diagonals
are columns: K_ss sees h to the left of (i, j) and above it, K_is is 1×1; c' is c to the
left. A second one runs from right to left, and its map, moved down by one row so that
it stays in the past, is added: together they see everything before, except that the
last pixel of row i-1 enters no features before those of row i, near it.

Residual blocks of 2h features, h in the LSTM, stand between a 7×7 convolution of mask A
and two 1×1 of mask B. The C channels of a pixel are C groups of features: group c hears
those up to c of its own pixel (mask B), in the first layer those below c (mask A).

In decoding a row knows all above itself when it begins: what states say from there is
one product for the row, and the right-to-left recurrence of the row above is run then.

van den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759, sections 3.1 to 3.4,
figures 3 to 5, table 1.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.images import to_unit
from gengen.nets.layers import context_vector, layers, zeros
from gengen.types import Array, BadInput

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
        """Of rows above: [B, R, W, F] -> [B, R - rows + 1, W, C, F'/C]."""
        columns = self.left + 1 + self.right
        kernel = self._kernels()[0]
        kernel = kernel.reshape(self.groups, self.rows, columns, self.inputs, -1)
        kernel = jnp.moveaxis(kernel, 0, 3).reshape(*kernel.shape[1:4], self.features)
        h = jnp.pad(h, ((0, 0), (0, 0), (self.left, self.right), (0, 0)))
        out = convolve(h, kernel, self.stride)
        return out.reshape(*out.shape[:3], self.groups, -1)

    def _beside(self, h):
        """What is heard of its own row: [B, H, W, F] -> [B, H, W, C, F'/C]."""
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
        """A new row, all it hears from above, and `extra` [B, 1, W, …]."""
        rows, row, sums = cache
        rows = jnp.concatenate([rows, self.seen(cache)], axis=1)[:, 1:]
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

    def keep(self, cache, h, s):
        rows, row, sums = cache
        h, place = h[:, None].astype(row.dtype), self.left * self.groups + s
        return rows, jax.lax.dynamic_update_slice_in_dim(row, h, place, axis=1), sums


states = nn.initializers.variance_scaling(
    1.0, "fan_in", "truncated_normal", in_axis=-2, out_axis=-1, batch_axis=(0, 1)
)


def lstm(gates: Array, cell: Array) -> tuple[Array, Array]:
    """(h, c) [..., F] from gates [..., 4 F] in the order o, f, i, g; c is float32."""
    o, f, i, g = jnp.split(gates.astype(jnp.float32), 4, axis=-1)
    cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
    return (nn.sigmoid(o) * jnp.tanh(cell)).astype(gates.dtype), cell


def empty(gates: Array) -> tuple[Array, Array]:
    """(h, c) of zeros for gates of this shape."""
    zero = jnp.zeros_like(jnp.split(gates, 4, axis=-1)[0])
    return zero, zero.astype(jnp.float32)


def linear(x: Array, kernel: Array) -> Array:
    """x [..., F] and a kernel [C, F, G] -> [..., C, G]."""
    return jnp.einsum("...f,cfg->...cg", x, kernel)


def flat(x: Array) -> Array:
    """[..., C, G] -> [..., C G]."""
    return x.reshape(*x.shape[:-2], -1)


def shifted(x: Array, by: int) -> Array:
    """x [B, N, …] moved along N, zeros coming in: y[:, n] = x[:, n - by]."""
    x = jnp.pad(x, [(0, 0), (max(by, 0), max(-by, 0)), *[(0, 0)] * (x.ndim - 2)])
    return x[:, max(-by, 0) :][:, : x.shape[1] - abs(by)]


def skew(x: Array) -> Array:
    """[B, H, W, …] -> [B, H, W + H - 1, …], row i moved i to the right."""
    b, h, w, *rest = x.shape
    x = jnp.pad(x, [(0, 0), (0, 0), (0, h), *[(0, 0)] * len(rest)])
    x = x.reshape(b, h * (w + h), *rest)[:, :-h]
    return x.reshape(b, h, w + h - 1, *rest)


def unskew(x: Array) -> Array:
    """The inverse of `skew`."""
    b, h, s, *rest = x.shape
    x = x.reshape(b, h * s, *rest)
    x = jnp.pad(x, [(0, 0), (0, h), *[(0, 0)] * len(rest)])
    return x.reshape(b, h, s + 1, *rest)[:, :, : s + 1 - h]


def append_zeros(x: Array) -> Array:
    """[..., F] -> [..., 2 F]."""
    return jnp.concatenate([x, jnp.zeros_like(x)], axis=-1)


def look(x: Array, s: Array) -> Array:
    """x[:, s]."""
    return jax.lax.dynamic_index_in_dim(x, s, 1, keepdims=False)


def put(x: Array, value: Array, s: Array) -> Array:
    """x, where x[:, s] is the value."""
    value = value[:, None].astype(x.dtype)
    return jax.lax.dynamic_update_slice_in_dim(x, value, s, axis=1)


def hear(conv: RasterConv, x: Array, s: Array, cache):
    """What a convolution says at s of x there, and its cache."""
    return conv.at(x, conv.look(cache, s), s), conv.keep(cache, x, s)


class Recurrence(nn.Module):
    """x [B, H, W, 2 F], bias -> h [B, H, W, C, F/C]; F the width, C the groups.

    bias: of the gates, [B, H | 1, W | 1, C, gates F/C]. In decoding:

        cache = start(num, W)
        cache = turn(cache, bias)                             a new row, its bias
        h [B, F/C], cache = decode(x [B, 2 F/C], s, cache)    symbol s of the row
    """

    width: int
    groups: int = 1
    dtype: Any = None

    def setup(self):
        c, f, half = self.groups, self.width, self.window // 2
        self.conv = RasterConv(
            2 * f, self.gates * f, left=half, groups=c, dtype=self.dtype
        )
        shape = self.gates // 4, c, self.taps * f, 4 * f // c
        self.state = self.param("state", states, shape)

    def _kernel(self):
        return nn.dtypes.promote_dtype(self.state, dtype=self.dtype)[0]

    def _row(self, num, symbols, times: int = 1, dtype=None):
        shape = num, symbols, times * self.width // self.groups
        return jnp.zeros(shape, dtype or self.dtype or jnp.float32)

    def _pixels(self, row):
        """[B, W C, F] -> [B, W, C, F]."""
        return row.reshape(len(row), -1, self.groups, row.shape[-1])


class RowLSTM(Recurrence):
    """An LSTM from each row to the next one; it sees a triangle."""

    window, taps, gates = 3, 3, 4

    def _above(self, hidden):
        """What the row above says, [B, W, C, F/C] -> [B, W, C, 4 F/C]."""
        h = flat(hidden)
        near = [shifted(h, 1), h, shifted(h, -1)]
        return linear(jnp.concatenate(near, axis=-1), self._kernel()[0])

    def __call__(self, x, bias):
        def row(carry, gates):
            hidden, cell = carry
            hidden, cell = lstm(gates + self._above(hidden), cell)
            return (hidden, cell), hidden

        gates = jnp.moveaxis(self.conv(x) + bias, 1, 0)
        return jnp.moveaxis(jax.lax.scan(row, empty(gates[0]), gates)[1], 0, 1)

    def start(self, num, columns):
        row = num, columns * self.groups
        cell = self._row(*row, dtype=jnp.float32)
        return self.conv.start(num, columns), self._row(*row), cell

    def turn(self, cache, bias):
        conv, hidden, cell = cache
        above = self._above(self._pixels(hidden))
        return self.conv.turn(conv, bias + above[:, None]), hidden, cell

    def decode(self, x, s, cache):
        conv, hidden, cell = cache
        gates, conv = hear(self.conv, x, s, conv)
        h, c = lstm(gates, look(cell, s))
        return h, (conv, put(hidden, h, s), put(cell, c, s))


def over_diagonals(gates: Array, kernel: Array) -> Array:
    """h [B, H, W, C, G] of gates [B, H, W, C, 4 G] and of h above and to the left."""
    gates = jnp.moveaxis(skew(gates), 2, 0)

    def diagonal(carry, gates):
        hidden, cell = carry
        h = flat(hidden)
        near = jnp.concatenate([shifted(h, 1), h], axis=-1)
        hidden, cell = lstm(gates + linear(near, kernel), cell)
        return (hidden, cell), hidden

    _, hidden = jax.lax.scan(diagonal, empty(gates[0]), gates)
    return unskew(jnp.moveaxis(hidden, 0, 2))


class DiagonalBiLSTM(Recurrence):
    """An LSTM from the left and from above, and another from the right."""

    window, taps, gates = 1, 2, 8

    def __call__(self, x, bias):
        left, right = jnp.split(self.conv(x) + bias, 2, axis=-1)
        both = jnp.stack([left, right[:, :, ::-1]])
        left, right = jax.vmap(over_diagonals)(both, self._kernel())
        return left + shifted(right[:, :, ::-1], 1)

    def start(self, num, columns):
        """(conv, h of this row after a pixel of zeros, c; gates and h of the right)."""
        c = self.groups
        row = self._row(num, columns * c)
        hidden, cell = self._row(num, (columns + 1) * c), self._row(num, c)
        gates = self._row(num, columns * c, 4)
        conv = self.conv.start(num, columns)
        return conv, hidden, cell.astype(jnp.float32), gates, row

    def turn(self, cache, bias):
        conv, hidden, cell, gates, right = cache
        above, _ = self._kernels()
        h = flat(self._pixels(hidden)[:, 1:])
        bias = bias + append_zeros(linear(h, above[0]))[:, None]
        right = self._from_the_right(gates, right).reshape(right.shape)
        return self.conv.turn(conv, bias), hidden, jnp.zeros_like(cell), gates, right

    def _kernels(self):
        """What reads h above and what reads h beside, [2, C, F, 4 F/C] each."""
        return jnp.split(self._kernel(), 2, axis=2)

    def _from_the_right(self, gates, above):
        """h of a whole row from right to left, given that of the row above."""
        from_above, from_beside = (kernel[1] for kernel in self._kernels())
        gates = self._pixels(gates) + linear(flat(self._pixels(above)), from_above)

        def pixel(carry, gates):
            hidden, cell = carry
            gates = gates + linear(flat(hidden), from_beside)
            hidden, cell = lstm(gates, cell)
            return (hidden, cell), hidden

        gates = jnp.moveaxis(gates, 1, 0)
        row = jax.lax.scan(pixel, empty(gates[0]), gates, reverse=True)[1]
        return jnp.moveaxis(row, 0, 1)

    def decode(self, x, s, cache):
        conv, hidden, cell, gates, right = cache
        c, said, conv = s % self.groups, *hear(self.conv, x, s, conv)
        from_left, from_right = jnp.split(said, 2, axis=-1)
        size = self.groups
        before = jax.lax.dynamic_slice_in_dim(hidden, s // size * size, size, axis=1)
        from_left = from_left + flat(before) @ self._kernels()[1][0, c]
        h, new = lstm(from_left, look(cell, c))
        hidden, cell = put(hidden, h, s + size), put(cell, new, c)
        return h + look(right, s), (
            conv,
            hidden,
            cell,
            put(gates, from_right, s),
            right,
        )


class PixelRNN(nn.Module):
    """x int32 [B, H W C], subpixels in raster order -> features [B, H W C, features].

    shape: (H, W, C). width: h of the paper, of an LSTM, a multiple of C; between the
    blocks there are 2h. kind: `DiagonalBiLSTM` or `RowLSTM`. The context is labels [B]
    given num_classes, else a vector [B, D], a map [B, H, W, D] or none. dtype: of the
    layers, bfloat16 or None for float32; cells and output are float32. The last hidden
    layer is sown as "features".
    """

    features: int
    shape: tuple[int, int, int]
    levels: int = 256
    width: int = 16
    blocks: int = 7
    kind: type[Recurrence] = DiagonalBiLSTM
    num_classes: int = 0
    dtype: Any = None

    @property
    def line(self) -> int:
        """Subpixels in a row."""
        return self.shape[1] * self.shape[2]

    def setup(self):
        c, two = self.shape[2], 2 * self.width
        conv = partial(RasterConv, groups=c, dtype=self.dtype)
        self.first = conv(c, two, rows=3, left=3, right=3, strict=True)
        self.cells = [self.kind(self.width, c, self.dtype) for _ in range(self.blocks)]
        self.expands = [conv(self.width, two) for _ in range(self.blocks)]
        self.last = conv(two, two)
        self.out = conv(two, self.features * c, dtype=None)
        self.biases = [
            nn.Dense(cell.gates * self.width, use_bias=False, dtype=self.dtype)
            for cell in self.cells
        ]

    def _biases(self, context, rows=lambda context: context):
        """Of every LSTM's gates, [B, H | 1, W | 1, C, F]; of chosen rows."""
        context = context_vector(context, self.num_classes)
        if context is None:
            return [0.0] * self.blocks
        if context.ndim == 2:
            context = context[:, None, None]
        elif context.shape[1:3] != self.shape[:2]:
            raise BadInput(
                f"a context of {context.shape[1:3]} places for an image of "
                f"{self.shape[:2]}: give a map of the image's size, or one vector"
            )
        biases = (bias(rows(context)) for bias in self.biases)
        return [b.reshape(*b.shape[:3], self.shape[2], -1) for b in biases]

    def __call__(self, x, context=None, train: bool = False):
        h = self.first(to_unit(x, self.levels).reshape(-1, *self.shape))
        blocks = zip(self.cells, self.expands, self._biases(context), strict=True)
        for cell, expand, bias in blocks:
            h = h + expand(cell(h, bias))
        h = nn.relu(self.last(nn.relu(h)))
        self.sow("intermediates", "features", h)
        return self.out(h).reshape(*x.shape, self.features)

    @property
    def _convs(self):
        return [self.first, *self.expands, self.last, self.out]

    def start(self, num: int, context=None):
        """The caches of the convolutions and of the LSTMs, nothing seen."""
        return tuple(
            [layer.start(num, self.shape[1]) for layer in group]
            for group in (self._convs, self.cells)
        )

    def turn(self, symbol, line, cache, context=None):
        convs, cells = cache
        first = self._enter(convs[0], symbol, self.line, line == 0)
        convs = [
            conv.turn(cache)
            for conv, cache in zip(self._convs, [first, *convs[1:]], strict=True)
        ]
        # The one row of a vector is every row: indices are clamped.
        biases = self._biases(
            context, lambda c: jax.lax.dynamic_slice_in_dim(c, line, 1, axis=1)
        )
        cells = [
            cell.turn(cache, bias)
            for cell, cache, bias in zip(self.cells, cells, biases, strict=True)
        ]
        return convs, cells

    def decode(self, symbol, t, cache, context=None):
        """Features [B, F] at subpixel t, after x_{t-1} [B] (t = 0: any)."""
        (first, *expands, last, out), cells = cache
        s = t % self.line
        first = self._enter(first, symbol, s, s == 0)
        h = self.first.at(None, self.first.look(first, s), s)
        blocks = zip(self.cells, cells, self.expands, expands, strict=True)
        convs, cells = [first], []
        for cell, of_cell, expand, of_expand in blocks:
            y, of_cell = cell.decode(h, s, of_cell)
            y, of_expand = hear(expand, y, s, of_expand)
            h = h + y
            convs.append(of_expand)
            cells.append(of_cell)
        h, last = hear(self.last, nn.relu(h), s, last)
        h, out = hear(self.out, nn.relu(h), s, out)
        return h, ([*convs, last, out], cells)

    def _enter(self, cache, symbol, s, nothing):
        """x_{s-1} in the row of the first convolution; outside of it there is zero."""
        x = jnp.where(nothing, 0.0, to_unit(symbol, self.levels))
        return self.first.keep(cache, x[:, None], s - 1)


class Upsample(nn.Module):
    """x [B, h, w, C] in [-1, 1], label [B] -> a map [B, H, W, features], a context.

    A 3×3 convolution and a deconvolution of stride `factor`, whose windows overlap;
    cropped to H and W, at most factor h and factor w. Section 3.4.
    """

    features: int
    shape: tuple[int, int]
    factor: int = 2
    num_classes: int = 0
    dtype: Any = None

    @nn.compact
    def __call__(self, x, label=None):
        dense, conv, deconv, _ = layers(self.dtype)
        h = conv(self.features, (3, 3))(x)
        if self.num_classes:
            vector = context_vector(label, self.num_classes)
            h = h + dense(self.features, use_bias=False)(vector)[:, None, None]
        window, strides = (2 * self.factor,) * 2, (self.factor,) * 2
        h = deconv(self.features, window, strides)(nn.relu(h))
        return h[:, : self.shape[0], : self.shape[1]]
