"""Gated PixelCNN: two stacks of convolutions, and no blind spot.

    v ← tanh(a) σ(b),  (a, b) = Kᵥ ∗ v,                       the rows above
    h ← h + W (tanh(c) σ(d)),  (c, d) = Kₕ ∗ h + U (a, b),    its own row

The vertical stack v sees all rows above, the horizontal one h its own row and v. Masks,
groups of channels and decoding are those of `RasterNet` in `gengen.nets.pixelcnn`.

van den Oord et al. 2016, arXiv:1606.05328, sections 2.1 to 2.3, figure 2.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.nets.pixelcnn import RasterNet, after_block, down, each_in_turn
from gengen.types import Array


def gate(h: Array) -> Array:
    """tanh(a) σ(b), where a and b are the halves of the last axis.

    >>> round(gate(jnp.array([1.0, 0.0])).item(), 3)
    0.381
    """
    a, b = jnp.split(h, 2, axis=-1)
    return jnp.tanh(a) * jax.nn.sigmoid(b)


class GatedPixelCNN(RasterNet):
    """Gated PixelCNN: a vertical stack for the rows above, a horizontal for its own.

    `width` is a multiple of C, and the condition a bias of every gate, of both stacks.
    There is no blind spot. See `RasterNet` for x and the other fields.
    """

    width: int = 64
    """The features of each stack."""
    blocks: int = 10
    """The number of layers."""
    size: int = 3
    """The side of the windows after the first."""
    window: int = 7
    """The side of the first window: with few blocks, how far the network sees."""

    def setup(self):
        super().setup()
        self._check_width(self.shape[2])
        width, c = self.width, self.shape[2]
        layers, half = self.blocks, self.size // 2
        lefts = [self.window // 2, *[half] * (layers - 1)]
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

    def added(self, vertical, there):
        added = []
        biases = self._biases(self.biases_h, there)
        for v, bias in zip(vertical, biases, strict=True):
            added += [v.reshape(*v.shape[:3], self.shape[2], -1) + bias, 0.0]
        return [*added, 0.0, 0.0]

    def _run_vertical(self, conv, v, there):
        """What the vertical stack adds to each layer of the horizontal one."""
        added = []
        for link, bias in zip(self.links, self.biases_v, strict=True):
            v = conv(v)
            v = v if there is None else v + bias(there)
            added.append(link(v))
            v = after_block(gate(v))
        return added

    def over_rows(self, image, there):
        def apply(n, layer, v):
            above = layer.kernel_size[0] - 1
            return layer(jnp.pad(v, ((0, 0), (above, 0), (0, 0), (0, 0))))

        conv = each_in_turn(self.vertical, apply)
        return self._run_vertical(conv, down(image), there)

    def start_rows(self, num):
        """The rows above that each vertical convolution reads."""
        inputs = [self.shape[2], *[self.width] * (self.blocks - 1)]
        dtype = self.dtype or self.convs[0].kernel.dtype
        return [
            jnp.zeros((num, layer.kernel_size[0] - 1, self.shape[1], n), dtype)
            for layer, n in zip(self.vertical, inputs, strict=True)
        ]

    def next_row(self, row, cache, there):
        new = []

        def apply(n, layer, v):
            rows = jnp.concatenate([cache[n], v.astype(cache[n].dtype)], axis=1)
            new.append(rows[:, 1:])
            return layer(rows)

        conv = each_in_turn(self.vertical, apply)
        return self._run_vertical(conv, row, there), new
