"""Paths z = a(t) x + b(t) ε from data (t = 0) to noise (t = 1).

A path is a `static` dataclass with methods a and b of times t (any shape), smooth on
(0, 1), so that `derivatives` can take a′ and b′.
"""

from typing import Protocol

import jax
import jax.numpy as jnp

from gengen.types import Array, static


class Path(Protocol):
    """a falls from 1 to (nearly) 0 and b rises from 0 to (nearly) 1."""

    def a(self, t: Array) -> Array: ...

    def b(self, t: Array) -> Array: ...


def derivatives(path: Path, t: Array) -> tuple[Array, Array, Array, Array]:
    """(a, b, a′, b′) at t, the derivatives by forward differentiation."""
    (a, b), (da, db) = jax.jvp(
        lambda t: (path.a(t), path.b(t)), (t,), (jnp.ones_like(t),)
    )
    return a, b, da, db


@static
class Linear:
    """a = 1 - t, b = t: straight lines from data to noise.

    Flow matching's conditional optimal-transport path with σ_min = 0, and rectified
    flow. Lipman et al. 2023, arXiv:2210.02747, equation 20 (time reversed); Liu et al.
    2023, arXiv:2209.03003.
    """

    def a(self, t: Array) -> Array:
        return 1.0 - t

    def b(self, t: Array) -> Array:
        return t


@static
class VariancePreserving:
    """a² + b² = 1 with β(t) = beta_min + t (beta_max - beta_min): continuous DDPM.

    log a = -½ ∫₀ᵗ β = -½ t beta_min - ¼ t² (beta_max - beta_min), b = √(1 - a²).
    Song et al. 2021, arXiv:2011.13456, equation 33; its β(t) is 1000 times DDPM's β_t
    (Ho et al. 2020, arXiv:2006.11239).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def log_a(self, t: Array) -> Array:
        """log a(t) = -½ ∫₀ᵗ β."""
        return -0.5 * t * self.beta_min - 0.25 * t**2 * (self.beta_max - self.beta_min)

    def a(self, t: Array) -> Array:
        return jnp.exp(self.log_a(t))

    def b(self, t: Array) -> Array:
        return jnp.sqrt(-jnp.expm1(2.0 * self.log_a(t)))
