"""q(z_s | z_t, x) for s < t: where one step of a diffusion model leads if x is known.

    q(z_s | z_t, x) = N(a_s x + √(b_s² - β̃²) ε, β̃²),  ε = (z_t - a_t x)/b_t
    β² = b_t² - (a_t/a_s)² b_s²,  β̃² = β² b_s²/b_t²

of the process whose forward step is q(z_t | z_s) = N((a_t/a_s) z_s, β²). A sampler puts
x̂ in the place of x, and a bound measures what that costs.

Ho, Jain and Abbeel 2020, arXiv:2006.11239, equation 7; Kingma, Salimans, Poole and Ho
2021, arXiv:2107.00630, appendix A.
"""

import chex
import jax.numpy as jnp

from gengen.diffusion.paths import Path
from gengen.diffusion.process import Process, expand
from gengen.losses.divergence import gaussian_kl
from gengen.types import Array


def transition(path: Path, t: Array, s: Array) -> tuple[Array, Array]:
    """(β², β̃²), the variances of q(z_t | z_s) and of q(z_s | z_t, x).

    >>> from gengen.diffusion.paths import Linear
    >>> [round(float(v), 3) for v in transition(Linear(), 0.75, 0.5)]
    [0.5, 0.222]

    Args:
        path: the path of the process.
        t: times in (0, 1], of any shape.
        s: times below t, of the shape of t.
    """
    chex.assert_equal_shape([jnp.asarray(t), jnp.asarray(s)])
    b_t, b_s = path.b(t), path.b(s)
    # Rounding alone can make the difference of squares negative.
    forward = jnp.maximum(b_t**2 - (path.a(t) / path.a(s) * b_s) ** 2, 0.0)
    return forward, forward * (b_s / b_t) ** 2


def step_logvar(path: Path, v: Array | float, t: Array, s: Array) -> Array:
    """v log β² + (1 - v) log β̃²: between the two limits of p(z_s | z_t), v in [0, 1].

    v = 0 is the posterior's variance (fixed small, right for one x), v = 1 DDPM's β²
    (fixed large, right for x ~ N(0, 1) if variance preserving). Nichol and Dhariwal
    2021, arXiv:2102.09672, equation 15.

    >>> from gengen.diffusion.paths import Linear
    >>> t, s = jnp.array(0.75), jnp.array(0.5)
    >>> round(float(jnp.exp(step_logvar(Linear(), 1.0, t, s))), 3)
    0.5

    Args:
        path: the path of the process.
        v: numbers in [0, 1], [] or [B, ...].
        t: times in (0, 1], [] or [B, 1, ...] beside v.
        s: times below t where b is not 0, of the shape of t.
    """
    if jnp.ndim(v) and jnp.ndim(t):
        chex.assert_equal_rank([v, t])
    forward, _ = transition(path, t, s)
    return jnp.log(forward) + 2 * (1 - v) * jnp.log(path.b(s) / path.b(t))


def ddim_mean(process: Process, x: Array, noise: Array, s: Array, tau2: Array) -> Array:
    """a_s x̂ + √(b_s² - τ²) ε̂: the mean at s if noise of variance τ² is to be fresh.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> x, noise = jnp.array([[1.0]]), jnp.array([[3.0]])
    >>> process = Process(Linear(), Velocity())
    >>> float(ddim_mean(process, x, noise, jnp.array(0.5), jnp.array(0.0))[0, 0])
    2.0

    Args:
        process: the path, and what the network predicts.
        x: x̂ [B, ...], floats.
        noise: ε̂, of the shape of x.
        s: the time to reach, [] or [B, 1, ...].
        tau2: the variance of the fresh noise, of the shape of s, at most b_s².
    """
    chex.assert_equal_shape([x, noise])
    chex.assert_type([x, noise], float)
    chex.assert_equal_shape([jnp.asarray(s), jnp.asarray(tau2)])
    if jnp.ndim(s):
        chex.assert_equal_rank([s, x])
    a_s, b_s = process.path.a(s), process.path.b(s)
    return a_s * x + jnp.sqrt(jnp.maximum(b_s**2 - tau2, 0.0)) * noise


def posterior(
    process: Process, x: Array, z: Array, t: Array, s: Array
) -> tuple[Array, Array]:
    """(mean [B, ...], log-variance [] or [B, 1, ...]) of the Gaussian q(z_s | z_t, x).

    With x̂ in the place of x it is the mean of the model's step. Kingma et al. 2021,
    appendix A.2.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> x, z = jnp.array([[1.0]]), jnp.array([[1.0]])
    >>> mean, _ = posterior(Process(Linear(), Velocity()), x, z, 0.75, 0.5)
    >>> round(float(mean[0, 0]), 3)
    0.667

    Args:
        process: the path, and what the network predicts.
        x: data [B, ...], floats.
        z: what is seen at times t, of the shape of x.
        t: times in (0, 1], [] or [B].
        s: times below t, of the shape of t.
    """
    chex.assert_equal_shape([x, z])
    chex.assert_type([x, z], float)
    path, t, s = process.path, expand(t, z), expand(s, z)
    noise = (z - path.a(t) * x) / path.b(t)
    spread = transition(path, t, s)[1]
    return ddim_mean(process, x, noise, s, spread), jnp.log(spread)


def posterior_kl(
    process: Process,
    x: Array,
    z: Array,
    t: Array,
    s: Array,
    mean: Array,
    logvar: Array,
) -> Array:
    """KL(q(z_s | z_t, x) ‖ N(mean, e^logvar)), [B] nats: one term of L_vlb.

    Ho et al. 2020, equation 5; Nichol and Dhariwal 2021, arXiv:2102.09672, equation 4.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> process, x = Process(Linear(), Velocity()), jnp.array([[1.0]])
    >>> own = posterior(process, x, x, 0.75, 0.5)
    >>> abs(round(float(posterior_kl(process, x, x, 0.75, 0.5, *own)[0]), 3))
    0.0

    Args:
        process: the path, and what the network predicts.
        x: data [B, ...], floats.
        z: what is seen at times t, of the shape of x.
        t: times in (0, 1], [] or [B].
        s: times below t, of the shape of t.
        mean: the model's mean of z_s, of the shape of x.
        logvar: the model's log-variance of z_s, [], [B, 1, ...] or of the shape of x.
    """
    chex.assert_equal_shape([x, mean])
    chex.assert_type([mean, logvar], float)
    if jnp.ndim(logvar):
        chex.assert_equal_rank([x, logvar])
    of_x, spread = posterior(process, x, z, t, s)
    of_x, spread, mean, logvar = jnp.broadcast_arrays(of_x, spread, mean, logvar)
    return gaussian_kl(of_x, spread, mean, logvar)
