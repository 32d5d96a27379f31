"""Many training steps in one dispatch, in a loop on the device."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from gengen.types import Tree, Variables


def identity(data: Tree, item: Tree) -> Tree:
    """The item itself: what the feed holds is the batch.

    >>> identity(None, {"x": 1})
    {'x': 1}
    """
    del data
    return item


def multi_step(step: Callable, fetch: Callable = identity, length: int = 1) -> Callable:
    """`many(train_state, data, feed, num, frozen=None) -> (train_state, metrics)`.

    Step i < num sees the batch `fetch(data, feed[i])`; the metrics are means over the
    steps taken. This is a loop with a counter and not a `lax.scan` over the feed,
    because `num` is traced: a run which `length` does not divide still compiles once.
    With length 1 there is no loop, because XLA on CPU does not speed up the gradients
    of convolutions inside loops.

    >>> def step(total, batch, frozen):
    ...     return total + batch, {"seen": batch}
    >>> total, metrics = multi_step(step, length=3)(0.0, None, jnp.arange(3.0), 2)
    >>> float(total), float(metrics["seen"])
    (1.0, 0.5)

    Args:
        step: `step(train_state, batch, frozen) -> (train_state, metrics)`, e.g. of
            `gengen.step.make_train_step`.
        fetch: `fetch(data, item) -> batch`, e.g. rows of a data set on the device at
            the indices `item` [B].
        length: the leading axis of each leaf of `feed`; num is in 1 … length.
    """

    def flat(metrics):
        """(one array of floats, which one operation adds up; its inverse)."""
        return ravel_pytree(jax.tree.map(lambda x: x.astype(float), metrics))

    def one(train_state, data, feed, i, frozen):
        item = jax.tree.map(
            lambda x: jax.lax.dynamic_index_in_dim(x, i, 0, False), feed
        )
        return step(train_state, fetch(data, item), frozen)

    def many(
        train_state: Any,
        data: Tree,
        feed: Tree,
        num,
        frozen: Mapping[str, Variables] | None = None,
    ):
        if length == 1:
            return one(train_state, data, feed, 0, frozen)
        shapes = jax.eval_shape(one, train_state, data, feed, 0, frozen)[1]
        zeros, metrics_of = flat(jax.tree.map(jnp.zeros_like, shapes))

        def body(i, carry):
            train_state, total = carry
            train_state, metrics = one(train_state, data, feed, i, frozen)
            return train_state, total + flat(metrics)[0]

        train_state, total = jax.lax.fori_loop(0, num, body, (train_state, zeros))
        return train_state, metrics_of(total / num)

    return many
