"""Fully connected encoder and decoder: the two halves of the first VAE."""

import math

import flax.linen as nn
import jax.numpy as jnp

from gengen.types import Array


class MLPEncoder(nn.Module):
    """x [B, ...] -> (mean, logvar) of q(z|x), each [B, latent].

    hidden=() is the linear encoder.
    """

    latent: int
    hidden: tuple[int, ...] = (512, 256)

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
        del train
        h = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            h = nn.silu(nn.Dense(width)(h))
        mean, logvar = jnp.split(nn.Dense(2 * self.latent)(h), 2, axis=-1)
        return mean, logvar


class MLPDecoder(nn.Module):
    """z [B, latent] -> features [B, *shape]; hidden=() is the linear decoder."""

    shape: tuple[int, ...]
    hidden: tuple[int, ...] = (256, 512)

    @nn.compact
    def __call__(self, z: Array, train: bool = False) -> Array:
        del train
        h = z
        for width in self.hidden:
            h = nn.silu(nn.Dense(width)(h))
        return nn.Dense(math.prod(self.shape))(h).reshape(-1, *self.shape)
