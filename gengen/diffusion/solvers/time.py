"""The ODE in t, ż = a′x̂ + b′ε̂: Euler, Heun and Adams-Bashforth."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from gengen.diffusion.process import ode_velocity
from gengen.diffusion.solvers.solver import Solver, Traits
from gengen.errors import BadInput
from gengen.types import Array, static


@static
class Euler(Solver):
    """z_s = z + (s - t) ż: order 1. With velocity prediction, x ← x - v/T."""

    def step(self, noise, predict, process, z, solver_state, t, s):
        return z + (s - t) * ode_velocity(process, z, predict(z, t), t), solver_state


@static
class Heun(Solver):
    """Euler to s, then the mean of both slopes: order 2, two evaluations per step.

    Karras et al. 2022, arXiv:2206.00364, algorithm 1.
    """

    def nfe(self, steps):
        return 2 * steps

    def step(self, noise, predict, process, z, solver_state, t, s):
        slope = ode_velocity(process, z, predict(z, t), t)
        euler = z + (s - t) * slope
        slope_s = ode_velocity(process, euler, predict(euler, s), s)
        return z + (s - t) * (slope + slope_s) / 2, solver_state


class Slopes(NamedTuple):
    """The slopes that `AdamsBashforth` remembers, newest first."""

    slopes: Array
    """[order - 1, *z.shape]."""
    times: Array
    """The times of the slopes [order - 1]."""
    count: Array
    """How many of them are known, a scalar."""


@static
class AdamsBashforth(Solver):
    """z_s = z + ∫ₜˢ (the polynomial through the last `order` slopes): order 2 or 3.

    The solver takes one evaluation per step, and one more in the first step, which is
    Heun's: its error is small enough for order 3, as is the second step's, which has
    order 2. The weights hold for any spacing of times. Bashforth and Adams 1883; for
    diffusion Liu et al. 2022, arXiv:2202.09778 (PNDM), Zhang and Chen 2023,
    arXiv:2204.13902 (DEIS, tAB). Raises BadInput for another order.
    """

    order: int = 2
    """The order of the error, 2 or 3; order - 1 slopes are remembered."""
    traits = Traits(has_memory=True)

    def __post_init__(self):
        if self.order not in (2, 3):
            raise BadInput(f"order={self.order}: Adams-Bashforth has 2 or 3 here")

    def nfe(self, steps):
        return steps + 1

    def init(self, z, steps):
        past = self.order - 1
        zeros = jnp.zeros((past, *z.shape), z.dtype)
        return Slopes(zeros, jnp.zeros(past), jnp.int32(0))

    def step(self, noise, predict, process, z, solver_state, t, s):
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
        kept = times[:-1].astype(solver_state.times.dtype)
        return z, Slopes(slopes[:-1], kept, count)


def adams_bashforth_weights(times: Array, s: Array) -> Array:
    """w [m] with Σ w_j p(times_j) = ∫ p from times_0 to s, p of degree below m.

    >>> import numpy as np
    >>> w = adams_bashforth_weights(np.array([0.0, -1.0]), 1.0)
    >>> [round(float(x), 3) for x in w]
    [1.5, -0.5]

    Args:
        times: the times of the slopes, newest first [m].
        s: the end of the step, a scalar.
    """
    chex.assert_rank([times, s], [1, 0])
    step = s - times[0]
    k = jnp.arange(len(times))
    powers = ((times - times[0]) / step) ** k[:, None]
    return step * jnp.linalg.solve(powers, 1.0 / (k + 1.0))
