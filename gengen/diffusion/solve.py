"""From noise to data and back: all steps under one scan, or swept in parallel."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gengen.diffusion.process import Process
from gengen.diffusion.solvers import Solver
from gengen.diffusion.times import check_grid
from gengen.errors import BadInput
from gengen.scan import fold_in, sample_scan
from gengen.types import Array, Tree


def solve(
    solver: Solver,
    keys: Array,
    predict: Callable,
    process: Process,
    z: Array,
    grid: Array,
    c: Tree | None = None,
) -> Array:
    """Carry z along the falling times of the grid [n + 1]: n steps under one scan.

    c: a tree of rows [B, ...], the network's third argument if it is given. Under an
    adaptive solver each row goes by itself.

    Raises BadInput for a grid that does not fall within [0, 1], or begins where the
    solver cannot.
    """
    grid = check_start(solver, process, grid)
    return _carried(solver, keys, predict, process, z, grid, c)


def apply(function: Callable, *rows) -> Tree:
    """`function(*rows)`, all rows at once."""
    return function(*rows)


def by_row(function: Callable, *rows) -> Tree:
    """`function(*rows)`, each row a batch of one, under vmap."""

    def alone(*row):
        batch = jax.tree.map(lambda x: x[None], row)
        return jax.tree.map(lambda x: x[0], function(*batch))

    return jax.vmap(alone)(*rows)


def _carried(solver, keys, predict, process, z, grid, c):
    """z at the end of the grid, the condition bound: the one place where it is."""

    def carry(keys, z, c):
        bound = predict if c is None else lambda z, t: predict(z, t, c)
        return _solve(solver, keys, bound, process, z, grid)[0]

    return (by_row if solver.evaluations is None else apply)(carry, keys, z, c)


def trajectory(
    solver: Solver,
    keys: Array,
    predict: Callable,
    process: Process,
    z: Array,
    grid: Array,
) -> Array:
    """The states that `solve` passes through, one a time of the grid: [n + 1, B, ...].

    The first is z, the last what `solve` returns.
    """
    grid = check_start(solver, process, grid)
    _, states = _solve(solver, keys, predict, process, z, grid, lambda z: z)
    return jnp.concatenate([z[None], states])


def check_start(solver: Solver, process: Process, grid: Array) -> Array:
    """The grid, if it falls and begins where solver and prediction can."""
    grid = check_grid(grid)
    if isinstance(grid, jax.core.Tracer):
        return grid
    earlier = "begin the grid earlier, at 0.999 say"
    with jax.ensure_compile_time_eval():
        if process.matrix(grid[0]).det == 0:
            raise BadInput(
                f"at t={grid[0]:g} what the network predicts says nothing of the data "
                f"(the determinant is 0): {earlier}"
            )
        if solver.divides_by_a and process.path.a(grid[0]) == 0:
            raise BadInput(
                f"{type(solver).__name__} divides by a({grid[0]:g}) = 0: {earlier}"
            )
    return grid


def invert(
    solver: Solver,
    predict: Callable,
    process: Process,
    x: Array,
    grid: Array,
    c: Tree | None = None,
) -> Array:
    """Carry data to noise: the deterministic solver along the grid's times rising.

    DDIM inversion: what `solve` brings back, up to the steps' error. Song, Meng and
    Ermon 2021, section 4.3; Dhariwal and Nichol 2021, arXiv:2105.05233, appendix F.
    """
    if not solver.deterministic:
        raise BadInput(f"{solver} draws noise, so there is no way back: take DDIM")
    keys = jnp.broadcast_to(jax.random.key(0), x.shape[:1])
    rising = check_grid(grid)[::-1]
    return _carried(solver, keys, predict, process, x, rising, c)


def _solve(solver, keys, predict, process, z, grid, emit=lambda z: None):
    """(z at the end, emit(z) after each step)."""

    def step(keys, carry, t_s):
        carry = solver.step(keys, predict, process, *carry, *t_s)
        return carry, emit(carry[0])

    xs = grid[:-1], grid[1:]
    (z, _), emits = sample_scan(step, keys, (z, solver.init(z)), xs)
    return z, emits


class Parallel(NamedTuple):
    """What `solve_parallel` found: z at the end, and sweeps of parallel evaluations."""

    z: Array
    sweeps: Array


def solve_parallel(
    solver: Solver,
    keys: Array,
    predict: Callable,
    process: Process,
    z: Array,
    grid: Array,
    window: int | None = None,
    tolerance: float = 1e-3,
) -> Parallel:
    """`solve` by Picard's iteration: `window` steps at once, swept until they agree.

        z_{i+1} ← z_{i₀} + Σ_{j=i₀…i} (step_j(z_j) - z_j)

    Its fixed point is the sequential sample (with the same noise of every step), and
    after a sweep one step more is exact, so there are at most n sweeps. The window
    moves past the steps whose mean square changed by less than tolerance² b².
    The solver must have no memory. Shih et al. 2023, arXiv:2305.16317 (ParaDiGMS),
    algorithm 1.
    """
    grid = check_start(solver, process, grid)
    n = len(grid) - 1
    width = n if window is None else min(window, n)
    if width < 1 or jax.tree.leaves(solver.init(z)):
        raise BadInput(
            f"window={window}, {solver}: Picard's iteration needs a window of at least "
            "1 step and a solver without memory (Euler, Heun, DDIM)"
        )
    # Beyond the grid's end, steps of no length.
    times = jnp.pad(grid, (0, width), mode="edge")
    scale = process.path.b(times[:-1]) ** 2

    def step(i, z):
        t, s = times[i], times[i + 1]
        new = solver.step(fold_in(keys, i), predict, process, z, (), t, s)[0]
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
