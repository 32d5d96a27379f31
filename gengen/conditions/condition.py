"""What a condition is, and what all of its parts share."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gengen.errors import BadInput
from gengen.types import Array, Batch

Given = Mapping[str, Array]

# Names of the samplers' own keywords, which stand beside the entries of a condition.
TAKEN = ("start_index", "keys", "sampler", "cached", "sample_pixels", "key", "num")
TAKEN += ("params", "state", "batch", "observed", "particles")


class Condition(Protocol):
    """The type of what x depends on. A condition is a `static` value."""

    @property
    def names(self) -> tuple[str, ...]:
        """The entries of c, by the batch's names."""

    @property
    def droppable(self) -> bool:
        """Whether `null` differs from c, so that dropping means anything."""

    def read(self, batch: Batch) -> Given:
        """c of a batch. BadInput for a missing entry, or one of another shape."""

    def null(self, c: Given) -> Given:
        """c with the null value in the entries of this condition; others stay."""

    def given(
        self,
        values: Mapping[str, Any],
        num: int,
        keys: Array | None = None,
        null_known: bool = False,
    ) -> Given:
        """c of `num` rows from what a caller gives by name.

        Args:
            values: name -> one value for all rows, or one per row; None is missing.
            num: the number of rows.
            keys: [num] keys that draw what is missing; None refuses it.
            null_known: whether the model was trained on null entries, so that a
                missing sequence may be null.

        Raises:
            BadInput: for an unknown name, a missing entry, or a wrong value.
        """

    def zeros(self, num: int) -> Given:
        """c of zeros, for `num` rows: the shapes that a network's init needs."""


def refuse_unknown(values: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """BadInput for a value whose name the condition does not have.

    >>> refuse_unknown({"label": 3, "caption": None}, ("label",))  # None is missing
    >>> try:
    ...     refuse_unknown({"label": 3}, ())
    ... except BadInput as error:
    ...     print(str(error)[:34])
    label: the model is unconditional;
    """
    given = {name for name, value in values.items() if value is not None}
    if unknown := sorted(given - set(names)):
        known = f"conditioned on {', '.join(names)}" if names else "unconditional"
        raise BadInput(
            f"{', '.join(unknown)}: the model is {known}; leave {unknown[0]} out, or "
            "train a model with it"
        )


def known(value) -> np.ndarray | None:
    """The value's numbers where they are known; None under a trace.

    >>> known(jnp.ones(2)).tolist()
    [1.0, 1.0]
    """
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


class Part:
    """A condition of one entry, `key`."""

    droppable: ClassVar[bool] = True
    drawn_null: ClassVar[bool] = True

    def __post_init__(self):
        if self.key in TAKEN or not self.key.isidentifier():
            raise BadInput(
                f"a condition cannot be called {self.key!r}: samplers have keywords of "
                f"that name ({', '.join(TAKEN)}), or it is no name at all"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The one entry."""
        return (self.key,)

    def read(self, batch: Batch) -> Given:
        """The batch's entry, checked: one row per example."""
        if self.key not in batch:
            raise BadInput(
                f"the model is conditioned on {self.key} and the batch has "
                f"{', '.join(sorted(batch))}: take data with {self.key}, or an "
                "unconditional model"
            )
        num = len(jax.tree.leaves(dict(batch))[0])
        value = self.checked(batch[self.key])
        if value.ndim != self.ndim or len(value) != num:
            raise BadInput(
                f"{self.key} has shape {list(value.shape)} in a batch of {num} "
                f"examples: give {self._wanted(num)}"
            )
        return {self.key: value}

    def null(self, c: Given) -> Given:
        """c with the entry null."""
        return {**c, self.key: self.null_of(c[self.key])}

    def given(self, values, num, keys=None, null_known=False) -> Given:
        """The given entry, for every row; if it is missing, a drawn one."""
        refuse_unknown(values, self.names)
        value = values.get(self.key)
        if value is not None:
            return {self.key: self._spread(self.checked(value), num)}
        if keys is None or (self.drawn_null and not null_known):
            raise BadInput(f"the model is conditional: give {self.key}{self._hint()}")
        return {self.key: self.draw(keys)}

    def zeros(self, num: int) -> Given:
        """The entry of zeros."""
        return {self.key: self.zeros_of(num)}

    def draw(self, keys: Array) -> Array:
        """Rows whose samples are of the marginal p(x): the null ones."""
        return self.null_of(self.zeros_of(len(keys)))

    def null_of(self, value: Array) -> Array:
        """Zeros."""
        return jnp.zeros_like(value)

    def _spread(self, value: Array, num: int) -> Array:
        """One value for all rows, or one per row -> [num, ...]."""
        value = value[None] if value.ndim == self.ndim - 1 else value
        if value.ndim != self.ndim or len(value) not in (1, num):
            raise BadInput(
                f"{self.key} has shape {list(value.shape)} for {num} examples: give "
                f"{self._wanted(num)}, or one for all"
            )
        return jnp.broadcast_to(value, (num, *value.shape[1:]))

    def _hint(self) -> str:
        return ""

    def _wanted(self, num: int) -> str:
        return f"one per example, [{num}]"
