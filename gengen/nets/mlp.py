"""Fully connected encoder and decoder: the two halves of the first VAE."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.conditions import Given, Nothing
from gengen.nets.conditioning import with_condition
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
