"""PixelRNN: LSTMs over the rows or the diagonals of an image, in residual blocks.

Residual blocks of 2h features, h in the LSTM (`gengen.nets.recurrence`), stand between
a 7×7 convolution of mask A and two 1×1 convolutions of mask B. The C channels of a
pixel are C groups of features: group c may depend on the groups up to c of its own
pixel (mask B), in the first layer on those below c (mask A).

van den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759, sections 3.1 to 3.4,
figure 5, table 1.
"""

from functools import partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import Condition, Given, Labels, Maps, Nothing, Scalar
from gengen.images import to_unit
from gengen.nets.conditioning import places, refuse_parts
from gengen.nets.raster import RasterConv
from gengen.nets.recurrence import DiagonalBiLSTM, Recurrence, conv_at
from gengen.types import Array


class PixelRNN(nn.Module):
    """x int32 [B, H W C], subpixels in raster order -> features [B, H W C, features].

    Cells and the output are float32 at least. The last hidden layer is sown as
    "features".
    """

    features: int
    """F, the head's features of a subpixel."""
    shape: tuple[int, int, int]
    """(H, W, C)."""
    levels: int = 256
    """The number of levels."""
    width: int = 16
    """h of the paper, the features of an LSTM, a multiple of C; blocks have 2h."""
    blocks: int = 7
    """The number of residual blocks."""
    kind: type[Recurrence] = DiagonalBiLSTM
    """`DiagonalBiLSTM` or `RowLSTM`."""
    condition: Condition = Nothing()
    """What c holds: labels and scalars, or one map of the image's size."""
    dropout: float = 0.0
    """The rate of dropout on the input of each layer but the first."""
    dtype: Any = None
    """The layers' type: bfloat16, or None for the parameters'."""
    remat: bool = False
    """Whether the backward pass recomputes each LSTM instead of keeping it."""

    @property
    def row_length(self) -> int:
        """Subpixels in a row."""
        return self.shape[1] * self.shape[2]

    def setup(self):
        refuse_parts(self.condition, (Labels, Scalar, Maps), "a PixelRNN")
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

    def _biases(self, c, num, rows=lambda x: x):
        """The bias of every LSTM's gates, [B, H | 1, W | 1, C, F]; of chosen rows."""
        added = places(self.condition, c, num, self.shape[:2])
        if added is None:
            return [0.0] * self.blocks
        biases = (bias(rows(added)) for bias in self.biases)
        return [b.reshape(*b.shape[:3], self.shape[2], -1) for b in biases]

    def __call__(self, x: Array, c: Given | None = None, train: bool = False) -> Array:
        chex.assert_shape(x, (None, self.shape[0] * self.row_length))
        drop = partial(self.drop, deterministic=not train)
        h = self.first(to_unit(x, self.levels).reshape(-1, *self.shape))
        biases = self._biases(c, len(x))
        for cell, expand, bias in zip(self.cells, self.expands, biases, strict=True):
            h = h + expand(drop(cell(drop(h), bias)))
        h = drop(nn.relu(self.last(nn.relu(drop(h)))))
        self.sow("intermediates", "features", h)
        return self.out(h).reshape(*x.shape, self.features)

    @property
    def _convs(self):
        return [self.first, *self.expands, self.last, self.out]

    def start(self, num: int, c: Given | None = None):
        """The caches of the convolutions and of the LSTMs, all zeros."""
        return tuple(
            [layer.start(num, self.shape[1]) for layer in group]
            for group in (self._convs, self.cells)
        )

    def start_row(self, symbol, i, cache, c: Given | None = None):
        """The caches at the beginning of row i, after the symbol before it."""
        convs, cells = cache
        first = self._write_symbol(convs[0], symbol, self.row_length, i == 0)
        convs = [
            conv.start_row(cache)
            for conv, cache in zip(self._convs, [first, *convs[1:]], strict=True)
        ]
        # The one row of a vector is every row: indices are clamped.
        biases = self._biases(
            c, len(symbol), lambda x: jax.lax.dynamic_slice_in_dim(x, i, 1, axis=1)
        )
        cells = [
            cell.start_row(cache, bias)
            for cell, cache, bias in zip(self.cells, cells, biases, strict=True)
        ]
        return convs, cells

    def decode(self, symbol, t, cache, c: Given | None = None):
        """Features [B, F] at subpixel t, after x_{t-1} [B] (t = 0: any)."""
        (first, *expands, last, out), cells = cache
        s = t % self.row_length
        first = self._write_symbol(first, symbol, s, s == 0)
        h = self.first.apply_at(None, self.first.read_window(first, s), s)
        blocks = zip(self.cells, cells, self.expands, expands, strict=True)
        convs, cells = [first], []
        for cell, cell_cache, expand, expand_cache in blocks:
            y, cell_cache = cell.decode(h, s, cell_cache)
            y, expand_cache = conv_at(expand, y, s, expand_cache)
            h = h + y
            convs.append(expand_cache)
            cells.append(cell_cache)
        h, last = conv_at(self.last, nn.relu(h), s, last)
        h, out = conv_at(self.out, nn.relu(h), s, out)
        return h, ([*convs, last, out], cells)

    def _write_symbol(self, cache, symbol, s, outside):
        """The first convolution's cache with x_{s-1}, or with zero if it is outside."""
        x = jnp.where(outside, 0.0, to_unit(symbol, self.levels))
        return self.first.write(cache, x[:, None], s - 1)
