"""Conditions of several parts, and what is done with the parts of any."""

from typing import Any

import jax
import jax.numpy as jnp

from gengen.conditions.condition import Condition, Given, refuse_unknown
from gengen.conditions.parts import Labels, Nothing
from gengen.errors import BadInput
from gengen.types import Batch, Key, static


@static
class Both:
    """Several conditions at once: c is the union of their mappings. Made by `both`."""

    parts: tuple[Any, ...]
    """The conditions, no two of one name."""
    together: bool = True
    """Whether `drop` makes all parts null in the same rows, or each in its own."""

    def __post_init__(self):
        if len(set(self.names)) != len(self.names):
            twice = sorted({n for n in self.names if self.names.count(n) > 1})
            raise BadInput(
                f"two conditions are called {twice[0]}: give one of them key=NAME"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """All parts' entries."""
        return tuple(name for part in self.parts for name in part.names)

    @property
    def droppable(self) -> bool:
        """Whether any part is."""
        return any(part.droppable for part in self.parts)

    def read(self, batch: Batch) -> Given:
        """All parts' entries."""
        return {k: v for part in self.parts for k, v in part.read(batch).items()}

    def null(self, c: Given) -> Given:
        """All parts null."""
        for part in self.parts:
            c = part.null(c)
        return c

    def given(self, values, num, keys=None, null_known=False) -> Given:
        """All parts' entries.

        Parts that training dropped together are null together: if none of them is
        given and one would be null, all are. Raises BadInput if one would be null
        beside another that is given.
        """
        refuse_unknown(values, self.names)
        made = {}
        for part in self.parts:
            own = {name: values[name] for name in part.names if name in values}
            made |= part.given(own, num, keys, null_known)
        known = {name for name, value in values.items() if value is not None}
        given = [p.key for p in self.parts if p.droppable and p.key in known]
        null = [p.key for p in self.parts if p.drawn_null and p.key not in known]
        if not self.together or not null:
            return made
        if given:
            raise BadInput(
                f"give {null[0]}, too: it was dropped together with {given[0]} in "
                f"training, so {given[0]} alone was never seen"
            )
        return self.null(made)

    def zeros(self, num: int) -> Given:
        """All parts' zeros."""
        return {k: v for part in self.parts for k, v in part.zeros(num).items()}


def both(*conditions: Condition, together: bool = True) -> Condition:
    """The product of conditions. `Nothing` is left out, and one part stands alone.

    Args:
        conditions: products among them are taken apart.
        together: whether all parts are dropped in the same rows. With several guidance
            scales each part needs rows in which it alone is null: False.

    >>> both(Nothing(), Labels(10)) == Labels(10)
    True
    >>> from gengen.conditions import Sequence
    >>> both(Labels(10), Sequence(6)).names
    ('label', 'context')
    """
    parts = tuple(part for condition in conditions for part in parts_of(condition))
    return Both(parts, together) if len(parts) > 1 else (*parts, Nothing())[0]


def union(*conditions: Condition) -> Condition:
    """The product of conditions of several models, in which a part may stand twice.

    No training dropped its parts together. Raises BadInput for two different parts of
    one name.

    >>> union(Labels(10), Labels(10)) == Labels(10)
    True
    """
    parts = [part for condition in conditions for part in parts_of(condition)]
    return both(*dict.fromkeys(parts), together=False)


def parts_of(condition: Condition) -> tuple[Any, ...]:
    """The parts of a product, the condition itself if it is one, () of `Nothing`.

    >>> parts_of(Nothing()), parts_of(Labels(3))
    ((), (Labels(num=3, key='label'),))
    """
    if not condition.names:
        return ()
    return getattr(condition, "parts", (condition,))


def labels_of(condition: Condition) -> Labels | None:
    """The condition's labels, if it has any.

    >>> from gengen.conditions import Sequence
    >>> labels_of(both(Labels(10), Sequence(6)))
    Labels(num=10, key='label')
    """
    labels = [part for part in parts_of(condition) if isinstance(part, Labels)]
    return labels[0] if labels else None


def only(condition: Condition, c: Given, names: tuple[str, ...]) -> Given:
    """c with null in every part whose name is not among `names`.

    >>> c = {"label": jnp.array([1]), "map": jnp.ones((1, 1, 1, 1))}
    >>> from gengen.conditions import Maps
    >>> condition = both(Labels(3), Maps((1, 1, 1)))
    >>> {k: v.item() for k, v in only(condition, c, ("map",)).items()}
    {'label': 3, 'map': 1.0}
    """
    for part in parts_of(condition):
        if not set(part.names) & set(names):
            c = part.null(c)
    return c


def check_batch(space, condition: Condition, batch: Batch | None) -> None:
    """BadInput for a batch that is not of the space, or lacks what the condition reads.

    >>> check_batch(Nothing(), Nothing(), None)
    """
    if batch is not None:
        space.data(batch)
        condition.read(batch)


def drop(condition: Condition, key: Key, rate: float, c: Given) -> Given:
    """c with null in a share of its rows, for classifier-free guidance.

    Ho and Salimans 2022, arXiv:2207.12598, algorithm 1. The parts of a product are null
    in the same rows, or, unless it is `together`, each in rows of its own.

    Args:
        condition: the condition whose entries are dropped.
        key: draws the rows.
        rate: the probability that a row is dropped, in [0, 1].
        c: the condition of a batch.

    >>> c = {"label": jnp.array([1, 2])}
    >>> drop(Labels(10), jax.random.key(0), 1.0, c)["label"].tolist()
    [10, 10]
    """
    if not 0 <= rate <= 1:
        raise BadInput(f"a condition is dropped with probability {rate}: give 0 to 1")
    if not condition.droppable:
        return c
    if not getattr(condition, "together", True):
        for i, part in enumerate(condition.parts):
            c = drop(part, jax.random.fold_in(key, i), rate, c)
        return c
    num = len(c[condition.names[0]])
    dropped = jax.random.bernoulli(key, rate, (num,))

    def choose(null, value):
        rows = dropped.reshape(num, *[1] * (value.ndim - 1))
        return jnp.where(rows, null, value)

    return jax.tree.map(choose, dict(condition.null(c)), dict(c))
