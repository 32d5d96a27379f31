"""Convolutional encoder and decoder of a VAE: strided convolutions and their mirror."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.nets.layers import beside, halvings, layers
from gengen.types import Array


class ConvEncoder(nn.Module):
    """x [B, H, W, C] (and label [B]) -> (mean, logvar) of q(z|x), each [B, latent].

    One 3×3 convolution, then one of stride 2 a level that doubles the channels. H and
    W must be multiples of 2^levels, channels of `groups`; else BadInput.
    """

    latent: int
    channels: int = 32
    levels: int = 2
    groups: int = 8
    num_classes: int = 0
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Array, label: Array | None = None, train: bool = False
    ) -> tuple[Array, Array]:
        del train
        for side in x.shape[1:3]:
            halvings(side, self.levels, "ConvEncoder")
        _, conv, _, norm = layers(self.dtype, self.groups)
        width = self.channels
        h = conv(width, (3, 3))(x)
        for _ in range(self.levels):
            width *= 2
            h = nn.silu(norm(h.shape[-1])(h))
            h = conv(width, (3, 3), strides=2)(h)
        h = nn.silu(norm(width)(h)).reshape(x.shape[0], -1)
        h = beside(h, label, self.num_classes)
        mean, logvar = jnp.split(nn.Dense(2 * self.latent)(h), 2, axis=-1)
        return mean, logvar


class ConvDecoder(nn.Module):
    """z [B, latent] (and label [B]) -> features [B, *shape]: `ConvEncoder` mirrored."""

    shape: tuple[int, int, int]
    channels: int = 32
    levels: int = 2
    groups: int = 8
    num_classes: int = 0
    dtype: Any = None

    @nn.compact
    def __call__(
        self, z: Array, label: Array | None = None, train: bool = False
    ) -> Array:
        del train
        height, width, out = self.shape
        low = [halvings(side, self.levels, "ConvDecoder") for side in (height, width)]
        dense, _, conv_transpose, norm = layers(self.dtype, self.groups)
        top = self.channels * 2**self.levels
        h = beside(z, label, self.num_classes)
        h = dense(low[0] * low[1] * top)(h).reshape(-1, *low, top)
        for level in reversed(range(self.levels)):
            h = nn.silu(norm(h.shape[-1])(h))
            h = conv_transpose(self.channels * 2**level, (4, 4), strides=(2, 2))(h)
        h = nn.silu(norm(self.channels)(h))
        return nn.Conv(out, (3, 3))(h)
