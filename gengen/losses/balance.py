"""How much one loss weighs beside another: by their gradients in one place."""

import jax
import jax.numpy as jnp

from gengen.types import Array, Tree


def balance(first: Tree, second: Tree, most: float = 1.0) -> Array:
    """λ = min(|∇first| / (|∇second| + 10⁻⁴), most): no gradient passes through it.

    λ times the second loss moves the arrays as far as the first one does. Esser,
    Rombach and Ommer 2021, arXiv:2012.09841, equation 7, clipped.

    Args:
        first: the gradient of the first loss in some arrays, such as a last layer.
        second: that of the second loss, in the same arrays.
        most: the largest λ.

    >>> balance(jnp.array([3.0, 4.0]), jnp.array([0.0, 10.0]))
    Array(0.5, dtype=float32)
    """

    def norm(tree):
        return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))

    ratio = norm(first) / (norm(second) + 1e-4)
    return jax.lax.stop_gradient(jnp.minimum(ratio, most))
