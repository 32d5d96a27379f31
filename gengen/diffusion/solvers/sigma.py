"""The ODE in σ = b/a, where d(z/a)/dσ = ε̂, with churn: EDM's sampler.

(The Euler step of this ODE is DDIM.)
"""

import math

import jax.numpy as jnp

from gengen.diffusion.paths import is_discrete
from gengen.diffusion.process import recover
from gengen.diffusion.solvers.solver import Solver, Traits
from gengen.errors import BadInput
from gengen.types import static


@static
class EDMSampler(Solver):
    """EDM's sampler in y = z/a and σ = b/a: Heun's step of dy/dσ = ε̂, after churn.

        γ = min(churn/N, √2 - 1) if σ_t in [low, high] else 0,  σ̂ = (1 + γ) σ_t
        ŷ = y + √(σ̂² - σ_t²) noise w,  then Heun's step from σ̂ to σ_s

    N is the number of steps of the grid. σ̂ may lie above the path's largest σ: the
    network is then asked at a time above 1 (`Path.extended_time`). On a table of steps
    σ̂ is that of the nearest step, as in the authors' program. Without churn the order
    is 2; the step is Euler's where σ is infinite or ends at 0. Raises BadInput for a
    churn that is negative. Karras et al. 2022, arXiv:2206.00364, algorithm 2.
    """

    churn: float = 0.0
    """S_churn, at least 0: the amount of noise added over all steps."""
    low: float = 0.0
    """S_tmin: below this σ no noise is added."""
    high: float = math.inf
    """S_tmax: above this σ no noise is added."""
    noise: float = 1.0
    """S_noise: multiplies the standard deviation of the noise added."""

    def __post_init__(self):
        if not 0 <= self.churn < math.inf:
            raise BadInput(f"churn={self.churn}: S_churn must be finite, 0 or above")

    @property
    def traits(self) -> Traits:
        """Deterministic if churn = 0."""
        return Traits(deterministic=self.churn == 0)

    def nfe(self, steps):
        return 2 * steps

    def init(self, z, steps):
        """γ, the same for every step; () without churn."""
        gamma = min(self.churn / steps, math.sqrt(2.0) - 1.0)
        return jnp.asarray(gamma, z.dtype) if self.churn else ()

    def step(self, noise, predict, process, z, solver_state, t, s):
        path = process.path
        a_t, a_s, b_s = path.a(t), path.a(s), path.b(s)
        sigma, sigma_s = path.b(t) / a_t, b_s / a_s
        if self.churn:
            on = (self.low <= sigma) & (sigma <= self.high) & jnp.isfinite(sigma)
            raised = jnp.where(on, (1.0 + solver_state) * sigma, sigma)
            later = path.extended_time(jnp.ones_like(raised), raised)
            t = jnp.where(on, jnp.maximum(later, t), t)
            if is_discrete(path):
                raised = path.b(t) / path.a(t)
            extra = jnp.sqrt(jnp.maximum(raised**2 - sigma**2, 0.0))
            extra = jnp.where(on, extra, 0.0) * self.noise
            y = z / jnp.where(on, a_t, 1.0) + extra * noise
            z, sigma = jnp.where(on, path.a(t) * y, z), raised
        x, eps = recover(process, z, predict(z, t), t)
        if self.churn:  # σ̂ itself keeps digits that its time has lost
            eps = jnp.where(on, (y - x) / jnp.where(on, sigma, 1.0), eps)
        euler = a_s * x + b_s * eps
        _, eps_s = recover(process, euler, predict(euler, s), s)
        known = jnp.isfinite(sigma) & jnp.isfinite(sigma_s)
        known &= (sigma > 0) & (sigma_s > 0)
        half = jnp.where(known, a_s * (sigma_s - sigma) / 2.0, 0.0)
        return euler + half * jnp.where(known, eps_s - eps, 0.0), solver_state
