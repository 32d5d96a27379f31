"""What is generated: how a batch holds it, and what a model computes with.

Every space has two representations, and both maps between them:

    data   as the batch holds it: uint8 levels, int32 symbols, raw latents
    x      what networks see and samplers return: [-1, 1], symbols, unit-scale reals

    x = space.to_model(data),   data = space.to_data(x),   space.read(batch) = x

`size` is the number of symbols that a dimension can hold, 0 … size - 1, and None for
real numbers. Images have ordered symbols, so a model may compute with x or with the
symbols; symbols without order are their own x. A density of x becomes one of the data
by `log_volume`: log p(data) = log p(x) + log_volume.

    space      data            x                    log_volume
    Images     levels k        2 k/(L - 1) - 1      D log(2/(L - 1))
    Symbols    symbols         the symbols          0
    Reals      real numbers    (data - mean)/std    -Σ log std
"""

import math
from typing import ClassVar, Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gengen.errors import BadInput
from gengen.images import dequantize, log_bin_volume, to_levels, to_unit
from gengen.types import Array, Batch, Key, static


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


class _Space:
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

    def _check_shape(self, x: Array) -> None:
        chex.assert_shape(x, (..., *self.shape))


def _check_size(space) -> None:
    """BadInput for a space of fewer than two symbols, or without dimensions."""
    if space.size < 2:
        raise BadInput(f"size={space.size}: a space has 2 symbols or more")


@static
class Images(_Space):
    """Pixel levels 0 … size - 1 in order; x is in [-1, 1].

    >>> space = Images((1, 2, 1), size=3)
    >>> batch = {"image": np.array([[[[0], [2]]]], np.uint8)}
    >>> space.read(batch).ravel().tolist()
    [-1.0, 1.0]
    """

    shape: tuple[int, int, int]
    """Height, width and channels."""
    size: int = 256
    """The number of levels."""
    key: str = "image"
    """The batch's name for the images."""
    unit: ClassVar[str] = "bits_per_dim"

    def __post_init__(self):
        _check_size(self)
        if len(self.shape) != 3:
            raise BadInput(
                f"shape={self.shape}: an image has a height, a width and channels"
            )

    def to_model(self, data: Array) -> Array:
        """Levels -> x in [-1, 1], float32."""
        self._check_shape(data)
        return to_unit(data, self.size)

    def to_data(self, x: Array) -> Array:
        """x -> the nearest levels, uint8."""
        self._check_shape(x)
        return to_levels(x, self.size)

    def dequantize(self, key: Key, data: Array) -> Array:
        """x of the levels plus uniform noise over their bins."""
        self._check_shape(data)
        return dequantize(key, data, self.size)

    @property
    def log_volume(self) -> float:
        """D log(2/(size - 1)): the volume of a level's bin in x."""
        return log_bin_volume(self.shape, self.size)


@static
class Symbols(_Space):
    """Symbols 0 … size - 1 without order, a sequence or a grid: x is the data, int32.

    >>> codes = Symbols((2, 2), size=512)
    >>> codes.read({"codes": np.full((1, 2, 2), 300)}).dtype
    dtype('int32')
    """

    shape: tuple[int, ...]
    """The shape of the grid of one example."""
    size: int
    """The number of symbols: a vocabulary, or the entries of a codebook."""
    key: str = "codes"
    """The batch's name for the symbols."""
    unit: str = "bits_per_dim"
    """The name of -log p/(D log 2)."""
    log_volume: ClassVar[float] = 0.0

    def __post_init__(self):
        _check_size(self)

    def to_model(self, data: Array) -> Array:
        """The symbols as int32."""
        self._check_shape(data)
        return jnp.asarray(data, jnp.int32)

    def to_data(self, x: Array) -> Array:
        """The symbols themselves."""
        self._check_shape(x)
        return x

    def zeros(self, num: int) -> Array:
        """Symbols 0, int32 [num, *shape]."""
        return jnp.zeros((num, *self.shape), jnp.int32)

    def dequantize(self, key: Key, data: Array) -> Array:
        """Raises BadInput: symbols without order have no bins."""
        raise BadInput(
            f"{self.key} are symbols without order, so they cannot be dequantised: "
            "take an autoregressive model of them"
        )


def tokens(length: int, vocabulary: int = 256) -> Symbols:
    """Text of `length` tokens, bytes by default; its unit is bits per byte.

    >>> tokens(5).shape, tokens(5).key
    ((5,), 'tokens')
    """
    return Symbols((length,), vocabulary, "tokens", "bits_per_byte")


@static
class Reals(_Space):
    """Real numbers, standardised: x = (data - mean)/std.

    >>> space = Reals((2,), mean=(1.0, 0.0), std=(2.0, 0.5))
    >>> space.read({"latent": np.array([[3.0, 1.0]], np.float32)}).tolist()
    [[1.0, 2.0]]
    """

    shape: tuple[int, ...]
    """The shape of one example."""
    mean: float | tuple[float, ...] = 0.0
    """The data's mean: one number, or one per channel (the last axis)."""
    std: float | tuple[float, ...] = 1.0
    """The data's standard deviation, above 0: one number, or one per channel."""
    key: str = "latent"
    """The batch's name for the data."""
    size: ClassVar[None] = None
    unit: ClassVar[str] = "density_bits_per_dim"

    def __post_init__(self):
        for name in ("mean", "std"):
            value = np.asarray(getattr(self, name))
            if value.shape not in ((), tuple(self.shape[-1:])):
                raise BadInput(
                    f"{name} has {value.size} entries for {self.shape[-1:]} channels: "
                    "give one number, or one per channel"
                )
            if not np.all(np.isfinite(value)):
                raise BadInput(f"{name}={getattr(self, name)} is not finite")
        if not np.all(np.asarray(self.std) > 0):
            raise BadInput(
                f"std={self.std}: standard deviations are above 0; a channel that is "
                "constant has nothing to be learned, so leave it out"
            )

    def to_model(self, data: Array) -> Array:
        """(data - mean)/std, float32 or wider."""
        self._check_shape(data)
        data = jnp.asarray(data)
        kind = jnp.promote_types(data.dtype, jnp.float32)
        mean, std = (jnp.asarray(value, kind) for value in (self.mean, self.std))
        return (data.astype(kind) - mean) / std

    def to_data(self, x: Array) -> Array:
        """mean + std x."""
        self._check_shape(x)
        return jnp.asarray(self.mean, x.dtype) + jnp.asarray(self.std, x.dtype) * x

    def dequantize(self, key: Key, data: Array) -> Array:
        """x as it is: real numbers have no bins."""
        return self.to_model(data)

    @property
    def log_volume(self) -> float:
        """-Σ log std: the change of variables of the standardisation."""
        return -float(np.sum(np.log(np.broadcast_to(self.std, self.shape))))


def standardised(space: Reals, data: Array) -> Reals:
    """The space with the mean and the standard deviation per channel of `data`.

    The model then sees numbers of mean 0 and variance 1 per channel, whatever the
    scale of the data: latent diffusion needs that (Rombach et al. 2022,
    arXiv:2112.10752, appendix G, divide by one standard deviation).

    Args:
        space: the space whose statistics are measured.
        data: known numbers [N, *shape], of which N is 2 or more.

    >>> space = standardised(Reals((1,)), np.array([[1.0], [5.0]]))
    >>> space.mean, space.std
    ((3.0,), (2.0,))
    """
    data = np.asarray(data, np.float64)
    chex.assert_shape(data, (None, *space.shape))
    axes = tuple(range(data.ndim - 1))
    mean, std = data.mean(axes), data.std(axes)
    return Reals(
        space.shape,
        tuple(np.atleast_1d(mean).tolist()),
        tuple(np.atleast_1d(std).tolist()),
        space.key,
    )
