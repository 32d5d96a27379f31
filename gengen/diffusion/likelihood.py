"""Likelihoods of diffusion models, in nats: a bound term by term, the ODE's density.

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

Along the probability-flow ODE a density obeys d log p(z)/dt = -div ż, so that the same
network is a continuous normalising flow with an exact density (`log_density`).

Sohl-Dickstein et al. 2015, arXiv:1503.03585; Ho, Jain and Abbeel 2020,
arXiv:2006.11239, equation 5; Kingma, Salimans, Poole and Ho 2021, arXiv:2107.00630,
equations 11 to 14; Song et al. 2021, arXiv:2011.13456, appendix D.2.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from gengen.diffusion.ode import RK4, Adaptive, Integrator, integrate
from gengen.diffusion.paths import Path, derivatives, snr, tabulated
from gengen.diffusion.process import (
    Process,
    corrupt,
    expand,
    ode_velocity,
    usable_times,
)
from gengen.diffusion.solvers import toward, transition
from gengen.diffusion.times import Even, LogSNR, histogram_quantile, times_of
from gengen.images import bin_width, dequantize, log_bin_volume, to_unit
from gengen.losses.divergence import gaussian_kl
from gengen.losses.likelihood import normal_log_prob, per_example
from gengen.scan import normal
from gengen.types import Array, BadInput, static


def falling(grid: Array) -> Array:
    """The grid, if it has an interval and its times (where known) do not rise."""
    if grid.shape[0] < 2:
        raise BadInput(f"a grid of {grid.shape[0]} times: at least 2 are needed")
    if not isinstance(grid, jax.core.Tracer):
        with jax.ensure_compile_time_eval():
            if bool(jnp.any(jnp.diff(jnp.asarray(grid)) > 0)):
                raise BadInput(
                    f"the times of the grid rise (from {grid[0]} to {grid[-1]}): "
                    "they must fall, from noise to data"
                )
    return grid


# ---------------------------------------------------------------- the bound


def prior_kl(process: Process, x: Array, t_max: Array | float) -> Array:
    """KL(q(z_{t_max} | x) ‖ N(0, b²)) = ½ (a/b)² |x|², [B] nats; x [B, ...]."""
    return 0.5 * snr(process.path, jnp.asarray(t_max)) * per_example(jnp.square(x))


def squared_error(
    denoise: Callable, process: Process, x: Array, noise: Array, t: Array
) -> Array:
    """|x - x̂(z, t)|² [B], a sum over dimensions: (b/det)² |r - r̂|², whatever is asked.

    z = a x + b ε; x, noise [B, ...]; t [] or [B]. Taking the error where the network
    answers keeps its digits where z and x are nearly the same.
    """
    z, r = corrupt(process, x, noise, t)
    m = process.matrix(t)
    return jnp.square(m.b / m.det) * per_example(jnp.square(denoise(z, t) - r))


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
    denoise: Callable,
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
    return 0.5 * drop * squared_error(denoise, process, x, noise, tau)


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
    denoise: Callable,
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
    num = falling(grid).shape[0] - 1
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
        u = uniform(_fold_in(keys, num + 1)) if u is None else u
        u = (jnp.arange(draws)[:, None] + u) / draws
        _, chosen, scale = histogram_quantile(u, mass)
        scale = scale * (num / draws)

    def term(i):  # [B]
        own = _fold_in(keys, i)
        noise, within = normal(own, x.shape[1:]), uniform(_fold_in(own, 0))
        t, s = grid[i], grid[i + 1]
        return diffusion_loss(denoise, process, x, noise, t, s, within, limit)

    diffusion = jax.lax.map(term, chosen) * scale
    noise = normal(_fold_in(keys, num), x.shape[1:])
    reconstruction = reconstruction_loss(process, image, noise, grid[-1], levels)
    return Bound(prior_kl(process, x, grid[0]), diffusion, reconstruction)


def _fold_in(keys: Array, i: Array | int) -> Array:
    """keys[j] with i, or with i[j]."""
    i = jnp.broadcast_to(jnp.asarray(i), keys.shape)
    return jax.vmap(jax.random.fold_in)(keys, i)


# ---------------------------------------------------------------- learned variances


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
    return toward(process, x, noise, s, spread), jnp.log(spread)


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


# ---------------------------------------------------------------- the density


class Divergence(Protocol):
    """div f = Σ_p ⟨e_p, J e_p⟩ with the probes e [B, P, ...], exact or in the mean."""

    def probes(self, keys: Array, z: Array) -> Array: ...


@static
class Exact:
    """The trace of the Jacobian: one tangent a dimension."""

    def probes(self, keys: Array, z: Array) -> Array:
        dims = z[0].size
        basis = jnp.eye(dims, dtype=z.dtype).reshape(dims, *z.shape[1:])
        return jnp.broadcast_to(basis, (len(z), *basis.shape))


@static
class Hutchinson:
    """An unbiased estimate from `num` random probes with E[e eᵀ] = 1.

    probe: `jax.random.rademacher` (no variance from the diagonal) or
    `jax.random.normal`. Hutchinson 1990; Grathwohl et al. 2019, arXiv:1810.01367,
    section 3.1; Song et al. 2021, equation 40.
    """

    probe: Callable = jax.random.rademacher
    num: int = 1

    def __post_init__(self):
        if self.num < 1:
            raise BadInput(f"num={self.num}: at least 1 probe is needed")

    def probes(self, keys: Array, z: Array) -> Array:
        shape = (self.num, *z.shape[1:])
        drawn = jax.vmap(lambda key: self.probe(key, shape, z.dtype))(keys)
        return drawn / jnp.sqrt(self.num).astype(z.dtype)


def with_divergence(f: Callable, z: Array, probes: Array) -> tuple[Array, Array]:
    """(f(z), Σ_p ⟨e_p, J e_p⟩ [B]) for rows that do not meet: z [B, ...].

    f is linearised once, and its tangents taken together.
    """
    value, jacobian = jax.linearize(f, z)
    tangents = jax.vmap(jacobian, 1, 1)(probes)
    return value, per_example(probes * tangents)


class Likelihood(NamedTuple):
    """log_prob [B] nats; latent [B, ...] at t_max; network evaluations [B]."""

    log_prob: Array
    latent: Array
    evaluations: Array


def log_density(
    denoise: Callable,
    process: Process,
    x: Array,
    grid: Array,
    keys: Array | None = None,
    divergence: Divergence = Exact(),
    integrator: Integrator = Adaptive(),
) -> Likelihood:
    """log p(x) [B] nats of x [B, ...], by the instantaneous change of variables:

        log p(x) = log N(z_{t_max}; 0, b²) + ∫ div ż dt + D log a(t_min),

    from z_{t_min} = a x up the falling times of the grid [n + 1] to t_max.

    It is the exact density of a sampler: noise, the ODE down to t_min, division by
    a(t_min). Where the path lets the grid reach t_min = 0 that is the whole flow; else
    it is the data blurred by σ = b/a at t_min, without any correction: a correction
    would be the density of no model. Song et al. take z = x and leave D log a out.

    keys [B]: one a row, for `Hutchinson`. With `Adaptive` two times are a grid. Each
    evaluation is one call of `denoise` and as many tangents as there are probes.
    Measured on `sigma_min`'s U-Net: 1.922 bits a dimension by RK4 on 16 intervals even
    in log SNR (64 evaluations), the same as by Adaptive at 1e-5 (640).
    Chen et al. 2018, arXiv:1806.07366, theorem 1; Song et al. 2021, equation 39.
    """
    if keys is None and divergence != Exact():
        raise BadInput(f"{divergence} is random: give it keys [{x.shape[0]}]")
    probes = divergence.probes(keys, x)

    def field(state, t, probes):
        def velocity(z):
            return ode_velocity(process, z, denoise(z, t), t)

        return with_divergence(velocity, state[0], probes)

    grid = jnp.asarray(falling(grid), x.dtype)
    scale, width = process.path.a(grid[-1]), process.path.b(grid[0])
    state = scale * x, jnp.zeros(x.shape[0], x.dtype)
    (z, gained), calls = integrate(integrator, field, state, grid[::-1], probes)
    log_prob = per_example(normal_log_prob(z, 0.0, 2 * jnp.log(width)))
    return Likelihood(log_prob + gained + x[0].size * jnp.log(scale), z, calls)


def image_log_density(
    keys: Array,
    denoise: Callable,
    process: Process,
    image: Array,
    grid: Array,
    levels: int = 256,
    divergence: Divergence = Hutchinson(),
    integrator: Integrator = Adaptive(),
) -> Likelihood:
    """`log_density` of dequantised levels [B, ...], as nats of the *discrete* image.

    In expectation a lower bound on the log-probability of the image: log p(y) +
    D log(bin width), y uniform in the bins (Theis et al. 2016, arXiv:1511.01844,
    equation 5). keys [B]: of the dequantisation and of the probes. A network that was
    trained on levels bends towards them below `sigma_min`, where y is not: its U-Net
    has 1.92 bits from there, 2.14 from t = 0.01 and 2.25 from t = 0.001.
    """

    def one(key, image):
        return dequantize(key, image, levels)

    y = jax.vmap(one)(keys, image)
    keys = _fold_in(keys, 1)
    found = log_density(denoise, process, y, grid, keys, divergence, integrator)
    volume = log_bin_volume(image.shape[1:], levels)
    return found._replace(log_prob=found.log_prob + volume)


# ---------------------------------------------------------------- one number an image


class DiscreteLikelihood(Protocol):
    """(keys, denoise, process, image, levels) -> [B] nats; `kind` says which.

    adaptive: whether its steps are chosen row by row, so that `denoise` must be one
    row's.
    """

    @property
    def kind(self) -> str: ...

    @property
    def adaptive(self) -> bool: ...

    def __call__(
        self,
        keys: Array,
        denoise: Callable,
        process: Process,
        image: Array,
        levels: int,
    ) -> Array: ...


def lower_end(process: Process, levels: int, fraction: float = 0.35) -> float:
    """The time at which σ = `sigma_min`, or the process' own end if that is later."""
    low, _ = usable_times(process)
    with jax.ensure_compile_time_eval():
        one = jnp.ones(())
        t = process.path.when(one, sigma_min(levels, fraction) * one)
        if tabulated(process.path):  # the first step, if σ is below all of them
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
    adaptive: ClassVar[bool] = False

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

    def terms(self, keys, denoise, process, image, levels) -> Bound:
        """The terms of the bound in nats, of an image of levels [B, ...]."""
        grid = self.grid(process, levels)
        limit = continuous if self.steps is None else steps
        draws, mass = None, None
        if self.steps is not None and self.draws < len(grid) - 1:
            # As often as log SNR changes: the error of ε is about as large everywhere.
            change = -jnp.diff(-jnp.log(snr(process.path, grid)))
            finite = jnp.isfinite(change)
            most = jnp.max(jnp.where(finite, change, 0.0))
            mass = jnp.where(finite, change, most)
            draws, mass = self.draws, mass / jnp.sum(mass)
        ask = keys, denoise, process, image, grid, levels, limit, draws
        return bound_terms(*ask, mass=mass)

    def __call__(self, keys, denoise, process, image, levels):
        return -self.terms(keys, denoise, process, image, levels).total


@static
class FlowDensity:
    """`image_log_density`: the density of the probability-flow ODE, dequantised.

    From where σ is `sigma_min` to the noise: in `intervals` that are even in log SNR,
    or to the tolerance of `Adaptive`.
    """

    divergence: Divergence = Hutchinson()
    integrator: Integrator = RK4
    intervals: int = 16
    kind: ClassVar[str] = "PF-ODE, uniform dequantisation"

    @property
    def adaptive(self) -> bool:
        """Whether the integrator is."""
        return isinstance(self.integrator, Adaptive)

    def __call__(self, keys, denoise, process, image, levels):
        span = lower_end(process, levels), usable_times(process)[1]
        intervals = 1 if self.adaptive else self.intervals
        grid = times_of(LogSNR(), process.path, intervals, span)
        values = self.divergence, self.integrator
        ask = keys, denoise, process, image, grid, levels
        return image_log_density(*ask, *values).log_prob
