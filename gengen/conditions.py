"""What x is conditioned on: a condition c is a mapping by the batch's own names.

    c = condition.read(batch)                     {"label": [B]}, {"text": [B, L]}, {}
    c = drop(condition, key, rate, c)             in training: null in a share of rows
    c = condition.given({"label": 3}, num, keys)  from a caller; the rest is drawn
    predict(z, t, c)                              a network reads the names it knows
    predict(z, t, condition.null(c))              ∅ of classifier-free guidance

A condition is a tree of arrays [B, ...]: its rows can be cut, vmapped and exported
under their names. A wrapper adds an entry of its own, such as a second time or a
guidance scale, and a network that does not know the entry does not see it.

    part        c[key]                      null              missing in sampling
    Labels      int32 [B]                   label `num`       drawn uniformly
    Sequence    float [B, S, width]         tokens of zeros   null, if it was trained
    Text        int32 [B, S <= length]      all padding       null, if it was trained
    Maps        float [B, H, W, C]          zeros             refused
    Scalar      float [B]                   none              refused

`both` makes one condition of several, `Nothing` is the condition of an unconditional
model.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gengen.errors import BadInput
from gengen.scan import fold_in, randint
from gengen.types import Array, Batch, Key, static

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


def _known(value) -> np.ndarray | None:
    """The value's numbers where they are known; None under a trace."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


class _Part:
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


@static
class Nothing:
    """The condition of an unconditional model: c is {}."""

    names: ClassVar[tuple[str, ...]] = ()
    droppable: ClassVar[bool] = False

    def read(self, batch: Batch) -> Given:
        """{}."""
        return {}

    def null(self, c: Given) -> Given:
        """c itself."""
        return c

    def given(self, values, num, keys=None, null_known=False) -> Given:
        """{}; BadInput if anything is given."""
        refuse_unknown(values, ())
        return {}

    def zeros(self, num: int) -> Given:
        """{}."""
        return {}


@static
class Labels(_Part):
    """A class 0 … num - 1 per example, int32 [B]; the null label is `num`.

    >>> Labels(10).given({"label": 3}, 2)["label"].tolist()
    [3, 3]
    """

    num: int
    """The number of classes."""
    key: str = "label"
    """The batch's name for the labels."""
    ndim: ClassVar[int] = 1
    drawn_null: ClassVar[bool] = False

    def checked(self, value) -> Array:
        """int32; BadInput for a known value that is not a class."""
        if (values := _known(value)) is not None:
            if not np.issubdtype(values.dtype, np.integer):
                raise BadInput(f"{self.key}={value}: labels are integers")
            bad = values[(values < 0) | (values >= self.num)]
            if bad.size:
                raise BadInput(
                    f"{self.key}={bad.flat[0]} is out of range: "
                    f"the model's classes are 0 to {self.num - 1}"
                )
        return jnp.asarray(value, jnp.int32)

    def null_of(self, value: Array) -> Array:
        """The null label, `num`."""
        return jnp.full_like(value, self.num)

    def zeros_of(self, num: int) -> Array:
        """Class 0."""
        return jnp.zeros(num, jnp.int32)

    def draw(self, keys: Array) -> Array:
        """Classes drawn uniformly: samples come from the mixture over classes."""
        return randint(fold_in(keys, 0x1ABE1), self.num)

    def _hint(self) -> str:
        return f", 0 to {self.num - 1}"


@static
class Sequence(_Part):
    """Tokens that are already embedded, float [B, S, width], of any length S.

    A token of zeros is not there, so padding needs no mask, and null is all zeros.

    >>> Sequence(4).zeros(2)["context"].shape
    (2, 1, 4)
    """

    width: int
    """The features of a token."""
    key: str = "context"
    """The batch's name for the tokens."""
    ndim: ClassVar[int] = 3

    def checked(self, value) -> Array:
        """Floats; BadInput for tokens of another width."""
        value = jnp.asarray(value)
        if value.ndim < 2 or value.shape[-1] != self.width:
            raise BadInput(
                f"{self.key} has shape {list(value.shape)}, and the model's tokens are "
                f"{self.width} wide: give [{len(value)}, length, {self.width}]"
            )
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise BadInput(
                f"{self.key} is of type {value.dtype}: embedded tokens are floats; "
                "take Text for token numbers"
            )
        return value

    def zeros_of(self, num: int) -> Array:
        """One token of zeros."""
        return jnp.zeros((num, 1, self.width))

    def _wanted(self, num: int) -> str:
        return f"[{num}, length, {self.width}]"


@static
class Text(_Part):
    """Token numbers 1 … vocabulary - 1, int32 [B, S], S <= length; 0 is padding.

    The network embeds the tokens and encodes them by a transformer of its own, which
    is trained with it; null is all padding.

    >>> Text(vocabulary=20, length=5).null({"text": jnp.ones((1, 5), int)})["text"]
    Array([[0, 0, 0, 0, 0]], dtype=int32)
    """

    vocabulary: int
    """The number of tokens, padding included."""
    length: int
    """The most tokens of an example."""
    width: int = 32
    """The features of an encoded token, a multiple of `heads`."""
    blocks: int = 1
    """The layers of the encoder."""
    heads: int = 2
    """The attention heads of the encoder."""
    key: str = "text"
    """The batch's name for the tokens."""
    ndim: ClassVar[int] = 2

    def checked(self, value) -> Array:
        """int32; BadInput for a longer text, or known numbers that are no tokens."""
        value = value if isinstance(value, jax.core.Tracer) else np.asarray(value)
        if not value.ndim >= 1 or value.shape[-1] > self.length:
            raise BadInput(
                f"{self.key} has shape {list(value.shape)}, and the model reads "
                f"{self.length} tokens: cut it, or make the model longer"
            )
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise BadInput(f"{self.key} is of type {value.dtype}: tokens are integers")
        if (values := _known(value)) is not None and values.size:
            least, most = values.min(), values.max()
            if least < 0 or most >= self.vocabulary:
                raise BadInput(
                    f"{self.key} has token {least if least < 0 else most}, and the "
                    f"vocabulary is 0 (padding) to {self.vocabulary - 1}"
                )
        return jnp.asarray(value, jnp.int32)

    def zeros_of(self, num: int) -> Array:
        """All padding."""
        return jnp.zeros((num, self.length), jnp.int32)

    def _wanted(self, num: int) -> str:
        return f"[{num}, length], length up to {self.length}"


@static
class Maps(_Part):
    """A map beside x, float [B, H, W, C]: a small image, a sketch; null is zeros.

    >>> Maps((4, 4, 1)).zeros(2)["map"].shape
    (2, 4, 4, 1)
    """

    shape: tuple[int, int, int]
    """Height, width and channels."""
    key: str = "map"
    """The batch's name for the map."""
    ndim: ClassVar[int] = 4

    def checked(self, value) -> Array:
        """The map; BadInput for another shape."""
        value = jnp.asarray(value)
        if tuple(value.shape[-3:]) != tuple(self.shape):
            raise BadInput(
                f"{self.key} has shape {list(value.shape)}, and the model's is "
                f"[B, {', '.join(map(str, self.shape))}]: make both for the same data"
            )
        return value

    def zeros_of(self, num: int) -> Array:
        """Zeros."""
        return jnp.zeros((num, *self.shape))

    def draw(self, keys: Array) -> Array:
        """Raises BadInput: there is no distribution to draw a map from."""
        raise BadInput(f"give {self.key}: it cannot be drawn")

    def _wanted(self, num: int) -> str:
        return f"[{num}, {', '.join(map(str, self.shape))}]"


@static
class Scalar(_Part):
    """A number that is always known, float [B]: a second time, a guidance scale.

    It has no null, so it is never dropped, and it is never drawn.

    >>> Scalar("r").given({"r": 0.5}, 2)["r"].tolist()
    [0.5, 0.5]
    """

    key: str
    """The name of the number."""
    unit: float = 1000.0
    """What the number is multiplied by before its sinusoidal embedding."""
    ndim: ClassVar[int] = 1
    droppable: ClassVar[bool] = False
    drawn_null: ClassVar[bool] = False

    def checked(self, value) -> Array:
        """float32 at least."""
        value = jnp.asarray(value)
        return value.astype(jnp.promote_types(value.dtype, jnp.float32))

    def null_of(self, value: Array) -> Array:
        """The number itself."""
        return value

    def zeros_of(self, num: int) -> Array:
        """Zeros."""
        return jnp.zeros(num)

    def draw(self, keys: Array) -> Array:
        """Raises BadInput: the number is the caller's."""
        raise BadInput(f"give {self.key}: a number, or one per example")


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
        """All parts' entries."""
        refuse_unknown(values, self.names)
        made = {}
        for part in self.parts:
            own = {name: values[name] for name in part.names if name in values}
            made |= part.given(own, num, keys, null_known)
        return made

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
    >>> both(Labels(10), Sequence(6)).names
    ('label', 'context')
    """
    parts = tuple(part for condition in conditions for part in parts_of(condition))
    return Both(parts, together) if len(parts) > 1 else (*parts, Nothing())[0]


def union(*conditions: Condition) -> Condition:
    """The product of conditions in which the same part may stand twice.

    Raises BadInput for two different parts of one name.

    >>> union(Labels(10), Labels(10)) == Labels(10)
    True
    """
    parts = [part for condition in conditions for part in parts_of(condition)]
    return both(*dict.fromkeys(parts))


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

    >>> labels_of(both(Labels(10), Sequence(6)))
    Labels(num=10, key='label')
    """
    labels = [part for part in parts_of(condition) if isinstance(part, Labels)]
    return labels[0] if labels else None


def only(condition: Condition, c: Given, names: tuple[str, ...]) -> Given:
    """c with null in every part whose name is not among `names`.

    >>> c = {"label": jnp.array([1]), "map": jnp.ones((1, 1, 1, 1))}
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
