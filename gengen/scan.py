"""The one sampling loop.

Whatever is generated step by step (diffusion steps, tokens, pixels, rows) is

    state, emit = step(keys, state, x)

under one `lax.scan`. `keys` [B] holds one key an example, so that sample i is a
function of (key, i) alone: the same whatever the batch size or the sharding.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gengen.types import Array, Key, Tree


def sample_keys(key: Key, num: int, start_index: Array | int = 0) -> Array:
    """Keys [num], fold_in(key, i) of the samples i = start_index, start_index + 1, …"""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(start_index + jnp.arange(num))


def fold_in(keys: Array, data: Array | int) -> Array:
    """`jax.random.fold_in` of every key [B] with the same number, or its own [B]."""
    return jax.vmap(jax.random.fold_in)(keys, jnp.broadcast_to(data, keys.shape))


def normal(keys: Array, shape: tuple[int, ...]) -> Array:
    """Standard normal [B, *shape], row i from keys[i]."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def randint(keys: Array, bound: int) -> Array:
    """Uniform int32 [B] in 0 … bound-1, entry i from keys[i]."""
    return jax.vmap(lambda key: jax.random.randint(key, (), 0, bound))(keys)


def sample_scan(
    step: Callable,
    keys: Array | None,
    state: Tree,
    xs: Tree,
    start_index: Array | int = 0,
) -> tuple[Tree, Tree]:
    """`state, emits[i] = step(fold_in(keys, start_index + i), state, xs[i])`, i < n.

    xs is a pytree with leading axis n. keys may be None if nothing is drawn; then
    `step` gets None. Returns the last state and the emits stacked.
    """
    steps = start_index + jnp.arange(jax.tree.leaves(xs)[0].shape[0])

    def body(state, i_x):
        i, x = i_x
        return step(None if keys is None else fold_in(keys, i), state, x)

    return jax.lax.scan(body, state, (steps, xs))
