"""Lower bounds on log p(x) of a model with latents: the ELBO, and IWAE's.

With z = μ + σ ⊙ ε, ε ~ N(0, 1), from the posterior q(z|x) = N(μ, σ²), and the weight
w = p(x|z) p(z)/q(z|x):

    log p(x) >= E log (1/K) Σ_k w_k >= E log w = ELBO.

Another prior, or a posterior that a flow has bent, changes w alone: with z = f(z₀) of
the Gaussian's z₀,

    log w = log p(x|z) + log N(z₀; 0, 1) - log N(z₀; μ, σ²) + surplus(z₀),
    surplus = log p(z) + log |det ∂z/∂z₀| - log N(z₀; 0, 1),

whose last line is 0 for the unit Gaussian without a flow. So the KL that is known in
closed form stays, and only the surplus is estimated from the sample.

Kingma and Welling 2014, arXiv:1312.6114; Burda, Grosse and Salakhutdinov 2016,
arXiv:1509.00519; Kingma et al. 2016, arXiv:1606.04934 (flows, free bits); Tucker et al.
2019, arXiv:1810.04152 (the doubly reparameterised gradient); Chen et al. 2018,
arXiv:1802.04942 (total correlation).
"""

import math
from collections.abc import Callable
from functools import partial

import chex
import jax
import jax.numpy as jnp

from gengen.losses.divergence import gaussian_kl
from gengen.losses.likelihood import normal_log_prob, per_example
from gengen.types import Array, Tree

# z₀ [B, *latent] -> (z [B, *latent], surplus [B] or 0): the prior and the flow.
Latent = Callable[[Array], tuple[Array, Array | float]]


def plain(z: Array) -> tuple[Array, float]:
    """No flow and a unit Gaussian prior: (z, 0).

    >>> plain(3.0)
    (3.0, 0.0)
    """
    return z, 0.0


def elbo(
    log_prob: Callable,
    mean: Array,
    logvar: Array,
    noise: Array,
    beta: Array | float = 1.0,
    latent: Latent = plain,
) -> tuple[Array, tuple[Array, Array]]:
    """E_q log p(x|z) - beta KL(q ‖ p(z)) at z₀ = mean + e^(logvar/2) noise: [B] nats.

    The expectation is that of one sample; the KL is exact but for the surplus. Kingma
    and Welling 2014, equation 10.

    Args:
        log_prob: z [B, *latent] -> log p(x|z) [B], nats.
        mean: of q(z|x), floats [B, *latent].
        logvar: the log-variance of q(z|x), like `mean`.
        noise: standard normal, like `mean`.
        beta: the weight of the KL.
        latent: z₀ -> z and the surplus of another prior or a flow.

    Returns:
        The bound, and its two terms: log p(x|z) and the KL, [B] each.

    >>> zeros = jnp.zeros((1, 2))
    >>> bound, (expected, kl) = elbo(lambda z: z.sum(1) - 3.0, zeros, zeros, zeros)
    >>> bound.item(), expected.item(), kl.item()
    (-3.0, -3.0, 0.0)
    """
    chex.assert_equal_shape([mean, logvar, noise])
    z, surplus = latent(mean + jnp.exp(0.5 * logvar) * noise)
    expected = log_prob(z)
    kl = gaussian_kl(mean, logvar) - surplus
    chex.assert_equal_shape([expected, kl])
    return expected - beta * kl, (expected, kl)


def log_weight(
    log_prob: Callable,
    mean: Array,
    logvar: Array,
    noise: Array,
    latent: Latent = plain,
) -> Array:
    """log p(x|z) + log p(z) - log q(z|x) at z₀ = mean + e^(logvar/2) noise: [B] nats.

    Args:
        log_prob: z [B, *latent] -> log p(x|z) [B], nats.
        mean: of q(z|x), floats [B, *latent].
        logvar: the log-variance of q(z|x), like `mean`.
        noise: standard normal, like `mean`.
        latent: z₀ -> z and the surplus of another prior or a flow.

    >>> zeros = jnp.zeros((1, 2))  # q is the prior
    >>> round(log_weight(lambda z: z.sum(1) - 3.0, zeros, zeros, zeros).item(), 4)
    -3.0
    """
    chex.assert_equal_shape([mean, logvar, noise])
    first = mean + jnp.exp(0.5 * logvar) * noise
    z, surplus = latent(first)
    prior = per_example(normal_log_prob(first, jnp.zeros(()), jnp.zeros(())))
    posterior = per_example(normal_log_prob(first, mean, logvar))
    expected = log_prob(z)
    chex.assert_equal_shape([expected, prior])
    return expected + prior - posterior + surplus


def iwae_bound(log_w: Array) -> Array:
    """log (1/K) Σ_k w_k: [B] nats. Burda et al. 2016, equation 8.

    Args:
        log_w: log-weights [K, B] of K draws of the posterior.

    >>> round(iwae_bound(jnp.log(jnp.array([[0.5], [2.5]]))).item(), 4)  # log 1.5
    0.4055
    """
    chex.assert_rank(log_w, 2)
    return jax.nn.logsumexp(log_w, axis=0) - math.log(log_w.shape[0])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def doubly_reparameterized(log_weights: Callable, z: Array, rest: Tree) -> Array:
    """`iwae_bound` of `log_weights(z, rest)`, with the gradient of Tucker et al.: [B].

    The posterior in log w must not see a gradient of its own, so `log_weights` takes
    log q(z|x) of stopped parameters: they move through z alone. The gradient to z_k is
    then weighed by w̃_k², that to the rest by w̃_k = w_k/Σ w, which has the mean of the
    IWAE gradient and a signal that does not vanish with K. Tucker et al. 2019,
    arXiv:1810.04152, equation 8.

    Args:
        log_weights: (z, rest) -> log w [K, B], which closes over nothing that moves;
            row k depends on z[k] alone.
        z: draws of the posterior [K, B, ...].
        rest: whatever else moves, such as the parameters of the decoder.

    >>> z = jnp.array([[[0.0]], [[1.0]]])
    >>> round(doubly_reparameterized(lambda z, _: z[..., 0], z, {}).item(), 4)
    0.6201
    """
    return iwae_bound(log_weights(z, rest))


def _forward(log_weights, z, rest):
    log_w, pullback = jax.vjp(log_weights, z, rest)
    return iwae_bound(log_w), (pullback, jax.nn.softmax(log_w, axis=0))


def _backward(log_weights, kept, gradient):
    pullback, share = kept
    to_z, to_rest = pullback(share * gradient)
    return to_z * share.reshape(*share.shape, *(1,) * (to_z.ndim - 2)), to_rest


doubly_reparameterized.defvjp(_forward, _backward)


def free_bits(kl: Array, free: float) -> Array:
    """KLs [B] whose mean is at least `free` nats, without a gradient below it: [B].

    Kingma et al. 2016, arXiv:1606.04934, appendix C.8, with all latents as one group.

    Args:
        kl: floats [B], nats.
        free: nats per example, at least 0.

    >>> free_bits(jnp.array([0.0, 4.0]), 3.0).tolist()
    [3.0, 3.0]
    """
    chex.assert_rank(kl, 1)
    return jnp.where(jnp.mean(kl) < free, free, kl)


def total_correlation(z: Array, mean: Array, logvar: Array) -> Array:
    """KL(q(z) ‖ Π_d q(z_d)) of the aggregate posterior, estimated: a scalar, nats.

    q(z) ≈ 1/B Σ_j q(z|x_j), at the draws z_i of the same batch. The estimate is biased,
    as each draw's own posterior is among the B. Chen et al. 2018, arXiv:1802.04942,
    equations 2 and 10; the constants of their weighting have no gradient.

    Args:
        z: draws [B, D] of the posteriors.
        mean: [B, D].
        logvar: [B, D].

    >>> mean = jnp.array([[-9.0, -9.0], [9.0, 9.0]])  # z₂ is known from z₁
    >>> round(total_correlation(mean, mean, jnp.zeros((2, 2))).item(), 4)  # log 2
    0.6931
    """
    chex.assert_rank(z, 2)
    chex.assert_equal_shape([z, mean, logvar])
    each = normal_log_prob(
        jnp.broadcast_to(z[:, None], (len(z), *z.shape)),
        jnp.broadcast_to(mean, (len(z), *z.shape)),
        jnp.broadcast_to(logvar, (len(z), *z.shape)),
    )  # [i, j, D]
    log_b = math.log(len(z))
    joint = jax.nn.logsumexp(jnp.sum(each, axis=-1), axis=1) - log_b
    marginals = jnp.sum(jax.nn.logsumexp(each, axis=1) - log_b, axis=-1)
    return jnp.mean(joint - marginals)


def active_units(mean: Array, threshold: float = 0.01) -> Array:
    """Whether each latent knows something of the data, Var_x E[z|x] > 0.01: bool [...].

    Burda et al. 2016, arXiv:1509.00519, section 5.2.

    Args:
        mean: posterior means [N, ...] of many data.
        threshold: the least variance of an active unit.

    >>> active_units(jnp.array([[1.0, 0.0], [-1.0, 0.0]])).tolist()
    [True, False]
    """
    chex.assert_type(mean, float)
    return jnp.var(mean, axis=0) > threshold
