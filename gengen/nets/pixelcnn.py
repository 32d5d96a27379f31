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
from jax.ad_checkpoint import checkpoint_name

from gengen.errors import BadInput
from gengen.images import to_unit
from gengen.nets.layers import context_vector
from gengen.nets.raster import RasterConv
from gengen.types import Array

after_block = partial(checkpoint_name, name="block")  # h, as a block leaves it


def between_blocks(apply: Callable) -> Callable:
    """`apply(net, …)`, of which the backward pass is left what is `after_block`.

    The blocks of a body are no modules, so rematerialisation goes by what they leave.
    """
    kept = jax.checkpoint_policies.save_only_these_names("block")
    return nn.remat(apply, policy=kept)


def down(h: Array, rows: int = 1) -> Array:
    """h [B, H, W, F] moved down: zeros come in, the last rows drop out."""
    return jnp.pad(h, ((0, 0), (rows, 0), (0, 0), (0, 0)))[:, : h.shape[1]]


def gate(h: Array) -> Array:
    """tanh(a) σ(b), (a, b) the halves of the features."""
    a, b = jnp.split(h, 2, axis=-1)
    return jnp.tanh(a) * jax.nn.sigmoid(b)


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
    remat: bool = False

    def setup(self):
        self.drop = nn.Dropout(self.dropout)

    @property
    def line(self) -> int:
        """Subpixels in a row."""
        return self.shape[1] * self.shape[2]

    def _shared_by(self, parts: int) -> None:
        if self.width % parts:
            raise BadInput(
                f"a width of {self.width} cannot be cut into {parts} parts: take a "
                f"multiple of {parts}"
            )

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
        def whole(net, image, context):
            extras = net.extras(net.over_rows(image, context), context)
            drop = partial(net.drop, deterministic=not train)
            conv = over_images(net.convs, extras, drop)
            hidden = net.body(conv, image)
            return hidden, conv(hidden)

        whole = between_blocks(whole) if self.remat else whole
        image = to_unit(x, self.levels).reshape(-1, *self.shape)
        hidden, out = whole(self, image, context)
        self.sow("intermediates", "features", hidden)
        return out.reshape(*x.shape, self.features)

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
    but the first hears. dtype: of the layers, bfloat16 or None for float32. remat:
    recompute each block in the backward pass instead of keeping it. The last hidden
    layer is sown as "features".
    """

    def setup(self):
        super().setup()
        self._shared_by(2 * self.shape[2])
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
        self._shared_by(self.shape[2])
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
        h = after_block(conv(gate(conv(x))))
        for _ in range(self.blocks - 1):
            h = after_block(h + conv(gate(conv(h))))
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
            v = after_block(gate(v))
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
