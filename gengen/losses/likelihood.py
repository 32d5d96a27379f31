"""Log-probabilities, elementwise in nats; `per_example` sums them to [B]."""

import math

import jax
import jax.numpy as jnp

from gengen.images import bin_width, to_unit
from gengen.types import Array


def per_example(log_prob: Array) -> Array:
    """[B, ...] -> [B]: independent dimensions add their log-probabilities."""
    return jnp.sum(log_prob.reshape(log_prob.shape[0], -1), axis=-1)


def normal_log_prob(x: Array, mean: Array, logvar: Array) -> Array:
    """log N(x; mean, exp(logvar)) = -½ [(x - mean)² e^-logvar + logvar + log 2π]."""
    log_2pi = jnp.log(2.0 * jnp.pi)
    return -0.5 * (jnp.square(x - mean) * jnp.exp(-logvar) + logvar + log_2pi)


def binomial_log_prob(image: Array, logits: Array, levels: int = 2) -> Array:
    """log Binomial(k; n, p) with n = levels - 1 and p = σ(logits); n = 1 is Bernoulli.

    Level k is the number of ones among n coins of one probability:
    log C(n, k) + k log σ(l) + (n - k) log σ(-l). A proper probability of every level,
    unlike the cross-entropy with grey values as soft targets, which is
    this sum without the count of arrangements, divided by n.
    """
    k, n = image.astype(jnp.float32), levels - 1
    arrangements = jnp.array([math.log(math.comb(n, i)) for i in range(levels)])
    log_p, log_q = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return arrangements[image.astype(jnp.int32)] + k * log_p + (n - k) * log_q


def discretized_logistic_log_prob(
    image: Array, mean: Array, log_scale: Array, levels: int = 256
) -> Array:
    """log of the logistic's mass in each level's bin; the outer bins take the tails.

    P(k) = σ((x + w/2 - mean)/s) - σ((x - w/2 - mean)/s), x = `to_unit(k)`, w the bin
    width, s = exp(log_scale); the lower limit of level 0 is -∞, the upper limit of
    level L-1 is +∞, so the levels sum to 1.

    The mass is computed from σ(a) - σ(b) = σ(a) σ(-b) (1 - e^(b-a)), which keeps its
    digits in both tails, where the difference of two CDFs has none left.

    Kingma et al. 2016, arXiv:1606.04934, appendix; Salimans et al. 2017,
    arXiv:1701.05517, equation 2.
    """
    x, half = to_unit(image, levels), bin_width(levels) / 2
    upper = (x + half - mean) * jnp.exp(-log_scale)
    lower = (x - half - mean) * jnp.exp(-log_scale)
    log_cdf, log_survival = jax.nn.log_sigmoid(upper), jax.nn.log_sigmoid(-lower)
    width = 2 * half * jnp.exp(-log_scale)
    inside = log_cdf + log_survival + jnp.log(-jnp.expm1(-width))
    first, last = image == 0, image == levels - 1
    return jnp.where(first, log_cdf, jnp.where(last, log_survival, inside))
