"""StyleGAN2's discriminator, with the standard deviation of a minibatch.

Karras et al. 2020, arXiv:1912.04958, section 4.1 (residual blocks); 2018,
arXiv:1710.10196, section 3 (minibatch standard deviation); of labels: the projection of
Miyato and Koyama 2018, arXiv:1802.05637, as in Karras et al. 2020, arXiv:2006.06676.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.conditions import Given, Nothing, parts_of
from gengen.nets.equalized import EqualConv, EqualDense, leaky, normalised
from gengen.nets.layers import at_least_float32, check_divisible
from gengen.nets.minibatch import minibatch_std
from gengen.nets.stylegan2 import Mapping
from gengen.types import Array


class StyleGAN2Discriminator(nn.Module):
    """Image [B, H, W, C] and c -> logit [B] of being real.

    The features of each image by itself, before the minibatch's standard deviation, are
    sown as "features".
    """

    channels: int = 32
    """Channels next to the image, doubled at each lower resolution."""
    max_channels: int = 512
    """The most channels of a resolution."""
    downsamples: int = 1
    """Halvings of the image, whose sides are multiples of 2^downsamples."""
    residual: bool = False
    """Whether each halving has a skip connection (for images of 64 pixels up)."""
    group: int = 4
    """Examples whose standard deviation is taken together; 1 for none."""
    mapping_layers: int = 2
    """Layers of the mapping of c."""
    condition: Any = Nothing()
    """What c holds: labels and scalars."""
    dtype: Any = None
    """Type of the convolutions: bfloat16, or None for float32."""

    @nn.compact
    def __call__(self, x: Array, c: Given | None = None, train: bool = False) -> Array:
        del train

        def conv(width, *more, **values):
            return EqualConv(width, *more, dtype=self.dtype, **values)

        def width(level):
            return min(self.max_channels, self.channels * 2**level)

        for side in x.shape[1:3]:
            check_divisible(side, self.downsamples, "StyleGAN2Discriminator")
        h = leaky(conv(width(0), 1)(x))
        for level in range(self.downsamples):
            skip = h
            h = leaky(conv(width(level))(h))
            h = leaky(conv(width(level + 1), down=True)(h))
            if self.residual:
                skip = conv(width(level + 1), 1, down=True, use_bias=False)(skip)
                h = (h + skip) / math.sqrt(2.0)
        own = at_least_float32(h.reshape(len(h), -1))
        self.sow("intermediates", "features", own)
        if self.group > 1:
            h = minibatch_std(h, self.group)
        top = width(self.downsamples)
        h = at_least_float32(leaky(conv(top)(h)).reshape(len(x), -1))
        h = leaky(EqualDense(top)(h))
        if not parts_of(self.condition):
            return EqualDense(1)(h)[:, 0]
        w = Mapping(top, self.mapping_layers, self.condition)(None, c, len(x))
        return jnp.mean(EqualDense(top)(h) * normalised(w), -1) * math.sqrt(top)
