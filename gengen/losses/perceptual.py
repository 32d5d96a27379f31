"""How far apart two images are in the maps of a network: textures, not pixels."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from gengen.types import Array


def perceptual_distance(one: Sequence[Array], other: Sequence[Array]) -> Array:
    """Σ_l mean over places of |û_l - v̂_l|², [B]; û and v̂ are unit vectors of channels.

    Equation 1 of Zhang et al. 2018, arXiv:1801.03924 (LPIPS), all of whose learned
    weights are 1 here. Each layer's part is 2 (1 - the mean cosine), between 0 and 4.
    Its gradient is finite everywhere, at maps of zeros, too.

    Args:
        one: maps [B, h, w, F] of the first images, one array per layer.
        other: those of the second images.

    >>> up, left = jnp.array([[[[0.0, 2.0]]]]), jnp.array([[[[3.0, 0.0]]]])
    >>> perceptual_distance([up], [left]).tolist()
    [2.0]
    """
    chex.assert_equal_shape_prefix([*one, *other], 1)
    total = 0.0
    for u, v in zip(one, other, strict=True):
        chex.assert_equal_shape((u, v))
        square = jnp.sum(jnp.square(unit(u) - unit(v)), axis=-1)
        total = total + jnp.mean(square.reshape(len(square), -1), axis=1)
    return total


def unit(x: Array) -> Array:
    """x/|x| along the last axis, finite at 0, where it is 0.

    >>> unit(jnp.array([3.0, 4.0]))
    Array([0.6, 0.8], dtype=float32)
    """
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-10)
