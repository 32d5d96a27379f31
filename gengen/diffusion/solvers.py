"""From noise to data: one step from time t to time s < t.

A solver is a `static` dataclass with `init(z) -> memory` and
`step(keys, predict, process, z, memory, t, s) -> (z, memory)`. It is given the pair of
times t > s (scalars), never an index into a table, and the function
`predict(z, t) -> r̂`, which it calls `evaluations` times; `keys` [B] are for noise, and
`memory` is what it keeps of earlier steps.

    ODE in t, ż = a′x̂ + b′ε̂                Euler, Heun, AdamsBashforth
    ODE in σ = b/a, d(z/a)/dσ = ε̂          DDIM is its Euler, EDMSampler its Heun
    ODE in λ = log(a/b), by x̂              DPMSolver
    a draw from N(mean of q(z_s | z_t, x̂))  DDIM(eta), Ancestral
    SDE                                    EulerMaruyama, DPMSolver(eta), EDMSampler
    steps along the score                  PredictorCorrector, annealed_langevin

On a deterministic solver s > t is as good: noise for data (`solve` on a rising grid).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from gengen.diffusion.paths import Path, derivatives
from gengen.diffusion.posterior import ddim_mean, step_logvar, transition
from gengen.diffusion.process import Process, ode_velocity, recover
from gengen.errors import BadInput
from gengen.scan import fold_in, normal
from gengen.types import Array, Tree, static


class Solver(Protocol):
    """`evaluations` is the number of network calls a step, `at_first` how many more the
    first step takes.

    divides_by_a: whether a step divides by a(t), and so cannot begin where it is 0.
    deterministic: no noise is drawn, so that the way can be gone back. wants_variance:
    `predict` is to say the learned variances, too.
    """

    @property
    def evaluations(self) -> int: ...

    @property
    def at_first(self) -> int: ...

    @property
    def divides_by_a(self) -> bool: ...

    @property
    def deterministic(self) -> bool: ...

    @property
    def wants_variance(self) -> bool: ...

    def init(self, z: Array) -> Tree: ...

    def step(
        self,
        keys: Array,
        predict: Callable,
        process: Process,
        z: Array,
        solver_state: Tree,
        t: Array,
        s: Array,
    ) -> tuple[Array, Tree]: ...


class Memoryless:
    """What most solvers have: one evaluation a step, and no memory."""

    evaluations = 1
    at_first = 0
    divides_by_a = False
    deterministic = True
    wants_variance = False

    def init(self, z: Array) -> tuple:
        return ()


# ---------------------------------------------------------------- the ODE in t


@static
class Euler(Memoryless):
    """z_s = z + (s - t) ż: order 1. With velocity prediction, x ← x - v/T."""

    def step(self, keys, predict, process, z, solver_state, t, s):
        return z + (s - t) * ode_velocity(process, z, predict(z, t), t), solver_state


@static
class Heun(Memoryless):
    """Euler to s, then the mean of both slopes: order 2, two evaluations a step.

    Karras et al. 2022, arXiv:2206.00364, algorithm 1.
    """

    evaluations = 2

    def step(self, keys, predict, process, z, solver_state, t, s):
        slope = ode_velocity(process, z, predict(z, t), t)
        euler = z + (s - t) * slope
        slope_s = ode_velocity(process, euler, predict(euler, s), s)
        return z + (s - t) * (slope + slope_s) / 2, solver_state


class Slopes(NamedTuple):
    """The last slopes [order - 1, *z], their times, newest first, and how many."""

    slopes: Array
    times: Array
    count: Array


@static
class AdamsBashforth(Memoryless):
    """z_s = z + ∫ₜˢ (the polynomial through the last `order` slopes): order 2 or 3.

    One evaluation a step, and one more in the first, which is Heun's: its error is
    small enough for order 3, as is the second step's, of order 2. The weights are
    those of any spacing of times. Bashforth and Adams 1883; for diffusion Liu et al.
    2022, arXiv:2202.09778 (PNDM), Zhang and Chen 2023, arXiv:2204.13902 (DEIS, tAB).
    """

    order: int = 2
    at_first = 1

    def __post_init__(self):
        if self.order not in (2, 3):
            raise BadInput(f"order={self.order}: Adams-Bashforth has 2 or 3 here")

    def init(self, z):
        past = self.order - 1
        zeros = jnp.zeros((past, *z.shape), z.dtype)
        return Slopes(zeros, jnp.zeros(past), jnp.int32(0))

    def step(self, keys, predict, process, z, solver_state, t, s):
        slope = ode_velocity(process, z, predict(z, t), t)

        def heun():
            euler = z + (s - t) * slope
            end = ode_velocity(process, euler, predict(euler, s), s)
            return (s - t) * (slope + end) / 2

        def adams(order):
            def increment():
                w = adams_bashforth_weights(times[:order], s).astype(z.dtype)
                return jnp.tensordot(w, slopes[:order], 1)

            return increment

        slopes = jnp.concatenate([slope[None], solver_state.slopes])
        times = jnp.append(t, solver_state.times)
        by_count = [heun, *(adams(n + 1) for n in range(1, self.order))]
        z = z + jax.lax.switch(solver_state.count, by_count)
        count = jnp.minimum(solver_state.count + 1, self.order - 1)
        return z, Slopes(
            slopes[:-1], times[:-1].astype(solver_state.times.dtype), count
        )


def adams_bashforth_weights(times: Array, s: Array) -> Array:
    """w [m] with Σ w_j p(times_j) = ∫ p from times_0 to s, p of degree below m."""
    step = s - times[0]
    k = jnp.arange(len(times))
    powers = ((times - times[0]) / step) ** k[:, None]
    return step * jnp.linalg.solve(powers, 1.0 / (k + 1.0))


# ---------------------------------------------------------------- q(z_s | z_t, x)


@static
class DDIM(Memoryless):
    """z_s = a_s x̂ + √(b_s² - τ²) ε̂ + τ w, with w ~ N(0, 1) and

        τ² = η² (b_s/b_t)² (b_t² - (a_t/a_s)² b_s²).

    eta = 0 is DDIM, deterministic, and on the linear path equal to the flow-matching
    Euler step; eta = 1 is DDPM's ancestral step, the exact posterior q(z_s | z_t, x̂).
    Song, Meng and Ermon 2021, arXiv:2010.02502, equations 12 and 16.
    """

    eta: float = 0.0

    def __post_init__(self):
        if not 0 <= self.eta <= 1:
            raise BadInput(f"eta={self.eta} must be in [0, 1]: 0 is DDIM, 1 is DDPM")

    @property
    def deterministic(self) -> bool:
        """Where eta is 0."""
        return self.eta == 0

    def step(self, keys, predict, process, z, solver_state, t, s):
        x, noise = recover(process, z, predict(z, t), t)
        if self.eta == 0:
            return ddim_mean(process, x, noise, s, jnp.zeros_like(t)), solver_state
        tau2 = self.eta**2 * transition(process.path, t, s)[1]
        fresh = normal(keys, z.shape[1:])
        return ddim_mean(process, x, noise, s, tau2) + jnp.sqrt(
            tau2
        ) * fresh, solver_state


def DDPM() -> DDIM:
    """Ancestral sampling: DDIM with eta = 1. Ho et al. 2020, algorithm 2."""
    return DDIM(eta=1.0)


def fixed_large(path: Path, t: Array, s: Array, extra: Array) -> Array:
    """log β²: the upper bound, right if the data were N(0, 1). Ho et al., sec. 3.2."""
    return step_logvar(path, 1.0, t, s)


def learned_range(path: Path, t: Array, s: Array, extra: Array) -> Array:
    """`step_logvar` with v = (extra + 1)/2, cut to [0, 1], of what the network says."""
    return step_logvar(path, jnp.clip((extra + 1.0) / 2.0, 0.0, 1.0), t, s)


@static
class Ancestral(Memoryless):
    """A draw of N(mean of q(z_s | z_t, x̂), σ²) where σ² is not the posterior's own.

    log_variance: `fixed_large`, or `learned_range`, which reads v from the channels
    that the network has beyond x. (The posterior's own variance, DDPM's "fixed
    small", is `DDPM()`.) No noise is drawn where b_s = 0.
    """

    log_variance: Callable = fixed_large
    deterministic = False

    @property
    def wants_variance(self) -> bool:
        """Where it is learned."""
        return self.log_variance is learned_range

    def step(self, keys, predict, process, z, solver_state, t, s):
        r = predict(z, t)
        r, extra = r[..., : z.shape[-1]], r[..., z.shape[-1] :]
        if self.log_variance is learned_range and extra.shape != r.shape:
            raise BadInput(
                "this network learned no variances: train one with learned_variance, "
                "or take DDPM()"
            )
        _, posterior = transition(process.path, t, s)
        mean = ddim_mean(process, *recover(process, z, r, t), s, posterior)
        std = jnp.exp(0.5 * self.log_variance(process.path, t, s, extra))
        std = jnp.where(process.path.b(s) == 0, 0.0, std)
        return mean + std * normal(keys, z.shape[1:]), solver_state


# ---------------------------------------------------------------- the ODE and SDE in λ


class Previous(NamedTuple):
    """x̂ of the step before, and λ = log(a/b) there; -∞ before the first."""

    x: Array
    log_ratio: Array


@static
class DPMSolver(Memoryless):
    """DPM-Solver++(2M): exact in z, the line through the last two x̂ in λ = log(a/b).

        z_s = (b_s/b_t) kᵉᵗᵃ z + a_s (1 - k^(1 + eta)) D + b_s √(1 - k^(2 eta)) w
            = a_s x̂ + b_s kᵉᵗᵃ ε̂ + a_s (1 - k^(1 + eta)) (D - x̂) + …,
        D = x̂ + (h/2h_prev) (x̂ - x̂_prev),  h = λ_s - λ_t,  k = e⁻ʰ

    Order 2 with one evaluation a step, and to first order where λ is infinite: DDIM
    (eta = 0), DDPM (eta = 1, the SDE). Lu et al. 2022, arXiv:2211.01095, algorithm 2
    and appendix B; eta in between: as DDIM's, a share of the SDE's noise.
    """

    eta: float = 0.0

    def __post_init__(self):
        if not 0 <= self.eta <= 1:
            raise BadInput(f"eta={self.eta} must be in [0, 1]: 0 is the ODE, 1 the SDE")

    @property
    def deterministic(self) -> bool:
        """Where eta is 0."""
        return self.eta == 0

    def init(self, z):
        return Previous(jnp.zeros_like(z), jnp.full((), -jnp.inf, z.dtype))

    def step(self, keys, predict, process, z, solver_state, t, s):
        path = process.path
        a_t, b_t, a_s, b_s = path.a(t), path.b(t), path.a(s), path.b(s)
        x, noise = recover(process, z, predict(z, t), t)
        here = jnp.log(a_t) - jnp.log(b_t)
        h, before = jnp.log(a_s) - jnp.log(b_s) - here, here - solver_state.log_ratio
        known = jnp.isfinite(h) & jnp.isfinite(before)
        k = b_s * a_t / (b_t * a_s)
        line = (1.0 - k ** (1.0 + self.eta)) * h / jnp.where(known, 2.0 * before, 1.0)
        line = jnp.where(known, line, 0.0) * (x - solver_state.x)
        z = a_s * (x + line) + b_s * k**self.eta * noise
        if self.eta > 0:
            # expm1 keeps the digits of a short step.
            share = -jnp.expm1(2.0 * self.eta * jnp.log(k))
            z = z + b_s * jnp.sqrt(share) * normal(keys, z.shape[1:])
        return z, Previous(x, here.astype(solver_state.log_ratio.dtype))


# ---------------------------------------------------------------- the ODE in σ, churned


@static
class EDMSampler(Memoryless):
    """EDM's sampler in y = z/a and σ = b/a, where dy/dσ = ε̂: Heun's step after churn.

        σ̂ = (1 + churn) σ_t,  ŷ = y + √(σ̂² - σ_t²) noise w,  then Heun from σ̂ to σ_s

    for σ_t in [low, high]. churn is the paper's S_churn over the number of steps, at
    most √2 - 1. Order 2 where churn = 0; Euler's step where σ is infinite or ends at 0.
    Karras et al. 2022, arXiv:2206.00364, algorithm 2.
    """

    churn: float = 0.0
    low: float = 0.0
    high: float = math.inf
    noise: float = 1.0
    evaluations = 2

    def __post_init__(self):
        if not 0 <= self.churn <= math.sqrt(2) - 1:
            raise BadInput(f"churn={self.churn}: it must be in [0, 0.414], √2 - 1")

    @property
    def deterministic(self) -> bool:
        """Where churn is 0."""
        return self.churn == 0

    def step(self, keys, predict, process, z, solver_state, t, s):
        path = process.path
        a_t, a_s, b_s = path.a(t), path.a(s), path.b(s)
        sigma, sigma_s = path.b(t) / a_t, b_s / a_s
        if self.churn:
            on = (self.low <= sigma) & (sigma <= self.high) & jnp.isfinite(sigma)
            raised = jnp.where(on, (1.0 + self.churn) * sigma, sigma)
            hat = jnp.where(on, path.time_of_ratio(jnp.ones_like(t), raised), t)
            hat = jnp.clip(hat, t, 1.0)  # the path ends there
            raised = path.b(hat) / path.a(hat)
            extra = jnp.sqrt(jnp.maximum(raised**2 - sigma**2, 0.0))
            extra = jnp.where(on, extra, 0.0) * self.noise
            z = z + a_t * extra * normal(keys, z.shape[1:])
            z = z * jnp.where(on, path.a(hat) / a_t, 1.0)
            t, sigma = hat, raised
        x, noise = recover(process, z, predict(z, t), t)
        euler = a_s * x + b_s * noise
        _, noise_s = recover(process, euler, predict(euler, s), s)
        known = jnp.isfinite(sigma) & jnp.isfinite(sigma_s)
        known &= (sigma > 0) & (sigma_s > 0)
        half = jnp.where(known, a_s * (sigma_s - sigma) / 2.0, 0.0)
        return euler + half * jnp.where(known, noise_s - noise, 0.0), solver_state


# ---------------------------------------------------------------- the SDE and the score


@static
class EulerMaruyama(Memoryless):
    """z_s = z + (s - t) (f z - g² ∇ log p) + g √(t - s) w: weak order 1.

    The reverse of dz = f z dt + g dw, which has the path's marginals where f = a′/a and
    g² = 2 b (b′ - f b).
    Song et al. 2021, arXiv:2011.13456, equations 5 and 6.
    """

    divides_by_a = True
    deterministic = False

    def step(self, keys, predict, process, z, solver_state, t, s):
        a, b, da, db = derivatives(process.path, t)
        f = da / a
        g2 = 2.0 * b * (db - f * b)
        score = -recover(process, z, predict(z, t), t)[1] / b
        fresh = normal(keys, z.shape[1:])
        drift = f * z - g2 * score
        return z + (s - t) * drift + jnp.sqrt(g2 * (t - s)) * fresh, solver_state


@static
class NoPredictor(Memoryless):
    """z_s = (a_s/a_t) z: nothing but the change of level, for `annealed_langevin`."""

    evaluations = 0
    divides_by_a = True

    def step(self, keys, predict, process, z, solver_state, t, s):
        return process.path.a(s) / process.path.a(t) * z, solver_state


@static
class PredictorCorrector:
    """A predictor's step from t to s, then `corrections` Langevin steps at s:

        z ← z + (δ/2) ∇ log p_s(z) + √δ w,  δ = rate² b_s²

    Song et al. 2021, algorithms 2 and 4, whose δ is chosen by norms of a batch so that
    signal and noise stand in the ratio `snr`; here δ = (2 snr)² b_s² is that choice for
    a score of norm √D/b, and a sample does not depend on its batch.
    """

    predictor: Any
    corrections: int = 1
    snr: float = 0.16
    deterministic = False

    def __post_init__(self):
        if self.corrections < 1 or not self.snr > 0:
            raise BadInput(
                f"corrections={self.corrections} and snr={self.snr}: at least one, and "
                "above 0"
            )

    @property
    def evaluations(self) -> int:
        """The predictor's, and one a correction."""
        return self.predictor.evaluations + self.corrections

    @property
    def at_first(self) -> int:
        """The predictor's."""
        return self.predictor.at_first

    @property
    def divides_by_a(self) -> bool:
        """The predictor's."""
        return self.predictor.divides_by_a

    @property
    def wants_variance(self) -> bool:
        """The predictor's."""
        return self.predictor.wants_variance

    def init(self, z):
        return self.predictor.init(z)

    def step(self, keys, predict, process, z, solver_state, t, s):
        z, solver_state = self.predictor.step(
            keys, predict, process, z, solver_state, t, s
        )
        rate, b = 2.0 * self.snr, process.path.b(s)
        for i in range(self.corrections):
            r = predict(z, s)[..., : z.shape[-1]]
            noise = recover(process, z, r, s)[1]
            fresh = normal(fold_in(keys, i + 1), z.shape[1:])
            z = z - 0.5 * rate**2 * b * noise + rate * b * fresh
        return z, solver_state


def annealed_langevin(corrections: int = 5, snr: float = 0.16) -> PredictorCorrector:
    """Langevin steps at every level of noise, from much to little.

    Song and Ermon 2019, arXiv:1907.05600, algorithm 1.
    """
    return PredictorCorrector(NoPredictor(), corrections, snr)
