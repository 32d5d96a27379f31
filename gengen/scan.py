"""The one sampling loop.

Whatever is generated step by step (diffusion steps, tokens, pixels, rows) is

    state, emit = step(keys, state, x)

under one `lax.scan`. `keys` [B] holds one key per example, so that sample i is a
function of (key, i) alone: the same whatever the batch size or the sharding.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.types import Array, Key, Tree


def check_key(key: Key) -> None:
    """BadInput unless `key` is one typed key.

    >>> check_key(jax.random.PRNGKey(0))
    Traceback (most recent call last):
    ...
    gengen.errors.BadInput: the key is uint32 (2,): make one with jax.random.key(seed)
    """
    dtype, shape = jnp.asarray(key).dtype, jnp.shape(key)
    if not jnp.issubdtype(dtype, jax.dtypes.prng_key) or shape:
        raise BadInput(
            f"the key is {dtype} {shape}: make one with jax.random.key(seed)"
        )


def sample_keys(key: Key, num: int, start_index: Array | int = 0) -> Array:
    """Keys [num]: fold_in(key, i) for the samples i = start_index, start_index + 1, …

    >>> sample_keys(jax.random.key(0), 4).shape
    (4,)

    Args:
        key: one typed key.
        num: the number of samples, at least 1.
        start_index: the index of the first sample; an integer scalar.

    Raises:
        BadInput: if `key` is not one typed key, or for no samples.
    """
    check_key(key)
    if num < 1:
        raise BadInput(f"num={num}: give at least 1")
    chex.assert_rank(start_index, 0)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(start_index + jnp.arange(num))


def fold_in(keys: Array, data: Array | int) -> Array:
    """`jax.random.fold_in` of every key.

    >>> fold_in(sample_keys(jax.random.key(0), 4), 7).shape
    (4,)

    Args:
        keys: keys [B].
        data: one integer for all keys, or integers [B], one per key.
    """
    chex.assert_rank(keys, 1)
    if jnp.ndim(data):
        chex.assert_shape(data, keys.shape)
    return jax.vmap(jax.random.fold_in)(keys, jnp.broadcast_to(data, keys.shape))


def normal(keys: Array, shape: tuple[int, ...]) -> Array:
    """Standard normal noise [B, *shape]; row i is drawn from keys[i].

    >>> normal(sample_keys(jax.random.key(0), 4), (3, 2)).shape
    (4, 3, 2)

    Args:
        keys: keys [B].
        shape: the shape of one row.
    """
    chex.assert_rank(keys, 1)
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def randint(keys: Array, bound: int) -> Array:
    """Uniform int32 [B] in 0 … bound-1; entry i is drawn from keys[i].

    >>> randint(sample_keys(jax.random.key(0), 3), 1)
    Array([0, 0, 0], dtype=int32)

    Args:
        keys: keys [B].
        bound: the number of values, at least 1.
    """
    chex.assert_rank(keys, 1)
    return jax.vmap(lambda key: jax.random.randint(key, (), 0, bound))(keys)


def sample_scan(
    step: Callable,
    keys: Array | None,
    state: Tree,
    xs: Tree,
    start_index: Array | int = 0,
) -> tuple[Tree, Tree]:
    """`state, emits[i] = step(fold_in(keys, start_index + i), state, xs[i])` for i < n.

    >>> def step(keys, state, x):
    ...     return state + x, state
    >>> keys = sample_keys(jax.random.key(0), 2)
    >>> state, emits = sample_scan(step, keys, jnp.zeros(2), jnp.array([1.0, 2.0]))
    >>> state.tolist(), emits.tolist()
    ([3.0, 3.0], [[0.0, 0.0], [1.0, 1.0]])

    Args:
        step: `step(keys, state, x) -> (state, emit)`.
        keys: keys [B], one per example; None if nothing is drawn.
        state: the state before the first step.
        xs: a tree whose leaves have a leading axis of the same length n.
        start_index: the index of the first step; an integer scalar.

    Returns:
        The last state, and the emits stacked along a new leading axis n.
    """
    chex.assert_rank(start_index, 0)
    if keys is not None:
        chex.assert_rank(keys, 1)
    chex.assert_equal_shape_prefix(jax.tree.leaves(xs), 1)
    steps = start_index + jnp.arange(jax.tree.leaves(xs)[0].shape[0])

    def body(state, i_x):
        i, x = i_x
        return step(None if keys is None else fold_in(keys, i), state, x)

    return jax.lax.scan(body, state, (steps, xs))
