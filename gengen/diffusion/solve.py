"""From noise to data and back: all steps under one scan, one way or the other.

    solve             z along the times of a grid
    solve_to_data     `solve`, then E[x | z] where the grid stops short of the data
    trajectory        every state that `solve` passes through
    invert            data to noise, by a deterministic solver

`keys` [B] make the noise of step i from fold_in(keys, i), so that a sample is a
function of its own key alone; `noise` hands the noise in instead (`step_noise`). A
deterministic solver needs neither. `c` is a tree of rows [B, ...], the network's third
argument.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gengen.diffusion.grids import check_grid
from gengen.diffusion.noise import check_noise
from gengen.diffusion.process import Process, recover
from gengen.diffusion.solvers import Solver, check_solver
from gengen.errors import BadInput
from gengen.scan import sample_scan
from gengen.types import Array, Tree


def solve(
    solver: Solver,
    keys: Array | None,
    predict: Callable,
    process: Process,
    z: Array,
    grid: Array,
    c: Tree | None = None,
    noise: Tree | None = None,
) -> Array:
    """z carried along the falling times of the grid: n steps under one scan.

    Raises BadInput for a grid that does not fall within [0, 1] or begins where the
    solver cannot, and for a stochastic solver without keys or noise.

    >>> from gengen.diffusion.grids import uniform_grid
    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> from gengen.diffusion.solvers import Heun
    >>> from gengen.models.closed_form import gaussian
    >>> process, z = Process(Linear(), Velocity()), jnp.array([[0.0], [1.0]])
    >>> predict = gaussian(mean=1.5, std=0.4).predict(process)
    >>> x = solve(Heun(), None, predict, process, z, uniform_grid(64))
    >>> [round(float(value), 2) for value in x[:, 0]]
    [1.5, 1.9]

    Args:
        solver: the solver of each step.
        keys: one key per row [B], for a stochastic solver.
        predict: the network, (z, t) -> r̂ [B, ...], or (z, t, c) -> r̂ if c is given.
        process: the path, and what the network predicts.
        z: the samples at the grid's first time [B, ...], floats.
        grid: n + 1 times falling within [0, 1].
        c: what the samples are conditioned on, a tree of rows [B, ...]. The rows of an
            adaptive solver go one by one, each with its own c.
        noise: the noise of all steps, as `step_noise` makes it, in place of keys.

    Returns:
        The samples at the grid's last time [B, ...].
    """
    grid = check_start(solver, process, grid)
    return _solve(solver, keys, predict, process, z, grid, c, noise)[0]


def solve_to_data(
    solver: Solver,
    keys: Array | None,
    predict: Callable,
    process: Process,
    z: Array,
    grid: Array,
    c: Tree | None = None,
    noise: Tree | None = None,
) -> Array:
    """`solve`, and E[x | z] by one more evaluation where the grid stops short of t = 0.

    So does every sampler on a path whose noise never vanishes (`VarianceExploding`,
    `Karras`). Arguments are those of `solve`; `denoise` is the last evaluation.

    >>> from gengen.diffusion.paths import VarianceExploding
    >>> from gengen.diffusion.process import Noise
    >>> from gengen.diffusion.solvers import DDIM
    >>> from gengen.models.closed_form import gaussian
    >>> process, z = Process(VarianceExploding(), Noise()), jnp.array([[50.0]])
    >>> predict = gaussian(mean=1.5, std=0.0).predict(process)
    >>> x = solve_to_data(DDIM(), None, predict, process, z, jnp.array([1.0, 0.0]))
    >>> round(float(x[0, 0]), 3)
    1.5
    """
    z = solve(solver, keys, predict, process, z, grid, c, noise)
    end = jnp.asarray(grid)[-1]
    rows = (z,) if c is None else (z, c)

    def last(z, *c):
        return denoise(predict, process, z, end, *c)

    return by_row(last, *rows) if solver.traits.adaptive else last(*rows)


def denoise(
    predict: Callable, process: Process, z: Array, t: Array, c: Tree | None = None
) -> Array:
    """E[x | z] at time t, the x̂ of what is predicted; z itself where b(t) = 0.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> process, z = Process(Linear(), Velocity()), jnp.array([[0.5]])
    >>> float(denoise(lambda z, t: 2.0 * z, process, z, 0.25)[0, 0])
    0.25

    Args:
        predict: the network, as in `solve`; channels behind r̂ are not looked at.
        process: the path, and what the network predicts.
        z: the samples at time t [B, ...], floats.
        t: their time, a scalar in [0, 1].
        c: what the samples are conditioned on, as in `solve`.
    """
    chex.assert_rank(t, 0)
    chex.assert_type(z, float)
    t = jnp.asarray(t)

    def jump(z):
        r = bound(predict, c)(z, t)[..., : z.shape[-1]]
        return recover(process, z, r, t)[0]

    if isinstance(t, jax.core.Tracer):
        return jax.lax.cond(process.path.b(t) > 0, jump, lambda z: z, z)
    with jax.ensure_compile_time_eval():
        clean = process.path.b(t) == 0
    return z if clean else jump(z)


def trajectory(
    solver: Solver,
    keys: Array | None,
    predict: Callable,
    process: Process,
    z: Array,
    grid: Array,
    c: Tree | None = None,
    noise: Tree | None = None,
) -> Array:
    """The states that `solve` passes through, one per time: [n + 1, B, ...].

    The first is z, the last what `solve` returns. Arguments are those of `solve`.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> from gengen.diffusion.solvers import Euler
    >>> process, grid = Process(Linear(), Velocity()), jnp.array([1.0, 0.5, 0.0])
    >>> states = trajectory(
    ...     Euler(), None, lambda z, t: z, process, jnp.ones((1, 1)), grid
    ... )
    >>> states[:, 0, 0].tolist()
    [1.0, 0.5, 0.25]
    """
    grid = check_start(solver, process, grid)
    _, states = _solve(solver, keys, predict, process, z, grid, c, noise, lambda z: z)
    return jnp.concatenate([z[None], states])


def invert(
    solver: Solver,
    predict: Callable,
    process: Process,
    x: Array,
    grid: Array,
    c: Tree | None = None,
) -> Array:
    """Data carried to noise: the deterministic solver along the grid's times rising.

    DDIM inversion: `solve` brings x back, up to the steps' error. Raises BadInput for a
    solver that draws noise. Song, Meng and Ermon 2021, section 4.3; Dhariwal and Nichol
    2021, arXiv:2105.05233, appendix F.

    >>> from gengen.diffusion.grids import uniform_grid
    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> from gengen.diffusion.solvers import Heun
    >>> from gengen.models.closed_form import gaussian
    >>> process, x = Process(Linear(), Velocity()), jnp.array([[1.9]])
    >>> predict = gaussian(mean=1.5, std=0.4).predict(process)
    >>> z = invert(Heun(), predict, process, x, uniform_grid(64))
    >>> round(float(z[0, 0]), 2)
    1.0

    Args:
        solver: a deterministic solver, such as DDIM().
        predict: the network, as in `solve`.
        process: the path, and what the network predicts.
        x: the samples at the grid's last time [B, ...], floats.
        grid: n + 1 times falling within [0, 1], as for `solve`.
        c: what the samples are conditioned on, as in `solve`.
    """
    check_solver(solver)
    if not solver.traits.deterministic:
        raise BadInput(f"{solver} draws noise, so there is no way back: take DDIM")
    rising = check_grid(grid)[::-1]
    return _solve(solver, None, predict, process, x, rising, c)[0]


def by_row(function: Callable, *rows: Tree) -> Tree:
    """`function(*rows)`, each row a batch of one, under vmap: for adaptive steps.

    >>> by_row(lambda x: x / x.sum(), jnp.array([2.0, 4.0])).tolist()
    [1.0, 1.0]

    Args:
        function: takes and returns trees of rows.
        rows: trees of arrays [B, ...]; None is an empty tree.
    """

    def alone(*row):
        found = function(*jax.tree.map(lambda x: x[None], row))
        return jax.tree.map(lambda x: x[0], found)

    return jax.vmap(alone)(*rows)


def check_start(solver: Solver, process: Process, grid: Array) -> Array:
    """The grid, if it falls and begins where solver and prediction can, else BadInput.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> from gengen.diffusion.solvers import Euler
    >>> check_start(Euler(), Process(Linear(), Velocity()), [1.0, 0.0]).tolist()
    [1.0, 0.0]

    Args:
        solver: the solver of each step.
        process: the path, and what the network predicts.
        grid: n + 1 times; a traced grid is not checked.
    """
    check_solver(solver)
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
        if solver.traits.divides_by_a and process.path.a(grid[0]) == 0:
            raise BadInput(
                f"{type(solver).__name__} divides by a({grid[0]:g}) = 0: {earlier}"
            )
    return grid


def bound(predict: Callable, c: Tree | None) -> Callable:
    """`predict(z, t)` with its condition bound, if there is one.

    >>> bound(lambda z, t, c: z + c, 2)(1, 0.5), bound(lambda z, t: z, None)(1, 0.5)
    (3, 1)
    """
    return predict if c is None else lambda z, t: predict(z, t, c)


def _solve(
    solver, keys, predict, process, z, grid, c=None, noise=None, emit=lambda z: None
):
    """(z at the end, emit(z) after each step)."""
    steps = len(grid) - 1
    chex.assert_type(z, float)
    check_noise(solver, keys, noise, z, steps)

    def carry(keys, z, c):
        network = bound(predict, c)

        def step(keys, carry, t_s_given):
            t, s, given = t_s_given
            own = solver.draw(keys, carry[0]) if noise is None else given
            carry = solver.step(own, network, process, *carry, t, s)
            return carry, emit(carry[0])

        xs = grid[:-1], grid[1:], noise
        (z, _), emits = sample_scan(step, keys, (z, solver.init(z, steps)), xs)
        return z, emits

    if not solver.traits.adaptive:
        return carry(keys, z, c)
    if noise:
        raise BadInput(f"{solver} takes each row by itself: give it keys, not noise")

    def rows_first(*row):
        z, emits = carry(*row)
        return z, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), emits)

    z, emits = by_row(rows_first, keys, z, c)
    return z, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), emits)
