"""Convolutional encoder and decoder of a VAE: strided convolutions and their mirror."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.conditions import Given, Nothing
from gengen.nets.conditioning import with_condition
from gengen.nets.layers import check_divisible, layers_of_dtype
from gengen.types import Array


class ConvEncoder(nn.Module):
    """x [B, H, W, C] and c -> (mean, logvar) of q(z|x), each [B, latent].

    One 3×3 convolution, then one of stride 2 per downsampling, which doubles the
    channels.
    """

    latent: int
    """Dimensions of z."""
    channels: int = 32
    """Channels at full resolution, a multiple of `groups`."""
    downsamples: int = 2
    """Halvings of the image, whose sides are multiples of 2^downsamples."""
    groups: int = 8
    """Groups of each GroupNorm."""
    condition: Any = Nothing()
    """What c holds: labels and scalars, which enter beside the features."""
    dtype: Any = None
    """Type of the layers: bfloat16, or None for float32."""

    @nn.compact
    def __call__(
        self, x: Array, c: Given | None = None, train: bool = False
    ) -> tuple[Array, Array]:
        del train
        for side in x.shape[1:3]:
            check_divisible(side, self.downsamples, "ConvEncoder")
        _, conv, _, norm = layers_of_dtype(self.dtype, self.groups)
        width = self.channels
        h = conv(width, (3, 3))(x)
        for _ in range(self.downsamples):
            width *= 2
            h = nn.silu(norm(h.shape[-1])(h))
            h = conv(width, (3, 3), strides=2)(h)
        h = nn.silu(norm(width)(h)).reshape(x.shape[0], -1)
        h = with_condition(h, self.condition, c)
        mean, logvar = jnp.split(nn.Dense(2 * self.latent)(h), 2, axis=-1)
        return mean, logvar


class ConvDecoder(nn.Module):
    """z [B, latent] and c -> features [B, *shape]: `ConvEncoder` mirrored."""

    shape: tuple[int, int, int]
    """Shape of the features of one image."""
    channels: int = 32
    """Channels at full resolution, a multiple of `groups`."""
    downsamples: int = 2
    """Halvings of the image, whose sides are multiples of 2^downsamples."""
    groups: int = 8
    """Groups of each GroupNorm."""
    condition: Any = Nothing()
    """What c holds: labels and scalars, which enter beside the latent."""
    dtype: Any = None
    """Type of the layers: bfloat16, or None for float32."""

    @nn.compact
    def __call__(self, z: Array, c: Given | None = None, train: bool = False) -> Array:
        del train
        height, width, out = self.shape
        low = [
            check_divisible(side, self.downsamples, "ConvDecoder")
            for side in (height, width)
        ]
        dense, _, conv_transpose, norm = layers_of_dtype(self.dtype, self.groups)
        top = self.channels * 2**self.downsamples
        h = with_condition(z, self.condition, c)
        h = dense(low[0] * low[1] * top)(h).reshape(-1, *low, top)
        for level in reversed(range(self.downsamples)):
            h = nn.silu(norm(h.shape[-1])(h))
            h = conv_transpose(self.channels * 2**level, (4, 4), strides=(2, 2))(h)
        h = nn.silu(norm(self.channels)(h))
        return nn.Conv(out, (3, 3))(h)
