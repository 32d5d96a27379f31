"""A Laplace density of real numbers, with one learned scale: the absolute error."""

import jax
import jax.numpy as jnp

from gengen.autoregressive.tempering import PLAIN
from gengen.observations.gaussian import Gaussian, refuse_tempering
from gengen.observations.observation import check_shapes, clamped
from gengen.types import static


@static
class Laplace(Gaussian):
    """-log p = |x - feature|/s + log 2s, with one learned log s for all numbers.

    The reconstruction term of latent diffusion's first stage, |x - x̂|/e^l + l, is this
    one (Rombach et al. 2022, arXiv:2112.10752, appendix G, in the published code).

    Layout of the features [F = 1]: the median, which is also the mean.

    >>> nats = Laplace().log_prob({"log_scale": 0.0}, jnp.zeros(1), jnp.array(0.5))
    >>> round(nats.item(), 4)  # -½ - log 2
    -1.1931
    """

    def log_prob(self, params, features, data):
        """-|x - feature|/s - log 2s."""
        check_shapes(self, features, data)
        scale = params["log_scale"]
        error = jnp.abs(data - features[..., 0])
        return -error * jnp.exp(-scale) - scale - jnp.log(2.0)

    def sample(
        self, params, keys, features, given=None, observed=None, tempering=PLAIN
    ):
        """feature + s ε of a Laplace ε; BadInput if it is tempered."""
        refuse_tempering(tempering)
        given, observed = clamped(self, features, given, observed)
        mean = features[..., 0]
        noise = jax.vmap(lambda key: jax.random.laplace(key, mean.shape[1:]))(keys)
        data = mean + jnp.exp(params["log_scale"]) * noise
        data = jnp.where(observed, given, data)
        return data, self.log_prob(params, features, data)
