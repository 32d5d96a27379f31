"""What guidance that is strong does to x̂, and how it is undone.

thresholded    too large values, for the range of the data
rescaled       too large a deviation, for that of the conditional x̂
"""

import chex
import jax.numpy as jnp

from gengen.diffusion.process import expand
from gengen.types import Array


def thresholded(x: Array, quantile: float) -> Array:
    """x̂ clipped to [-s, s] and divided by s = max(1, that quantile of |x̂|), a sample.

    Saharia et al. 2022, arXiv:2205.11487, section 2.3 (dynamic thresholding).

    >>> thresholded(jnp.array([[4.0, 1.0, -2.0]]), 0.5).tolist()
    [[1.0, 0.5, -1.0]]
    """
    size = jnp.quantile(jnp.abs(x).reshape(x.shape[0], -1), quantile, axis=-1)
    s = expand(jnp.maximum(size, 1.0), x)
    return jnp.clip(x, -s, s) / s


def rescaled(x: Array, conditional: Array, share: float) -> Array:
    """x̂ with the standard deviation of the conditional x̂_y: share of it, a sample.

    share · x̂ std(x̂_y)/std(x̂) + (1 - share) · x̂. The paper does so to what the network
    predicts; on x̂ it is the same for every prediction. A flat x̂, of deviation 0, stays
    what it is. Lin et al. 2024, arXiv:2305.08891, equations 15 and 16.

    >>> rescaled(jnp.ones((1, 2)), jnp.array([[0.0, 2.0]]), 1.0).tolist()
    [[1.0, 1.0]]
    """
    chex.assert_equal_shape((x, conditional))
    axes = tuple(range(1, x.ndim))
    wanted, std = (jnp.std(each, axes, keepdims=True) for each in (conditional, x))
    ratio = jnp.where(std > 0, wanted / jnp.where(std > 0, std, 1.0), 1.0)
    return (share * ratio + 1.0 - share) * x
