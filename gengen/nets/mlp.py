"""Fully connected networks: encoder and decoder of the first VAE, and a critic.

The decoder is a generator, too: z and c -> x.
"""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.conditions import Given, Nothing
from gengen.nets.conditioning import with_condition
from gengen.nets.critic import logit_of, spectral, with_channels
from gengen.types import Array


class MLPEncoder(nn.Module):
    """x [B, ...] and c -> (mean, logvar) of q(z|x), each [B, latent]."""

    latent: int
    """Dimensions of z."""
    hidden: tuple[int, ...] = (512, 256)
    """Widths of the layers; () is the linear encoder."""
    condition: Any = Nothing()
    """What c holds: labels and scalars, which enter beside x."""
    dtype: Any = None
    """Type of the hidden layers: bfloat16, or None for float32."""

    @nn.compact
    def __call__(
        self, x: Array, c: Given | None = None, train: bool = False
    ) -> tuple[Array, Array]:
        del train
        h = with_condition(x.reshape(x.shape[0], -1), self.condition, c)
        for width in self.hidden:
            h = nn.silu(nn.Dense(width, dtype=self.dtype)(h))
        mean, logvar = jnp.split(nn.Dense(2 * self.latent)(h), 2, axis=-1)
        return mean, logvar


class MLP(nn.Module):
    """x [B, ...] and c -> features [B, *shape]."""

    shape: tuple[int, ...]
    """Shape of the features of one example."""
    hidden: tuple[int, ...] = (256, 512)
    """Widths of the layers; () is linear."""
    condition: Any = Nothing()
    """What c holds: labels and scalars, which enter beside x."""
    dtype: Any = None
    """Type of the hidden layers: bfloat16, or None for float32."""

    @nn.compact
    def __call__(self, x: Array, c: Given | None = None, train: bool = False) -> Array:
        del train
        h = with_condition(x.reshape(x.shape[0], -1), self.condition, c)
        for width in self.hidden:
            h = nn.silu(nn.Dense(width, dtype=self.dtype)(h))
        return nn.Dense(math.prod(self.shape))(h).reshape(-1, *self.shape)


class MLPDecoder(MLP):
    """z [B, latent] and c -> features [B, *shape]: `MLPEncoder` mirrored."""


class MLPCritic(nn.Module):
    """x [B, ...] and c -> logit [B] of being real; leaky ReLU (0.2), no norm."""

    hidden: tuple[int, ...] = (128, 128, 128)
    """Widths of the layers; () is the linear critic."""
    condition: Any = Nothing()
    """What c holds: labels and scalars."""
    conditioning: str = "projection"
    """How c enters: projection, concatenation or auxiliary."""
    spectral_norm: bool = False
    """Whether kernels are divided by their largest singular value."""
    group: int = 1
    """Examples whose standard deviation the logit sees; 1 for none."""
    dtype: Any = None
    """Type of the hidden layers: bfloat16, or None for float32."""

    @nn.compact
    def __call__(self, x: Array, c: Given | None = None, train: bool = False) -> Array:
        h = with_channels(self, x.reshape(x.shape[0], -1), c)
        dense = partial(nn.Dense, dtype=self.dtype)
        for width in self.hidden:
            h = nn.leaky_relu(spectral(dense, self.spectral_norm, train)(width)(h), 0.2)
        return logit_of(self, h, c, spectral(nn.Dense, self.spectral_norm, train))
