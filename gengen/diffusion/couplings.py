"""Which noise goes with which image of a batch.

A coupling permutes the *noise* and leaves the images where they are, so that conditions
cannot fall out of step with them. Noise is as good in any order, so the marginals stay.
Given a condition it permutes among the rows whose conditions are equal: else the noise
would know the condition, and a sampler that draws noise for a condition it is asked for
would not (Cheng and Schwing 2025, arXiv:2503.10636).
"""

from typing import Protocol

import chex
import jax
import jax.numpy as jnp
import optax

from gengen.conditions import Given
from gengen.types import Array, Key, static


class Coupling(Protocol):
    """(key, x, noise [B, ...], c) -> the noise in another order, [B, ...]."""

    def __call__(
        self, key: Key, x: Array, noise: Array, c: Given | None = None
    ) -> Array: ...


@static
class Independent:
    """The noise as it was drawn."""

    def __call__(self, key, x, noise, c=None):
        return noise


def same(c: Given | None) -> Array | None:
    """Which rows have equal conditions, bool [B, B]; None without a condition.

    >>> same({"label": jnp.array([1, 2, 1])})[0].tolist()
    [True, False, True]
    """
    rows = [value.reshape(len(value), -1) for value in (c or {}).values()]
    equal = [jnp.all(row[:, None] == row, axis=-1) for row in rows]
    return jnp.all(jnp.stack(equal), axis=0) if equal else None


def squared_distances(x: Array, noise: Array, c: Given | None = None) -> Array:
    """|x_i - ε_j|² [B, B], summed over dimensions; out of reach for unequal conditions.

    >>> squared_distances(jnp.array([[0.0], [2.0]]), jnp.array([[0.0], [1.0]])).tolist()
    [[0.0, 1.0], [4.0, 1.0]]
    """
    chex.assert_equal_shape((x, noise))
    x, noise = (y.reshape(len(y), -1) for y in (x, noise))
    squares = [jnp.sum(y**2, axis=-1) for y in (x, noise)]
    cost = squares[0][:, None] + squares[1] - 2.0 * x @ noise.T
    if (equal := same(c)) is None:
        return cost
    # No assignment within equal conditions costs as much as one step out of them.
    return jnp.where(equal, cost, len(x) * jnp.max(cost))


@static
class OptimalTransport:
    """The assignment with the least Σ |x_i - ε_π(i)|²: straighter paths.

    Pooladian et al. 2023, arXiv:2304.14772; Tong et al. 2024, arXiv:2302.00482,
    proposition 3.4 (OT-CFM). Exact, by the Hungarian method: O(B³).
    """

    def __call__(self, key, x, noise, c=None):
        images, noises = optax.assignment.hungarian_algorithm(
            squared_distances(x, noise, c)
        )
        return noise[jnp.zeros_like(noises).at[images].set(noises)]


@static
class Sinkhorn:
    """Noise j for image i with the probability of entropic optimal transport.

    The plan is e^(f_i + g_j - |x_i - ε_j|²/(entropy · mean cost)), f and g by `sweeps`
    of Sinkhorn's iteration, in logarithms. Drawn for each image, so some noise occurs
    twice and some not at all. Cuturi 2013, arXiv:1306.0895; Tong et al. 2024, section
    3.2.
    """

    entropy: float = 0.02
    sweeps: int = 50

    def plan(self, x: Array, noise: Array, c: Given | None = None) -> Array:
        """log of the plan, whose columns sum to one, and rows nearly: [B, B]."""
        cost = squared_distances(x, noise)
        log_p = -cost / (self.entropy * jnp.mean(cost))
        if (equal := same(c)) is not None:
            log_p = jnp.where(equal, log_p, -jnp.inf)

        def sweep(log_p, _):
            return jax.nn.log_softmax(jax.nn.log_softmax(log_p, 1), 0), None

        return jax.lax.scan(sweep, log_p, length=self.sweeps)[0]

    def __call__(self, key, x, noise, c=None):
        return noise[jax.random.categorical(key, self.plan(x, noise, c), axis=1)]
