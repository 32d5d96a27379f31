"""The loss of all of diffusion: regress what the matrix asks for."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gengen.diffusion.posterior import ddim_mean, posterior_kl, step_logvar, transition
from gengen.diffusion.process import Process, corrupt, expand, recover
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


def hybrid_loss(
    predict: Callable,
    process: Process,
    x: Array,
    noise: Array,
    t: Array,
    weight: Weight,
    vlb_weight: float,
    variance_steps: int,
) -> Array:
    """L_simple + vlb_weight · T KL(q(z_s | z_t, x) ‖ N(mean, σ²))/D, [B]; s = t - 1/T.

    The KL's gradient reaches the variances alone: the mean is stopped. Nichol and
    Dhariwal 2021, arXiv:2102.09672, section 3.1.

    Args:
        predict: (z, t) -> [r̂, v], of twice the channels of z.
        process: the path and what is predicted.
        x: data [B, ...].
        noise: like x.
        t: times [B] in (0, 1).
        weight: of the squared error.
        vlb_weight: of the bound.
        variance_steps: T.
    """
    path = process.path
    z, _ = corrupt(process, x, noise, t)
    r, v = jnp.split(predict(z, t), 2, axis=-1)
    simple = matching_loss(lambda z, t: r, process, x, noise, t, weight)
    s = t - 1.0 / variance_steps
    known = (s > 0) & (path.b(jnp.maximum(s, 0.0)) > 0)
    # Another stands in where there is none: `where` alone lets NaN gradients by.
    t, s = jnp.where(known, t, 0.5), jnp.where(known, s, 0.25)
    clean, eps = recover(process, z, jax.lax.stop_gradient(r), t)
    logvar = step_logvar(path, (v + 1.0) / 2.0, expand(t, z), expand(s, z))
    _, spread = transition(path, expand(t, z), expand(s, z))
    mean = ddim_mean(process, clean, eps, expand(s, z), spread)
    kl = posterior_kl(process, x, z, t, s, mean, logvar) / x[0].size
    return simple + jnp.where(known, vlb_weight * variance_steps * kl, 0)
