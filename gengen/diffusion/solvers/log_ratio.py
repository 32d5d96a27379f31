"""The ODE and SDE in λ = log(a/b), exact in z: DPM-Solver++."""

from typing import NamedTuple

import jax.numpy as jnp

from gengen.diffusion.process import recover
from gengen.diffusion.solvers.solver import Solver, Traits
from gengen.errors import BadInput
from gengen.types import Array, static


class Previous(NamedTuple):
    """What `DPMSolver` remembers of the step before."""

    x: Array
    """x̂ [B, ...]."""
    log_ratio: Array
    """λ = log(a/b) there, a scalar; -∞ before the first step."""


@static
class DPMSolver(Solver):
    """DPM-Solver++(2M): exact in z, the line through the last two x̂ in λ = log(a/b).

        z_s = (b_s/b_t) kᵉᵗᵃ z + a_s (1 - k^(1 + eta)) D + b_s √(1 - k^(2 eta)) w
            = a_s x̂ + b_s kᵉᵗᵃ ε̂ + a_s (1 - k^(1 + eta)) (D - x̂) + …,
        D = x̂ + (h/2h_prev) (x̂ - x̂_prev),  h = λ_s - λ_t,  k = e⁻ʰ

    The order is 2 with one evaluation per step. Where λ is infinite, the step is DDIM's
    (eta = 0) or DDPM's (eta = 1, the SDE). Lu et al. 2022, arXiv:2211.01095, algorithm
    2 and appendix B. An eta in between is, as DDIM's, a share of the SDE's noise.
    """

    eta: float = 0.0
    """The share of the SDE's noise, in [0, 1]: 0 is the ODE."""

    def __post_init__(self):
        if not 0 <= self.eta <= 1:
            raise BadInput(f"eta={self.eta} must be in [0, 1]: 0 is the ODE, 1 the SDE")

    @property
    def traits(self) -> Traits:
        """Deterministic if eta = 0."""
        return Traits(deterministic=self.eta == 0, has_memory=True)

    def init(self, z, steps):
        return Previous(jnp.zeros_like(z), jnp.full((), -jnp.inf, z.dtype))

    def step(self, noise, predict, process, z, solver_state, t, s):
        path = process.path
        a_t, b_t, a_s, b_s = path.a(t), path.b(t), path.a(s), path.b(s)
        x, eps = recover(process, z, predict(z, t), t)
        here = jnp.log(a_t) - jnp.log(b_t)
        h, before = jnp.log(a_s) - jnp.log(b_s) - here, here - solver_state.log_ratio
        known = jnp.isfinite(h) & jnp.isfinite(before)
        k = b_s * a_t / (b_t * a_s)
        line = (1.0 - k ** (1.0 + self.eta)) * h / jnp.where(known, 2.0 * before, 1.0)
        line = jnp.where(known, line, 0.0) * (x - solver_state.x)
        z = a_s * (x + line) + b_s * k**self.eta * eps
        if self.eta > 0:
            # expm1 keeps the digits of a short step.
            share = -jnp.expm1(2.0 * self.eta * jnp.log(k))
            z = z + b_s * jnp.sqrt(share) * noise
        return z, Previous(x, here.astype(solver_state.log_ratio.dtype))
