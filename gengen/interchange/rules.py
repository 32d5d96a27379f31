"""Rules of names and layouts: each a bijection between tensors of theirs and of ours.

    Rule(("h.0.mlp.c_fc.weight",), ("layers_0/expand/kernel",))       the same array
    Rule(("proj.weight",), ("out/kernel",), transposed(1, 0))         another layout

A layout is a pair of inverse functions between lists of arrays. It only moves numbers,
so that both ways together are the identity, bit for bit.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from gengen.errors import BadInput
from gengen.types import Array, Tree, static

Arrays = Sequence[Array]


@static
class Layout:
    """Theirs -> ours, and its inverse; lists of arrays of fixed lengths."""

    there: Callable[[Arrays], Arrays]
    back: Callable[[Arrays], Arrays]

    def __matmul__(self, first: "Layout") -> "Layout":
        """`first`, then this one."""
        return Layout(
            lambda theirs: self.there(first.there(theirs)),
            lambda ours: first.back(self.back(ours)),
        )


def each(there: Callable, back: Callable) -> Layout:
    """One function for every array of a list.

    >>> each(lambda x: 2 * x, lambda x: x / 2).back([4, 6])
    [2.0, 3.0]
    """
    return Layout(
        lambda theirs: [there(x) for x in theirs], lambda ours: [back(x) for x in ours]
    )


SAME = each(lambda x: x, lambda x: x)


def transposed(*axes: int) -> Layout:
    """Ours has the axes of theirs in this order.

    >>> transposed(1, 0).there([np.zeros((2, 3))])[0].shape
    (3, 2)
    """
    inverse = tuple(int(i) for i in np.argsort(axes))
    return each(lambda x: x.transpose(axes), lambda x: x.transpose(inverse))


def ordered(axis: int, order: Sequence[int]) -> Layout:
    """Row i of ours along an axis is row order[i] of theirs.

    >>> ordered(0, [2, 0, 1]).there([np.array([5, 6, 7])])[0].tolist()
    [7, 5, 6]
    """
    order, inverse = np.asarray(order), np.argsort(order)
    return each(
        lambda x: x.take(order, axis=axis), lambda x: x.take(inverse, axis=axis)
    )


def joined(axis: int, parts: int) -> Layout:
    """Ours is theirs, `parts` arrays of one shape, side by side along an axis.

    >>> [x.tolist() for x in joined(0, 2).there([np.array([1]), np.array([2])])]
    [[1, 2]]
    """
    return Layout(
        lambda theirs: [_namespace(theirs).concat(list(theirs), axis=axis)],
        lambda ours: _split(ours[0], axis, [1] * parts),
    )


def copies(num: int) -> Layout:
    """Theirs is one array of ours, `num` times; BadInput if those differ.

    >>> copies(2).back([7])
    [7, 7]
    """

    def there(theirs):
        if not all(np.array_equal(theirs[0], x) for x in theirs[1:]):
            raise BadInput(
                "the copies of one array differ, and this network has one for all: "
                "it cannot hold them"
            )
        return [theirs[0]]

    return Layout(there, lambda ours: [ours[0]] * num)


def stacked(num: int, layout: Layout = SAME) -> Layout:
    """Ours is theirs, `num` groups that are each one array by `layout`, stacked.

    >>> stacked(2).there([np.arange(3), np.arange(3)])[0].shape
    (2, 3)
    """

    def there(theirs):
        size = len(theirs) // num
        groups = [theirs[i * size : (i + 1) * size] for i in range(num)]
        made = [layout.there(group)[0] for group in groups]
        return [_namespace(made).stack(made)]

    def back(ours):
        return [x for i in range(num) for x in layout.back([ours[0][i]])]

    return Layout(there, back)


def _namespace(arrays: Arrays):
    return arrays[0].__array_namespace__()


def _split(x: Array, axis: int, sizes: Sequence[int]) -> list[Array]:
    ends = np.cumsum(sizes)[:-1] * x.shape[axis] // sum(sizes)
    starts = [slice(a, b) for a, b in zip([0, *ends], [*ends, None], strict=True)]
    before = (slice(None),) * (axis % x.ndim)
    return [x[(*before, each)] for each in starts]


@static
class Rule:
    """Tensors of theirs, by name, are arrays of ours, by path, in another layout."""

    theirs: tuple[str, ...]
    "Names in their file."
    ours: tuple[str, ...]
    "Paths among the network's parameters, with slashes."
    layout: Layout = SAME
    "How one becomes the other."


def to_ours(rules: Sequence[Rule], tensors: Mapping[str, Array], shapes: Tree) -> Tree:
    """Their tensors as a network's parameters.

    Args:
        rules: which is which.
        tensors: theirs, by name; each is read once.
        shapes: the network's parameters, or their `jax.eval_shape`.

    Returns:
        The parameters, in the types of `tensors`.

    Raises:
        BadInput: for a tensor that is missing, that no rule names, or of another shape.

    >>> rules = [Rule(("w",), ("out/kernel",), transposed(1, 0))]
    >>> shapes = {"out": {"kernel": np.zeros((2, 1))}}
    >>> to_ours(rules, {"w": np.array([[1, 2]])}, shapes)["out"]["kernel"].tolist()
    [[1], [2]]
    """
    theirs = jax.eval_shape(lambda params: to_theirs(rules, params), shapes)
    for name, wanted in theirs.items():
        if name not in tensors:
            raise BadInput(
                f"the tensor {name} {list(wanted.shape)} is missing: give the weights "
                "of the whole network"
            )
    for name in tensors:
        found = tuple(tensors[name].shape)
        if name not in theirs:
            raise BadInput(
                f"the tensor {name} {list(found)} has no place in this network: these "
                "are weights of another architecture"
            )
        if found != theirs[name].shape:
            raise BadInput(
                f"the tensor {name} is {list(found)}, and its configuration says "
                f"{list(theirs[name].shape)}: give the configuration of these weights"
            )
    flat = {}
    for rule in rules:
        made = rule.layout.there([tensors[name] for name in rule.theirs])
        flat |= zip(rule.ours, made, strict=True)
    return unflatten_dict(flat, sep="/")


def to_theirs(rules: Sequence[Rule], params: Tree) -> dict[str, Array]:
    """A network's parameters as their tensors, by name: the inverse of `to_ours`.

    Raises BadInput for parameters that no rule names.

    >>> rules = [Rule(("w",), ("out/kernel",), transposed(1, 0))]
    >>> to_theirs(rules, {"out": {"kernel": np.array([[1], [2]])}})["w"].tolist()
    [[1, 2]]
    """
    flat, tensors = flatten_dict(params, sep="/"), {}
    named = {path for rule in rules for path in rule.ours}
    if more := sorted(flat.keys() ^ named):
        raise BadInput(
            f"their network has no place for {more[0]}, of {len(more)} such arrays: "
            "this network has another architecture"
        )
    for rule in rules:
        made = rule.layout.back([flat[path] for path in rule.ours])
        tensors |= zip(rule.theirs, made, strict=True)
    return tensors
