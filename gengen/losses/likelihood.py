"""Log-probabilities, elementwise in nats; `per_example` sums them to [B]."""

import math

import chex
import jax
import jax.numpy as jnp

from gengen.images import bin_width, to_unit
from gengen.types import Array


def per_example(values: Array) -> Array:
    """[B, ...] -> [B], the sum over all but the first dimension.

    Independent dimensions add their log-probabilities.

    Args:
        values: floats [B, ...], at least one dimension.

    >>> per_example(jnp.ones((2, 3, 4)))
    Array([12., 12.], dtype=float32)
    """
    chex.assert_type(values, float)
    if jnp.ndim(values) == 0:
        raise AssertionError("a number has no examples to sum over: give [B, ...]")
    return jnp.sum(values.reshape(values.shape[0], -1), axis=-1)


def assert_parameters(x: Array, *parameters: Array | float) -> None:
    """AssertionError unless each parameter is of x's shape or one number for all.

    Args:
        x: what the distribution is of, any shape.
        *parameters: floats.

    >>> assert_parameters(jnp.zeros((2, 3)), jnp.ones((2, 3)), 0.5)
    """
    chex.assert_type(parameters, float)
    for parameter in parameters:
        if jnp.ndim(parameter):
            chex.assert_equal_shape((x, parameter))


def normal_log_prob(x: Array, mean: Array | float, logvar: Array | float) -> Array:
    """log N(x; mean, e^logvar) = -½ [(x - mean)² e^-logvar + logvar + log 2π].

    Args:
        x: floats, any shape.
        mean: floats of x's shape, or one number for all.
        logvar: floats of x's shape, or one number for all.

    >>> normal_log_prob(jnp.array([0.0, 2.0]), 0.0, 0.0)
    Array([-0.9189, -2.9189], dtype=float32)
    """
    chex.assert_type(x, float)
    assert_parameters(x, mean, logvar)
    log_2pi = jnp.log(2.0 * jnp.pi)
    return -0.5 * (jnp.square(x - mean) * jnp.exp(-logvar) + logvar + log_2pi)


def binomial_log_prob(image: Array, logits: Array | float, levels: int = 2) -> Array:
    """log Binomial(k; n, p) with n = levels - 1 and p = σ(logits); n = 1 is Bernoulli.

    Level k is the number of ones among n coins of one probability:
    log C(n, k) + k log σ(l) + (n - k) log σ(-l). A proper probability of every level,
    unlike the cross-entropy with grey values as soft targets, which is
    this sum without the count of arrangements, divided by n.

    Args:
        image: integers 0 … levels-1, any shape.
        logits: floats of the image's shape, or one number for all.
        levels: L, the number of levels, at least 2.

    >>> jnp.exp(binomial_log_prob(jnp.arange(3), 0.0, levels=3))
    Array([0.25, 0.5 , 0.25], dtype=float32)
    """
    chex.assert_type(image, int)
    assert_parameters(image, logits)
    k, n = image.astype(jnp.float32), levels - 1
    arrangements = jnp.array([math.log(math.comb(n, i)) for i in range(levels)])
    log_p, log_q = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return arrangements[image.astype(jnp.int32)] + k * log_p + (n - k) * log_q


def discretized_logistic_log_prob(
    image: Array, mean: Array | float, log_scale: Array | float, levels: int = 256
) -> Array:
    """log of the logistic's mass in each level's bin; the outer bins take the tails.

    P(k) = σ((x + w/2 - mean)/s) - σ((x - w/2 - mean)/s), x = `to_unit(k)`, w the bin
    width, s = exp(log_scale); the lower limit of level 0 is -∞, the upper limit of
    level L-1 is +∞, so the levels sum to 1.

    The mass is computed from σ(a) - σ(b) = σ(a) σ(-b) (1 - e^(b-a)), which keeps its
    digits in both tails, where the difference of two CDFs has none left.

    Args:
        image: integers 0 … levels-1, any shape.
        mean: floats of the image's shape, or one number for all; levels are in [-1, 1].
        log_scale: floats of the image's shape, or one number for all.
        levels: L, the number of levels, at least 2.

    Kingma et al. 2016, arXiv:1606.04934, appendix; Salimans et al. 2017,
    arXiv:1701.05517, equation 2.

    >>> log_p = discretized_logistic_log_prob(jnp.arange(17), 0.3, -2.0, levels=17)
    >>> float(jnp.exp(log_p).sum().round(4)), int(jnp.argmax(log_p))
    (1.0, 10)
    """
    chex.assert_type(image, int)
    assert_parameters(image, mean, log_scale)
    # The levels are exact in float32 at least, whatever the parameters are.
    dtype = jnp.promote_types(jnp.result_type(mean, log_scale), jnp.float32)
    x, half = to_unit(image, levels, dtype), bin_width(levels) / 2
    upper = (x + half - mean) * jnp.exp(-log_scale)
    lower = (x - half - mean) * jnp.exp(-log_scale)
    log_cdf, log_survival = jax.nn.log_sigmoid(upper), jax.nn.log_sigmoid(-lower)
    width = 2 * half * jnp.exp(-log_scale)
    inside = log_cdf + log_survival + jnp.log(-jnp.expm1(-width))
    first, last = image == 0, image == levels - 1
    return jnp.where(first, log_cdf, jnp.where(last, log_survival, inside))
