"""The order in which the symbols of an example are drawn."""

import numpy as np

from gengen.errors import BadInput
from gengen.types import Array

Order = tuple[int, ...] | None  # the position of the t-th symbol; None for raster order


def check_order(order: Order, num: int) -> None:
    """BadInput for an order that is no permutation of 0 … num - 1.

    >>> check_order((1, 0), 2)
    """
    if order is not None and sorted(order) != list(range(num)):
        raise BadInput(
            f"an order of {len(order)} places, {order[:8]} …: give a permutation of "
            f"0 … {num - 1}, the symbols there are"
        )


def in_order(x: Array, order: Order) -> Array:
    """x [B, T, …] in raster order -> the same in the order of drawing.

    >>> in_order(np.array([[5, 6, 7]]), (2, 0, 1)).tolist()
    [[7, 5, 6]]
    """
    return x if order is None else x[:, np.array(order)]


def in_raster_order(x: Array, order: Order) -> Array:
    """The inverse of `in_order`.

    >>> in_raster_order(np.array([[7, 5, 6]]), (2, 0, 1)).tolist()
    [[5, 6, 7]]
    """
    return x if order is None else x[:, np.argsort(order)]
