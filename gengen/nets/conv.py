"""Convolutional encoder and decoder of a VAE: strided convolutions and their mirror."""

import flax.linen as nn
import jax.numpy as jnp

from gengen.nets.layers import beside, group_norm, halvings
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

    @nn.compact
    def __call__(
        self, x: Array, label: Array | None = None, train: bool = False
    ) -> tuple[Array, Array]:
        del train
        for side in x.shape[1:3]:
            halvings(side, self.levels, "ConvEncoder")
        width = self.channels
        h = nn.Conv(width, (3, 3))(x)
        for _ in range(self.levels):
            width *= 2
            h = nn.silu(group_norm(h.shape[-1], self.groups)(h))
            h = nn.Conv(width, (3, 3), strides=2)(h)
        h = nn.silu(group_norm(width, self.groups)(h)).reshape(x.shape[0], -1)
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

    @nn.compact
    def __call__(
        self, z: Array, label: Array | None = None, train: bool = False
    ) -> Array:
        del train
        height, width, out = self.shape
        low = [halvings(side, self.levels, "ConvDecoder") for side in (height, width)]
        top = self.channels * 2**self.levels
        h = beside(z, label, self.num_classes)
        h = nn.Dense(low[0] * low[1] * top)(h).reshape(-1, *low, top)
        for level in reversed(range(self.levels)):
            h = nn.silu(group_norm(h.shape[-1], self.groups)(h))
            h = nn.ConvTranspose(self.channels * 2**level, (4, 4), strides=(2, 2))(h)
        h = nn.silu(group_norm(self.channels, self.groups)(h))
        return nn.Conv(out, (3, 3))(h)
