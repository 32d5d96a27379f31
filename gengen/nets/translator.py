"""From an image to an image of the same size: residual blocks at a lower resolution.

A convolution of 7×7 taps, strided ones of 3×3, residual blocks, transposed ones and
again 7×7, with instance norm and padding by reflection, so that no border is seen.
Johnson, Alahi and Fei-Fei 2016, arXiv:1603.08155; as in CycleGAN: Zhu et al. 2017,
arXiv:1703.10593, section 7.2.

The norms here have a scale and a bias, which the published ones lack; images of fewer
than 16 pixels get 3×3 taps at both ends.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.nets.layers import check_divisible, dcgan_normal, layers_of_dtype
from gengen.nets.normalization import GroupNorm
from gengen.types import Array

SMALL = 16


def reflected(x: Array, pad: int) -> Array:
    """x [B, H, W, C] with `pad` pixels of its mirror image around it.

    >>> reflected(jnp.arange(3.0).reshape(1, 1, 3, 1).repeat(3, 1), 1)[0, 0, :, 0]
    Array([1., 0., 1., 2., 1.], dtype=float32)
    """
    return jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")


class Translator(nn.Module):
    """x [B, H, W, C] in [-1, 1] -> [B, H, W, C] in (-1, 1)."""

    channels: int = 64
    """Channels next to the image, doubled at each lower resolution."""
    downsamples: int = 2
    """Halvings of the image, whose sides are multiples of 2^downsamples."""
    blocks: int = 6
    """Residual blocks at the lowest resolution."""
    dtype: Any = None
    """Type of the layers: bfloat16, or None for float32."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for side in x.shape[1:3]:
            check_divisible(side, self.downsamples, "Translator")
        _, conv, conv_transpose, _ = layers_of_dtype(self.dtype)
        taps = 7 if min(x.shape[1:3]) >= SMALL else 3

        def normed(h):
            return GroupNorm(h.shape[-1], self.dtype)(h)

        def valid(h, width, taps, use_bias=False):
            h = reflected(h, taps // 2)
            own = {"use_bias": use_bias, "kernel_init": dcgan_normal}
            return conv(width, (taps, taps), padding="VALID", **own)(h)

        own = {"use_bias": False, "kernel_init": dcgan_normal}
        h = nn.relu(normed(valid(x, self.channels, taps)))
        for level in range(1, self.downsamples + 1):
            h = nn.relu(normed(conv(self.channels * 2**level, (3, 3), 2, **own)(h)))
        for _ in range(self.blocks):
            skip, width = h, h.shape[-1]
            h = nn.relu(normed(valid(h, width, 3)))
            h = skip + normed(valid(h, width, 3))
        for level in reversed(range(self.downsamples)):
            wide = conv_transpose(self.channels * 2**level, (4, 4), (2, 2), **own)
            h = nn.relu(normed(wide(h)))
        return jnp.tanh(valid(h, x.shape[-1], taps, True).astype(jnp.float32))
