"""Divergences between distributions of latents, [B] in nats."""

import jax.numpy as jnp

from gengen.losses.likelihood import per_example
from gengen.types import Array


def gaussian_kl(
    mean: Array,
    logvar: Array,
    prior_mean: Array | float = 0.0,
    prior_logvar: Array | float = 0.0,
) -> Array:
    """KL(N(mean, e^logvar) ‖ N(prior_mean, e^prior_logvar)), diagonal: [B, ...] -> [B].

    ½ Σ [prior_logvar - logvar + (e^logvar + (mean - prior_mean)²) e^-prior_logvar - 1].
    The prior defaults to N(0, 1). Kingma and Welling 2014, arXiv:1312.6114, appendix B.
    """
    spread = jnp.exp(logvar) + jnp.square(mean - prior_mean)
    ratio = prior_logvar - logvar
    return per_example(0.5 * (ratio + spread * jnp.exp(-prior_logvar) - 1.0))
