"""Coins: the Bernoulli decoder, made a proper distribution of levels."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from gengen.autoregressive.tempering import PLAIN, choose, log_mass
from gengen.losses.likelihood import binomial_log_prob
from gengen.observations.observation import check_shapes, clamped
from gengen.types import static


@static
class Binomial:
    """Level k is the number of ones among levels - 1 coins of probability σ(feature).

    With two levels this is the Bernoulli decoder of Kingma and Welling 2014,
    arXiv:1312.6114, appendix C.1; with more, their cross-entropy becomes a proper
    distribution of levels (`binomial_log_prob`).

    Layout of the features [F = 1]: the logit of a coin.

    >>> Binomial(3).mean({}, jnp.zeros(1)).item()
    0.0
    """

    levels: int = 256
    """The number of levels."""
    features: ClassVar[int] = 1
    symbol: ClassVar[tuple[int, ...]] = ()
    continuous: ClassVar[bool] = False
    sequential: ClassVar[bool] = False

    def init(self, key):
        """No parameters."""
        return {}

    def log_prob(self, params, features, data):
        """log Binomial(k; levels - 1, σ(logit))."""
        check_shapes(self, features, data)
        return binomial_log_prob(data, features[..., 0], self.levels)

    def sample(
        self, params, keys, features, given=None, observed=None, tempering=PLAIN
    ):
        """The coins themselves; by the table of all levels if they are tempered."""
        given, observed = clamped(self, features, given, observed)
        if tempering != PLAIN:
            every = jnp.broadcast_arrays(jnp.arange(self.levels), features)
            logits = tempering(binomial_log_prob(*every, self.levels))
            data = choose(keys, logits, given, observed)
            return data, log_mass(logits, data)

        def one(key, logits):
            coins = jax.random.uniform(key, (self.levels - 1, *logits.shape))
            return jnp.sum(coins < jax.nn.sigmoid(logits), axis=0, dtype=jnp.int32)

        data = jax.vmap(one)(keys, features[..., 0])
        data = jnp.where(observed, given, data)
        return data, self.log_prob(params, features, data)

    def mean(self, params, features):
        """2 σ(logit) - 1."""
        return 2.0 * jax.nn.sigmoid(features[..., 0]) - 1.0
