"""Gradients of a batch in parts, one after the other or one per device; clipping.

`accumulate_gradients` and `mean_over_devices` make one gradient of several;
`clip_weights` is the last part of an optimiser.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from gengen.errors import BadInput
from gengen.types import Tree


def mean_over_devices(tree: Tree, axis_name: str | None) -> Tree:
    """The mean of every floating leaf over a mapped axis; the tree itself if None.

    >>> mean = lambda x: mean_over_devices(x, "data")
    >>> jax.vmap(mean, axis_name="data")(jnp.array([1.0, 3.0]))
    Array([2., 2.], dtype=float32)
    """

    def mean(x):
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return jax.lax.pmean(x, axis_name) if floating else x

    return tree if axis_name is None else jax.tree.map(mean, tree)


def accumulate_gradients(gradient: Callable, num: int) -> Callable:
    """The mean of `gradient` over `num` equal parts of the batch.

    The parts are processed one after the other, so the memory is that of one part. The
    state passes from part to part, and each part has its own key.

    >>> def gradient(own, state, batch, key):
    ...     mean = jnp.mean(batch)
    ...     return (mean, (state, {})), own * mean
    >>> whole = accumulate_gradients(gradient, 2)
    >>> (loss, _), grads = whole(2.0, {}, jnp.arange(4.0), jax.random.key(0))
    >>> float(loss), float(grads)
    (1.5, 3.0)

    Args:
        gradient: `gradient(own, state, batch, key)`, which returns
            ((loss, (state, metrics)), grads).
        num: the number of parts.

    Raises:
        BadInput: at the call, if `num` does not divide the batch.
    """

    def divide(x):
        if x.shape[0] % num:
            raise BadInput(
                f"a batch of {x.shape[0]} cannot be accumulated in {num} equal parts: "
                f"choose a multiple of {num}"
            )
        return x.reshape(num, -1, *x.shape[1:])

    def whole(own, state, batch, key):
        parts = jax.tree.map(divide, batch), jax.random.split(key, num)

        def add(carry, part):
            state, total = carry
            (loss, (state, seen)), grads = gradient(own, state, *part)
            return (state, jax.tree.map(jnp.add, total, (loss, seen, grads))), None

        first = jax.tree.map(lambda x: x[0], parts)
        (loss, (_, seen)), grads = jax.eval_shape(gradient, own, state, *first)
        zeros = jax.tree.map(jnp.zeros_like, (loss, seen, grads))
        (state, total), _ = jax.lax.scan(add, (state, zeros), parts)
        loss, seen, grads = jax.tree.map(lambda x: x / num, total)
        return (loss, (state, seen)), grads

    return whole


def clip_weights(bound: float) -> optax.GradientTransformation:
    """Every parameter is kept in [-bound, bound]: the last part of an `optax.chain`.

    Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1, with bound 0.01. Parameters
    outside at first come in with the first update.

    >>> clip, w = clip_weights(0.5), jnp.array([0.25])
    >>> updates, _ = clip.update(jnp.array([1.0]), clip.init(w), w)
    >>> optax.apply_updates(w, updates)
    Array([0.5], dtype=float32)

    Args:
        bound: above 0.

    Raises:
        BadInput: for a bound that is not above 0.
    """
    if not bound > 0:
        raise BadInput(f"clip_weights({bound}): weights are kept below a bound above 0")

    def clipped(updates, params):
        def kept(u, w):
            return jnp.clip(w + u, -bound, bound) - w

        return jax.tree.map(kept, updates, params)

    return optax.stateless(clipped)
