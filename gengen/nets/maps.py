"""Encoder and decoder whose latent is a map [h, w, F], with residual blocks."""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from gengen.conditions import Given, Nothing
from gengen.nets.conditioning import places
from gengen.nets.layers import check_divisible, layers_of_dtype, small
from gengen.types import Array


class Residual(nn.Module):
    """h + conv(silu(norm(conv(silu(norm(h)))))), almost the identity at first."""

    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, h: Array) -> Array:
        _, conv, _, norm = layers_of_dtype(self.dtype, self.groups)
        width = h.shape[-1]
        y = conv(width, (3, 3))(nn.silu(norm(width)(h)))
        y = nn.silu(norm(width)(y))
        return h + conv(width, (3, 3), kernel_init=small)(y)


class MapEncoder(nn.Module):
    """x [B, H, W, C] and c -> [B, H/2^d, W/2^d, features]."""

    features: int
    """F, the features of each place of the map."""
    channels: int = 32
    """Channels at full resolution, a multiple of `groups`; doubled at each halving."""
    downsamples: int = 2
    """d, halvings of the image, whose sides are multiples of 2^d."""
    blocks: int = 1
    """Residual blocks after each halving."""
    groups: int = 8
    """Groups of each GroupNorm."""
    condition: Any = Nothing()
    """What c holds: labels and scalars, or a map of the image's size."""
    dtype: Any = None
    """Type of the layers: bfloat16, or None for float32."""

    @nn.compact
    def __call__(self, x: Array, c: Given | None = None, train: bool = False) -> Array:
        del train
        for side in x.shape[1:3]:
            check_divisible(side, self.downsamples, "MapEncoder")
        dense, conv, _, norm = layers_of_dtype(self.dtype, self.groups)
        h, width = conv(self.channels, (3, 3))(x), self.channels
        there = places(self.condition, c, len(x), x.shape[1:3])
        if there is not None:
            h = h + dense(width, use_bias=False)(there)
        for _ in range(self.downsamples):
            width *= 2
            h = conv(width, (3, 3), strides=2)(nn.silu(norm(h.shape[-1])(h)))
            for _ in range(self.blocks):
                h = Residual(self.groups, self.dtype)(h)
        return nn.Conv(self.features, (1, 1))(nn.silu(norm(width)(h)))


class MapDecoder(nn.Module):
    """z [B, h, w, F] and c -> features [B, *shape]: `MapEncoder` mirrored."""

    shape: tuple[int, int, int]
    """Shape of the features of one image."""
    channels: int = 32
    """Channels at full resolution, a multiple of `groups`; doubled at each halving."""
    downsamples: int = 2
    """Doublings of the map."""
    blocks: int = 1
    """Residual blocks before each doubling."""
    groups: int = 8
    """Groups of each GroupNorm."""
    condition: Any = Nothing()
    """What c holds: labels and scalars, or a map of the latent's size."""
    dtype: Any = None
    """Type of the layers: bfloat16, or None for float32."""
    last_layer: ClassVar[tuple[str, ...]] = ("Conv_1", "kernel")
    """Where the last layer's weights are among the parameters."""

    @nn.compact
    def __call__(self, z: Array, c: Given | None = None, train: bool = False) -> Array:
        del train
        dense, conv, conv_transpose, norm = layers_of_dtype(self.dtype, self.groups)
        width = self.channels * 2**self.downsamples
        h = conv(width, (3, 3))(z)
        there = places(self.condition, c, len(z), z.shape[1:3])
        if there is not None:
            h = h + dense(width, use_bias=False)(there)
        for level in reversed(range(self.downsamples)):
            for _ in range(self.blocks):
                h = Residual(self.groups, self.dtype)(h)
            h = nn.silu(norm(h.shape[-1])(h))
            h = conv_transpose(self.channels * 2**level, (4, 4), strides=(2, 2))(h)
        h = nn.silu(norm(h.shape[-1])(h))
        return nn.Conv(self.shape[-1], (3, 3))(h)


class Halves(nn.Module):
    """A network's features as (mean, logvar): the encoder of a VAE out of any other."""

    net: nn.Module
    """x and c -> features [..., 2 F]."""

    @property
    def condition(self) -> Any:
        """The network's own."""
        return getattr(self.net, "condition", Nothing())

    @nn.compact
    def __call__(
        self, x: Array, c: Given | None = None, train: bool = False
    ) -> tuple[Array, Array]:
        mean, logvar = jnp.split(self.net(x, c, train=train), 2, axis=-1)
        return mean, logvar
