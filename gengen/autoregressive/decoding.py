"""Decoding: symbols one after the other, by a cache, by whole passes, or by sweeps.

A network has two views of one set of weights. The parallel view gives the features of
all positions of a known x; a `View` gives those of position t after symbol x_{t-1}. Its
cache is what it takes to extend by one symbol: keys and values, the rows that a kernel
looks back on, a recurrent state. `cached_view` is the network's own, so that all T
steps together cost about one pass; in `naive_view` the cache is x and every symbol
costs a whole pass, T of them. Both give the same samples.

Jacobi's iteration gives them too: with the noise of every position fixed, the
sequential sample is the fixed point of

    x ← draw(features(x), noise),

of which after k sweeps at least the first k symbols are right, and many more where
symbols depend on little. Song, Meng, Liao and Ermon 2021, arXiv:2002.03629, section 4.

Caches: Ramachandran et al. 2017, arXiv:1704.06001.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from gengen.scan import fold_in, sample_scan
from gengen.types import Array, Tree


class View(NamedTuple):
    """How to extend a sequence by one symbol."""

    start: Callable
    """() -> the cache before the first symbol."""
    start_row: Callable
    """(symbol, row number, cache) -> the cache at the beginning of a row."""
    decode: Callable
    """(symbol, t, cache) -> (features of position t [B, F], cache)."""
    row_length: int
    """The number of symbols from one `start_row` to the next."""


def cached_view(apply: Callable, row_length: int | None, num: int, length: int, c):
    """The network's own step-by-step view, by its methods start, start_row and decode.

    >>> def network(*arguments, method):  # features: the number of symbols so far
    ...     return 0 if method == "start" else (arguments[0], arguments[2] + 1)
    >>> view = cached_view(network, None, 2, 5, {})
    >>> view.decode(jnp.array([3, 4]), 0, view.start())
    (Array([3, 4], dtype=int32), 1)

    Args:
        apply: (*arguments, method) -> the result of the network's method.
        row_length: the network's symbols per row; None for a network without rows.
        num: the number of sequences, B.
        length: the number of symbols of a sequence.
        c: the condition of B rows.
    """

    def start():
        return apply(num, c, method="start")

    def start_row(symbol, i, cache):
        if row_length is None:
            return cache
        return apply(symbol, i, cache, c, method="start_row")

    def decode(symbol, t, cache):
        return apply(symbol, t, cache, c, method="decode")

    return View(start, start_row, decode, row_length or length)


def naive_view(features_of: Callable, shape: tuple[int, ...]) -> View:
    """The same, where the cache is x and every symbol costs a whole pass.

    >>> view = naive_view(lambda x: jnp.cumsum(x, axis=1)[..., None], (1, 3))
    >>> features, x = view.decode(jnp.array([4]), 1, view.start())  # x_0 = 4 is known
    >>> features.tolist(), x.tolist()
    ([[4]], [[4, 0, 0]])

    Args:
        features_of: the parallel view, x of that shape -> features [B, T, F].
        shape: (B, T, *symbol).
    """

    def start():
        return jnp.zeros(shape, jnp.int32)

    def decode(symbol, t, x):
        # At t = 0 this writes to the last position, which no features see.
        x = x.at[:, t - 1].set(symbol)
        return features_of(x)[:, t], x

    return View(start, lambda symbol, i, x: x, decode, shape[1])


def generate(
    view: View, draw: Callable, keys: Array, given: Array, observed: Array
) -> tuple[Array, Array]:
    """All symbols, one after the other, under one nested scan over rows and symbols.

    Args:
        view: how to extend by one symbol.
        draw: (keys, features, given, observed) -> (symbol [B, *symbol], its nats).
        keys: [B] keys; position t draws from fold_in(keys, t).
        given: the clamped symbols, int32 [B, T, *symbol].
        observed: which symbols are clamped, bool of the same shape.

    Returns:
        The symbols and their log-probabilities, [B, T, *symbol] each.

    >>> view = View(lambda: 0, lambda s, i, n: n, lambda s, t, n: (s, n + 1), 1)
    >>> draw = lambda keys, features, given, observed: (features + 1, 0.0 * features)
    >>> free = jnp.zeros((1, 3), int), jnp.zeros((1, 3), bool)
    >>> generate(view, draw, jax.random.split(jax.random.key(0), 1), *free)[0].tolist()
    [[1, 2, 3]]
    """
    chex.assert_equal_shape([given, observed])
    chex.assert_shape(keys, given.shape[:1])
    length, row_length = given.shape[1], view.row_length

    def step(keys, carry, x):
        t, given, observed = x
        features, cache = view.decode(carry[0], t, carry[1])
        symbol, log_p = draw(keys, features, given, observed)
        return (symbol, cache), (symbol, log_p)

    def one_row(carry, row):
        i, xs = row
        symbol, cache = carry
        carry = symbol, view.start_row(symbol, i, cache)
        return sample_scan(step, keys, carry, xs, start_index=i * row_length)

    def rows(x):  # [T, …] -> [rows, row_length, …]
        return x.reshape(-1, row_length, *x.shape[1:])

    xs = jnp.arange(length), jnp.moveaxis(given, 1, 0), jnp.moveaxis(observed, 1, 0)
    xs = jax.tree.map(rows, xs)
    carry = jnp.zeros_like(given[:, 0]), view.start()
    _, emits = jax.lax.scan(one_row, carry, (jnp.arange(len(xs[0])), xs))
    symbols, log_p = (
        jnp.moveaxis(e.reshape(length, *e.shape[2:]), 0, 1) for e in emits
    )
    return symbols, log_p


def jacobi(
    features_of: Callable, draw: Callable, keys: Array, shape: tuple[int, ...]
) -> tuple[Array, Array]:
    """The sequential sample as a fixed point: sweeps over all positions at once.

    Args:
        features_of: the parallel view, x of that shape -> features [B, T, F].
        draw: (keys, features [B, F]) -> symbols [B, *symbol].
        keys: [B] keys; position t draws from fold_in(keys, t).
        shape: (B, T, *symbol).

    Returns:
        The symbols, and the number of sweeps: at most T + 1 passes, of which the last
        only confirms.

    >>> after = lambda x: jnp.pad(x[:, :-1], ((0, 0), (1, 0)))[..., None]
    >>> draw = lambda keys, features: features[:, 0] + 1
    >>> x, sweeps = jacobi(after, draw, jax.random.split(jax.random.key(0), 1), (1, 3))
    >>> x.tolist(), int(sweeps)
    ([[1, 2, 3]], 4)
    """
    chex.assert_shape(keys, shape[:1])
    places = jnp.arange(shape[1])

    def at(t, features):
        return draw(fold_in(keys, t), features)

    def sweep(carry: Tree) -> Tree:
        x, _, sweeps = carry
        new = jax.vmap(at, (0, 1), 1)(places, features_of(x))
        return new, jnp.any(new != x), sweeps + 1

    start = jnp.zeros(shape, jnp.int32), jnp.bool_(True), jnp.int32(0)
    x, _, sweeps = jax.lax.while_loop(lambda carry: carry[1], sweep, start)
    return x, sweeps
