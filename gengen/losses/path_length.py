"""Path length of a generator: how far an image moves if its style moves, as a penalty.

    E_{w,y} (|J_wᵀ y| - a)²,      J_w = ∂g(w)/∂w,  y ~ N(0, I)/√(H W)

with a the running mean of the lengths. It is least where J_w is orthogonal up to a
scale at every w: a step of fixed size in w is then a change of fixed size in the image.
J_wᵀ y is the gradient of <g(w), y>, so one backward pass makes it.

Karras et al. 2020, arXiv:1912.04958, section 3.2, equation 4.
"""

import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gengen.types import Array, Key, static


def path_lengths(generator: Callable[[Array], Array], w: Array, key: Key) -> Array:
    """|J_wᵀ y| per example, [B]: its mean square over layers, then the root.

    Args:
        generator: w -> images [B, H, W, C]; examples do not depend on one another.
        w: styles [B, layers, D].
        key: for y.

    >>> images = lambda w: w.reshape(1, 1, 1, 4)  # J is the identity
    >>> y = jax.random.normal(jax.random.key(0), (1, 1, 1, 4))
    >>> length = path_lengths(images, jnp.zeros((1, 1, 4)), jax.random.key(0))
    >>> bool(jnp.allclose(length, jnp.linalg.norm(y)))
    True
    """
    chex.assert_rank(w, 3)
    shape = jax.eval_shape(generator, w).shape
    y = jax.random.normal(key, shape, w.dtype) / math.sqrt(shape[1] * shape[2])
    gradient = jax.grad(lambda w: jnp.sum(generator(w) * y))(w)
    return jnp.sqrt(jnp.mean(jnp.sum(jnp.square(gradient), axis=2), axis=1))


@static
class PathLength:
    """weight · (|J_wᵀ y| - a)² and the new a, of lengths [B].

    >>> value, mean = PathLength(2.0, 0.5)(jnp.array([3.0]), jnp.float32(1.0))
    >>> value.tolist(), float(mean)
    ([2.0], 2.0)
    """

    weight: float = 2.0
    """What the square is multiplied by."""
    decay: float = 0.01
    """The share of a that a batch renews."""
    interval: int = 4
    """Steps between two penalties, each that many times as strong."""
    shrink: int = 2
    """One in so many examples of a batch is penalised."""

    def __call__(self, lengths: Array, mean: Array) -> tuple[Array, Array]:
        """lengths: [B]. mean: a, to which the batch comes first."""
        chex.assert_rank((lengths, mean), (1, 0))
        seen = jnp.mean(jax.lax.stop_gradient(lengths))
        mean = mean + self.decay * (seen - mean)
        return self.weight * jnp.square(lengths - mean), mean
