"""PatchGAN: a critic that judges every patch of an image, not the whole.

Convolutions of 4×4 taps, the first few of stride two, with instance norm but in the
first and the last; each logit sees a patch of 70×70 pixels with three halvings. The
game's loss is averaged over patches. Isola et al. 2017, arXiv:1611.07004, section
3.2.2; Li and Wand 2016, arXiv:1604.04382.

The norms here have a scale and a bias, which the published ones lack.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.nets.layers import (
    at_least_float32,
    check_divisible,
    dcgan_normal,
    layers_of_dtype,
)
from gengen.nets.normalization import GroupNorm
from gengen.types import Array


class PatchGAN(nn.Module):
    """x [B, H, W, C] -> logits [B, h, w] of being real, one per patch.

    The last features, averaged over patches, are sown as "features".
    """

    channels: int = 64
    """Channels of the first level, doubled at each lower one, up to eight times."""
    downsamples: int = 3
    """Halvings of the image, whose sides are multiples of 2^downsamples."""
    dtype: Any = None
    """Type of the layers: bfloat16, or None for float32."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for side in x.shape[1:3]:
            check_divisible(side, self.downsamples, "PatchGAN")
        _, conv, _, _ = layers_of_dtype(self.dtype)
        h = x
        for level in range(self.downsamples + 1):
            width = self.channels * 2 ** min(level, 3)
            stride = 2 if level < self.downsamples else 1
            first = level == 0
            own = {"use_bias": first, "kernel_init": dcgan_normal}
            h = conv(width, (4, 4), stride, **own)(h)
            h = h if first else GroupNorm(width, self.dtype)(h)
            h = nn.leaky_relu(h, 0.2)
        self.sow("intermediates", "features", at_least_float32(h).mean((1, 2)))
        return at_least_float32(conv(1, (4, 4), kernel_init=dcgan_normal)(h)[..., 0])


def patch_mean(x: Array) -> Array:
    """The mean over all but the first axis, [B]: of losses of patches.

    >>> patch_mean(jnp.ones((2, 3, 3)))
    Array([1., 1.], dtype=float32)
    """
    return jnp.mean(x, axis=range(1, x.ndim))
