"""Divergences between distributions of latents, [B] in nats."""

import chex
import jax.numpy as jnp

from gengen.losses.likelihood import assert_parameters, per_example
from gengen.types import Array


def gaussian_kl(
    mean: Array,
    logvar: Array,
    prior_mean: Array | float = 0.0,
    prior_logvar: Array | float = 0.0,
) -> Array:
    """KL(N(mean, e^logvar) ‖ N(prior_mean, e^prior_logvar)), diagonal, [B] nats.

    ½ Σ [prior_logvar - logvar + (e^logvar + (mean - prior_mean)²) e^-prior_logvar - 1].

    Args:
        mean: floats [B, ...].
        logvar: floats [B, ...], of the mean's shape.
        prior_mean: floats of the mean's shape, or one number for all dimensions.
        prior_logvar: floats of the mean's shape, or one number for all dimensions.

    Kingma and Welling 2014, arXiv:1312.6114, appendix B.

    >>> gaussian_kl(jnp.array([[1.0, 2.0]]), jnp.zeros((1, 2)))
    Array([2.5], dtype=float32)
    """
    chex.assert_type((mean, logvar), float)
    chex.assert_equal_shape((mean, logvar))
    assert_parameters(mean, prior_mean, prior_logvar)
    spread = jnp.exp(logvar) + jnp.square(mean - prior_mean)
    ratio = prior_logvar - logvar
    return per_example(0.5 * (ratio + spread * jnp.exp(-prior_logvar) - 1.0))
