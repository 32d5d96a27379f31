"""The variational bound of diffusion models, in nats, term by term.

A chain of latents z_t, t falling along a grid from t_max to t_min, is a deep latent
variable model with p(z_s | z_t) = q(z_s | z_t, x = x̂(z_t, t)). With SNR = a²/b²,

    -log p(x) <= ½ SNR(t_max) |x|²                                     (prior)
               + E Σ_i ½ (SNR(s_i) - SNR(t_i)) |x - x̂(z_{t_i}, t_i)|²  (diffusion)
               - E log p(x | z_{t_min})                                (reconstruction)

on every path and for every prediction (`bound_terms`). In the limit of infinitely many
steps the drop of SNR across an interval is its derivative, -SNR′(t) dt (`continuous`),
and the bound depends on the path through its two ends only. The prior N(0, b(t_max)²)
makes the first term one of the second's: a step from SNR = 0 with x̂ = 0. The lower end
t_min > 0 is a choice, and every choice is a bound: see `sigma_min`.

Sohl-Dickstein et al. 2015, arXiv:1503.03585; Ho, Jain and Abbeel 2020,
arXiv:2006.11239, equation 5; Kingma, Salimans, Poole and Ho 2021, arXiv:2107.00630,
equations 11 to 14.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from gengen.conditions import Given
from gengen.diffusion.paths import Path, derivatives, is_discrete, snr
from gengen.diffusion.process import (
    Process,
    corrupt,
    usable_times,
)
from gengen.diffusion.times import (
    Even,
    LogSNR,
    check_grid,
    histogram_quantile,
    times_of,
)
from gengen.errors import BadInput
from gengen.images import bin_width, to_unit
from gengen.losses.likelihood import per_example
from gengen.scan import fold_in, normal
from gengen.spaces import Images, Space
from gengen.types import Array, static

# ---------------------------------------------------------------- the bound


def prior_kl(process: Process, x: Array, t_max: Array | float) -> Array:
    """KL(q(z_{t_max} | x) ‖ N(0, b²)) = ½ (a/b)² |x|², [B] nats; x [B, ...]."""
    return 0.5 * snr(process.path, jnp.asarray(t_max)) * per_example(jnp.square(x))


def squared_error(
    predict: Callable, process: Process, x: Array, noise: Array, t: Array
) -> Array:
    """|x - x̂(z, t)|² [B], a sum over dimensions: (b/det)² |r - r̂|², whatever is asked.

    z = a x + b ε; x, noise [B, ...]; t [] or [B]. Taking the error where the network
    answers keeps its digits where z and x are nearly the same.
    """
    z, r = corrupt(process, x, noise, t)
    m = process.matrix(t)
    return jnp.square(m.b / m.det) * per_example(jnp.square(predict(z, t) - r))


def steps(path: Path, t: Array, s: Array, u: Array) -> tuple[Array, Array]:
    """(t, SNR(s) - SNR(t)): one of T steps. Kingma et al. 2021, equation 13."""
    return t, snr(path, s) - snr(path, t)


def continuous(path: Path, t: Array, s: Array, u: Array) -> tuple[Array, Array]:
    """(τ, -SNR′(τ) (t - s)) at τ = s + u (t - s): an infinity of steps from t to s.

    With u ~ U(0, 1) unbiased for ∫ -SNR′(τ) … dτ. Kingma et al. 2021, section 5.
    """
    tau = s + u * (t - s)
    a, b, da, db = derivatives(path, tau)
    return tau, 2.0 * a * (a * db - b * da) / b**3 * (t - s)


def diffusion_loss(
    predict: Callable,
    process: Process,
    x: Array,
    noise: Array,
    t: Array,
    s: Array,
    u: Array | float = 0.0,
    limit: Callable = steps,
) -> Array:
    """½ ΔSNR |x - x̂(z_τ, τ)|² of the interval from t down to s, [B] nats.

    (τ, ΔSNR) = limit(path, t, s, u): `steps` or `continuous`; t, s, u [] or [B]. With
    `steps` it is KL(q(z_s | z_t, x) ‖ q(z_s | z_t, x̂)): DDPM's fixed small variance.
    """
    tau, drop = limit(process.path, t, s, u)
    return 0.5 * drop * squared_error(predict, process, x, noise, tau)


def level_log_probs(
    process: Process, z: Array, t: Array | float, levels: int = 256
) -> Array:
    """log p(k | z) of every level k in every dimension, [..., levels]: z [...].

    A softmax of log N(z; a v_k, b²) over the levels' values v_k. Kingma et al. 2021,
    section 3.3.
    """
    a, b = process.path.a(jnp.asarray(t)), process.path.b(jnp.asarray(t))
    values = to_unit(jnp.arange(levels), levels).astype(z.dtype)
    return jax.nn.log_softmax(-0.5 * jnp.square((z[..., None] - a * values) / b))


def reconstruction_loss(
    process: Process, image: Array, noise: Array, t: Array | float, levels: int = 256
) -> Array:
    """-log p(x | z_t), x = `to_unit(image)`, [B] nats; image of levels [B, ...]."""
    z, _ = corrupt(process, to_unit(image, levels), noise, jnp.asarray(t))
    log_probs = level_log_probs(process, z, t, levels)
    index = image[..., None].astype(jnp.int32)
    return -per_example(jnp.take_along_axis(log_probs, index, axis=-1))


def sigma_min(levels: int = 256, fraction: float = 0.35) -> float:
    """The σ = b/a at which to end: a fraction of the bins' width 2/(levels - 1).

    Too large, and the softmax, which knows no prior of the levels, loses what the
    network knew; too small, and a network that knows no levels loses their spacing.
    Nats a dimension lost at T = ∞: by quadrature, of a network flat over several bins
    and of the exact ones of independent pixels; and measured, of a U-Net trained for
    1,500 steps (above its own best).

        fraction                      0.2     0.3     0.35    0.4     0.5
        flat                          0.225   0.029   0.008   0.002   0.000
        exact, 17 levels, digits      0.006   0.046   0.071   0.096   0.142
        exact, 256 levels, photos     0.000   0.001   0.002   0.002   0.004
        U-Net, 17 levels, digits      0.092   0.000   0.008   0.026   0.070
    """
    return fraction * bin_width(levels)


class Bound(NamedTuple):
    """-log p(x) <= E[prior + Σ diffusion + reconstruction], in nats."""

    prior: Array  # [B]
    diffusion: Array  # [n, B]; the sum over n is unbiased
    reconstruction: Array  # [B]

    @property
    def total(self) -> Array:
        """[B] nats: minus the lower bound on log p(x)."""
        return self.prior + jnp.sum(self.diffusion, axis=0) + self.reconstruction


def bound_terms(
    keys: Array,
    predict: Callable,
    process: Process,
    image: Array,
    grid: Array,
    levels: int = 256,
    limit: Callable = steps,
    draws: int | None = None,
    u: Array | None = None,
    mass: Array | None = None,
) -> Bound:
    """An unbiased estimate of every term for an image of levels [B, ...].

    grid [T + 1]: times falling from t_max to t_min. limit: `steps` for the T-step
    model; `continuous` for infinitely many steps, with a time drawn in each interval.
    draws: None for all T terms; K for K of them a row, each over K times its `mass` [T]
    (even if None): the intervals at (k + u)/K of it, k = 0 … K-1, with u [B] ~ U(0, 1),
    drawn if None; rows whose u are spread evenly have less variance together (Kingma et
    al. 2021, appendix I.1).
    keys [B]: term i of row j is a function of (keys[j], i) alone, drawn or not.
    """
    num = check_grid(grid).shape[0] - 1
    if draws is not None and draws < 1:
        raise BadInput(f"draws={draws}: at least 1 of the {num} terms must be drawn")
    x, rows = to_unit(image, levels), image.shape[:1]

    def uniform(keys):
        return jax.vmap(lambda key: jax.random.uniform(key, (), grid.dtype))(keys)

    if draws is None:
        chosen = jnp.broadcast_to(jnp.arange(num)[:, None], (num, *rows))
        scale = 1.0
    else:
        mass = jnp.full(num, 1.0 / num, grid.dtype) if mass is None else mass
        u = uniform(fold_in(keys, num + 1)) if u is None else u
        u = (jnp.arange(draws)[:, None] + u) / draws
        _, chosen, scale = histogram_quantile(u, mass)
        scale = scale * (num / draws)

    def term(i):  # [B]
        own = fold_in(keys, i)
        noise, within = normal(own, x.shape[1:]), uniform(fold_in(own, 0))
        t, s = grid[i], grid[i + 1]
        return diffusion_loss(predict, process, x, noise, t, s, within, limit)

    diffusion = jax.lax.map(term, chosen) * scale
    noise = normal(fold_in(keys, num), x.shape[1:])
    reconstruction = reconstruction_loss(process, image, noise, grid[-1], levels)
    return Bound(prior_kl(process, x, grid[0]), diffusion, reconstruction)


# ---------------------------------------------------------------- one number an image


class LikelihoodEstimator(Protocol):
    """(keys, predict, process, data, space, c) -> [B] nats of the data.

    keys [B]: one per row. predict: (z, t, c) -> r̂. data: as the batch holds them.
    """

    @property
    def kind(self) -> str:
        """What the number is: "VLB", …"""

    def __call__(
        self,
        keys: Array,
        predict: Callable,
        process: Process,
        data: Array,
        space: Space,
        c: Given,
    ) -> Array: ...


def lower_end(process: Process, levels: int, fraction: float = 0.35) -> float:
    """The time at which σ = `sigma_min`, or the process' own end if that is later."""
    low, _ = usable_times(process)
    with jax.ensure_compile_time_eval():
        one = jnp.ones(())
        t = process.path.time_of_ratio(one, sigma_min(levels, fraction) * one)
        if is_discrete(process.path):  # the first step, if σ is below all of them
            t = jnp.maximum(t, 1.0 / process.path.steps)
        return max(low, float(t))


@static
class VariationalBound:
    """`bound_terms` of an image, `draws` of them drawn: unbiased for the bound.

    steps: T of the model's chain (DDPM has 1,000, at even times); None for infinitely
    many, whose integral is drawn once in each of `draws` intervals, even in log SNR.
    fraction: of the levels' bins at which the chain ends, `sigma_min`.
    """

    steps: int | None = None
    draws: int = 16
    fraction: float = 0.35

    @property
    def kind(self) -> str:
        """ "VLB", of T = ∞, or "VLB-1000"."""
        return "VLB" if self.steps is None else f"VLB-{self.steps}"

    def grid(self, process: Process, levels: int) -> Array:
        """Times from t_max to where σ is a fraction of the levels' bins."""
        low = lower_end(process, levels, self.fraction)
        high = usable_times(process)[1]
        if self.steps is None:
            return times_of(LogSNR(), process.path, self.draws, (low, high))
        times = times_of(Even(), process.path, self.steps, (0.0, high))
        with jax.ensure_compile_time_eval():
            return jnp.append(times[times > low], low)  # what is below is one level

    def terms(self, keys, predict, process, image, levels) -> Bound:
        """The terms of the bound in nats, of an image of levels [B, ...]."""
        grid = self.grid(process, levels)
        limit = continuous if self.steps is None else steps
        draws, mass = None, None
        if self.steps is not None and self.draws < len(grid) - 1:
            # As often as log SNR changes: the error of ε is about as large everywhere.
            change = jnp.diff(jnp.log(snr(process.path, grid)))
            finite = jnp.isfinite(change)
            most = jnp.max(jnp.where(finite, change, 0.0))
            mass = jnp.where(finite, change, most)
            draws, mass = self.draws, mass / jnp.sum(mass)
        ask = keys, predict, process, image, grid, levels, limit, draws
        return bound_terms(*ask, mass=mass)

    def __call__(self, keys, predict, process, data, space, c):
        if not isinstance(space, Images):
            raise BadInput(
                f"a variational bound is of ordered levels, and the space is {space}: "
                "take FlowDensity for real numbers"
            )

        def bound(z, t):
            return predict(z, t, c)

        return -self.terms(keys, bound, process, data, space.size).total
