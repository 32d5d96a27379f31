"""q(z_s | z_t, x) for s < t: where one step of a diffusion model leads if x is known.

    q(z_s | z_t, x) = N(a_s x + √(b_s² - β̃²) ε, β̃²),  ε = (z_t - a_t x)/b_t
    β² = b_t² - (a_t/a_s)² b_s²,  β̃² = β² b_s²/b_t²

of the process whose forward step is q(z_t | z_s) = N((a_t/a_s) z_s, β²). A sampler puts
x̂ in the place of x, and a bound measures what that costs.

Ho, Jain and Abbeel 2020, arXiv:2006.11239, equation 7; Kingma, Salimans, Poole and Ho
2021, arXiv:2107.00630, appendix A.
"""

import jax.numpy as jnp

from gengen.diffusion.paths import Path
from gengen.diffusion.process import Process, expand
from gengen.losses.divergence import gaussian_kl
from gengen.types import Array


def transition(path: Path, t: Array, s: Array) -> tuple[Array, Array]:
    """(β², β̃²), the variances of q(z_t | z_s) and of q(z_s | z_t, x)."""
    b_t, b_s = path.b(t), path.b(s)
    # Rounding alone can make the difference of squares negative.
    forward = jnp.maximum(b_t**2 - (path.a(t) / path.a(s) * b_s) ** 2, 0.0)
    return forward, forward * (b_s / b_t) ** 2


def step_logvar(path: Path, v: Array | float, t: Array, s: Array) -> Array:
    """v log β² + (1 - v) log β̃²: between the two limits of p(z_s | z_t), v in [0, 1].

    v = 0 is the posterior's variance (fixed small, right for one x), v = 1 DDPM's β²
    (fixed large, right for x ~ N(0, 1) if variance preserving). b_s > 0. Nichol and
    Dhariwal 2021, arXiv:2102.09672, equation 15.
    """
    forward, _ = transition(path, t, s)
    return jnp.log(forward) + 2 * (1 - v) * jnp.log(path.b(s) / path.b(t))


def ddim_mean(process: Process, x: Array, noise: Array, s: Array, tau2: Array) -> Array:
    """a_s x̂ + √(b_s² - τ²) ε̂: the mean at s if noise of variance τ² is to be fresh."""
    a_s, b_s = process.path.a(s), process.path.b(s)
    return a_s * x + jnp.sqrt(jnp.maximum(b_s**2 - tau2, 0.0)) * noise


def posterior(
    process: Process, x: Array, z: Array, t: Array, s: Array
) -> tuple[Array, Array]:
    """(mean, log-variance) of q(z_s | z_t, x), s < t: Gaussian, one variance for all.

    With x̂ for x the mean of the model's step. t, s [] or [B]. Kingma et al. 2021,
    appendix A.2.
    """
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

    mean, logvar: what the model predicts of z_s, broadcast against z [B, ...]. Ho et
    al. 2020, equation 5; Nichol and Dhariwal 2021, arXiv:2102.09672, equation 4.
    """
    of_x, spread = posterior(process, x, z, t, s)
    of_x, spread, mean, logvar = jnp.broadcast_arrays(of_x, spread, mean, logvar)
    return gaussian_kl(of_x, spread, mean, logvar)
