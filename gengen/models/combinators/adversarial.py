"""A diffusion model's network as the generator of a GAN: one call, then a game.

    x = x̂(ε, 1),   ε ~ N(0, 1)

`GAN(EndOfPath(net, process), critic, space, latent=space.shape, …)` plays the library's
own games with it. A student that generates in one step already (a consistency model, a
rectified flow) becomes sharper so; one that does not starts from the mean of the data.

Sauer et al. 2023, arXiv:2311.17042 (adversarial diffusion distillation), without its
pretrained critic and without the distance to the teacher.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.diffusion.process import Process, expand, recover
from gengen.types import Array


class EndOfPath(nn.Module):
    """ε [B, ...] and c -> the data that a network of diffusion predicts of it."""

    net: nn.Module
    """(z, t, c) -> r̂."""
    process: Process
    """The path, and what the network predicts."""
    time: float = 1.0
    """The time of the noise, at which the matrix has an inverse."""

    @nn.compact
    def __call__(self, z: Array, c: Any = None, train: bool = False) -> Array:
        t = jnp.full(len(z), self.time, z.dtype)
        z = expand(self.process.path.b(t), z) * z
        return recover(self.process, z, self.net(z, t, c), t)[0]
