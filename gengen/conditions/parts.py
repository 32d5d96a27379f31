"""The parts: one entry each, of labels, sequences, text, maps or numbers."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from gengen.conditions.condition import Given, Part, known, refuse_unknown
from gengen.errors import BadInput
from gengen.scan import fold_in, randint
from gengen.types import Array, Batch, static


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
class Labels(Part):
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

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.num, int) or self.num < 1:
            raise BadInput(f"num={self.num!r}: labels are of one class or more")

    def checked(self, value) -> Array:
        """int32; BadInput for a known value that is not a class."""
        if not jnp.issubdtype(jnp.result_type(value), jnp.integer):
            raise BadInput(f"{self.key}={value}: labels are integers")
        if (values := known(value)) is not None:
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
class Sequence(Part):
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
class Text(Part):
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
        if (values := known(value)) is not None and values.size:
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
class Maps(Part):
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
class Scalar(Part):
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
