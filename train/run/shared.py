"""Programs that equal models share: opened again, a run need not be traced again."""

import functools
from collections.abc import Callable

import jax

from .cache import compiled_quickly


def shared_jit(function: Callable, *values, quickly: bool = False) -> Callable:
    """`function(*values, …)`, compiled: the same program for equal values.

    Values that cannot be hashed, such as a model of one's own that holds a list, have a
    program of their own.

    Args:
        function: of a module, which compares equal only with itself.
        *values: its first arguments: static ones, such as a model.
        quickly: whether it runs so seldom that the time to compile counts more.
    """
    try:
        return _kept(function, quickly, *values)
    except TypeError:
        return _kept.__wrapped__(function, quickly, *values)


@functools.lru_cache(maxsize=64)
def _kept(function, quickly, *values):
    options = compiled_quickly() if quickly else {}
    return jax.jit(functools.partial(function, *values), compiler_options=options)
