"""One protocol of p(data | features), for decoders and for autoregressive networks.

A network gives every symbol of the data features, and an observation reads them as the
distribution of that symbol. A decoder (of a VAE) has the features of all symbols
at once; an autoregressive network has them one after the other, each after the symbols
before it. The observation does not know which.

    observation          a symbol is     features of it           continuous
    Categorical          one level       a logit per level        no
    Binomial             one level       one logit                no
    DiscretizedLogistic  one level       mean, log s              no
    LogisticMixture      a whole pixel   π, μ, log s, κ           no
    Gaussian             one number      mean                     yes
    AutoregressivePixels a whole pixel   a map                    no

Discrete observations are distributions of levels 0 … levels - 1; the mean is in
[-1, 1], where networks see them. A continuous one is a density of real numbers x, such
as dequantised images; it can be a decoder's, not an autoregressive model's. Symbols
are independent given the features, but those of `AutoregressivePixels`.
"""

import math
from typing import Protocol

import chex
import jax.numpy as jnp

from gengen.autoregressive.tempering import PLAIN, Tempering
from gengen.errors import BadInput
from gengen.types import Array, Key, Tree


class Observation(Protocol):
    """p(data | features). An observation is a `static` value."""

    @property
    def symbol(self) -> tuple[int, ...]:
        """The shape of one symbol: () for a number, (C,) for a pixel's channels."""

    @property
    def features(self) -> int:
        """F, the features that one symbol is read from."""

    @property
    def levels(self) -> int | None:
        """The number of levels; None for a continuous observation."""

    @property
    def continuous(self) -> bool:
        """Whether it is a density of real numbers instead of a mass of levels."""

    @property
    def sequential(self) -> bool:
        """Whether the symbols of an example depend on one another, given features."""

    def init(self, key: Key) -> Tree:
        """Parameters of its own, {} for most."""

    def log_prob(self, params: Tree, features: Array, data: Array) -> Array:
        """Features [..., F] and data [..., *symbol] -> nats [..., *symbol]."""

    def sample(
        self,
        params: Tree,
        keys: Array,
        features: Array,
        given: Array | None = None,
        observed: Array | None = None,
        tempering: Tempering = PLAIN,
    ) -> tuple[Array, Array]:
        """Draws, and their log-probabilities.

        Args:
            params: its own parameters.
            keys: [B] keys; equal keys and features give equal draws.
            features: [B, ..., F].
            given: the observed data [B, ..., *symbol], which are copied; None if
                nothing is observed.
            observed: which data are observed, bool of the shape of `given`.
            tempering: how the probabilities of the levels are changed.

        Returns:
            data and nats, [B, ..., *symbol] each: int32 levels or float x.
        """

    def mean(self, params: Tree, features: Array) -> Array:
        """E[x | features], [..., *symbol]; levels are x in [-1, 1]."""


def check_shapes(observation: Observation, features: Array, data: Array) -> None:
    """Asserts features [..., F] of floats, and data [..., *symbol] for the same ...

    >>> from gengen.observations.binomial import Binomial
    >>> check_shapes(Binomial(2), jnp.zeros((3, 1)), jnp.zeros(3, int))
    """
    chex.assert_type(features, float)
    chex.assert_axis_dimension(features, -1, observation.features)
    chex.assert_shape(data, (*features.shape[:-1], *observation.symbol))


def clamped(
    observation: Observation,
    features: Array,
    given: Array | None,
    observed: Array | None,
) -> tuple[Array, Array]:
    """`given` and `observed` as arrays [B, ..., *symbol]: nothing observed if None.

    >>> from gengen.observations.binomial import Binomial
    >>> clamped(Binomial(2), jnp.zeros((1, 1)), None, None)[1].tolist()
    [False]
    """
    shape = *features.shape[:-1], *observation.symbol
    kind = features.dtype if observation.continuous else jnp.int32
    given = jnp.zeros(shape, kind) if given is None else given
    observed = jnp.zeros(shape, bool) if observed is None else observed
    check_shapes(observation, features, given)
    chex.assert_equal_shape([given, observed])
    return given, observed


def symbols_of(shape: tuple[int, ...], observation: Observation) -> int:
    """The number of symbols in an example of `shape`; BadInput if they do not fit.

    >>> from gengen.observations.categorical import Categorical
    >>> symbols_of((4, 4, 3), Categorical(256))
    48
    """
    size, each = math.prod(shape), math.prod(observation.symbol)
    if observation.symbol and observation.symbol != tuple(shape[-1:]):
        raise BadInput(
            f"{shape[-1]} channels do not fit a head of {each}: give it channels="
            f"{shape[-1]}"
        )
    return size // each


def check_head(head: Observation, space) -> None:
    """BadInput for a head of an autoregressive model that does not fit its space.

    >>> from gengen.observations.categorical import Categorical
    >>> from gengen.spaces import tokens
    >>> check_head(Categorical(256), tokens(length=8))
    """
    if space.size is None or head.continuous:
        raise BadInput(
            f"{type(head).__name__} on {type(space).__name__}: an autoregressive model "
            "draws symbols, so take Images or Symbols and a discrete observation, or a "
            "diffusion model of real numbers"
        )
    if head.sequential:
        raise BadInput(
            f"{type(head).__name__} as a head: it has a network of its own, so give it "
            "to a decoder, as its observation"
        )
    if head.levels != space.size:
        raise BadInput(
            f"a head of {head.levels} levels in a space of {space.size}: make both for "
            "the same data"
        )


def outputs(observation: Observation, channels: int) -> int:
    """The output channels that a decoder of `channels` needs.

    >>> from gengen.observations.discretized_logistic import DiscretizedLogistic
    >>> outputs(DiscretizedLogistic(256), 3)
    6
    """
    return observation.features * (1 if observation.symbol else channels)


def decoded(observation: Observation, features: Array, shape: tuple[int, ...]) -> Array:
    """A decoder's output, cut into the features of the data's symbols.

    The features of a pixel are ordered [F, C], so that feature f of channel c is output
    f C + c: first the means of all channels, then their log-scales. Symbols that are
    whole pixels have the output as it is.

    Args:
        observation: what the features are read as.
        features: [B, ..., outputs(observation, C)].
        shape: the shape of one example, which ends in C.

    Returns:
        [B, ..., C, F] for symbols that are numbers, [B, ..., F] for whole pixels.

    >>> from gengen.observations.discretized_logistic import DiscretizedLogistic
    >>> decoded(DiscretizedLogistic(256), jnp.arange(4.0)[None], (2,)).tolist()
    [[[0.0, 2.0], [1.0, 3.0]]]
    """
    channels = shape[-1]
    symbols_of(shape, observation)
    wanted = outputs(observation, channels)
    if features.shape[1:] != (*shape[:-1], wanted):
        raise BadInput(
            f"a decoder's output is {list(features.shape[1:])} and data of "
            f"{list(shape)} need {[*shape[:-1], wanted]}: give the decoder {wanted} "
            "output channels"
        )
    if observation.symbol:
        return features
    cut = features.reshape(*features.shape[:-1], observation.features, channels)
    return jnp.swapaxes(cut, -1, -2)


def check_levels(observation: Observation, space) -> None:
    """BadInput unless an observation and a space have the same levels.

    A continuous observation is a density of real numbers, or of dequantised levels.

    Args:
        observation: what p(data | features) is.
        space: a `gengen.spaces.Space`: the type of the data.

    >>> from gengen.observations.binomial import Binomial
    >>> from gengen.spaces import Images
    >>> check_levels(Binomial(17), Images((8, 8, 1), 17))
    """
    levels, size = observation.levels, space.size
    if levels != size and not (observation.continuous and size):
        raise BadInput(
            f"{type(observation).__name__} of {levels} levels on "
            f"{type(space).__name__} of {size}: make both for the same data"
        )
