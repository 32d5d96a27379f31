"""Drifting: a one-step generator moved along a kernel's field, without a critic.

The generator is a diffusion model's network at the last time, x = x̂(ε, t_max), from
scratch or from a flow's weights. The samples of a batch drift to the data of their own
class, and away from each other (`gengen.losses.drifting`), at kernels of several
widths; the network is trained to be where they drift to. The loss is the mean square of
the drift, which is small where the smoothed densities agree.

Deng et al. 2026, arXiv:2602.04770.
"""

import jax
import jax.numpy as jnp

from gengen.conditions import parts_of
from gengen.diffusion.sampler import Sampler
from gengen.diffusion.solvers import Renoise
from gengen.errors import BadInput
from gengen.losses.drifting import drift
from gengen.models.combinators.student import OneStep
from gengen.objective import loss
from gengen.types import static


@static
class Drifting(OneStep):
    """A `Diffusion` as a one-step generator."""

    widths: tuple[float, ...] = (0.1, 0.2, 0.4)
    """Widths of the kernel, over the square root of the number of dimensions."""
    sampler: Sampler = Sampler(Renoise(), steps=1)
    """One call."""

    def __post_init__(self):
        self.check()
        self.sampler_of(self.sampler)
        if not self.widths or min(self.widths) <= 0:
            raise BadInput(f"widths={self.widths}: one or more, above 0")

    def _same(self, c, num: int) -> jax.Array:
        """Which rows of a batch have one condition, bool [B, B]."""
        same = jnp.ones((num, num), bool)
        for part in parts_of(self.condition):
            rows = c[part.key].reshape(num, -1)
            same &= jnp.all(rows[:, None] == rows[None], axis=-1)
        return same

    @loss
    def loss(self, params, state, batch, key):
        """|x - stop(x + V)|² per dimension; metric "drift": its square root."""
        x, c = self.space.read(batch), self.condition.read(batch)
        num = len(x)
        fake, same = self.generate(params, c, num, key), self._same(c, num)
        at, root = jax.lax.stop_gradient(fake), fake[0].size ** 0.5
        others = same & ~jnp.eye(num, dtype=bool)
        moves = [drift(at, x, at, root * h, same, others) for h in self.widths]
        error = jnp.square(fake - (at + sum(moves) / len(moves)))
        value = jnp.mean(error)
        return value, (state, {"drift": jnp.sqrt(value)})
