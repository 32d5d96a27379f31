"""Paths z = a(t) x + b(t) ε from data (t = 0) to noise (t = 1).

A path is a `static` dataclass with two functions a and b of times t (any shape). They
are smooth on (0, 1), so that `derivatives` can take a′ and b′. `time_of_ratio(a, b)` is
the time at which data and noise stand in the proportion a : b.

Up to the scale of z and the clock, a path is its noise-to-signal ratio σ = b/a alone,
so whatever is said in terms of σ holds for all: a grid, a law of training times, and
the shift to more noise at high resolution, which is σ ← shift · σ.
"""

import math
from typing import Protocol

import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.types import Array, static


class Path(Protocol):
    """a/b falls from (nearly) ∞ to (nearly) 0 as t rises from 0 to 1."""

    def a(self, t: Array) -> Array: ...

    def b(self, t: Array) -> Array: ...

    def time_of_ratio(self, a: Array, b: Array) -> Array:
        """t with a(t) : b(t) = a : b."""
        ...


def derivatives(path: Path, t: Array) -> tuple[Array, Array, Array, Array]:
    """(a, b, a′, b′) at t by forward differentiation. BadInput for a table."""
    if is_discrete(path):
        raise BadInput(
            f"{path} is a table: it has no derivatives, so no velocity; take the "
            "noise, data or v prediction, a solver without derivatives (DDIM, DDPM, "
            "DPM-Solver++), a bound of 1,000 steps, or a continuous path"
        )
    (a, b), (da, db) = jax.jvp(
        lambda t: (path.a(t), path.b(t)), (t,), (jnp.ones_like(t),)
    )
    return a, b, da, db


def snr(path: Path, t: Array) -> Array:
    """a²/b², of signal to noise."""
    return jnp.square(path.a(t) / path.b(t))


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

    def time_of_ratio(self, a: Array, b: Array) -> Array:
        return b / (a + b)


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

    def time_of_ratio(self, a: Array, b: Array) -> Array:
        return self._time_of(-0.5 * jnp.log1p((b / a) ** 2))

    def _time_of(self, log_a: Array) -> Array:
        half = 0.5 * self.beta_min
        root = jnp.sqrt(half**2 - (self.beta_max - self.beta_min) * log_a)
        return -2.0 * log_a / (half + root)


@static
class SubVariancePreserving(VariancePreserving):
    """The same a, and b = 1 - a²: less noise than `VariancePreserving` at every time.

    Song et al. 2021, equation 34.
    """

    def b(self, t: Array) -> Array:
        return -jnp.expm1(2.0 * self.log_a(t))

    def time_of_ratio(self, a: Array, b: Array) -> Array:
        return self._time_of(-jnp.arcsinh(0.5 * b / a))


@static
class VarianceExploding:
    """a = 1, b = sigma_min (sigma_max/sigma_min)ᵗ: data under ever more noise.

    Song et al. 2021, equation 30. At t = 0 there still is noise of sigma_min.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def a(self, t: Array) -> Array:
        return jnp.ones_like(t)

    def b(self, t: Array) -> Array:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def time_of_ratio(self, a: Array, b: Array) -> Array:
        ratio = math.log(self.sigma_max / self.sigma_min)
        return jnp.log(b / (a * self.sigma_min)) / ratio


@static
class Cosine:
    """a = cos u/cos u₀, b = √(1 - a²), u = (π/2) (t + offset)/(1 + offset), u₀ = u(0).

    Nichol and Dhariwal 2021, arXiv:2102.09672, equation 17, continuous. The offset
    keeps β from vanishing at the data.
    """

    offset: float = 0.008

    @property
    def _u0(self) -> float:
        return math.pi / 2 * self.offset / (1.0 + self.offset)

    def a(self, t: Array) -> Array:
        # cos u as a sine, which is exactly 0 at t = 1.
        return jnp.sin(math.pi / 2 * (1.0 - t) / (1.0 + self.offset)) / math.cos(
            self._u0
        )

    def b(self, t: Array) -> Array:
        # 1 - cos² u/cos² u₀ = sin(u - u₀) sin(u + u₀)/cos² u₀ without cancellation.
        rise = math.pi / 2 * t / (1.0 + self.offset)
        product = jnp.sin(rise) * jnp.sin(rise + 2.0 * self._u0)
        return jnp.sqrt(product) / math.cos(self._u0)

    def time_of_ratio(self, a: Array, b: Array) -> Array:
        sine = jnp.hypot(b, math.sin(self._u0) * a)
        u = jnp.arctan2(sine, math.cos(self._u0) * a)
        rise = jnp.maximum(u - self._u0, 0.0)  # rounding alone can fall below
        return rise * 2.0 / math.pi * (1.0 + self.offset)


@static
class Trigonometric:
    """a = cos(πt/2), b = sin(πt/2): at even speed along the unit circle.

    Albergo and Vanden-Eijnden 2023, arXiv:2209.15571; Lu and Song 2024,
    arXiv:2410.11081 (TrigFlow).
    """

    def a(self, t: Array) -> Array:
        return jnp.sin(math.pi / 2 * (1.0 - t))

    def b(self, t: Array) -> Array:
        return jnp.sin(math.pi / 2 * t)

    def time_of_ratio(self, a: Array, b: Array) -> Array:
        return jnp.arctan2(b, a) * 2.0 / math.pi


@static
class Karras:
    """a = 1/√(σ² + s²), b = σ a, so that z has variance 1 where the data have s².

    σ(t)^(1/rho) rises evenly from sigma_min to sigma_max: an even grid of t is EDM's
    grid. s is `data_std`. Karras et al. 2022, arXiv:2206.00364, equation 5 and table 1.
    """

    data_std: float = 0.5
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def _ends(self):
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)

    def _sigma(self, t):
        low, high = self._ends()
        return (low + t * (high - low)) ** self.rho

    def a(self, t: Array) -> Array:
        return 1.0 / jnp.hypot(self._sigma(t), self.data_std)

    def b(self, t: Array) -> Array:
        return self._sigma(t) * self.a(t)

    def time_of_ratio(self, a: Array, b: Array) -> Array:
        low, high = self._ends()
        return ((b / a) ** (1 / self.rho) - low) / (high - low)


@static
class DDPMSchedule:
    """DDPM's own schedule: `steps` values β rising evenly, a² = Π (1 - β), b² = 1 - a².

    A time is the step number over `steps`, rounded to the nearest; 0 is clean. It has
    no derivatives. Ho et al. 2020, arXiv:2006.11239, section 4.
    """

    steps: int = 1000
    beta_first: float = 1e-4
    beta_last: float = 0.02

    def _log_a(self) -> Array:
        beta = jnp.linspace(self.beta_first, self.beta_last, self.steps)
        return jnp.pad(0.5 * jnp.cumsum(jnp.log1p(-beta)), (1, 0))

    def _at(self, t: Array) -> Array:
        return self._log_a()[jnp.rint(jnp.asarray(t) * self.steps).astype(int)]

    def a(self, t: Array) -> Array:
        return jnp.exp(self._at(t))

    def b(self, t: Array) -> Array:
        return jnp.sqrt(-jnp.expm1(2.0 * self._at(t)))

    def time_of_ratio(self, a: Array, b: Array) -> Array:
        log_a = -0.5 * jnp.log1p((b / a) ** 2)
        number = jnp.interp(-log_a, -self._log_a(), jnp.arange(self.steps + 1.0))
        return jnp.rint(number) / self.steps


@static
class Shifted:
    """A path whose noise-to-signal ratio at every time is `shift` times as large.

    On the linear path t ← shift t/(1 + (shift - 1) t). As part of the path it is shared
    by training and sampling, and cannot be applied twice by mistake. Esser et al. 2024,
    arXiv:2403.03206, equation 23; Hoogeboom, Heek and Salimans 2023, arXiv:2301.11093.
    """

    path: Path
    shift: float

    def __post_init__(self):
        if not 0 < self.shift < math.inf:
            raise BadInput(f"shift={self.shift}: it must be above 0 (1 is none)")
        if isinstance(self.path, DDPMSchedule):
            raise BadInput(
                f"{self.path} has numbered steps, which cannot be shifted: shift a "
                "continuous path, such as VariancePreserving()"
            )

    def _t(self, t):
        return self.path.time_of_ratio(self.path.a(t), self.shift * self.path.b(t))

    def a(self, t: Array) -> Array:
        return self.path.a(self._t(t))

    def b(self, t: Array) -> Array:
        return self.path.b(self._t(t))

    def time_of_ratio(self, a: Array, b: Array) -> Array:
        return self.path.time_of_ratio(self.shift * a, b)


def resolution_shift(pixels: int, base: int) -> float:
    """√(pixels/base): what keeps the uncertainty of an enlarged image the same.

    Esser et al. 2024, arXiv:2403.03206, section 5.3.2.
    """
    return math.sqrt(pixels / base)


def is_discrete(path: Path) -> bool:
    """Whether the path is a table of numbers, and so has no derivatives."""
    return isinstance(path, DDPMSchedule)
