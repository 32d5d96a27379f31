"""The loss of all of diffusion: regress what the matrix asks for."""

from collections.abc import Callable

import jax.numpy as jnp

from gengen.diffusion.process import Process, corrupt, loss_weight
from gengen.types import Array


def matching_loss(
    denoise: Callable,
    process: Process,
    x: Array,
    noise: Array,
    t: Array,
    space: Process | None = None,
) -> Array:
    """|r̂(z, t) - r|² averaged over the dimensions, [B].

    z = a x + b ε, r = c x + d ε; x, noise [B, ...]; t [B] in (0, 1). With `space`, the
    error is measured in that process' prediction: times (det_space/det)².

    Velocity on the linear path is flow matching (Lipman et al. 2023, arXiv:2210.02747,
    equation 23), noise on a variance-preserving path is DDPM's L_simple (Ho et al.
    2020, arXiv:2006.11239, equation 14).
    """
    z, r = corrupt(process, x, noise, t)
    error = jnp.square(denoise(z, t) - r)
    loss = jnp.mean(error.reshape(error.shape[0], -1), axis=-1)
    return loss if space is None else loss_weight(process, space, t) * loss
