"""The keys or values of a sequence so far, in whole segments.

A cache is a tuple of segments [B, N, S, d], the last of which may be shorter. Attention
reads the filled ones, each as it lies in memory: a slice of one long array would be
copied before each product.
"""

import chex
import jax
import jax.numpy as jnp

from gengen.types import Array

Cache = tuple[Array, ...]


def empty_cache(num: int, heads: int, length: int, width: int, segment: int, dtype):
    """Zeros for `length` positions, in segments of `segment`.

    >>> [part.shape for part in empty_cache(1, 2, 5, 3, 4, jnp.float32)]
    [(1, 2, 4, 3), (1, 2, 1, 3)]
    """
    sizes = [min(segment, length - n) for n in range(0, length, segment)]
    return tuple(jnp.zeros((num, heads, size, width), dtype) for size in sizes)


def write(cache: Cache, x: Array, t: Array) -> Cache:
    """The cache with x [B, N, d] at position t.

    One row of each segment is written, in place: x where t lies in it, else the row
    that it had.

    >>> cache = empty_cache(1, 1, 3, 1, 2, jnp.float32)
    >>> [part.ravel().tolist() for part in write(cache, jnp.ones((1, 1, 1)), 2)]
    [[0.0, 0.0], [1.0]]
    """
    chex.assert_rank([x, *cache], [3, *[4] * len(cache)])
    chex.assert_equal_shape_prefix([x, *cache], 2)
    chex.assert_trees_all_equal_dtypes(x, *cache)
    new, begin = [], 0
    for part in cache:
        row = jnp.clip(t - begin, 0, part.shape[2] - 1)
        old = jax.lax.dynamic_slice_in_dim(part, row, 1, axis=2)
        value = jnp.where(row == t - begin, x[:, :, None], old)
        new.append(jax.lax.dynamic_update_slice_in_dim(part, value, row, axis=2))
        begin += part.shape[2]
    return tuple(new)


def attend_cached(q: Array, keys: Cache, values: Cache, t: Array) -> Array:
    """`attend` of position t to positions 0 … t of a cache: q [B, N, d] -> [B, N, d].

    Reads the segments up to that of t: one branch of a switch for each number of them.

    >>> cache = empty_cache(1, 1, 3, 1, 2, jnp.float32)
    >>> values = write(cache, jnp.ones((1, 1, 1)), 0)
    >>> attend_cached(jnp.ones((1, 1, 1)), cache, values, 1).item()
    0.5
    """
    chex.assert_rank([q, *keys, *values], [3, *[4] * 2 * len(keys)])
    chex.assert_trees_all_equal_shapes(keys, values)

    def over(filled):
        def attention(q, keys, values, t):
            scores = [jnp.einsum("bnd,bnsd->bns", q, k) for k in keys[:filled]]
            scores = jnp.concatenate(scores, axis=-1) * q.shape[-1] ** -0.5
            scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
            seen = jnp.arange(scores.shape[-1]) <= t
            weight = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
            weight = weight.astype(values[0].dtype)
            ends = [keys[0].shape[2] * n for n in range(1, filled)]
            parts = jnp.split(weight, ends, axis=-1)
            return sum(
                jnp.einsum("bns,bnsd->bnd", part, v)
                for part, v in zip(parts, values[:filled], strict=True)
            )

        return attention

    branches = [over(n + 1) for n in range(len(keys))]
    return jax.lax.switch(t // keys[0].shape[2], branches, q, keys, values, t)
