"""When to look: distributions of training times and grids of sampling times.

A distribution of times is its quantile function: t = quantile(u), u ~ U(0, 1). So
any of them can be stratified, shifted or tested against its closed form in one line.
"""

from typing import Protocol

import jax
import jax.numpy as jnp

from gengen.types import Array, BadInput, Key, static


class Times(Protocol):
    """A distribution on (0, 1)."""

    def quantile(self, u: Array) -> Array: ...


@static
class Uniform:
    """t ~ U(0, 1)."""

    def quantile(self, u: Array) -> Array:
        return u


@static
class LogitNormal:
    """logit t ~ N(mean, std²): more of the middle, where the task is hard.

    Esser et al. 2024, arXiv:2403.03206, equation 19.
    """

    mean: float = 0.0
    std: float = 1.0

    def quantile(self, u: Array) -> Array:
        return jax.nn.sigmoid(self.mean + self.std * jax.scipy.special.ndtri(u))


def draw(times: Times, key: Key, num: int, span: tuple[float, float] = (0, 1)) -> Array:
    """[num] times, scaled from (0, 1) into the span (t_min, t_max)."""
    u = jax.random.uniform(key, (num,), minval=jnp.finfo(jnp.float32).tiny)
    return span[0] + (span[1] - span[0]) * times.quantile(u)


def uniform_grid(steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Array:
    """[steps + 1] times falling evenly from t_max to t_min, both included."""
    if steps < 1:
        raise BadInput(f"steps={steps}: sampling needs at least 1 step")
    return jnp.linspace(span[1], span[0], steps + 1)
