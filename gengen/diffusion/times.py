"""When to train: distributions of times.

A distribution of times is its quantile function: t = quantile(u, path), u ~ U(0, 1). So
any of them can be stratified, or tested against its closed form in one line. (A shift
towards noise belongs to the path, `paths.Shifted`: training and sampling share it. The
times of a sampler are in `grids`.)
"""

from collections.abc import Callable
from typing import Protocol

import chex
import jax
import jax.numpy as jnp

from gengen.diffusion.paths import Path
from gengen.types import Array, Key, static


class Times(Protocol):
    """A distribution on (0, 1)."""

    def quantile(self, u: Array, path: Path) -> Array:
        """Times of the shape of u, such that u ~ U(0, 1) makes them so distributed.

        Args:
            u: numbers in (0, 1), of any shape.
            path: the path whose σ = b/a the distribution may be about.
        """
        ...


@static
class Uniform:
    """t ~ U(0, 1)."""

    def quantile(self, u: Array, path: Path) -> Array:
        return u


@static
class LogitNormal:
    """logit t ~ N(mean, std²): more times in the middle, where the task is hard.

    Esser et al. 2024, arXiv:2403.03206, equation 19.
    """

    mean: float = 0.0
    """The mean of logit t."""
    std: float = 1.0
    """The standard deviation of logit t."""

    def quantile(self, u: Array, path: Path) -> Array:
        return jax.nn.sigmoid(self.mean + self.std * jax.scipy.special.ndtri(u))


@static
class LogNormal:
    """log σ ~ N(mean, std²) for the noise-to-signal ratio σ = b/a, on any path.

    Karras et al. 2022, arXiv:2206.00364, table 1. On the linear path σ = t/(1 - t), so
    it is `LogitNormal` there.
    """

    mean: float = -1.2
    """The mean of log σ."""
    std: float = 1.2
    """The standard deviation of log σ."""

    def quantile(self, u: Array, path: Path) -> Array:
        log_sigma = self.mean + self.std * jax.scipy.special.ndtri(u)
        sigma = jnp.exp(jnp.minimum(log_sigma, 50.0))  # u = 1 has no σ
        return path.time_of_ratio(jnp.ones_like(sigma), sigma)


@static
class Steps:
    """t uniform on 1/steps, 2/steps, …, 1: the step numbers of a table."""

    steps: int = 1000
    """The number of steps of the table."""

    def quantile(self, u: Array, path: Path) -> Array:
        return jnp.maximum(jnp.ceil(u * self.steps), 1.0) / self.steps


def independent(key: Key, num: int) -> Array:
    """[num] uniforms on (0, 1).

    >>> independent(jax.random.key(0), 3).shape
    (3,)

    Args:
        key: one key.
        num: how many.
    """
    return jax.random.uniform(key, (num,), minval=jnp.finfo(jnp.float32).tiny)


def antithetic(key: Key, num: int) -> Array:
    """[num] uniforms on (0, 1) in pairs u, 1 - u.

    >>> u = antithetic(jax.random.key(0), 2)
    >>> float(u[0] + u[1])
    1.0

    Args:
        key: one key.
        num: how many; the last of an odd number has no partner.
    """
    u = independent(key, -(-num // 2))
    return jnp.concatenate([u, 1.0 - u])[:num]


def stratified(key: Key, num: int) -> Array:
    """[num] uniforms, one in each num-th part of (0, 1): u + i/num mod 1 with one u.

    Kingma et al. 2021, arXiv:2107.00630, appendix I.1.

    >>> sorted(jnp.floor(4 * stratified(jax.random.key(0), 4)).tolist())
    [0.0, 1.0, 2.0, 3.0]

    Args:
        key: one key.
        num: how many.
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
    """[num] random times, scaled from (0, 1) into the span.

    >>> from gengen.diffusion.paths import Linear
    >>> t = sample_times(Uniform(), Linear(), jax.random.key(0), 100, (0.2, 0.7))
    >>> t.shape, bool(0.2 <= t.min() and t.max() <= 0.7)
    ((100,), True)

    Args:
        times: their distribution.
        path: the path of the process.
        key: one key.
        num: how many.
        span: (t_min, t_max), within [0, 1].
        uniforms: `independent`, `antithetic` or `stratified`.
    """
    u = uniforms(key, num)
    return span[0] + (span[1] - span[0]) * times.quantile(u, path)


def histogram_quantile(u: Array, mass: Array) -> tuple[Array, Array, Array]:
    """(t, bin, weight) of the histogram with `mass` [K] on K even bins of (0, 1).

    t is the quantile of u; weight = 1/(K mass[bin]) makes a mean over such times an
    unbiased mean over uniform ones. All three have the shape of u.

    >>> t, bins, weight = histogram_quantile(jnp.array([0.5]), jnp.array([0.25, 0.75]))
    >>> round(float(t[0]), 3), int(bins[0]), round(float(weight[0]), 3)
    (0.667, 1, 0.667)

    Args:
        u: numbers in (0, 1), of any shape.
        mass: the probability of each bin [K], which sums to 1.
    """
    chex.assert_rank(mass, 1)
    chex.assert_type([u, mass], float)
    edges = jnp.pad(jnp.cumsum(mass), (1, 0))
    index = jnp.clip(jnp.searchsorted(edges, u, side="right") - 1, 0, len(mass) - 1)
    within = jnp.clip((u - edges[index]) / mass[index], 0.0, 1.0)
    return (index + within) / len(mass), index, 1.0 / (len(mass) * mass[index])


def importance(second_moment: Array, floor: float = 0.05) -> Array:
    """The mass of each bin ∝ √E[loss²], of which `floor` is spread over all bins: [K].

    Nichol and Dhariwal 2021, arXiv:2102.09672, equation 18.

    >>> importance(jnp.array([1.0, 9.0]), floor=0.0).tolist()
    [0.25, 0.75]

    Args:
        second_moment: E[loss²] of each bin [K].
        floor: the share of the mass that is spread evenly, in [0, 1].
    """
    chex.assert_rank(second_moment, 1)
    chex.assert_type(second_moment, float)
    mass = jnp.sqrt(second_moment)
    return (1.0 - floor) * mass / jnp.sum(mass) + floor / len(mass)
