"""Normalising flows: an invertible network, and so an exact density.

    u = f(x),  u ~ N(0, 1):      log p(x) = log N(f(x); 0, 1) + log |det ∂f/∂x|

Levels of pixels are no real numbers, so uniform noise over their bins makes them some
(dequantisation); the expected log-density, plus the bin's volume, is a lower bound on
the log-probability of the levels. A pixel lies in an interval, which a flow of R^D does
not know: x goes through logit(α + (1 - 2 α) x) first.

The latents are exact: `from_latent(to_latent(x))` is x.

Dinh, Krueger and Bengio 2015, arXiv:1410.8516; Dinh, Sohl-Dickstein and Bengio 2017,
arXiv:1605.08803; dequantisation as a bound: Theis, van den Oord and Bethge 2016,
arXiv:1511.01844, section 3.1.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import Condition, Given, Nothing, check_batch
from gengen.errors import BadInput
from gengen.images import bin_width
from gengen.latent.priors import unit_log_prob
from gengen.losses.likelihood import per_example
from gengen.nets.conditioning import agree
from gengen.objective import loss
from gengen.scan import normal, sample_keys
from gengen.spaces import Images, Space, Symbols
from gengen.types import Array, HasFeatures, HasLatents, Inverts, static


def squash(x: Array, most: float, alpha: float) -> tuple[Array, Array]:
    """logit(α + (1 - 2 α) (x + m)/(2 m)) of x in [-m, m], and its log-derivative.

    Dinh et al. 2017, section 4.1. Beyond the interval of what `unsquash` gives, which
    is a little wider, x counts as its end.

    Args:
        x: floats of any shape.
        most: m, the end of the interval.
        alpha: how far from 0 and 1 the logit stays, in (0, ½).

    >>> y, log_slope = squash(jnp.array(0.0), 1.0, 0.05)
    >>> y.item(), round(log_slope.item(), 4)  # log 4 (1 - 2 α)/2
    (0.0, 0.5878)
    """
    p = alpha + (1.0 - 2.0 * alpha) * (x + most) / (2.0 * most)
    least = jnp.finfo(p.dtype).eps
    p = jnp.clip(p, least, 1.0 - least)
    log_slope = math.log((1.0 - 2.0 * alpha) / (2.0 * most))
    return jnp.log(p) - jnp.log1p(-p), log_slope - jnp.log(p) - jnp.log1p(-p)


def unsquash(y: Array, most: float, alpha: float) -> Array:
    """The inverse of `squash`.

    >>> unsquash(jnp.array(0.0), 1.0, 0.05).item()
    0.0
    """
    p = (jax.nn.sigmoid(y) - alpha) / (1.0 - 2.0 * alpha)
    return 2.0 * most * p - most


@static
class NormalizingFlow(HasLatents, Inverts, HasFeatures):
    """An invertible network of images or of real numbers."""

    flow: nn.Module
    """x and c (None without a condition) -> (u, log-determinant), and back by
    `reverse=True`: `RealNVP` of images, or a network of gengen.nets.flows."""
    space: Space
    """The type of x."""
    condition: Condition = Nothing()
    """What the flow knows beside x."""
    alpha: float = 0.05
    """How far from the ends of the interval of pixels the logit stays."""

    def __post_init__(self):
        agree(self.flow, self.condition)
        if isinstance(self.space, Symbols):
            raise BadInput(
                f"{self.space} has symbols without order, which no flow moves: take an "
                "autoregressive model, or a flow of Images or Reals"
            )
        if self.condition.names and not hasattr(self.flow, "condition"):
            raise BadInput(
                f"a {type(self.flow).__name__} reads no {self.condition.names[0]}: "
                "take a RealNVP with that condition, or none"
            )
        if not 0.0 < self.alpha < 0.5:
            raise BadInput(f"alpha={self.alpha}: it must be above 0 and below 1/2")

    @property
    def density(self) -> str:
        """Exact for real numbers, a bound for levels."""
        return "bound" if self.space.size else "exact"

    @property
    def likelihood_kind(self) -> str:
        """What `log_likelihood` is."""
        return "dequantised-exact" if self.space.size else "exact"

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The dimensions of x, in one vector."""
        return (math.prod(self.space.shape),)

    def init(self, key, batch=None):
        """Parameters; a batch is checked and not needed."""
        check_batch(self.space, self.condition, batch)
        zeros, c = self.space.zeros(1), self.condition.zeros(1)
        return {"flow": self.flow.init(key, zeros, c or None)["params"]}, {}

    def losses(self):
        return {"flow": self.loss}

    @property
    def _most(self) -> float:
        """Where the intervals of dequantised pixels end: half a bin beyond ±1."""
        return 1.0 + bin_width(self.space.size) / 2

    def _forward(self, params, x: Array, c: Given) -> tuple[Array, Array]:
        """x -> (u [B, D], log |det ∂u/∂x| [B])."""
        log_slope = jnp.zeros((len(x), 1))
        if isinstance(self.space, Images):
            x, log_slope = squash(x, self._most, self.alpha)
        u, log_det = self.flow.apply({"params": params["flow"]}, x, c or None)
        return u.reshape(len(u), -1), log_det + per_example(log_slope)

    def log_prob(self, params, x: Array, c: Given) -> Array:
        """The log-density of x [B, *shape], [B] nats."""
        u, log_det = self._forward(params, x, c)
        return unit_log_prob(u) + log_det

    def log_likelihood(self, params, state, batch, key):
        """log p of the data, of levels a bound by dequantisation: [B] nats."""
        data, c = self.space.data(batch), self.condition.read(batch)
        if self.space.size:
            x = self.space.dequantize(key, data)
        else:
            x = self.space.to_model(data)
        return self.log_prob(params, x, c) + self.space.log_volume

    @loss
    def loss(self, params, state, batch, key):
        """-log p, nats of the data, mean over the batch."""
        return -jnp.mean(self.log_likelihood(params, state, batch, key)), (state, {})

    def to_latent(self, params, state, x: Array, **given) -> Array:
        """u [B, D] of x [B, *shape]. given: c by name."""
        return self._forward(params, x, self.condition.given(given, len(x)))[0]

    def from_latent(self, params, state, z: Array, **given) -> Array:
        """x [B, *shape] of u [B, D]; the exact inverse of `to_latent`."""
        return self._backward(params, z, self.condition.given(given, len(z)))

    def _backward(self, params, u: Array, c: Given) -> Array:
        x, _ = self.flow.apply({"params": params["flow"]}, u, c or None, reverse=True)
        x = x.reshape(len(u), *self.space.shape)
        if isinstance(self.space, Images):
            x = unsquash(x, self._most, self.alpha)
        return x

    def sample(self, params, state, key, num, *, start_index=0, **given):
        """x [num, *shape] of u ~ N(0, 1), which may leave [-1, 1] a little.

        given: c by name, for all or per row; what is missing is drawn.
        """
        keys = sample_keys(key, num, start_index)
        c = self.condition.given(given, num, keys)
        return self._backward(params, normal(keys, self.latent_shape), c)

    def nfe(self) -> int:
        """Network calls per sample."""
        return 1

    def features(self, params, state, batch, key) -> Array:
        """u [B, D]: a representation; the key is not used."""
        x, c = self.space.read(batch), self.condition.read(batch)
        return self._forward(params, x, c)[0]
