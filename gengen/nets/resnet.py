"""A small residual network for images from 8×8 up: one vector of features an image.

He et al. 2016, arXiv:1603.05027 (pre-activation), with GroupNorm (Wu and He 2018,
arXiv:1803.08494) instead of batch statistics, so that an image's features are its own.
"""

import flax.linen as nn
import jax.numpy as jnp

from gengen.nets.layers import group_norm, halvings
from gengen.types import Array


class ResNet(nn.Module):
    """x [B, H, W, C] -> (logits [B, num_classes], features [B, F]).

    A 3×3 convolution of stride 2 leads to each level after the first; then `blocks`
    pre-activation blocks. The features are the last level's channels, F of them,
    averaged over the image; the logits are linear in them. H and W must be multiples of
    2^(levels - 1), channels of `groups`.
    """

    num_classes: int
    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    dropout: float = 0.0
    groups: int = 8

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
        for side in x.shape[1:3]:
            halvings(side, len(self.multipliers) - 1, "ResNet")
        widths = [self.channels * m for m in self.multipliers]
        h = nn.Conv(widths[0], (3, 3))(x)
        for level, width in enumerate(widths):
            if level > 0:
                h = nn.silu(group_norm(h.shape[-1], self.groups)(h))
                h = nn.Conv(width, (3, 3), strides=2)(h)
            for _ in range(self.blocks):
                skip = h
                for _ in range(2):
                    h = nn.silu(group_norm(width, self.groups)(h))
                    h = nn.Conv(width, (3, 3))(h)
                h = skip + h
        h = nn.silu(group_norm(widths[-1], self.groups)(h))
        features = jnp.mean(h, axis=(1, 2))
        h = nn.Dropout(self.dropout, deterministic=not train)(features)
        return nn.Dense(self.num_classes)(h), features
