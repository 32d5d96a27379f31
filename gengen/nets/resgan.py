"""Residual networks for both players, with spectral norm or none.

The generator's blocks double the image by its nearest neighbours, with BatchNorm and
ReLU; the discriminator's halve it by averages, without norms, and its last features are
summed over the image. Miyato et al. 2018, arXiv:1802.05957, appendix B.4; Gulrajani et
al. 2017, arXiv:1704.00028, appendix F.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.conditions import Given, Labels, Nothing, Scalar
from gengen.nets.conditioning import flat, refuse_parts
from gengen.nets.critic import logit_of, spectral, with_channels
from gengen.nets.dcgan import entered
from gengen.nets.layers import check_divisible, layers_of_dtype
from gengen.nets.normalization import batch_norm
from gengen.types import Array


def doubled(x: Array) -> Array:
    """[B, H, W, C] -> [B, 2 H, 2 W, C]: each pixel four times.

    >>> doubled(jnp.ones((1, 1, 1, 1))).shape
    (1, 2, 2, 1)
    """
    return x.repeat(2, axis=1).repeat(2, axis=2)


class ResNetGenerator(nn.Module):
    """z [B, latent] and c -> image [B, H, W, C] in (-1, 1)."""

    shape: tuple[int, int, int]
    """Height, width and channels of an image."""
    channels: int = 64
    """Channels of every block."""
    downsamples: int = 2
    """Doublings of the image; its sides are multiples of 2^downsamples."""
    condition: Any = Nothing()
    """What c holds: labels and scalars."""
    conditioning: str = "batch-norm"
    """How c enters: beside z (concatenation), or in the norms (batch-norm)."""
    axis_name: str | None = None
    """The axis of pmap over which batch statistics are averaged."""
    dtype: Any = None
    """Type of the layers: bfloat16, or None for float32."""

    @nn.compact
    def __call__(self, z: Array, c: Given | None = None, train: bool = False) -> Array:
        refuse_parts(self.condition, (Labels, Scalar), "a ResNetGenerator")
        low = [
            check_divisible(s, self.downsamples, "ResNetGenerator")
            for s in self.shape[:2]
        ]
        z, vector = entered(self, z, flat(self.condition, c, len(z)))
        dense, conv, _, _ = layers_of_dtype(self.dtype)

        def norm(h):
            h = batch_norm(h, train, self.axis_name, self.dtype, vector)
            return nn.relu(h)

        h = dense(low[0] * low[1] * self.channels)(z)
        h = h.reshape(-1, *low, self.channels)
        for _ in range(self.downsamples):
            skip = conv(self.channels, (1, 1))(doubled(h))
            h = conv(self.channels, (3, 3))(doubled(norm(h)))
            h = skip + conv(self.channels, (3, 3))(norm(h))
        h = conv(self.shape[-1], (3, 3))(norm(h))
        return jnp.tanh(h.astype(jnp.float32))


class ResNetDiscriminator(nn.Module):
    """Image [B, H, W, C] and c -> logit [B] of being real."""

    channels: int = 64
    """Channels of every block."""
    downsamples: int = 2
    """Halvings of the image, whose sides are multiples of 2^downsamples."""
    condition: Any = Nothing()
    """What c holds: labels and scalars."""
    conditioning: str = "projection"
    """How c enters: projection, concatenation or auxiliary."""
    spectral_norm: bool = True
    """Whether kernels are divided by their largest singular value."""
    group: int = 1
    """Examples whose standard deviation the logit sees; 1 for none."""
    dtype: Any = None
    """Type of the layers: bfloat16, or None for float32."""

    @nn.compact
    def __call__(self, x: Array, c: Given | None = None, train: bool = False) -> Array:
        for side in x.shape[1:3]:
            check_divisible(side, self.downsamples, "ResNetDiscriminator")
        _, conv, _, _ = layers_of_dtype(self.dtype)
        conv = spectral(conv, self.spectral_norm, train)
        pool = partial(nn.avg_pool, window_shape=(2, 2), strides=(2, 2))
        h = conv(self.channels, (3, 3))(with_channels(self, x, c))
        for level in range(self.downsamples + 1):
            last = level == self.downsamples
            skip = h if last else pool(conv(self.channels, (1, 1))(h))
            h = conv(self.channels, (3, 3))(nn.leaky_relu(h, 0.2))
            h = conv(self.channels, (3, 3))(nn.leaky_relu(h, 0.2))
            h = skip + (h if last else pool(h))
        h = jnp.sum(nn.leaky_relu(h, 0.2), axis=(1, 2))
        dense = spectral(nn.Dense, self.spectral_norm, train)
        return logit_of(self, h, c, dense)
