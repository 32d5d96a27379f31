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

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.images import to_unit
from gengen.nets.layers import context_vector, layers_of_dtype
from gengen.nets.raster import RasterConv
from gengen.types import Array

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
    given num_classes, else a vector [B, D], a map [B, H, W, D] or none. dropout: of
    what each layer but the first hears. dtype: of the layers, bfloat16 or None for
    float32; cells and output are float32. remat: recompute each LSTM in the backward
    pass instead of keeping it. The last hidden layer is sown as "features".
    """

    features: int
    shape: tuple[int, int, int]
    levels: int = 256
    width: int = 16
    blocks: int = 7
    kind: type[Recurrence] = DiagonalBiLSTM
    num_classes: int = 0
    dropout: float = 0.0
    dtype: Any = None
    remat: bool = False

    @property
    def line(self) -> int:
        """Subpixels in a row."""
        return self.shape[1] * self.shape[2]

    def setup(self):
        c, two = self.shape[2], 2 * self.width
        conv = partial(RasterConv, groups=c, dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)
        self.first = conv(c, two, rows=3, left=3, right=3, strict=True)
        kind = nn.remat(self.kind) if self.remat else self.kind
        self.cells = [kind(self.width, c, self.dtype) for _ in range(self.blocks)]
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
        drop = partial(self.drop, deterministic=not train)
        h = self.first(to_unit(x, self.levels).reshape(-1, *self.shape))
        blocks = zip(self.cells, self.expands, self._biases(context), strict=True)
        for cell, expand, bias in blocks:
            h = h + expand(drop(cell(drop(h), bias)))
        h = drop(nn.relu(self.last(nn.relu(drop(h)))))
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
        dense, conv, deconv, _ = layers_of_dtype(self.dtype)
        h = conv(self.features, (3, 3))(x)
        if self.num_classes:
            vector = context_vector(label, self.num_classes)
            h = h + dense(self.features, use_bias=False)(vector)[:, None, None]
        window, strides = (2 * self.factor,) * 2, (self.factor,) * 2
        h = deconv(self.features, window, strides)(nn.relu(h))
        return h[:, : self.shape[0], : self.shape[1]]
