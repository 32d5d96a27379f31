"""LSTMs that run over the rows or the diagonals of an image.

    [o, f, i, g] = K_is ∗ x + K_ss ∗ h'
    c = σ(f) c' + σ(i) tanh(g),   h = σ(o) tanh(c)                        (equation 3)

Row LSTM, all of a row at once: h' is the row above, of which K_ss sees columns j-1 …
j+1, and K_is columns j-1 and j of x; c' is c above. h(i, j) depends on a triangle.

Diagonal BiLSTM, all of a diagonal i + j at once, in an image skewed so that diagonals
are columns: K_ss sees h to the left of (i, j) and above it, K_is is 1×1; c' is c to the
left. A second one runs from right to left, and its map, moved down by one row so that
it stays in the past, is added. Together they see everything before, except that the
last pixel of row i-1 enters no features before those of row i, near it.

In decoding, a row knows all rows above when it begins: their part of the gates is one
product for the row, and the right-to-left recurrence of the row above is run then.

van den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759, sections 3.1 to 3.3,
figures 3 and 4.
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.nets.layers import at_least_float32
from gengen.nets.raster import RasterConv
from gengen.types import Array

states = nn.initializers.variance_scaling(
    1.0, "fan_in", "truncated_normal", in_axis=-2, out_axis=-1, batch_axis=(0, 1)
)


def lstm(gates: Array, cell: Array) -> tuple[Array, Array]:
    """One step of an LSTM.

    Args:
        gates: the pre-activations [..., 4 F], in the order o, f, i, g.
        cell: the cell [..., F], float32 at least.

    Returns:
        h and the new cell, [..., F] each.

    >>> lstm(jnp.zeros(4), jnp.ones(1))[1].tolist()
    [0.5]
    """
    chex.assert_shape(gates, (*cell.shape[:-1], 4 * cell.shape[-1]))
    o, f, i, g = jnp.split(at_least_float32(gates), 4, axis=-1)
    cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
    return (nn.sigmoid(o) * jnp.tanh(cell)).astype(gates.dtype), cell


def empty(gates: Array) -> tuple[Array, Array]:
    """(h, c) of zeros for gates of this shape."""
    zero = jnp.zeros_like(jnp.split(gates, 4, axis=-1)[0])
    return zero, at_least_float32(zero)


def linear(x: Array, kernel: Array) -> Array:
    """x [..., F] and a kernel [C, F, G] -> [..., C, G]."""
    return jnp.einsum("...f,cfg->...cg", x, kernel)


def merge_groups(x: Array) -> Array:
    """[..., C, G] -> [..., C G]."""
    return x.reshape(*x.shape[:-2], -1)


def shifted(x: Array, by: int) -> Array:
    """x [B, N, …] moved along N, zeros coming in: y[:, n] = x[:, n - by]."""
    x = jnp.pad(x, [(0, 0), (max(by, 0), max(-by, 0)), *[(0, 0)] * (x.ndim - 2)])
    return x[:, max(-by, 0) :][:, : x.shape[1] - abs(by)]


def skew(x: Array) -> Array:
    """Rows moved to the right by their number, so that diagonals become columns.

    [B, H, W, …] -> [B, H, W + H - 1, …].

    >>> skew(jnp.arange(1.0, 5.0).reshape(1, 2, 2)).tolist()
    [[[1.0, 2.0, 0.0], [0.0, 3.0, 4.0]]]
    """
    b, h, w, *rest = x.shape
    x = jnp.pad(x, [(0, 0), (0, 0), (0, h), *[(0, 0)] * len(rest)])
    x = x.reshape(b, h * (w + h), *rest)[:, :-h]
    return x.reshape(b, h, w + h - 1, *rest)


def unskew(x: Array) -> Array:
    """The inverse of `skew`: [B, H, W + H - 1, …] -> [B, H, W, …].

    >>> unskew(jnp.array([[[1.0, 2.0, 0.0], [0.0, 3.0, 4.0]]])).tolist()
    [[[1.0, 2.0], [3.0, 4.0]]]
    """
    b, h, s, *rest = x.shape
    x = x.reshape(b, h * s, *rest)
    x = jnp.pad(x, [(0, 0), (0, h), *[(0, 0)] * len(rest)])
    return x.reshape(b, h, s + 1, *rest)[:, :, : s + 1 - h]


def append_zeros(x: Array) -> Array:
    """[..., F] -> [..., 2 F]."""
    return jnp.concatenate([x, jnp.zeros_like(x)], axis=-1)


def read_at(x: Array, s: Array) -> Array:
    """x[:, s]."""
    return jax.lax.dynamic_index_in_dim(x, s, 1, keepdims=False)


def write_at(x: Array, value: Array, s: Array) -> Array:
    """x, where x[:, s] is the value."""
    value = value[:, None].astype(x.dtype)
    return jax.lax.dynamic_update_slice_in_dim(x, value, s, axis=1)


def conv_at(conv: RasterConv, x: Array, s: Array, cache):
    """The convolution's output at place s for input x there, and its cache."""
    out = conv.apply_at(x, conv.read_window(cache, s), s)
    return out, conv.write(cache, x, s)


class Recurrence(nn.Module):
    """x [B, H, W, 2 F], bias -> h [B, H, W, C, F/C].

    The bias of the gates is [B, H | 1, W | 1, C, gates F/C]. In decoding:

        cache = start(num, W)
        cache = start_row(cache, bias)                        a new row, its bias
        h [B, F/C], cache = decode(x [B, 2 F/C], s, cache)    symbol s of the row

    Layout of the gates [C, gates F/C]: for each channel, the blocks o, f, i, g of F/C
    numbers each; `gates` is 4, or 8 in two directions (first left, then right).
    """

    width: int
    """F, the features of h."""
    groups: int = 1
    """C, the channels of the image."""
    dtype: Any = None
    """The layer's type: bfloat16, or None for the parameters'."""

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
        return jnp.zeros(shape, dtype or self.dtype or self.state.dtype)

    def _pixels(self, row):
        """[B, W C, F] -> [B, W, C, F]."""
        return row.reshape(len(row), -1, self.groups, row.shape[-1])


class RowLSTM(Recurrence):
    """An LSTM from each row to the next; its receptive field is a triangle."""

    window, taps, gates = 3, 3, 4

    def _above(self, hidden):
        """The gates' part of the row above, [B, W, C, F/C] -> [B, W, C, 4 F/C]."""
        h = merge_groups(hidden)
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
        hidden = self._row(*row)
        return self.conv.start(num, columns), hidden, at_least_float32(hidden)

    def start_row(self, cache, bias):
        """The cache of a new row."""
        conv, hidden, cell = cache
        above = self._above(self._pixels(hidden))
        return self.conv.start_row(conv, bias + above[:, None]), hidden, cell

    def decode(self, x, s, cache):
        conv, hidden, cell = cache
        gates, conv = conv_at(self.conv, x, s, conv)
        h, c = lstm(gates, read_at(cell, s))
        return h, (conv, write_at(hidden, h, s), write_at(cell, c, s))


def scan_diagonals(gates: Array, kernel: Array) -> Array:
    """h [B, H, W, C, G] from gates [B, H, W, C, 4 G]; h above and to the left enter."""
    gates = jnp.moveaxis(skew(gates), 2, 0)

    def diagonal(carry, gates):
        hidden, cell = carry
        h = merge_groups(hidden)
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
        left, right = jax.vmap(scan_diagonals)(both, self._kernel())
        return left + shifted(right[:, :, ::-1], 1)

    def start(self, num, columns):
        """(conv, h of this row after a pixel of zeros, c; gates and h of the right)."""
        c = self.groups
        row = self._row(num, columns * c)
        hidden, cell = self._row(num, (columns + 1) * c), self._row(num, c)
        gates = self._row(num, columns * c, 4)
        conv = self.conv.start(num, columns)
        return conv, hidden, at_least_float32(cell), gates, row

    def start_row(self, cache, bias):
        """The cache of a new row."""
        conv, hidden, cell, gates, right = cache
        above, _ = self._kernels()
        h = merge_groups(self._pixels(hidden)[:, 1:])
        bias = bias + append_zeros(linear(h, above[0]))[:, None]
        right = self._from_the_right(gates, right).reshape(right.shape)
        return (
            self.conv.start_row(conv, bias),
            hidden,
            jnp.zeros_like(cell),
            gates,
            right,
        )

    def _kernels(self):
        """The kernels of h above and of h beside, [2, C, F, 4 F/C] each."""
        return jnp.split(self._kernel(), 2, axis=2)

    def _from_the_right(self, gates, above):
        """h of a whole row from right to left, given that of the row above."""
        from_above, from_beside = (kernel[1] for kernel in self._kernels())
        gates = self._pixels(gates) + linear(
            merge_groups(self._pixels(above)), from_above
        )

        def pixel(carry, gates):
            hidden, cell = carry
            gates = gates + linear(merge_groups(hidden), from_beside)
            hidden, cell = lstm(gates, cell)
            return (hidden, cell), hidden

        gates = jnp.moveaxis(gates, 1, 0)
        row = jax.lax.scan(pixel, empty(gates[0]), gates, reverse=True)[1]
        return jnp.moveaxis(row, 0, 1)

    def decode(self, x, s, cache):
        conv, hidden, cell, gates, right = cache
        c = s % self.groups
        both, conv = conv_at(self.conv, x, s, conv)
        from_left, from_right = jnp.split(both, 2, axis=-1)
        size = self.groups
        before = jax.lax.dynamic_slice_in_dim(hidden, s // size * size, size, axis=1)
        from_left = from_left + merge_groups(before) @ self._kernels()[1][0, c]
        h, new = lstm(from_left, read_at(cell, c))
        hidden, cell = write_at(hidden, h, s + size), write_at(cell, new, c)
        return h + read_at(right, s), (
            conv,
            hidden,
            cell,
            write_at(gates, from_right, s),
            right,
        )
