"""Where a sampler looks: grids of falling times.

A grid is a value, grid(path, steps, span) -> [steps + 1] falling times; `times_of`
makes known numbers of it. What is said in σ = b/a holds on every path.
"""

from functools import partial
from typing import Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gengen.diffusion.paths import Path, is_discrete
from gengen.errors import BadInput
from gengen.types import Array, static


class Grid(Protocol):
    """(path, steps, span) -> [steps + 1] times falling within the span."""

    def __call__(self, path: Path, steps: int, span: tuple[float, float]) -> Array: ...


def uniform_grid(steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Array:
    """[steps + 1] times falling evenly from t_max to t_min, both included.

    >>> uniform_grid(4).tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]

    Args:
        steps: the number of steps, at least 1, else BadInput.
        span: (t_min, t_max), within [0, 1].
    """
    if steps < 1:
        raise BadInput(f"steps={steps}: sampling needs at least 1 step")
    return jnp.linspace(span[1], span[0], steps + 1)


@static
class Even:
    """Even times from t_max on, called "trailing" in terms of step numbers.

    Lin et al. 2024, arXiv:2305.08891, table 2.
    """

    def __call__(self, path, steps, span):
        return uniform_grid(steps, span)


@static
class ShiftedGrid:
    """The even times of a path with `shift` times the noise over signal.

    This shift is for sampling alone; a shift that training shares is `paths.Shifted`.
    Esser et al. 2024, arXiv:2403.03206, equation 23.
    """

    shift: float = 3.0
    """The factor on σ = b/a; above 1 more steps are spent on noise."""

    def __call__(self, path, steps, span):
        t = uniform_grid(steps, span)
        return jnp.clip(path.time_of_ratio(path.a(t), self.shift * path.b(t)), *span)


@static
class Leading:
    """k/steps + 1/table for k = steps-1, …, 0, then t_min: DDIM's own grid.

    The grid never sees t_max, so it starts from noise where a trained model expects a
    trace of the image; it is kept to reproduce what was published. Song et al. 2021,
    arXiv:2010.02502; its flaw: Lin et al. 2024, arXiv:2305.08891, section 3.3.
    """

    table: int = 1000
    """The number of steps of the table that the model was trained on."""

    def __call__(self, path, steps, span):
        grid = uniform_grid(steps, (0.0, 1.0))[1:] + 1.0 / self.table
        if span[0] < 1.0 / self.table:  # else the last jump to E[x | z] is that step
            grid = jnp.append(grid, span[0])
        return jnp.clip(grid, *span)


@static
class Quadratic:
    """√t falls evenly: more steps near the data. Song et al. 2021, appendix D.2."""

    def __call__(self, path, steps, span):
        return jnp.square(uniform_grid(steps, (span[0] ** 0.5, span[1] ** 0.5)))


@static
class KarrasGrid:
    """σ^(1/rho) falls evenly from sigma_max to sigma_min, on any path.

    Karras et al. 2022, arXiv:2206.00364, equation 5; σ = b/a stays within the span.
    """

    rho: float = 7.0
    """The exponent ρ: a larger one spends more steps near the data."""
    sigma_min: float = 0.002
    """The last σ, if the span reaches it."""
    sigma_max: float = 80.0
    """The first σ, if the span reaches it."""

    def __call__(self, path, steps, span):
        low, high = _sigmas(self, path, span)
        even = uniform_grid(steps, (low ** (1 / self.rho), high ** (1 / self.rho)))
        return _at_sigmas(path, even**self.rho, span)


@static
class LogSNR:
    """log σ falls evenly, on any path. Lu et al. 2022, arXiv:2206.00927, sec. 3.3."""

    sigma_min: float = 0.002
    """The last σ, if the span reaches it."""
    sigma_max: float = 80.0
    """The first σ, if the span reaches it."""

    def __call__(self, path, steps, span):
        low, high = _sigmas(self, path, span)
        return _at_sigmas(
            path, jnp.exp(uniform_grid(steps, (jnp.log(low), jnp.log(high)))), span
        )


def _sigmas(grid, path, span):
    """The grid's own ends, cut to what the span has."""
    low, high = (path.b(t) / path.a(t) for t in map(jnp.asarray, map(float, span)))
    return jnp.maximum(low, grid.sigma_min), jnp.minimum(high, grid.sigma_max)


def _at_sigmas(path, sigma, span):
    return jnp.clip(path.time_of_ratio(jnp.ones_like(sigma), sigma), *span)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _evaluated(grid, path, steps, span):
    """The grid as one program: operation by operation it would be forty."""
    return grid(path, steps, span)


def times_of(
    grid: Grid, path: Path, steps: int, span: tuple[float, float] = (0.0, 1.0)
) -> Array:
    """The grid's times as known numbers, falling within [0, 1].

    On a table the times are step numbers, and times that coincide are one step, so
    there may be fewer than `steps`. Raises BadInput for times that do not fall, and for
    more steps than the table has.

    >>> from gengen.diffusion.paths import DDPMSchedule, Linear
    >>> times_of(Even(), Linear(), 4).tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]
    >>> len(times_of(Quadratic(), DDPMSchedule(10), 10)) - 1
    7

    Args:
        grid: a value of this file, or any other `Grid`.
        path: the path along which the sampler goes.
        steps: the number of steps, at least 1.
        span: (t_min, t_max), within [0, 1].
    """
    if steps < 1:
        raise BadInput(f"steps={steps}: sampling needs at least 1 step")
    if is_discrete(path) and steps > path.steps:
        raise BadInput(
            f"steps={steps}: this path is a table of {path.steps} steps, take fewer"
        )
    with jax.ensure_compile_time_eval():
        times = np.asarray(_evaluated(grid, path, steps, tuple(span)))
    if is_discrete(path):
        times = np.rint(times * path.steps) / times.dtype.type(path.steps)
        times = times[np.append(True, times[1:] != times[:-1])]
    return check_grid(times)


def starting_at(times: Array, start: float, path: Path) -> Array:
    """The times of a grid from `start` on, `start` included, as known numbers.

    >>> from gengen.diffusion.paths import Linear
    >>> starting_at(uniform_grid(4), 0.625, Linear()).tolist()
    [0.625, 0.5, 0.25, 0.0]

    Args:
        times: known times falling within [0, 1], [n + 1].
        start: the first time that is left; on a table the nearest step number.
        path: the path along which the sampler goes.
    """
    chex.assert_rank(times, 1)
    times = np.asarray(times)
    start = times.dtype.type(start)
    if is_discrete(path):
        start = np.rint(start * path.steps) / times.dtype.type(path.steps)
    return check_grid(np.append(start, times[times < start]))


def check_grid(times: Array) -> Array:
    """The times, if they fall from one to the next within [0, 1], else BadInput.

    Traced times are not checked, only their rank.

    >>> check_grid([1.0, 0.5, 0.0]).tolist()
    [1.0, 0.5, 0.0]

    Args:
        times: [n + 1] numbers, 0 the data and 1 the noise.
    """
    with jax.ensure_compile_time_eval():
        times = jnp.asarray(times)
    if isinstance(times, jax.core.Tracer):
        chex.assert_rank(times, 1)
        return times
    known = np.asarray(times)
    if known.ndim != 1 or len(known) < 2:
        raise BadInput(f"a grid needs at least two times, not {known}")
    if known[0] > 1 or known[-1] < 0:
        raise BadInput(
            f"a grid from {known[0]} to {known[-1]} leaves [0, 1], 0 the data and 1 "
            "the noise"
        )
    falls = known[1:] < known[:-1]
    if not np.all(falls):
        where = int(np.argmin(falls))
        raise BadInput(
            f"the grid does not fall from t={known[where]} to {known[where + 1]}: "
            "take fewer steps, or times that fall from noise to data"
        )
    return times
