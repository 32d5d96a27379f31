"""The probability-flow ODE ż = a′ x̂ + b′ ε̂, in fixed steps or to a tolerance.

An integrator is a value that carries a state y across one interval of time,

    y_s, evaluations [B] = integrator.advance(field, y, t, s, args),

where ẏ = field(y, t, args), and y, args are trees of arrays [B, ...] whose rows do not
meet: z alone, or z with the log-density it collects (`likelihood`). `integrate` goes
along a grid. t may be above s or below it: from noise to data, or from data to noise.

    HEUN, RK4                       one fixed step of order 2, 4 an interval
    Adaptive(dopri5, 1e-6, 1e-6)    as many steps as the tolerance asks for

`Adaptive` is also a solver. Each row has its own steps, so that sample i does not
depend on its batch: the field sees one row at a time, under `vmap`.
"""

from collections.abc import Callable
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp

from gengen.diffusion.process import Process, expand, ode_velocity
from gengen.errors import BadInput
from gengen.types import Array, Tree, static


class Integrator(Protocol):
    """`evaluations` [B] counts the calls of the field that each row needed."""

    def advance(
        self, field: Callable, y: Tree, t: Array, s: Array, args: Tree = ()
    ) -> tuple[Tree, Array]: ...


def times_of(y: Tree, *times: Array | float) -> tuple[Array, ...]:
    """The times in y's precision."""
    return tuple(jnp.asarray(t, jax.tree.leaves(y)[0].dtype) for t in times)


def along(y: Tree, h: Array, weights: Array, slopes: Tree) -> Tree:
    """y + h Σ_i w_i k_i; weights [stages], slopes of [stages, *y.shape]."""

    def move(y, k):
        return y + h * jnp.sum(expand(weights.astype(y.dtype), k) * k, axis=0)

    return jax.tree.map(move, y, slopes)


@static
class RungeKutta:
    """y_s = y + h Σ_i w_i k_i, k_i = field(y + h Σ_j A_ij k_j, t + c_i h), h = s - t.

    rows: the strictly lower triangle of A, one tuple a stage; c_i = Σ_j A_ij. The
    stages are a loop, so that the network is compiled once.
    Hairer, Nørsett and Wanner 1993, Solving Ordinary Differential Equations I, II.1.
    """

    rows: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]

    def advance(self, field, y, t, s, args=()):
        t, s = times_of(y, t, s)
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
    """Tsitouras 2011: order 5, six evaluations a step."""
    from diffrax import Tsit5

    return Tsit5()


def dopri5():
    """Dormand and Prince 1980, scipy's RK45: order 5, six evaluations a step."""
    from diffrax import Dopri5

    return Dopri5()


def largest_rms(y: Tree) -> Array:
    """The largest root mean square of y's arrays: a log-density counts beside D pixels.

    Safe to differentiate at 0.
    """

    def rms(v):
        square = jnp.mean(jnp.square(v))
        return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)

    return jnp.max(jnp.stack([rms(v) for v in jax.tree.leaves(y)]))


@static
class Adaptive:
    """Steps chosen so that each one's error is below atol + rtol |y|, for each row.

    method: () -> an explicit Runge-Kutta method of diffrax with an embedded error
    (`tsit5`, `dopri5`, `diffrax.Bosh3`, …). Reverse-mode differentiable by recursive
    checkpoints. Raises at run time if max_steps do not reach s: a stiff network or a
    jumping one, or a tolerance below the arithmetic's (1e-6 in float32).

    Kidger 2021, arXiv:2202.02435, section 5.2; tolerances of 1e-5 are those of Song et
    al. 2021, arXiv:2011.13456, appendix D.4.
    """

    method: Callable = tsit5
    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 4096
    evaluations: ClassVar[None] = None  # not known beforehand
    at_first: ClassVar[int] = 0
    divides_by_a: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True
    wants_variance: ClassVar[bool] = False

    def __post_init__(self):
        if not (self.rtol >= 0 and self.atol >= 0 and self.rtol + self.atol > 0):
            raise BadInput(
                f"rtol={self.rtol}, atol={self.atol} allow no error: "
                "neither may be negative, and one must be above 0"
            )
        if self.max_steps < 1:
            raise BadInput(f"max_steps={self.max_steps} must be at least 1")

    def init(self, z: Array) -> tuple:
        return ()

    def step(self, keys, predict, process, z, solver_state, t, s):
        return probability_flow(predict, process, z, t, s, self)[0], solver_state

    def advance(self, field, y, t, s, args=()):
        import diffrax

        t, s = times_of(y, t, s)
        term, method = diffrax.ODETerm(alone(field)), self.method()
        controller = diffrax.PIDController(self.rtol, self.atol, norm=largest_rms)
        fsal, stages = method.tableau.fsal, method.tableau.num_stages

        def row(y, args):
            solution = diffrax.diffeqsolve(
                term,
                method,
                t,
                s,
                dt0=(s - t) / 10,
                y0=y,
                args=args,
                stepsize_controller=controller,
                max_steps=self.max_steps,
            )
            # First same as last: but for the first step, one stage is known before.
            steps = solution.stats["num_steps"]
            calls = (stages - fsal) * steps + (fsal & (steps > 0))
            return jax.tree.map(lambda v: v[0], solution.ys), calls

        return jax.vmap(row)(y, args)


def alone(field: Callable) -> Callable:
    """The field of one row, (t, y, args) -> ẏ: a batch of one."""

    def slope(t, y, args):
        y, args = jax.tree.map(lambda v: v[None], (y, args))
        dy = field(y, t, args)
        for of, to in zip(jax.tree.leaves(y), jax.tree.leaves(dy), strict=True):
            if of.shape != to.shape:
                raise BadInput(
                    f"one row {of.shape} has a velocity of shape {to.shape}: adaptive "
                    "steps see row by row, so bind labels to rows too, under jax.vmap"
                )
        return jax.tree.map(lambda v: v[0], dy)

    return slope


def integrate(
    integrator: Integrator, field: Callable, y: Tree, grid: Array, args: Tree = ()
) -> tuple[Tree, Array]:
    """y along the times of the grid [n + 1], interval by interval: (y, calls [B])."""

    def interval(y, t_s):
        return integrator.advance(field, y, *t_s, args)

    y, evaluations = jax.lax.scan(interval, y, (grid[:-1], grid[1:]))
    return y, jnp.sum(evaluations, axis=0)


def probability_flow(
    predict: Callable,
    process: Process,
    z: Array,
    t: Array | float,
    s: Array | float,
    integrator: Integrator = Adaptive(),
) -> tuple[Array, Array]:
    """z [B, ...] carried along ż = a′ x̂ + b′ ε̂ from time t to time s, both scalars.

    Returns z_s and the number of evaluations of `predict` [B] for each row. s < t
    generates, s > t encodes: one is the other's inverse. Song et al. 2021,
    arXiv:2011.13456, equation 13; Lipman et al. 2023, arXiv:2210.02747, equation 1.
    """

    def field(z, t, _):
        return ode_velocity(process, z, predict(z, t), t)

    return integrator.advance(field, z, t, s)
