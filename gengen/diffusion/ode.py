"""The probability-flow ODE ż = a′ x̂ + b′ ε̂, in fixed steps or to a tolerance.

An integrator is a value that carries a state y across one interval of time,

    y_s, nfe [B] = integrator.advance(field, y, t, s, args),

where ẏ = field(y, t, args), and y, args are trees of arrays [B, ...] whose rows do not
depend on each other: z alone, or z with the log-density it collects (`density`).
`integrate` goes along a grid. t may be above s (to data) or below it (to noise).

    HEUN, RK4                       one fixed step of order 2, 4 per interval
    Adaptive(dopri5, 1e-6, 1e-6)    as many steps as the tolerance asks for

`Adaptive` is also a solver. Each row has its own steps, so that sample i does not
depend on its batch: the field sees one row at a time, under `vmap`.
"""

from collections.abc import Callable
from typing import Protocol

import chex
import jax
import jax.numpy as jnp

from gengen.diffusion.process import Process, expand, ode_velocity
from gengen.diffusion.solvers import Solver, Traits
from gengen.errors import BadInput
from gengen.types import Array, Tree, static


class Integrator(Protocol):
    """What carries a state across one interval of time."""

    def advance(
        self, field: Callable, y: Tree, t: Array, s: Array, args: Tree = ()
    ) -> tuple[Tree, Array]:
        """(y at time s, the number of calls of the field that each row needed [B]).

        Args:
            field: (y, t, args) -> ẏ.
            y: a tree of arrays [B, ...] at time t.
            t: the time of y, a scalar.
            s: the time to reach, a scalar.
            args: a tree of arrays [B, ...].
        """
        ...


def _times_like(y: Tree, *times: Array | float) -> tuple[Array, ...]:
    """The times in y's precision."""
    return tuple(jnp.asarray(t, jax.tree.leaves(y)[0].dtype) for t in times)


def along(y: Tree, h: Array, weights: Array, slopes: Tree) -> Tree:
    """y + h Σ_i w_i k_i.

    >>> along(jnp.ones(1), 2.0, jnp.array([0.5, 0.5]), jnp.ones((2, 1))).tolist()
    [3.0]

    Args:
        y: a tree of arrays.
        h: the length of the step, a scalar.
        weights: w [stages].
        slopes: k, a tree of arrays [stages, ...] beside those of y.
    """

    def move(y, k):
        return y + h * jnp.sum(expand(weights.astype(y.dtype), k) * k, axis=0)

    return jax.tree.map(move, y, slopes)


@static
class RungeKutta:
    """y_s = y + h Σ_i w_i k_i, k_i = field(y + h Σ_j A_ij k_j, t + c_i h), h = s - t.

    c_i = Σ_j A_ij. The stages are a loop, so that the network is compiled once.
    Hairer, Nørsett and Wanner 1993, Solving Ordinary Differential Equations I, II.1.
    """

    rows: tuple[tuple[float, ...], ...]
    """The strictly lower triangle of A, one tuple per stage."""
    weights: tuple[float, ...]
    """w, one number per stage."""

    def advance(self, field, y, t, s, args=()):
        t, s = _times_like(y, t, s)
        h, num = s - t, len(self.rows)
        rows = jnp.array([row + (0.0,) * (num - len(row)) for row in self.rows])

        def stage(slopes, i_row):
            i, row = i_row
            time = t + jnp.sum(row).astype(t.dtype) * h
            k = field(along(y, h, row, slopes), time, args)
            return jax.tree.map(lambda ks, k: ks.at[i].set(k), slopes, k), None

        slopes = jax.tree.map(lambda v: jnp.zeros((num, *v.shape), v.dtype), y)
        slopes, _ = jax.lax.scan(stage, slopes, (jnp.arange(num), rows))
        calls = jnp.full(jax.tree.leaves(y)[0].shape[0], num)
        return along(y, h, jnp.array(self.weights), slopes), calls


HEUN = RungeKutta(((), (1.0,)), (1 / 2, 1 / 2))
RK4 = RungeKutta(
    ((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)
)


def tsit5():
    """Tsitouras 2011: order 5, six evaluations per step.

    >>> int(tsit5().order(None))
    5
    """
    from diffrax import Tsit5

    return Tsit5()


def dopri5():
    """Dormand and Prince 1980, scipy's RK45: order 5, six evaluations per step.

    >>> int(dopri5().order(None))
    5
    """
    from diffrax import Dopri5

    return Dopri5()


def largest_rms(y: Tree) -> Array:
    """The largest root mean square of y's arrays; its gradient is finite at 0.

    So a log-density, one number, counts beside D pixels.

    >>> float(largest_rms((jnp.zeros(8), jnp.array([4.0]))))
    4.0

    Args:
        y: a tree of arrays.
    """

    def rms(v):
        square = jnp.mean(jnp.square(v))
        return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)

    return jnp.max(jnp.stack([rms(v) for v in jax.tree.leaves(y)]))


@static
class Adaptive(Solver):
    """Steps chosen so that each one's error is below atol + rtol |y|, for each row.

    The result is reverse-mode differentiable by recursive checkpoints. Raises at run
    time if max_steps do not reach s: for a network that is stiff or jumps, or for a
    tolerance below the arithmetic's (1e-6 in float32).

    Kidger 2021, arXiv:2202.02435, section 5.2; tolerances of 1e-5 are those of Song et
    al. 2021, arXiv:2011.13456, appendix D.4.
    """

    method: Callable = tsit5
    """() -> an explicit Runge-Kutta method of diffrax with an embedded error (`tsit5`,
    `dopri5`, `diffrax.Bosh3`, …)."""
    rtol: float = 1e-5
    """The relative error allowed per step."""
    atol: float = 1e-5
    """The absolute error allowed per step; one of the two is above 0."""
    max_steps: int = 4096
    """The number of steps at which an interval is given up."""
    traits = Traits(adaptive=True)

    def __post_init__(self):
        if not (self.rtol >= 0 and self.atol >= 0 and self.rtol + self.atol > 0):
            raise BadInput(
                f"rtol={self.rtol}, atol={self.atol} allow no error: "
                "neither may be negative, and one must be above 0"
            )
        if self.max_steps < 1:
            raise BadInput(f"max_steps={self.max_steps} must be at least 1")

    def nfe(self, steps: int) -> None:
        """None: the number of calls is decided row by row."""
        return None

    def step(self, noise, predict, process, z, solver_state, t, s):
        return probability_flow(predict, process, z, t, s, self)[0], solver_state

    def advance(self, field, y, t, s, args=()):
        import diffrax

        t, s = _times_like(y, t, s)
        term, method = diffrax.ODETerm(alone(field)), self.method()
        controller = diffrax.PIDController(self.rtol, self.atol, norm=largest_rms)
        fsal, stages = method.tableau.fsal, method.tableau.num_stages

        def row(y, args):
            ask = term, method, t, s, (s - t) / 10, y, args
            how = {"stepsize_controller": controller, "max_steps": self.max_steps}
            solution = diffrax.diffeqsolve(*ask, **how)
            # First same as last: but for the first step, one stage is known before.
            steps = solution.stats["num_steps"]
            calls = (stages - fsal) * steps + (fsal & (steps > 0))
            return jax.tree.map(lambda v: v[0], solution.ys), calls

        return jax.vmap(row)(y, args)


def alone(field: Callable) -> Callable:
    """The field of one row, (t, y, args) -> ẏ: a batch of one.

    >>> alone(lambda y, t, args: -y)(0.0, jnp.array([1.0]), ()).tolist()
    [-1.0]

    Args:
        field: (y, t, args) -> ẏ of trees of rows [B, ...].
    """

    def slope(t, y, args):
        y, args = jax.tree.map(lambda v: v[None], (y, args))
        dy = field(y, t, args)
        jax.tree.map(_same_rows, y, dy)
        return jax.tree.map(lambda v: v[0], dy)

    return slope


def _same_rows(y, dy):
    if y.shape != dy.shape:
        raise BadInput(
            f"one row {y.shape} has a velocity of shape {dy.shape}: adaptive steps see "
            "row by row, so bind labels to rows too, under jax.vmap, or as c of `solve`"
        )


def integrate(
    integrator: Integrator, field: Callable, y: Tree, grid: Array, args: Tree = ()
) -> tuple[Tree, Array]:
    """(y at the grid's last time, calls of the field [B]), interval by interval.

    >>> grid = jnp.array([0.0, 0.5, 1.0])
    >>> y, nfe = integrate(RK4, lambda y, t, args: y, jnp.ones(1), grid)
    >>> round(float(y[0]), 2), int(nfe[0])
    (2.72, 8)

    Args:
        integrator: what carries y across an interval.
        field: (y, t, args) -> ẏ.
        y: a tree of arrays [B, ...] at the grid's first time.
        grid: n + 1 times, rising or falling.
        args: a tree of arrays [B, ...].
    """
    chex.assert_rank(grid, 1)

    def interval(y, t_s):
        return integrator.advance(field, y, *t_s, args)

    y, nfe = jax.lax.scan(interval, y, (grid[:-1], grid[1:]))
    return y, jnp.sum(nfe, axis=0)


def probability_flow(
    predict: Callable,
    process: Process,
    z: Array,
    t: Array | float,
    s: Array | float,
    integrator: Integrator = Adaptive(),
) -> tuple[Array, Array]:
    """z carried along ż = a′ x̂ + b′ ε̂ from time t to time s: (z_s, calls [B]).

    s < t generates, s > t encodes: one is the other's inverse. Song et al. 2021,
    arXiv:2011.13456, equation 13; Lipman et al. 2023, arXiv:2210.02747, equation 1.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> process, z = Process(Linear(), Velocity()), jnp.ones((1, 1))
    >>> z, nfe = probability_flow(lambda z, t: z, process, z, 1.0, 0.0, RK4)
    >>> round(float(z[0, 0]), 2), int(nfe[0])
    (0.37, 4)

    Args:
        predict: the network, (z, t) -> r̂ of the shape of z.
        process: a continuous path, and what the network predicts.
        z: the samples at time t [B, ...], floats.
        t: the time of z, a scalar in [0, 1].
        s: the time to reach, a scalar in [0, 1].
        integrator: fixed steps, or `Adaptive`.
    """
    chex.assert_type(z, float)
    chex.assert_rank([jnp.asarray(t), jnp.asarray(s)], 0)

    def field(z, t, _):
        r = predict(z, t)
        _same_rows(z, r)
        return ode_velocity(process, z, r, t)

    return integrator.advance(field, z, t, s)
