"""When to look: distributions of training times and grids of sampling times.

A distribution of times is its quantile function: t = quantile(u, path), u ~ U(0, 1). So
any of them can be stratified, or tested against its closed form in one line. (A shift
towards noise belongs to the path, `paths.Shifted`: training and sampling share it.)

A grid is a value too: grid(path, steps, span) -> [steps + 1] falling times.
"""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from gengen.diffusion.paths import DDPMSchedule, Path
from gengen.errors import BadInput
from gengen.types import Array, Key, static

# ---------------------------------------------------------------- training


class Times(Protocol):
    """A distribution on (0, 1)."""

    def quantile(self, u: Array, path: Path) -> Array: ...


@static
class Uniform:
    """t ~ U(0, 1)."""

    def quantile(self, u: Array, path: Path) -> Array:
        return u


@static
class LogitNormal:
    """logit t ~ N(mean, std²): more of the middle, where the task is hard.

    Esser et al. 2024, arXiv:2403.03206, equation 19.
    """

    mean: float = 0.0
    std: float = 1.0

    def quantile(self, u: Array, path: Path) -> Array:
        return jax.nn.sigmoid(self.mean + self.std * jax.scipy.special.ndtri(u))


@static
class LogNormal:
    """log σ ~ N(mean, std²) for the noise-to-signal ratio σ = b/a, on any path.

    Karras et al. 2022, arXiv:2206.00364, table 1. On the linear path σ = t/(1 - t), so
    it is `LogitNormal` there.
    """

    mean: float = -1.2
    std: float = 1.2

    def quantile(self, u: Array, path: Path) -> Array:
        log_sigma = self.mean + self.std * jax.scipy.special.ndtri(u)
        sigma = jnp.exp(jnp.minimum(log_sigma, 50.0))  # u = 1 has no σ
        return jnp.clip(path.time_of_ratio(jnp.ones_like(sigma), sigma), 0.0, 1.0)


@static
class Steps:
    """t uniform on 1/steps, 2/steps, …, 1: the step numbers of a table."""

    steps: int = 1000

    def quantile(self, u: Array, path: Path) -> Array:
        return jnp.maximum(jnp.ceil(u * self.steps), 1.0) / self.steps


def independent(key: Key, num: int) -> Array:
    """[num] uniforms on (0, 1)."""
    return jax.random.uniform(key, (num,), minval=jnp.finfo(jnp.float32).tiny)


def antithetic(key: Key, num: int) -> Array:
    """Uniforms in pairs u, 1 - u."""
    u = independent(key, -(-num // 2))
    return jnp.concatenate([u, 1.0 - u])[:num]


def stratified(key: Key, num: int) -> Array:
    """One in each num-th part of (0, 1), all moved by one uniform: u + i/num mod 1.

    Kingma et al. 2021, arXiv:2107.00630, appendix I.1.
    """
    tiny = jnp.finfo(jnp.float32).tiny
    u = (jax.random.uniform(key) + jnp.arange(num) / num) % 1.0
    return jnp.maximum(u, tiny)


def sample_times(
    times: Times,
    path: Path,
    key: Key,
    num: int,
    span: tuple[float, float] = (0, 1),
    uniforms: Callable = independent,
) -> Array:
    """[num] times, scaled from (0, 1) into the span (t_min, t_max).

    uniforms: `independent`, `antithetic` or `stratified`.
    """
    u = uniforms(key, num)
    return span[0] + (span[1] - span[0]) * times.quantile(u, path)


def histogram_quantile(u: Array, mass: Array) -> tuple[Array, Array, Array]:
    """(t, bin, weight) of the histogram with `mass` [K] on K even bins of (0, 1).

    t is the quantile of u; weight = 1/(K mass[bin]) makes a mean over such times an
    unbiased mean over uniform ones.
    """
    edges = jnp.pad(jnp.cumsum(mass), (1, 0))
    index = jnp.clip(jnp.searchsorted(edges, u, side="right") - 1, 0, len(mass) - 1)
    within = jnp.clip((u - edges[index]) / mass[index], 0.0, 1.0)
    return (index + within) / len(mass), index, 1.0 / (len(mass) * mass[index])


def importance(second_moment: Array, floor: float = 0.05) -> Array:
    """Mass of each bin ∝ √E[loss²], of which `floor` is spread over all: [K].

    Nichol and Dhariwal 2021, arXiv:2102.09672, equation 18.
    """
    mass = jnp.sqrt(second_moment)
    return (1.0 - floor) * mass / jnp.sum(mass) + floor / len(mass)


# ---------------------------------------------------------------- sampling


class Grid(Protocol):
    """(path, steps, span) -> [steps + 1] times falling within the span."""

    def __call__(self, path: Path, steps: int, span: tuple[float, float]) -> Array: ...


def uniform_grid(steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Array:
    """[steps + 1] times falling evenly from t_max to t_min, both included."""
    if steps < 1:
        raise BadInput(f"steps={steps}: sampling needs at least 1 step")
    return jnp.linspace(span[1], span[0], steps + 1)


@static
class Even:
    """Even times: what is called "trailing" in step numbers, the first is t_max.

    Lin et al. 2024, arXiv:2305.08891, table 2.
    """

    def __call__(self, path, steps, span):
        return uniform_grid(steps, span)


@static
class ShiftedGrid:
    """Even times of the path with `shift` times its noise over signal: more of noise.

    For sampling alone; a shift that training shares is `paths.Shifted`. Esser et al.
    2024, arXiv:2403.03206, equation 23.
    """

    shift: float = 3.0

    def __call__(self, path, steps, span):
        t = uniform_grid(steps, span)
        return jnp.clip(path.time_of_ratio(path.a(t), self.shift * path.b(t)), *span)


@static
class Leading:
    """k/steps + 1/table for k = steps-1, …, 0, then t_min: DDIM's own grid.

    It never sees t_max, so it starts from noise where a trained model expects a trace
    of the image: kept to reproduce what was published. Song et al. 2021,
    arXiv:2010.02502; its flaw: Lin et al. 2024, arXiv:2305.08891, section 3.3.
    """

    table: int = 1000

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
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __call__(self, path, steps, span):
        low, high = _sigmas(self, path, span)
        even = uniform_grid(steps, (low ** (1 / self.rho), high ** (1 / self.rho)))
        return _at_sigmas(path, even**self.rho, span)


@static
class LogSNR:
    """log σ falls evenly, on any path. Lu et al. 2022, arXiv:2206.00927, sec. 3.3."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

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


def times_of(
    grid: Grid, path: Path, steps: int, span: tuple[float, float] = (0.0, 1.0)
) -> Array:
    """The grid's times as known numbers. BadInput if they do not fall within [0, 1].

    A table's times are its step numbers, so there it has at most that many steps.
    """
    if steps < 1:
        raise BadInput(f"steps={steps}: sampling needs at least 1 step")
    if isinstance(path, DDPMSchedule) and steps > path.steps:
        raise BadInput(
            f"steps={steps}: this path is a table of {path.steps} steps, take fewer"
        )
    with jax.ensure_compile_time_eval():
        times = grid(path, steps, span)
        if isinstance(path, DDPMSchedule):
            times = jnp.rint(times * path.steps) / path.steps
        return check_grid(times)


def starting_at(times: Array, start: float, path: Path) -> Array:
    """The times of a grid from `start` on: it, and those below. Known numbers."""
    with jax.ensure_compile_time_eval():
        start = jnp.asarray(start, times.dtype)
        if isinstance(path, DDPMSchedule):
            start = jnp.rint(start * path.steps) / path.steps
        return check_grid(jnp.append(start, times[times < start]))


def check_grid(times: Array) -> Array:
    """The times, if they fall from one to the next within [0, 1], else BadInput."""
    with jax.ensure_compile_time_eval():
        times = jnp.asarray(times)
        if isinstance(times, jax.core.Tracer):
            return times
        if times.ndim != 1 or len(times) < 2:
            raise BadInput(f"a grid needs at least two times, not {times}")
        if times[0] > 1 or times[-1] < 0:
            raise BadInput(
                f"a grid from {times[0]} to {times[-1]} leaves [0, 1], 0 the data and "
                "1 the noise"
            )
        falls = times[1:] < times[:-1]
        if not jnp.all(falls):
            where = int(jnp.argmin(falls))
            raise BadInput(
                f"the grid does not fall from t={times[where]} to {times[where + 1]}: "
                "take fewer steps, or times that fall from noise to data"
            )
    return times
