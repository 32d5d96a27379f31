"""The loss of all of diffusion: regress what the matrix asks for."""

from collections.abc import Callable

import jax.numpy as jnp

from gengen.diffusion.process import Process, corrupt
from gengen.diffusion.weights import Unweighted, Weight
from gengen.types import Array


def matching_loss(
    predict: Callable,
    process: Process,
    x: Array,
    noise: Array,
    t: Array,
    weight: Weight = Unweighted(),
) -> Array:
    """w(t) |r̂(z, t) - r|² averaged over the dimensions, [B].

    z = a x + b ε, r = c x + d ε; x, noise [B, ...]; t [B] in (0, 1). What r̂ has beyond
    the channels of x (a learned variance) is not looked at.

    Velocity on the linear path is flow matching (Lipman et al. 2023, arXiv:2210.02747,
    equation 23), noise on a variance-preserving path is DDPM's L_simple (Ho et al.
    2020, arXiv:2006.11239, equation 14), the score weighted by b² denoising score
    matching (Vincent 2011; Song and Ermon 2019, arXiv:1907.05600, equation 5).
    """
    z, r = corrupt(process, x, noise, t)
    error = jnp.square(predict(z, t)[..., : x.shape[-1]] - r)
    loss = jnp.mean(error.reshape(error.shape[0], -1), axis=-1)
    return weight(process, t) * loss
