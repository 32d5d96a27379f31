"""PixelCNN++: two stacks of gated residual blocks over three resolutions.

    c = φ(K₁ ∗ φ(h) + W φ(a)),   (α, β) = K₂ ∗ dropout(c) + V y,   h ← h + α σ(β),

φ(h) = (elu(h), elu(-h)). The vertical stack u sees the rows above (windows of 2×3 that
end in its row), the horizontal one h the pixels before (of 2×2 that end at the pixel);
a is u, and on the way up the output of a block of the way down as well. Each resolution
begins with a strided convolution and ends with a transposed one: a U-Net. All channels
of a pixel are one symbol; the head is `LogisticMixture`.

Pixel (I, J) of resolution 2^-l stands at (2^l I, 2^l J) and sees nothing after it, so
for one symbol only those resolutions are computed that have a pixel there; the outputs
of the others are cached.

Salimans, Karpathy, Chen and Kingma 2017, arXiv:1701.05517, section 2 and figure 2. Not
as there: the convolutions are plain, and those of the gates small at first (weight
normalisation needs the first batch, and would have to be undone at every symbol); the
transposed convolutions are 2×2 in both stacks.
"""

from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import Condition, Given, Labels, Nothing, Scalar
from gengen.images import to_unit
from gengen.nets.conditioning import flat, refuse_parts
from gengen.nets.layers import at_least_float32, check_divisible
from gengen.nets.pixelcnn import between_blocks, conv_at_symbol, down, each_in_turn
from gengen.nets.pixelcnnpp_stack import RowConv, Stack, concat_elu, pixel_conv
from gengen.types import Array


class Level(NamedTuple):
    """What is cached of a resolution."""

    rows: list[Array]
    """The row before of each vertical convolution's input, [B, 1, W, F] each."""
    pixels: list
    """The caches of the horizontal convolutions."""
    u: Array
    """The vertical stack's output for the current row, [B, 1, W, F]."""
    h: Array
    """The horizontal stack's outputs in the current row, [B, W, F]."""


class PixelCNNPP(nn.Module):
    """x int32 [B, H · W, C] -> features [B, H · W, F], for the head LogisticMixture.

    The last hidden layer is sown as "features".
    """

    features: int
    """F, the head's features of a pixel."""
    shape: tuple[int, int, int]
    """(H, W, C); H and W are multiples of 2^(resolutions - 1)."""
    levels: int = 256
    """The number of levels."""
    width: int = 160
    """The features of each stack."""
    blocks: int = 5
    """The blocks of a resolution on the way down; one more on the way up, except in
    the lowest."""
    resolutions: int = 3
    """The number of resolutions."""
    condition: Condition = Nothing()
    """What c holds: labels and scalars, a bias of every gate."""
    dropout: float = 0.5
    """The rate of dropout before each gate."""
    dtype: Any = None
    """The layers' type: bfloat16, or None for the parameters'."""
    remat: bool = False
    """Whether the backward pass recomputes each block instead of keeping it."""

    @property
    def row_length(self) -> int:
        """Pixels in a row."""
        return self.shape[1]

    def setup(self):
        refuse_parts(self.condition, (Labels, Scalar), "a PixelCNN++")
        for side in self.shape[:2]:
            check_divisible(side, self.resolutions - 1, "this PixelCNN++")
        width, inputs, dtype = self.width, self.shape[2] + 1, self.dtype
        window = {"right": 1, "strict": True}
        self.first_row = RowConv(inputs, width, dtype=dtype)
        self.first_pixel = pixel_conv(inputs, width, dtype=dtype, **window)
        sizes = width, self.blocks, self.resolutions, self.dropout, dtype
        self.vertical = Stack(RowConv, *sizes)
        self.horizontal = Stack(pixel_conv, *sizes)
        blocks = [2 * self.blocks + 1] * (self.resolutions - 1) + [2 * self.blocks]

        def dense(features):
            return [[nn.Dense(features, dtype=dtype) for _ in range(n)] for n in blocks]

        # From the vertical stack to the horizontal one; the name is that of the files.
        self.hear = dense(width)
        self.biases_u, self.biases_h = dense(2 * width), dense(2 * width)
        self.out = nn.Dense(self.features)

    def _with_ones(self, x):
        """Levels [..., C] -> [..., C + 1]: a one tells pixels from the outside."""
        x = to_unit(x, self.levels)
        return jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)

    def _added(self, biases, vector, level, vertical=None):
        """The terms added to the convolutions of one resolution.

        In each block, the first receives the vertical stack's output [B, H, W, F] and
        the second the conditioning vector; strided convolutions receive nothing.
        """
        added = []
        for n, bias in enumerate(biases[level]):
            plus = 0.0 if vector is None else bias(vector)[:, None, None]
            if vertical is None:
                added += [0.0, plus]
            else:
                added += [self.hear[level][n](concat_elu(vertical[n])), plus]
            if n + 1 == self.blocks and level + 1 < self.resolutions:
                added.append(0.0)
        return added

    def __call__(self, x: Array, c: Given | None = None, train: bool = False) -> Array:
        height, width, channels = self.shape
        chex.assert_shape(x, (None, height * width, channels))

        def whole(net, image, c):
            levels = range(net.resolutions)
            vector = flat(net.condition, c, len(image))
            added = [net._added(net.biases_u, vector, n) for n in levels]
            vertical = net.vertical.over_images(
                net.first_row(down(image)), added, train
            )
            added = [net._added(net.biases_h, vector, n, vertical[n]) for n in levels]
            h = net.first_pixel(image)[..., 0, :]
            return nn.elu(net.horizontal.over_images(h, added, train)[0][-1])

        whole = between_blocks(whole) if self.remat else whole
        image = self._with_ones(x).reshape(-1, height, width, channels + 1)
        h = whole(self, image, c)
        self.sow("intermediates", "features", h)
        return self.out(at_least_float32(h)).reshape(*x.shape[:2], self.features)

    def start(self, num: int, c: Given | None = None):
        """(the row before of the pixels, the first convolution's cache, all levels)."""
        weights = self.first_pixel.kernel.dtype
        dtype = self.dtype or weights
        side, levels = self.shape[1], []
        for ours, theirs in zip(
            self.vertical.convs, self.horizontal.convs, strict=True
        ):
            rows = [jnp.zeros((num, 1, side, conv.inputs), dtype) for conv in ours]
            pixels = [conv.start(num, side) for conv in theirs]
            row = jnp.zeros((num, 1, side, self.width), dtype)
            levels.append(Level(rows, pixels, row, row[:, 0]))
            side //= 2
        row = jnp.zeros((num, 1, self.shape[1], self.shape[2] + 1), weights)
        return row, self.first_pixel.start(num, self.shape[1]), levels

    def start_row(self, symbol, i, cache, c: Given | None = None):
        """The caches at the beginning of row i, after the pixel before it."""
        before, first, levels = cache
        first = self._write_symbol(first, symbol, self.row_length, i == 0)
        row = self.first_pixel.current_row(first).astype(before.dtype)
        u = self.first_row.apply_to_rows(jnp.concatenate([before, row], 1))
        vector = flat(self.condition, c, len(symbol))
        levels = self._start_levels(0, u, i, levels, vector)
        return row, self.first_pixel.start_row(first), levels

    def _start_levels(self, level, u, i, levels, vector):
        """The levels from `level` on at a new row; the lower ones if they have it."""
        here, lower, inputs = levels[0], levels[1:], []
        added = self._added(self.biases_u, vector, level)

        def apply(n, layer, h):
            inputs.append(h)
            rows = [here.rows[n], h.astype(here.rows[n].dtype)]
            return layer.apply_to_rows(jnp.concatenate(rows, axis=1)) + added[n]

        def below(u):
            nonlocal lower
            due, old = i % 2 ** (level + 1) == 0, lower
            lower = jax.lax.cond(
                due,
                lambda: self._start_levels(level + 1, conv(u), i, old, vector),
                lambda: old,
            )
            odd = i // 2**level % 2
            return self.vertical.unfold[level](lower[0].u, rows=odd)

        conv = each_in_turn(self.vertical.convs[level], apply)
        vertical = self.vertical.run(level, u, conv, below)
        added_h = self._added(self.biases_h, vector, level, vertical)
        layers = zip(self.horizontal.convs[level], here.pixels, added_h, strict=True)
        pixels = [layer.start_row(cache, plus) for layer, cache, plus in layers]
        dtype = here.u.dtype
        rows = [row.astype(dtype) for row in inputs]
        return [Level(rows, pixels, vertical[-1].astype(dtype), here.h), *lower]

    def decode(self, symbol, t, cache, c: Given | None = None):
        """Features [B, F] at pixel t, after x_{t-1} [B, C] (t = 0: any)."""
        row, first, levels = cache
        i, j = t // self.row_length, t % self.row_length
        first = self._write_symbol(first, symbol, j, j == 0)
        h = self.first_pixel.apply_at(None, self.first_pixel.read_window(first, j), j)
        windows, cached = [], []
        for n, (convs, level) in enumerate(
            zip(self.horizontal.convs, levels, strict=True)
        ):
            both = list(zip(convs, level.pixels, strict=True))
            windows.append([conv.read_window(cache, j >> n) for conv, cache in both])
            inputs = [conv.read(cache, j >> n) for conv, cache in both]
            output = jax.lax.dynamic_index_in_dim(level.h, j >> n, 1, keepdims=False)
            cached.append((inputs, output))
        outputs = self._pixel(0, h, (i, j), windows, cached)
        new = []
        for n, (level, (inputs, h)) in enumerate(zip(levels, outputs, strict=True)):
            each = zip(self.horizontal.convs[n], level.pixels, inputs, strict=True)
            pixels = [conv.write(cache, h, j >> n) for conv, cache, h in each]
            h_row = jax.lax.dynamic_update_slice_in_dim(level.h, h[:, None], j >> n, 1)
            new.append(level._replace(pixels=pixels, h=h_row))
        out = self.out(at_least_float32(nn.elu(outputs[0][1])))
        return out, (row, first, new)

    def _pixel(self, level, h, place, windows, cached):
        """(inputs of the convolutions, output) at a pixel, of all levels from `level`.

        Levels without a pixel at that place return what is `cached`.
        """
        i, j = (p >> level for p in place)
        convs = self.horizontal.convs[level]
        conv, inputs = conv_at_symbol(convs, windows[level], j)
        lower = []

        def below(h):
            lower.extend(
                jax.lax.cond(
                    (i | j) & 1 == 0,
                    lambda: self._pixel(level + 1, conv(h), place, windows, cached),
                    lambda: cached[level + 1 :],
                )
            )
            out = lower[0][1][:, None, None]
            return self.horizontal.unfold[level](out, i & 1, j & 1)[:, 0, 0]

        out = self.horizontal.run(level, h, conv, below)[-1]
        dtype = cached[level][1].dtype
        return [([x.astype(dtype) for x in inputs], out.astype(dtype)), *lower]

    def _write_symbol(self, cache, symbol, j, outside):
        """The first convolution's cache with x_{j-1}, or with zero if it is outside."""
        x = jnp.where(outside, 0.0, self._with_ones(symbol))
        return self.first_pixel.write(cache, x, j - 1)
