"""All steps of a sampler at once: Picard's iteration, parallel in time."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from gengen.diffusion.noise import check_noise
from gengen.diffusion.process import Process
from gengen.diffusion.solve import bound, check_start
from gengen.diffusion.solvers import Solver
from gengen.errors import BadInput
from gengen.scan import fold_in
from gengen.types import Array, Tree


class Parallel(NamedTuple):
    """What `solve_parallel` found."""

    z: Array
    """The samples at the grid's last time [B, ...]."""
    sweeps: Array
    """The number of sweeps of parallel evaluations, a scalar."""


def solve_parallel(
    solver: Solver,
    keys: Array | None,
    predict: Callable,
    process: Process,
    z: Array,
    grid: Array,
    window: int | None = None,
    tolerance: float = 1e-3,
    c: Tree | None = None,
) -> Parallel:
    """`solve` by Picard's iteration: `window` steps at once, swept until they agree.

        z_{i+1} ← z_{i₀} + Σ_{j=i₀…i} (step_j(z_j) - z_j)

    Its fixed point is the sequential sample (with the same noise of every step), and
    after a sweep one step more is exact, so there are at most n sweeps. The window
    moves past the steps whose mean square changed by less than tolerance² b². Raises
    BadInput for a solver with memory or of adaptive steps. Shih et al. 2023,
    arXiv:2305.16317 (ParaDiGMS), algorithm 1.

    >>> from gengen.diffusion.grids import uniform_grid
    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> from gengen.diffusion.solvers import Euler
    >>> ask = Process(Linear(), Velocity()), jnp.ones((1, 1)), uniform_grid(16)
    >>> found = solve_parallel(Euler(), None, lambda z, t: z, *ask)
    >>> round(float(found.z[0, 0]), 2), int(found.sweeps)
    (0.36, 7)

    Args:
        solver: the solver of each step, without memory.
        keys: one key per row [B], for a stochastic solver.
        predict: the network, as in `solve`.
        process: the path, and what the network predicts.
        z: the samples at the grid's first time [B, ...], floats.
        grid: n + 1 times falling within [0, 1].
        window: the number of steps taken at once; None takes all.
        tolerance: the change at which a step is settled, in units of b.
        c: what the samples are conditioned on, a tree of rows [B, ...].
    """
    grid = check_start(solver, process, grid)
    chex.assert_type(z, float)
    n, traits = len(grid) - 1, solver.traits
    width = n if window is None else min(window, n)
    if width < 1 or traits.has_memory or traits.adaptive:
        raise BadInput(
            f"window={window}, {solver}: Picard's iteration needs a window of at least "
            "1 step and fixed steps by a solver without memory (Euler, Heun, DDIM)"
        )
    check_noise(solver, keys, None, z, n)
    network = bound(predict, c)
    solver_state = solver.init(z, n)
    # Beyond the grid's end, steps of no length.
    times = jnp.pad(grid, (0, width), mode="edge")
    scale = process.path.b(times[:-1]) ** 2

    def step(i, z):
        noise = solver.draw(None if keys is None else fold_in(keys, i), z)
        t, s = times[i], times[i + 1]
        new, _ = solver.step(noise, network, process, z, solver_state, t, s)
        return jnp.where(i < n, new - z, 0.0)

    def sweep(carry):
        states, first, sweeps = carry  # states [n + width + 1, B, ...]
        here = first + jnp.arange(width)
        old = jax.lax.dynamic_slice_in_dim(states, first + 1, width)
        start = jax.lax.dynamic_slice_in_dim(states, first, width)
        change = jax.vmap(step)(here, start)
        new = start[0] + jnp.cumsum(change, axis=0)
        moved = jnp.mean((new - old) ** 2, axis=tuple(range(2, old.ndim))).max(axis=1)
        settled = moved <= tolerance**2 * scale[here]
        # The first step of a window starts from a settled state, so it is exact.
        stride = jnp.maximum(jnp.argmin(jnp.append(settled, False)), 1)
        ahead = jnp.arange(n + width + 1).reshape(-1, *[1] * z.ndim) > first + width
        states = jax.lax.dynamic_update_slice_in_dim(states, new, first + 1, 0)
        states = jnp.where(ahead, new[-1], states)  # the best guess beyond the window
        return states, first + stride.astype(first.dtype), sweeps + 1

    states = jnp.broadcast_to(z, (n + width + 1, *z.shape))
    carry = states, jnp.int32(0), jnp.int32(0)
    states, _, sweeps = jax.lax.while_loop(lambda c: c[1] < n, sweep, carry)
    return Parallel(states[n], sweeps)
