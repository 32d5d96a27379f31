"""The loss of all of diffusion: regress what the matrix asks for."""

from collections.abc import Callable

import chex
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

    Here z = a x + b ε is what the network sees and r = c x + d ε what it is asked for.

    Velocity on the linear path is flow matching (Lipman et al. 2023, arXiv:2210.02747,
    equation 23), noise on a variance-preserving path is DDPM's L_simple (Ho et al.
    2020, arXiv:2006.11239, equation 14), the score weighted by b² denoising score
    matching (Vincent 2011; Song and Ermon 2019, arXiv:1907.05600, equation 5).

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> x, noise, t = jnp.array([[1.0, 0.0]]), jnp.array([[3.0, 0.0]]), jnp.array([0.5])
    >>> process = Process(Linear(), Velocity())
    >>> matching_loss(lambda z, t: z, process, x, noise, t).tolist()
    [0.0]

    Args:
        predict: the network, (z, t) -> r̂ [B, ...]; channels beyond those of x (a
            learned variance) are not looked at.
        process: the path, and what the network predicts.
        x: data [B, ...], floats.
        noise: standard normal noise, of the shape of x.
        t: times in (0, 1), [B].
        weight: the weight of the squared error, (process, t) -> [B].
    """
    chex.assert_shape(t, x.shape[:1])
    z, r = corrupt(process, x, noise, t)
    found = predict(z, t)[..., : x.shape[-1]]
    chex.assert_equal_shape([found, r])
    error = jnp.square(found - r)
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

    >>> from gengen.diffusion.paths import Cosine
    >>> from gengen.diffusion.process import Noise
    >>> process, t = Process(Cosine(), Noise()), jnp.array([0.5])
    >>> x, noise = jnp.zeros((1, 2)), jnp.ones((1, 2))
    >>> predict = lambda z, t: jnp.array([[1.0, 1.0, -1.0, -1.0]])  # noise, β̃²
    >>> hybrid_loss(predict, process, x, noise, t, Unweighted(), 1.0, 100).round(4)
    Array([0.], dtype=float32)

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
