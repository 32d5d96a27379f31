"""PixelCNN++: two stacks of gated residual blocks over three resolutions.

    c = φ(K₁ ∗ φ(h) + W φ(a)),   (α, β) = K₂ ∗ dropout(c) + V y,   h ← h + α σ(β),

φ(h) = (elu(h), elu(-h)). The vertical stack u knows the rows above (windows of 2×3 that
end in its row), the horizontal one h the pixels before (of 2×2 that end at the pixel);
a is u, and on the way up the output that the way down left behind. Each resolution
begins with a strided convolution and ends with a transposed one: a U-Net. All channels
of a pixel are one symbol; the head is `LogisticMixture`.

Its pixel (I, J) of resolution 2^-l stands at (2^l I, 2^l J) and sees nothing after it,
so at one symbol only those resolutions are computed whose pixel stands there; the rest
remember what they said.

Salimans, Karpathy, Chen and Kingma 2017, arXiv:1701.05517, section 2 and figure 2. Not
as there: plain convolutions (weight normalisation wants its first batch, and would be
undone at every symbol), those of the gates small at first instead; 2×2 transposed
convolutions in both stacks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.images import to_unit
from gengen.nets.layers import check_divisible, context_vector, zeros
from gengen.nets.pixelcnn import (
    after_block,
    at_symbol,
    between_blocks,
    down,
    following,
)
from gengen.nets.raster import RasterConv, convolve, lecun
from gengen.types import Array

small = nn.initializers.variance_scaling(
    0.01, "fan_in", "truncated_normal", in_axis=-2, out_axis=-1, batch_axis=0
)
unfolding = nn.initializers.variance_scaling(
    1.0, "fan_in", "truncated_normal", batch_axis=(0, 1)
)


def concat_elu(h: Array) -> Array:
    """(elu(h), elu(-h)): 2 F features."""
    return nn.elu(jnp.concatenate([h, -h], axis=-1))


class RowConv(nn.Module):
    """h [B, H, W, F] -> [B, H, W, F'] from rows i - 1 and i, columns j - 1 … j + 1.

    stride: of rows and columns. `over` two rows [B, 2, W, F] gives the one of the last.
    """

    inputs: int
    features: int
    kernel_init: Callable = lecun
    stride: int = 1
    dtype: Any = None

    def setup(self):
        shape = 1, 6 * self.inputs, self.features
        self.kernel = self.param("kernel", self.kernel_init, shape)
        self.bias = self.param("bias", zeros, (self.features,))

    def __call__(self, h):
        return self.over(jnp.pad(h, ((0, 0), (1, 0), (0, 0), (0, 0))))

    def over(self, rows):
        each = rows, self.kernel, self.bias
        rows, kernel, bias = nn.dtypes.promote_dtype(*each, dtype=self.dtype)
        rows = jnp.pad(rows, ((0, 0), (0, 0), (1, 1), (0, 0)))
        return convolve(rows, kernel.reshape(2, 3, self.inputs, -1), self.stride) + bias


def pixel_conv(inputs, features, kernel_init=lecun, stride=1, dtype=None, **kwargs):
    """A RasterConv of 2×2 that ends at the pixel."""
    window = {"rows": 1, "left": 1, "kernel_init": kernel_init, "stride": stride}
    return RasterConv(inputs, features, dtype=dtype, **window | kwargs)


class Unfold(nn.Module):
    """A transposed convolution, 2×2 of stride 2: pixel (2I + a, 2J + b) is K_ab h_IJ.

    rows, columns: the one a and the one b that are wanted; both of each if None.
    """

    features: int
    dtype: Any = None

    def setup(self):
        shape = 2, 2, self.features, self.features
        self.kernel = self.param("kernel", unfolding, shape)
        self.bias = self.param("bias", zeros, (self.features,))

    def __call__(self, h, rows=None, columns=None):
        kernel = self.kernel
        for axis, which in enumerate((rows, columns)):
            if which is not None:
                kernel = jax.lax.dynamic_slice_in_dim(kernel, which, 1, axis)
        each = h, kernel, self.bias
        h, kernel, bias = nn.dtypes.promote_dtype(*each, dtype=self.dtype)
        h = jnp.einsum("bijf,acfg->biajcg", h, kernel) + bias
        b, i, a, j, c, g = h.shape
        return h.reshape(b, i * a, j * c, g)


class Stack(nn.Module):
    """One of the two stacks: the same U-Net of its own kind of convolution.

    `run` is one resolution of it: conv(h) is the next of its `convs`, of which the one
    between the way down and the way up is strided; below(h) is what the lower
    resolution says to h.
    """

    make: Callable
    width: int
    blocks: int
    resolutions: int
    dropout: float = 0.0
    dtype: Any = None

    def setup(self):
        make, width = partial(self.make, dtype=self.dtype), self.width
        lowest = self.resolutions - 1

        def pairs(num):
            sizes = (2 * width, width, lecun), (2 * width, 2 * width, small)
            return [make(*size) for _ in range(num) for size in sizes]

        def level(shrinks):
            ups = pairs(self.blocks + shrinks)
            shrink = [make(width, width, stride=2)] if shrinks else []
            return [*pairs(self.blocks), *shrink, *ups]

        ups = [self.blocks + 1] * lowest + [self.blocks]
        self.convs = [level(n < lowest) for n in range(self.resolutions)]
        self.skips = [
            [nn.Dense(width, dtype=self.dtype) for _ in range(n)] for n in ups
        ]
        self.unfold = [Unfold(width, self.dtype) for _ in range(lowest)]
        self.drop = nn.Dropout(self.dropout)

    def run(self, level, h, conv, below, train=False):
        """The outputs of its blocks; the last is that of the resolution."""
        said, skips = [], [h]

        def block(h, skip=0.0):
            c = concat_elu(conv(concat_elu(h)) + skip)
            a, b = jnp.split(conv(self.drop(c, deterministic=not train)), 2, axis=-1)
            said.append(after_block(h + a * jax.nn.sigmoid(b)))
            return said[-1]

        for _ in range(self.blocks):
            skips.append(block(skips[-1]))
        h = below(skips[-1]) if level + 1 < self.resolutions else skips.pop()
        for dense, skip in zip(self.skips[level], reversed(skips), strict=True):
            h = block(h, dense(concat_elu(skip)))
        return said

    def over_images(self, h, extras, train=False, level=0):
        """Every resolution from `level` on: the outputs of its blocks, all pixels.

        extras[level][n] is added to what its n-th convolution says.
        """
        lower = []

        def apply(n, layer, h):
            out = layer(h)
            return out.reshape(*out.shape[:3], -1) + extras[level][n]

        def below(h):
            lower.extend(self.over_images(conv(h), extras, train, level + 1))
            return self.unfold[level](lower[0][-1])

        conv = following(self.convs[level], apply)
        return [self.run(level, h, conv, below, train), *lower]


class Level(NamedTuple):
    """What a resolution remembers: inputs of the row before, [B, 1, W, F] each, of the
    vertical convolutions; caches of the horizontal ones; of both stacks the output,
    the row [B, 1, W, F] and its pixels [B, W, F].
    """

    rows: list[Array]
    pixels: list
    u: Array
    h: Array


class PixelCNNPP(nn.Module):
    """x int32 [B, H · W, C] -> features [B, H · W, F], for the head LogisticMixture.

    shape: (H, W, C), H and W multiples of 2^(resolutions - 1). blocks: at each
    resolution on the way down; one more on the way up except at the lowest.
    num_classes: the context is labels [B], else any vector [B, D] or none, a bias of
    every gate. dtype: of the layers, bfloat16 or None for float32. remat: recompute
    each block in the backward pass instead of keeping it. The last hidden layer is sown
    as "features".
    """

    features: int
    shape: tuple[int, int, int]
    levels: int = 256
    width: int = 160
    blocks: int = 5
    resolutions: int = 3
    num_classes: int = 0
    dropout: float = 0.5
    dtype: Any = None
    remat: bool = False

    @property
    def line(self) -> int:
        """Pixels in a row."""
        return self.shape[1]

    def setup(self):
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

        self.hear = dense(width)
        self.biases_u, self.biases_h = dense(2 * width), dense(2 * width)
        self.out = nn.Dense(self.features)

    def _enter(self, x):
        """Levels [..., C] -> [..., C + 1]: a one tells pixels from what is outside."""
        x = to_unit(x, self.levels)
        return jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)

    def _extras(self, biases, context, level, heard=None):
        """What the convolutions of a resolution are told: in each block the first what
        the vertical one said, [B, H, W, F], the second the vector; the strided nothing.
        """
        vector = context_vector(context, self.num_classes)
        extras = []
        for n, bias in enumerate(biases[level]):
            told = 0.0 if vector is None else bias(vector)[:, None, None]
            if heard is None:
                extras += [0.0, told]
            else:
                extras += [self.hear[level][n](concat_elu(heard[n])), told]
            if n + 1 == self.blocks and level + 1 < self.resolutions:
                extras.append(0.0)
        return extras

    def __call__(self, x, context=None, train: bool = False):
        def whole(net, image, context):
            levels = range(net.resolutions)
            told = [net._extras(net.biases_u, context, n) for n in levels]
            u = net.first_row(down(image))
            said = net.vertical.over_images(u, told, train)
            told = [net._extras(net.biases_h, context, n, said[n]) for n in levels]
            h = net.first_pixel(image)[..., 0, :]
            return nn.elu(net.horizontal.over_images(h, told, train)[0][-1])

        whole = between_blocks(whole) if self.remat else whole
        image = self._enter(x).reshape(-1, *self.shape[:2], self.shape[2] + 1)
        h = whole(self, image, context)
        self.sow("intermediates", "features", h)
        out = self.out(h.astype(jnp.float32))
        return out.reshape(*x.shape[:2], self.features)

    def start(self, num: int, context=None):
        """(the row before of the pixels, the first convolution's cache, all levels)."""
        dtype = self.dtype or jnp.float32
        side, levels = self.shape[1], []
        for ours, theirs in zip(
            self.vertical.convs, self.horizontal.convs, strict=True
        ):
            rows = [jnp.zeros((num, 1, side, conv.inputs), dtype) for conv in ours]
            pixels = [conv.start(num, side) for conv in theirs]
            row = jnp.zeros((num, 1, side, self.width), dtype)
            levels.append(Level(rows, pixels, row, row[:, 0]))
            side //= 2
        row = jnp.zeros((num, 1, self.shape[1], self.shape[2] + 1))
        return row, self.first_pixel.start(num, self.shape[1]), levels

    def turn(self, symbol, line, cache, context=None):
        before, first, levels = cache
        first = self._remember(first, symbol, self.line, line == 0)
        row = self.first_pixel.seen(first)
        u = self.first_row.over(jnp.concatenate([before, row.astype(before.dtype)], 1))
        levels = self._rows(0, u, line, levels, context)
        return row.astype(before.dtype), self.first_pixel.turn(first), levels

    def _rows(self, level, u, line, levels, context):
        """The levels from `level` on at a new row, below those only whose row it is."""
        here, lower, heard = levels[0], levels[1:], []
        extras = self._extras(self.biases_u, context, level)

        def apply(n, layer, h):
            heard.append(h)
            rows = [here.rows[n], h.astype(here.rows[n].dtype)]
            return layer.over(jnp.concatenate(rows, axis=1)) + extras[n]

        def below(u):
            nonlocal lower
            due, old = line % 2 ** (level + 1) == 0, lower
            lower = jax.lax.cond(
                due,
                lambda: self._rows(level + 1, conv(u), line, old, context),
                lambda: old,
            )
            odd = line // 2**level % 2
            return self.vertical.unfold[level](lower[0].u, rows=odd)

        conv = following(self.vertical.convs[level], apply)
        said = self.vertical.run(level, u, conv, below)
        told = self._extras(self.biases_h, context, level, said)
        layers = zip(self.horizontal.convs[level], here.pixels, told, strict=True)
        pixels = [layer.turn(cache, extra) for layer, cache, extra in layers]
        dtype = here.u.dtype
        rows = [row.astype(dtype) for row in heard]
        return [Level(rows, pixels, said[-1].astype(dtype), here.h), *lower]

    def decode(self, symbol, t, cache, context=None):
        """Features [B, F] at pixel t, after x_{t-1} [B, C] (t = 0: any)."""
        row, first, levels = cache
        i, j = t // self.line, t % self.line
        first = self._remember(first, symbol, j, j == 0)
        h = self.first_pixel.at(None, self.first_pixel.look(first, j), j)
        windows, kept = [], []
        for n, (convs, level) in enumerate(
            zip(self.horizontal.convs, levels, strict=True)
        ):
            both = list(zip(convs, level.pixels, strict=True))
            windows.append([conv.look(cache, j >> n) for conv, cache in both])
            recalled = [conv.recall(cache, j >> n) for conv, cache in both]
            here = jax.lax.dynamic_index_in_dim(level.h, j >> n, 1, keepdims=False)
            kept.append((recalled, here))
        said = self._pixel(0, h, (i, j), windows, kept)
        new = []
        for n, (level, (heard, h)) in enumerate(zip(levels, said, strict=True)):
            each = zip(self.horizontal.convs[n], level.pixels, heard, strict=True)
            pixels = [conv.keep(cache, h, j >> n) for conv, cache, h in each]
            h_row = jax.lax.dynamic_update_slice_in_dim(level.h, h[:, None], j >> n, 1)
            new.append(level._replace(pixels=pixels, h=h_row))
        out = self.out(nn.elu(said[0][1]).astype(jnp.float32))
        return out, (row, first, new)

    def _pixel(self, level, h, place, windows, kept):
        """(inputs of the convolutions, output) at a pixel, of all levels from `level`
        on; what was `kept` of those that have no pixel there.
        """
        i, j = (p >> level for p in place)
        conv, heard = at_symbol(self.horizontal.convs[level], windows[level], j)
        lower = []

        def below(h):
            lower.extend(
                jax.lax.cond(
                    (i | j) & 1 == 0,
                    lambda: self._pixel(level + 1, conv(h), place, windows, kept),
                    lambda: kept[level + 1 :],
                )
            )
            out = lower[0][1][:, None, None]
            return self.horizontal.unfold[level](out, i & 1, j & 1)[:, 0, 0]

        out = self.horizontal.run(level, h, conv, below)[-1]
        dtype = kept[level][1].dtype
        return [([x.astype(dtype) for x in heard], out.astype(dtype)), *lower]

    def _remember(self, cache, symbol, j, nothing):
        """x_{j-1} in the row of the first convolution; outside of it there is zero."""
        x = jnp.where(nothing, 0.0, self._enter(symbol))
        return self.first_pixel.keep(cache, x, j - 1)
