"""Paths with a and b smooth on (0, 1), so that `derivatives` can take a′ and b′."""

import math

import jax.numpy as jnp

from gengen.diffusion.paths.path import Path
from gengen.types import Array, static


@static
class Linear(Path):
    """a = 1 - t, b = t: straight lines from data to noise.

    Flow matching's conditional optimal-transport path with σ_min = 0, and rectified
    flow. Lipman et al. 2023, arXiv:2210.02747, equation 20 (time reversed); Liu et al.
    2023, arXiv:2209.03003.
    """

    def a(self, t: Array) -> Array:
        return 1.0 - t

    def b(self, t: Array) -> Array:
        return t

    def extended_time(self, a: Array, b: Array) -> Array:
        return b / (a + b)


@static
class VariancePreserving(Path):
    """a² + b² = 1 with β(t) = beta_min + t (beta_max - beta_min): continuous DDPM.

    log a = -½ ∫₀ᵗ β = -½ t beta_min - ¼ t² (beta_max - beta_min), b = √(1 - a²).
    Song et al. 2021, arXiv:2011.13456, equation 33; its β(t) is 1000 times DDPM's β_t
    (Ho et al. 2020, arXiv:2006.11239).
    """

    beta_min: float = 0.1
    """β at t = 0."""
    beta_max: float = 20.0
    """β at t = 1, above beta_min."""

    def log_a(self, t: Array) -> Array:
        """log a(t) = -½ ∫₀ᵗ β."""
        return -0.5 * t * self.beta_min - 0.25 * t**2 * (self.beta_max - self.beta_min)

    def a(self, t: Array) -> Array:
        return jnp.exp(self.log_a(t))

    def b(self, t: Array) -> Array:
        return jnp.sqrt(-jnp.expm1(2.0 * self.log_a(t)))

    def extended_time(self, a: Array, b: Array) -> Array:
        return self._time_of(-0.5 * jnp.log1p((b / a) ** 2))

    def _time_of(self, log_a: Array) -> Array:
        half = 0.5 * self.beta_min
        root = jnp.sqrt(half**2 - (self.beta_max - self.beta_min) * log_a)
        finite = jnp.isfinite(log_a)
        t = -2.0 * jnp.where(finite, log_a, 0.0) / (half + root)
        return jnp.where(finite, t, jnp.inf)


@static
class SubVariancePreserving(VariancePreserving):
    """The same a, and b = 1 - a²: less noise than `VariancePreserving` at every time.

    Song et al. 2021, equation 34.
    """

    def b(self, t: Array) -> Array:
        return -jnp.expm1(2.0 * self.log_a(t))

    def extended_time(self, a: Array, b: Array) -> Array:
        return self._time_of(-jnp.arcsinh(0.5 * b / a))


@static
class VarianceExploding(Path):
    """a = 1, b = sigma_min (sigma_max/sigma_min)ᵗ: data under ever more noise.

    Song et al. 2021, equation 30. At t = 0 there still is noise of sigma_min, so a
    sampler ends with E[x | z] (`solve_to_data`).
    """

    sigma_min: float = 0.01
    """σ at t = 0."""
    sigma_max: float = 50.0
    """σ at t = 1."""

    def a(self, t: Array) -> Array:
        return jnp.ones_like(t)

    def b(self, t: Array) -> Array:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def extended_time(self, a: Array, b: Array) -> Array:
        ratio = math.log(self.sigma_max / self.sigma_min)
        return jnp.log(b / (a * self.sigma_min)) / ratio


@static
class Cosine(Path):
    """a = cos u/cos u₀, b = √(1 - a²), u = (π/2) (t + offset)/(1 + offset), u₀ = u(0).

    Nichol and Dhariwal 2021, arXiv:2102.09672, equation 17, continuous. The offset
    keeps β from vanishing at the data.
    """

    offset: float = 0.008
    """The share of the cosine before t = 0, above 0."""

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

    def extended_time(self, a: Array, b: Array) -> Array:
        sine = jnp.hypot(b, math.sin(self._u0) * a)
        u = jnp.arctan2(sine, math.cos(self._u0) * a)
        rise = jnp.maximum(u - self._u0, 0.0)  # rounding alone can fall below
        return rise * 2.0 / math.pi * (1.0 + self.offset)


@static
class Trigonometric(Path):
    """a = cos(πt/2), b = sin(πt/2): at even speed along the unit circle.

    Albergo and Vanden-Eijnden 2023, arXiv:2209.15571; Lu and Song 2024,
    arXiv:2410.11081 (TrigFlow).
    """

    def a(self, t: Array) -> Array:
        return jnp.sin(math.pi / 2 * (1.0 - t))

    def b(self, t: Array) -> Array:
        return jnp.sin(math.pi / 2 * t)

    def extended_time(self, a: Array, b: Array) -> Array:
        return jnp.arctan2(b, a) * 2.0 / math.pi


@static
class Karras(Path):
    """a = 1/√(σ² + s²), b = σ a, so that z has variance 1 where the data have s².

    σ(t)^(1/rho) rises evenly from sigma_min to sigma_max: an even grid of t is EDM's
    grid. At t = 0 there still is noise of sigma_min, so a sampler ends with E[x | z]
    (`solve_to_data`). Karras et al. 2022, arXiv:2206.00364, equation 5 and table 1.
    """

    data_std: float = 0.5
    """s, the standard deviation of the data."""
    sigma_min: float = 0.002
    """σ at t = 0."""
    sigma_max: float = 80.0
    """σ at t = 1."""
    rho: float = 7.0
    """The exponent ρ: a larger one has more of the times near the data."""

    def _ends(self):
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)

    def _sigma(self, t):
        low, high = self._ends()
        return (low + t * (high - low)) ** self.rho

    def a(self, t: Array) -> Array:
        return 1.0 / jnp.hypot(self._sigma(t), self.data_std)

    def b(self, t: Array) -> Array:
        return self._sigma(t) * self.a(t)

    def extended_time(self, a: Array, b: Array) -> Array:
        low, high = self._ends()
        return ((b / a) ** (1 / self.rho) - low) / (high - low)
