"""What a space is, and what all spaces share."""

import math
from typing import Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gengen.errors import BadInput
from gengen.types import Array, Batch, Key


class Space(Protocol):
    """The type of what is generated. A space is a `static` value."""

    @property
    def key(self) -> str:
        """The batch's name for the data."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""

    @property
    def size(self) -> int | None:
        """The number of symbols of a dimension; None for real numbers."""

    @property
    def unit(self) -> str:
        """The name of -log p/(D log 2), such as "bits_per_dim"."""

    @property
    def log_volume(self) -> float:
        """log p(data) - log p(x), in nats per example."""

    def data(self, batch: Batch) -> Array:
        """The batch's own data [B, *shape]. BadInput for what is not of this space."""

    def read(self, batch: Batch) -> Array:
        """x [B, *shape] of the batch. BadInput for what is not of this space."""

    def to_model(self, data: Array) -> Array:
        """Data [..., *shape] -> x."""

    def to_data(self, x: Array) -> Array:
        """x [..., *shape] -> data, the inverse of `to_model`."""

    def zeros(self, num: int) -> Array:
        """x of zeros [num, *shape]: the shapes and type that a network sees."""

    def dequantize(self, key: Key, data: Array) -> Array:
        """x of the data plus uniform noise over the bins of ordered symbols."""

    def bits(self, log_likelihood: Array) -> Array:
        """-log p/(D log 2) from nats: bits per dimension."""

    def mask(self, observed: Array, num: int) -> Array:
        """Which data are observed, bool [num, *shape]. BadInput for another mask."""


class BaseSpace:
    """What all spaces share."""

    def data(self, batch: Batch) -> Array:
        """The batch's own data [B, *shape]. BadInput for what is not of this space.

        The type and the shape are always checked; values are where they are known,
        which they are not under a trace.
        """
        if self.key not in batch:
            raise BadInput(
                f"the batch has {', '.join(sorted(batch)) or 'nothing'} and no "
                f"{self.key}: take other data, or give the space key=NAME"
            )
        given = batch[self.key]
        kind, shape = jnp.result_type(given), tuple(np.shape(given))
        if len(shape) != 1 + len(self.shape) or shape[1:] != self.shape:
            raise BadInput(
                f"{self.key} has shape {list(shape)} and the model's space is "
                f"[B, {', '.join(map(str, self.shape))}]: make both for the same data"
            )
        whole = jnp.issubdtype(kind, jnp.integer)
        if self.size is not None and not whole:
            raise BadInput(
                f"{self.key} is of type {kind}, and a batch holds whole numbers 0 to "
                f"{self.size - 1}: give the levels or symbols themselves, unscaled"
            )
        if self.size is None and not jnp.issubdtype(kind, jnp.floating):
            raise BadInput(
                f"{self.key} is of type {kind}, and this space holds real numbers: "
                "convert it to float32, or take Images or Symbols"
            )
        if self.size is not None and not isinstance(given, jax.core.Tracer):
            values = np.asarray(given)  # NumPy's own, so known under a trace, too
            least, most = values.min(initial=0), values.max(initial=0)
            if least < 0:
                raise BadInput(f"{self.key} {least} is out of range: the least is 0")
            if most >= self.size:
                raise BadInput(
                    f"{self.key} {most} is out of range: the model knows 0 to "
                    f"{self.size - 1}, so make its space of size {most + 1} or more, "
                    "or take other data"
                )
        return jnp.asarray(given)

    def read(self, batch: Batch) -> Array:
        """x [B, *shape] of the batch. BadInput for what is not of this space."""
        return self.to_model(self.data(batch))

    def zeros(self, num: int) -> Array:
        """x of zeros [num, *shape], float32."""
        return jnp.zeros((num, *self.shape), jnp.float32)

    def bits(self, log_likelihood: Array) -> Array:
        """-log p/(D log 2) from nats: bits per dimension."""
        return -log_likelihood / (math.prod(self.shape) * math.log(2.0))

    def mask(self, observed: Array, num: int) -> Array:
        """Which data are observed, bool [num, *shape].

        A known mask stays known. Raises BadInput for a mask that is not bool, and for a
        shape that does not broadcast to [num, *shape].
        """
        xp, shape = jnp if isinstance(observed, jax.Array) else np, (num, *self.shape)
        observed = xp.asarray(observed)
        if observed.dtype != bool:
            raise BadInput(
                f"observed is {observed.dtype}: give bool, True where data are known"
            )
        try:
            return xp.broadcast_to(observed, shape)
        except ValueError:
            raise BadInput(
                f"observed has shape {observed.shape}: it must broadcast to {shape}, "
                "the examples"
            ) from None

    def _check_shape(self, x: Array) -> None:
        chex.assert_shape(x, (..., *self.shape))


def check_size(space) -> None:
    """BadInput for a space of fewer than two symbols, or without dimensions.

    >>> from gengen.spaces import Images
    >>> check_size(Images((2, 2, 1), size=2))
    """
    if not space.shape or not all(isinstance(n, int) and n > 0 for n in space.shape):
        raise BadInput(f"shape={space.shape}: give one positive integer per axis")
    if space.size < 2:
        raise BadInput(f"size={space.size}: a space has 2 symbols or more")
