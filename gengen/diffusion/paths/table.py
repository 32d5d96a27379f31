"""A path that is known at numbered steps only: DDPM's own schedule."""

import jax.numpy as jnp

from gengen.diffusion.paths.path import Path
from gengen.types import Array, static


@static
class DDPMSchedule(Path):
    """DDPM's own schedule: `steps` values β rising evenly, a² = Π (1 - β), b² = 1 - a².

    A time is the step number over `steps`, rounded to the nearest; 0 is clean. The
    table has no derivatives, and no time above 1. Ho et al. 2020, arXiv:2006.11239,
    section 4.
    """

    steps: int = 1000
    """The number of steps."""
    beta_first: float = 1e-4
    """β of the first step."""
    beta_last: float = 0.02
    """β of the last step."""
    discrete = True

    def _log_a(self) -> Array:
        beta = jnp.linspace(self.beta_first, self.beta_last, self.steps)
        return jnp.pad(0.5 * jnp.cumsum(jnp.log1p(-beta)), (1, 0))

    def _at(self, t: Array) -> Array:
        return self._log_a()[jnp.rint(jnp.asarray(t) * self.steps).astype(int)]

    def a(self, t: Array) -> Array:
        return jnp.exp(self._at(t))

    def b(self, t: Array) -> Array:
        return jnp.sqrt(-jnp.expm1(2.0 * self._at(t)))

    def extended_time(self, a: Array, b: Array) -> Array:
        log_a = -0.5 * jnp.log1p((b / a) ** 2)
        number = jnp.interp(-log_a, -self._log_a(), jnp.arange(self.steps + 1.0))
        return jnp.rint(number) / self.steps
