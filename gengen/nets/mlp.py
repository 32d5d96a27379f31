"""Fully connected encoder and decoder: the two halves of the first VAE."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.nets.layers import beside
from gengen.types import Array


class MLPEncoder(nn.Module):
    """x [B, ...] (and label [B]) -> (mean, logvar) of q(z|x), each [B, latent].

    hidden=() is the linear encoder.
    """

    latent: int
    hidden: tuple[int, ...] = (512, 256)
    num_classes: int = 0
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Array, label: Array | None = None, train: bool = False
    ) -> tuple[Array, Array]:
        del train
        h = beside(x.reshape(x.shape[0], -1), label, self.num_classes)
        for width in self.hidden:
            h = nn.silu(nn.Dense(width, dtype=self.dtype)(h))
        mean, logvar = jnp.split(nn.Dense(2 * self.latent)(h), 2, axis=-1)
        return mean, logvar


class MLPDecoder(nn.Module):
    """z [B, latent] (and label [B]) -> features [B, *shape].

    hidden=() is the linear decoder.
    """

    shape: tuple[int, ...]
    hidden: tuple[int, ...] = (256, 512)
    num_classes: int = 0
    dtype: Any = None

    @nn.compact
    def __call__(
        self, z: Array, label: Array | None = None, train: bool = False
    ) -> Array:
        del train
        h = beside(z, label, self.num_classes)
        for width in self.hidden:
            h = nn.silu(nn.Dense(width, dtype=self.dtype)(h))
        return nn.Dense(math.prod(self.shape))(h).reshape(-1, *self.shape)
