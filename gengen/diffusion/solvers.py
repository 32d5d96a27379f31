"""From noise to data: one step from time t to time s < t.

A solver is a `static` dataclass with `init(z) -> state` and
`step(keys, denoise, process, state, t, s) -> state`, whose state is z here. It is given
the pair of times t > s (scalars), never an index into a table, and the function
`denoise(z, t) -> r̂`, which it calls `evaluations` times; `keys` [B] are for noise.
"""

from collections.abc import Callable
from typing import Protocol

import jax.numpy as jnp

from gengen.diffusion.process import Process, ode_velocity, recover
from gengen.scan import normal, sample_scan
from gengen.types import Array, BadInput, Tree, static


class Solver(Protocol):
    """`evaluations` is the number of network calls a step."""

    evaluations: int

    def init(self, z: Array) -> Tree: ...

    def step(
        self,
        keys: Array,
        denoise: Callable,
        process: Process,
        state: Tree,
        t: Array,
        s: Array,
    ) -> Tree: ...


@static
class Euler:
    """z_s = z + (s - t) ż: order 1. With velocity prediction, x ← x - v/T."""

    evaluations = 1

    def init(self, z: Array) -> Array:
        return z

    def step(self, keys, denoise, process, z, t, s):
        return z + (s - t) * ode_velocity(process, z, denoise(z, t), t)


@static
class Heun:
    """Euler to s, then the mean of both slopes: order 2, two evaluations a step.

    Karras et al. 2022, arXiv:2206.00364, algorithm 1.
    """

    evaluations = 2

    def init(self, z: Array) -> Array:
        return z

    def step(self, keys, denoise, process, z, t, s):
        slope = ode_velocity(process, z, denoise(z, t), t)
        euler = z + (s - t) * slope
        slope_s = ode_velocity(process, euler, denoise(euler, s), s)
        return z + (s - t) * (slope + slope_s) / 2


@static
class DDIM:
    """z_s = a_s x̂ + √(b_s² - τ²) ε̂ + τ w, with w ~ N(0, 1) and

        τ² = η² (b_s/b_t)² (b_t² - (a_t/a_s)² b_s²).

    eta = 0 is DDIM, deterministic, and on the linear path equal to the flow-matching
    Euler step; eta = 1 is DDPM's ancestral step, the exact posterior q(z_s | z_t, x̂).
    Song, Meng and Ermon 2021, arXiv:2010.02502, equations 12 and 16.
    """

    eta: float = 0.0
    evaluations = 1

    def __post_init__(self):
        if not 0 <= self.eta <= 1:
            raise BadInput(f"eta={self.eta} must be in [0, 1]: 0 is DDIM, 1 is DDPM")

    def init(self, z: Array) -> Array:
        return z

    def step(self, keys, denoise, process, z, t, s):
        x, noise = recover(process, z, denoise(z, t), t)
        a_t, b_t = process.path.a(t), process.path.b(t)
        a_s, b_s = process.path.a(s), process.path.b(s)
        if self.eta == 0:
            return a_s * x + b_s * noise
        # Rounding alone can make the difference of squares negative.
        posterior = jnp.maximum(b_t**2 - (a_t / a_s) ** 2 * b_s**2, 0.0)
        tau = self.eta * b_s / b_t * jnp.sqrt(posterior)
        along = jnp.sqrt(jnp.maximum(b_s**2 - tau**2, 0.0))
        fresh = normal(keys, z.shape[1:])
        return a_s * x + along * noise + tau * fresh


def DDPM() -> DDIM:
    """Ancestral sampling: DDIM with eta = 1. Ho et al. 2020, algorithm 2."""
    return DDIM(eta=1.0)


def solve(
    solver: Solver,
    keys: Array,
    denoise: Callable,
    process: Process,
    z: Array,
    grid: Array,
) -> Array:
    """Carry z along the falling times of the grid [n + 1]: n steps under one scan."""

    def step(keys, state, t_s):
        return solver.step(keys, denoise, process, state, *t_s), None

    state, _ = sample_scan(step, keys, solver.init(z), (grid[:-1], grid[1:]))
    return state
