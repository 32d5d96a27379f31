"""What a network is asked for: the row (c, d) of the matrix of `process`."""

from typing import Protocol

import jax.numpy as jnp

from gengen.diffusion.paths import Path, derivatives
from gengen.types import Array, static


class Prediction(Protocol):
    """The row (c, d): what the network is asked for at time t."""

    def row(self, path: Path, t: Array) -> tuple[Array, Array]:
        """(c, d) at times t, each of the shape of t."""
        ...


@static
class Noise:
    """r = ε. Ho et al. 2020, arXiv:2006.11239, equation 14."""

    def row(self, path: Path, t: Array) -> tuple[Array, Array]:
        return jnp.zeros_like(t), jnp.ones_like(t)


@static
class Data:
    """r = x."""

    def row(self, path: Path, t: Array) -> tuple[Array, Array]:
        return jnp.ones_like(t), jnp.zeros_like(t)


@static
class V:
    """r = a ε - b x. Salimans and Ho 2022, arXiv:2202.00512, section 4."""

    def row(self, path: Path, t: Array) -> tuple[Array, Array]:
        return -path.b(t), path.a(t)


@static
class Velocity:
    """r = a′ x + b′ ε, the time derivative of z. Lipman et al. 2023, equation 23."""

    def row(self, path: Path, t: Array) -> tuple[Array, Array]:
        return derivatives(path, t)[2:]


@static
class Score:
    """r = -ε/b, the gradient of log N(z; a x, b²). Song et al. 2021, equation 7."""

    def row(self, path: Path, t: Array) -> tuple[Array, Array]:
        return jnp.zeros_like(t), -1.0 / path.b(t)


@static
class EDM:
    """r = (b x/s - s a ε)/n, n = √(b² + s² a²): unit variance for data of std s.

    The F of D = c_skip y + c_out F. With s = 1 on a variance-preserving path it is -v.
    Karras et al. 2022, arXiv:2206.00364, equation 7 and table 1.
    """

    data_std: float = 0.5
    """s, the standard deviation of the data."""

    def row(self, path: Path, t: Array) -> tuple[Array, Array]:
        a, b, s = path.a(t), path.b(t), self.data_std
        n = jnp.hypot(b, s * a)
        return b / (s * n), -s * a / n
