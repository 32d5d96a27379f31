"""PixelCNN: convolutions over the pixels before, in residual blocks.

    h ← h + W₃ relu(K ∗ relu(W₁ relu(h))),     K: the pixels before of a 3×3 window

The C channels of a pixel come one after the other: features are C groups, and group c
may depend on the groups up to c of its own pixel (mask B), in the first layer on those
below c (mask A). No other tap needs a mask, as kernels have taps for the past only.
Windows of 3×3 reach one column further to the right with every row they go up: the
pixels to the right of that are PixelCNN's blind spot.

Each network of this kind (`RasterNet`) is one body, in which `conv(h)` is the next
convolution. It is applied to whole images, or to one symbol. For one symbol each
convolution caches the current row; when a row begins, all rows above are known, and
their part of each convolution is one product for the whole row.

van den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759, section 3.4, figure
5, table 1.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gengen.conditions import Condition, Given, Labels, Maps, Nothing, Scalar
from gengen.errors import BadInput
from gengen.images import to_unit
from gengen.nets.conditioning import places, refuse_parts
from gengen.nets.raster import RasterConv
from gengen.types import Array

after_block = partial(checkpoint_name, name="block")  # the output of a block


def between_blocks(apply: Callable) -> Callable:
    """`apply(net, …)`, of which the backward pass keeps what is `after_block` only.

    The blocks of a body are no modules, so their outputs are named instead.
    """
    kept = jax.checkpoint_policies.save_only_these_names("block")
    return nn.remat(apply, policy=kept)


def down(h: Array, rows: int = 1) -> Array:
    """h [B, H, W, F] moved down by some rows: zeros come in, the last rows drop out.

    >>> down(jnp.arange(2.0).reshape(1, 2, 1, 1)).ravel().tolist()
    [0.0, 0.0]
    """
    chex.assert_rank(h, 4)
    return jnp.pad(h, ((0, 0), (rows, 0), (0, 0), (0, 0)))[:, : h.shape[1]]


def each_in_turn(layers, apply: Callable) -> Callable:
    """conv(h), whose n-th call is apply(n, layers[n], h)."""
    calls = iter(enumerate(layers))
    return lambda h: apply(*next(calls), h)


def conv_over_images(layers, added, drop: Callable = lambda h: h) -> Callable:
    """conv(h) over whole images.

    Args:
        layers: the convolutions, in the order in which they are called.
        added: what is added to each layer's output, a number or an array.
        drop: dropout of each layer's input, except the first, which is the image.
    """

    def apply(n, layer, h):
        return layer(drop(h) if n else h) + added[n]

    return each_in_turn(layers, apply)


def conv_at_symbol(layers, windows, s) -> tuple[Callable, list]:
    """conv(h) at place s, and a list that it fills with the input of every call."""
    inputs = []

    def apply(n, layer, h):
        inputs.append(h)
        return layer.apply_at(h, windows[n], s)

    return each_in_turn(layers, apply), inputs


class RasterNet(nn.Module):
    """What networks of RasterConvs over the channels of an image share.

    x int32 [B, H · W · C], subpixels in raster order -> features [B, H · W · C, F].
    The last hidden layer is sown as "features".

    A network of this kind has `convs`, in the order in which its `body(conv, x)` calls
    them, and `added(vertical, there)`: what is added to the output of each. `vertical`
    is the output of a stack over the rows above, if the network has one (`over_rows`,
    and row by row `start_rows` and `next_row`); `there` is c at every place of these
    rows, [B, H | 1, W | 1, D], or None.
    """

    features: int
    """F, the head's features of a subpixel."""
    shape: tuple[int, int, int]
    """(H, W, C)."""
    levels: int = 256
    """The number of levels."""
    width: int = 128
    """The features of the residual stream."""
    blocks: int = 15
    """The number of blocks."""
    condition: Condition = Nothing()
    """What c holds, a bias of each block: labels and scalars, or a map of the image's
    size (van den Oord et al. 2016, arXiv:1606.05328, section 2.3)."""
    dropout: float = 0.0
    """The rate of dropout on the input of each layer but the first."""
    dtype: Any = None
    """The layers' type: bfloat16, or None for the parameters'."""
    remat: bool = False
    """Whether the backward pass recomputes each block instead of keeping it."""

    def setup(self):
        refuse_parts(self.condition, (Labels, Scalar, Maps), "a PixelCNN")
        self.drop = nn.Dropout(self.dropout)

    @property
    def row_length(self) -> int:
        """Subpixels in a row."""
        return self.shape[1] * self.shape[2]

    def _check_width(self, parts: int) -> None:
        if self.width % parts:
            raise BadInput(
                f"a width of {self.width} cannot be cut into {parts} parts: take a "
                f"multiple of {parts}"
            )

    def conv(self, inputs, features, left=0, **kwargs):
        """A RasterConv with this network's masks and dtype."""
        kwargs = {"groups": self.shape[2], "dtype": self.dtype} | kwargs
        return RasterConv(inputs, features, left=left, **kwargs)

    def _readout(self, width):
        """Two 1×1 convolutions, the last in the parameters' type."""
        out = self.conv(width, self.features * self.shape[2], dtype=None)
        return [self.conv(width, width), out]

    def _there(self, c, num, row=None):
        """c at every place, [B, H | 1, W | 1, D], or in one row; None without."""
        there = places(self.condition, c, num, self.shape[:2])
        if there is None or row is None:
            return there
        # The one row of a vector is every row: indices are clamped.
        return jax.lax.dynamic_slice_in_dim(there, row, 1, axis=1)

    def _biases(self, layers, there):
        """c through each of `layers`, [B, H | 1, W | 1, C, F]; zeros without."""
        if there is None:
            return [0.0] * len(layers)
        shape = *there.shape[:3], self.shape[2], -1
        return [layer(there).reshape(shape) for layer in layers]

    def over_rows(self, image, there):
        """The vertical stack's output over whole images; None without one."""
        return None

    def start_rows(self, num):
        """The vertical stack's cache; None without one."""
        return None

    def next_row(self, row, cache, there):
        """The vertical stack's output for a new row below `row`, and its cache."""
        return None, None

    def __call__(self, x: Array, c: Given | None = None, train: bool = False) -> Array:
        chex.assert_shape(x, (None, self.shape[0] * self.row_length))

        def whole(net, image, c):
            there = net._there(c, len(image))
            added = net.added(net.over_rows(image, there), there)
            drop = partial(net.drop, deterministic=not train)
            conv = conv_over_images(net.convs, added, drop)
            hidden = net.body(conv, image)
            return hidden, conv(hidden)

        whole = between_blocks(whole) if self.remat else whole
        image = to_unit(x, self.levels).reshape(-1, *self.shape)
        hidden, out = whole(self, image, c)
        self.sow("intermediates", "features", hidden)
        return out.reshape(*x.shape, self.features)

    def start(self, num: int, c: Given | None = None):
        """The caches of every convolution, and of the vertical stack."""
        caches = [conv.start(num, self.shape[1]) for conv in self.convs]
        return caches, self.start_rows(num)

    def start_row(self, symbol, i, cache, c: Given | None = None):
        """The caches at the beginning of row i, after the symbol before it."""
        caches, rows = cache
        first = self._write_symbol(caches[0], symbol, self.row_length, i == 0)
        row = self.convs[0].current_row(first)
        there = self._there(c, len(symbol), i)
        vertical, rows = self.next_row(row, rows, there)
        caches, added = [first, *caches[1:]], self.added(vertical, there)
        each = zip(self.convs, caches, added, strict=True)
        return [conv.start_row(cache, plus) for conv, cache, plus in each], rows

    def decode(self, symbol, t, cache, c: Given | None = None):
        """Features [B, F] at subpixel t, after x_{t-1} [B] (t = 0: any)."""
        caches, rows = cache
        s = t % self.row_length
        caches = [self._write_symbol(caches[0], symbol, s, s == 0), *caches[1:]]
        both = list(zip(self.convs, caches, strict=True))
        windows = [conv.read_window(cache, s) for conv, cache in both]
        conv, inputs = conv_at_symbol(self.convs, windows, s)
        out = conv(self.body(conv, None))
        each = zip(both[1:], inputs[1:], strict=True)
        written = [conv.write(old, h, s) for (conv, old), h in each]
        return out, ([caches[0], *written], rows)

    def _write_symbol(self, cache, symbol, s, outside):
        """The first convolution's cache with x_{s-1}, or with zero if it is outside."""
        x = jnp.where(outside, 0.0, to_unit(symbol, self.levels))
        return self.convs[0].write(cache, x[:, None], s - 1)


class PixelCNN(RasterNet):
    """A 7×7 convolution of mask A, residual blocks of mask B, two 1×1 of mask B.

    `width` is 2h of the paper, a multiple of 2 C. See `RasterNet` for x and the fields.
    """

    def setup(self):
        super().setup()
        self._check_width(2 * self.shape[2])
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
            h = after_block(h + conv(relu(conv(relu(conv(relu(h)))))))
        return relu(conv(relu(h)))

    def added(self, vertical, there):
        biases = self._biases(self.biases, there)
        return [0.0, *(e for bias in biases for e in (0.0, bias, 0.0)), 0.0, 0.0]
