"""A logistic distribution, whose mass in the bin of each level is its probability."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from gengen.autoregressive.tempering import PLAIN, choose, log_mass
from gengen.images import bin_width
from gengen.losses.likelihood import discretized_logistic_log_prob
from gengen.observations.observation import check_shapes, clamped
from gengen.types import static


@static
class DiscretizedLogistic:
    """The mass of a logistic in each level's bin; the outer bins take the tails.

    Layout of the features [F = 2]: the mean in [-1, 1], and log s of the scale s.

    Kingma et al. 2016, arXiv:1606.04934, appendix.

    >>> DiscretizedLogistic(2).mean({}, jnp.array([0.0, 0.0])).item()
    0.0
    """

    levels: int = 256
    """The number of levels."""
    min_log_scale: float = -7.0
    """The least log s; smaller ones are raised to it."""
    features: ClassVar[int] = 2
    symbol: ClassVar[tuple[int, ...]] = ()
    continuous: ClassVar[bool] = False
    sequential: ClassVar[bool] = False

    def init(self, key):
        """No parameters."""
        return {}

    def _split(self, features):
        """Mean and log-scale, [...] each."""
        return features[..., 0], jnp.maximum(features[..., 1], self.min_log_scale)

    def log_prob(self, params, features, data):
        """log (σ((x + w/2 - mean)/s) - σ((x - w/2 - mean)/s)), w the bin width."""
        check_shapes(self, features, data)
        return discretized_logistic_log_prob(data, *self._split(features), self.levels)

    def sample(
        self, params, keys, features, given=None, observed=None, tempering=PLAIN
    ):
        """A logistic, rounded; by the table of all levels if it is tempered."""
        given, observed = clamped(self, features, given, observed)
        mean, log_scale = self._split(features)
        if tempering != PLAIN:
            table = jnp.broadcast_arrays(
                jnp.arange(self.levels), mean[..., None], log_scale[..., None]
            )
            logits = tempering(discretized_logistic_log_prob(*table, self.levels))
            data = choose(keys, logits, given, observed)
            return data, log_mass(logits, data)
        logistic = jax.vmap(lambda k: jax.random.logistic(k, mean.shape[1:]))(keys)
        x = mean + jnp.exp(log_scale) * logistic
        data = jnp.round((x + 1.0) / bin_width(self.levels))
        data = jnp.clip(data, 0, self.levels - 1).astype(jnp.int32)
        data = jnp.where(observed, given, data)
        return data, self.log_prob(params, features, data)

    def mean(self, params, features):
        """E[clip(x, -1, 1)] = 1 - ∫ σ((x - mean)/s) dx over [-1, 1].

        The closed form is within half a level of Σ p(k) x_k over the levels.
        """
        mean, log_scale = self._split(features)
        s = jnp.exp(log_scale)
        upper, lower = (1.0 - mean) / s, (-1.0 - mean) / s
        return 1.0 - s * (jax.nn.softplus(upper) - jax.nn.softplus(lower))
