"""What a path is: z = a(t) x + b(t) ε, from data (t = 0) to noise (t = 1)."""

from typing import Protocol

import chex
import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.types import Array


class Path(Protocol):
    """a/b falls from (nearly) ∞ to (nearly) 0 as t rises from 0 to 1.

    A path writes `a`, `b` and `extended_time`, each for times of any shape.
    """

    discrete = False
    """Whether the path is a table of numbered steps (`steps` of them)."""

    def a(self, t: Array) -> Array:
        """The factor of the data at times t, of the shape of t."""
        ...

    def b(self, t: Array) -> Array:
        """The factor of the noise at times t, of the shape of t."""
        ...

    def extended_time(self, a: Array, b: Array) -> Array:
        """t with a(t) : b(t) = a : b, by the path's formula.

        It lies outside of [0, 1] for more noise (or less) than the path has.
        """
        ...

    def time_of_ratio(self, a: Array, b: Array) -> Array:
        """t in [0, 1] with a(t) : b(t) = a : b, or the nearer end of the path.

        Args:
            a: the share of the data, 0 or above, of any shape.
            b: the share of the noise, 0 or above.
        """
        return jnp.clip(self.extended_time(a, b), 0.0, 1.0)


def is_discrete(path: Path) -> bool:
    """Whether the path is a table of numbered steps, and so has no derivatives.

    >>> from gengen.diffusion.paths import DDPMSchedule, Linear
    >>> is_discrete(DDPMSchedule()), is_discrete(Linear())
    (True, False)

    Args:
        path: any path.
    """
    return getattr(path, "discrete", False)


def derivatives(path: Path, t: Array) -> tuple[Array, Array, Array, Array]:
    """(a, b, a′, b′) at times t, each of the shape of t, by forward differentiation.

    Raises BadInput for a table.

    >>> from gengen.diffusion.paths import Linear
    >>> [float(value) for value in derivatives(Linear(), 0.25)]
    [0.75, 0.25, -1.0, 1.0]

    Args:
        path: a continuous path.
        t: times in [0, 1], floats of any shape.
    """
    if is_discrete(path):
        raise BadInput(
            f"{path} is a table: it has no derivatives, so no velocity; take the "
            "noise, data or v prediction, a solver without derivatives (DDIM, DDPM, "
            "DPM-Solver++), a bound of 1,000 steps, or a continuous path"
        )
    t = jnp.asarray(t)
    chex.assert_type(t, float)
    (a, b), (da, db) = jax.jvp(
        lambda t: (path.a(t), path.b(t)), (t,), (jnp.ones_like(t),)
    )
    return a, b, da, db


def snr(path: Path, t: Array) -> Array:
    """a²/b², the ratio of signal to noise at times t, of the shape of t.

    >>> from gengen.diffusion.paths import Linear
    >>> float(snr(Linear(), 0.25))
    9.0

    Args:
        path: the path.
        t: times in (0, 1], of any shape.
    """
    return jnp.square(path.a(t) / path.b(t))
