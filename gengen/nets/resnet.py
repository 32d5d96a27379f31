"""A small residual network for images from 8×8 up: one vector of features an image.

He et al. 2016, arXiv:1603.05027 (pre-activation), with GroupNorm (Wu and He 2018,
arXiv:1803.08494) instead of batch statistics, so that an image's features are its own.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.nets.conditioning import Conditioning
from gengen.nets.layers import check_divisible, layers_of_dtype
from gengen.types import Array


class ResNet(nn.Module):
    """x [B, H, W, C] -> (logits [B, classes], features [B, F]).

    A 3×3 convolution of stride 2 leads to each level after the first; then `blocks`
    pre-activation blocks. The features are the last level's channels, F of them,
    averaged over the image; the logits are linear in them. H and W must be multiples of
    2^(levels - 1), channels of `groups`. dtype: of the convolutions, bfloat16 or None
    for float32. remat: recompute each block in the backward pass, do not keep it. Of
    noisy images, t [B] in [0, 1] scales and shifts what each norm of a block gives
    (FiLM, Perez et al. 2018, arXiv:1709.07871), by parameters of its own.
    """

    classes: int
    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    dropout: float = 0.0
    groups: int = 8
    dtype: Any = None
    remat: bool = False

    @nn.compact
    def __call__(
        self, x: Array, train: bool = False, t: Array | None = None
    ) -> tuple[Array, Array]:
        for side in x.shape[1:3]:
            check_divisible(side, len(self.multipliers) - 1, "ResNet")
        dense, conv, _, norm = layers_of_dtype(self.dtype, self.groups)
        widths = [self.channels * m for m in self.multipliers]
        e = None if t is None else nn.silu(Conditioning(4 * self.channels)(t))

        def block(net, h):
            skip, width = h, h.shape[-1]
            for _ in range(2):
                h = norm(width)(h)
                if e is not None:
                    film = dense(2 * width)(e)[:, None, None]
                    scale, shift = jnp.split(film, 2, axis=-1)
                    h = h * (1.0 + scale) + shift
                h = conv(width, (3, 3))(nn.silu(h))
            return skip + h

        block = nn.remat(block) if self.remat else block
        h = conv(widths[0], (3, 3))(x)
        for level, width in enumerate(widths):
            if level > 0:
                h = nn.silu(norm(h.shape[-1])(h))
                h = conv(width, (3, 3), strides=2)(h)
            for _ in range(self.blocks):
                h = block(self, h)
        h = nn.silu(norm(widths[-1])(h))
        features = jnp.mean(h.astype(jnp.float32), axis=(1, 2))
        h = nn.Dropout(self.dropout, deterministic=not train)(features)
        return nn.Dense(self.classes)(h), features
