"""A Gaussian density of real numbers, with one learned scale."""

from typing import ClassVar

import jax.numpy as jnp

from gengen.autoregressive.tempering import PLAIN
from gengen.errors import BadInput
from gengen.losses.likelihood import normal_log_prob
from gengen.observations.observation import check_shapes, clamped
from gengen.scan import normal
from gengen.types import static


@static
class Gaussian:
    """N(feature, s²), with one learned log s for all numbers: a density of x.

    x is real, such as a dequantised image or a latent; nothing is clipped here.

    Layout of the features [F = 1]: the mean.

    Rybkin, Daniilidis and Levine 2021, arXiv:2006.13202 (σ-VAE), section 3.

    >>> nats = Gaussian().log_prob({"log_scale": 0.0}, jnp.zeros(1), jnp.array(0.0))
    >>> round(nats.item(), 4)
    -0.9189
    """

    features: ClassVar[int] = 1
    symbol: ClassVar[tuple[int, ...]] = ()
    levels: ClassVar[None] = None
    continuous: ClassVar[bool] = True
    sequential: ClassVar[bool] = False

    def init(self, key):
        """log s = 0."""
        return {"log_scale": jnp.zeros(())}

    def log_prob(self, params, features, data):
        """log N(x; feature, s²)."""
        check_shapes(self, features, data)
        logvar = 2.0 * params["log_scale"]
        return normal_log_prob(data, features[..., 0], logvar)

    def sample(
        self, params, keys, features, given=None, observed=None, tempering=PLAIN
    ):
        """feature + s ε; BadInput if it is tempered, as there are no levels."""
        refuse_tempering(tempering)
        given, observed = clamped(self, features, given, observed)
        mean = features[..., 0]
        noise = normal(keys, mean.shape[1:])
        data = mean + jnp.exp(params["log_scale"]) * noise
        data = jnp.where(observed, given, data)
        return data, self.log_prob(params, features, data)

    def mean(self, params, features):
        """The feature itself."""
        return features[..., 0]


def refuse_tempering(tempering) -> None:
    """BadInput for a density that is to be tempered.

    >>> refuse_tempering(PLAIN)
    """
    if tempering != PLAIN:
        raise BadInput(
            "a density of real numbers has no levels to temper: leave "
            "temperature, top_k and top_p out, or take a discrete observation"
        )
