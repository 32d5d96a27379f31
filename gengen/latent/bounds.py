"""Lower bounds on log p(x) of a model with latents: the ELBO, and IWAE's.

With z = μ + σ ⊙ ε, ε ~ N(0, 1), from the posterior q(z|x) = N(μ, σ²), and the weight
w = p(x|z) p(z)/q(z|x):

    log p(x) >= E log (1/K) Σ_k w_k >= E log w = ELBO.

Kingma and Welling 2014, arXiv:1312.6114; Burda, Grosse and Salakhutdinov 2016,
arXiv:1509.00519.
"""

import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gengen.losses.divergence import gaussian_kl
from gengen.losses.likelihood import normal_log_prob, per_example
from gengen.types import Array


def elbo(
    log_prob: Callable,
    mean: Array,
    logvar: Array,
    noise: Array,
    beta: Array | float = 1.0,
) -> tuple[Array, tuple[Array, Array]]:
    """E_q log p(x|z) - beta KL(q ‖ N(0, 1)) at z = mean + e^(logvar/2) noise: [B] nats.

    The expectation is that of one sample; the KL is exact. Kingma and Welling 2014,
    equation 10.

    Args:
        log_prob: z [B, *latent] -> log p(x|z) [B], nats.
        mean: of q(z|x), floats [B, *latent].
        logvar: the log-variance of q(z|x), like `mean`.
        noise: standard normal, like `mean`.
        beta: the weight of the KL.

    Returns:
        The bound, and its two terms: log p(x|z) and the KL, [B] each.

    >>> zeros = jnp.zeros((1, 2))
    >>> bound, (expected, kl) = elbo(lambda z: z.sum(1) - 3.0, zeros, zeros, zeros)
    >>> bound.item(), expected.item(), kl.item()
    (-3.0, -3.0, 0.0)
    """
    chex.assert_equal_shape([mean, logvar, noise])
    expected = log_prob(mean + jnp.exp(0.5 * logvar) * noise)
    kl = gaussian_kl(mean, logvar)
    chex.assert_equal_shape([expected, kl])
    return expected - beta * kl, (expected, kl)


def log_weight(log_prob: Callable, mean: Array, logvar: Array, noise: Array) -> Array:
    """log p(x|z) + log p(z) - log q(z|x) at z = mean + e^(logvar/2) noise: [B] nats.

    Args:
        log_prob: z [B, *latent] -> log p(x|z) [B], nats.
        mean: of q(z|x), floats [B, *latent].
        logvar: the log-variance of q(z|x), like `mean`.
        noise: standard normal, like `mean`.

    >>> zeros = jnp.zeros((1, 2))  # q is the prior
    >>> log_weight(lambda z: z.sum(1) - 3.0, zeros, zeros, zeros).round(4).tolist()
    [-3.0]
    """
    chex.assert_equal_shape([mean, logvar, noise])
    z = mean + jnp.exp(0.5 * logvar) * noise
    prior = per_example(normal_log_prob(z, jnp.zeros(()), jnp.zeros(())))
    return log_prob(z) + prior - per_example(normal_log_prob(z, mean, logvar))


def iwae_bound(log_w: Array) -> Array:
    """log (1/K) Σ_k w_k: [B] nats. Burda et al. 2016, equation 8.

    Args:
        log_w: log-weights [K, B] of K draws of the posterior.

    >>> iwae_bound(jnp.array([[2.0], [2.0]])).item()
    2.0
    """
    chex.assert_rank(log_w, 2)
    return jax.nn.logsumexp(log_w, axis=0) - math.log(log_w.shape[0])
