"""The standard deviation over a minibatch, which shows a critic a lack of variety."""

import math

import chex
import jax.numpy as jnp

from gengen.nets.layers import at_least_float32
from gengen.types import Array


def minibatch_std(x: Array, group: int = 4) -> Array:
    """x and one more channel: the mean standard deviation within the example's group.

    The groups are of gcd(B, group) examples, strided through the batch. The deviation
    is √(E[(x - E x)²] + 10⁻⁸) over a group, averaged over channels and pixels: one
    number for each group. Karras et al. 2018, arXiv:1710.10196, section 3.

    Args:
        x: features [B, H, W, C].
        group: the most examples in a group.

    Returns:
        [B, H, W, C + 1].

    >>> minibatch_std(jnp.array([-1.0, 1.0]).reshape(2, 1, 1, 1))[..., 1].ravel()
    Array([1., 1.], dtype=float32)
    """
    chex.assert_rank(x, 4)
    size = math.gcd(len(x), group)
    groups = at_least_float32(x).reshape(size, -1, *x.shape[1:])
    std = jnp.sqrt(jnp.var(groups, axis=0) + 1e-8)
    mean = jnp.tile(jnp.mean(std, axis=(1, 2, 3)), size)
    channel = jnp.broadcast_to(mean[:, None, None, None], (*x.shape[:3], 1))
    return jnp.concatenate([x, channel.astype(x.dtype)], axis=-1)
