"""Images, symbols without order, and real numbers."""

from typing import ClassVar

import chex
import jax.numpy as jnp
import numpy as np

from gengen.errors import BadInput
from gengen.images import dequantize, log_bin_volume, to_levels, to_unit
from gengen.spaces.space import BaseSpace, check_size
from gengen.types import Array, Key, static


@static
class Images(BaseSpace):
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
        check_size(self)
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
class Symbols(BaseSpace):
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
        check_size(self)

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
class Reals(BaseSpace):
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
