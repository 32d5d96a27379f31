"""Contrastive losses of pairs: which caption belongs to which image, [B] in nats.

A batch of B pairs has similarities l [B, B], of image i and caption j. What belongs
together are the targets, bool [B, B]: the diagonal, and whatever else is equal. Equal
captions are no negatives of one another:

    infonce    -½ Σ_j p_ij log softmax_j(l) - ½ Σ_j p_ji log softmax_j(lᵀ)
    sigmoid    -Σ_j log σ(± l_ij), + where they belong together

with p the targets, each row divided by its sum. For B independent pairs InfoNCE bounds
the mutual information: I(x; c) ≥ log B - L, at most log B.

Oord, Li and Vinyals 2018, arXiv:1807.03748; Radford et al. 2021, arXiv:2103.00020;
several positives: Khosla et al. 2020, arXiv:2004.11362, equation 2; Zhai et al. 2023,
arXiv:2303.15343.
"""

import chex
import jax
import jax.numpy as jnp

from gengen.types import Array


def equal_rows(tokens: Array) -> Array:
    """Which rows of integers [B, S] are equal: bool [B, B], true on the diagonal.

    >>> equal_rows(jnp.array([[1, 2], [1, 3], [1, 2]])).astype(int).tolist()
    [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    """
    chex.assert_rank(tokens, 2)
    return jnp.all(tokens[:, None] == tokens[None], axis=-1)


def _cross_entropy(logits: Array, targets: Array) -> Array:
    share = targets / jnp.sum(targets, axis=1, keepdims=True)
    return -jnp.sum(share * jax.nn.log_softmax(logits, axis=1), axis=1)


def infonce(logits: Array, targets: Array) -> Array:
    """The symmetric cross-entropy of who belongs to whom, [B] nats.

    Args:
        logits: floats [B, B], similarities of x_i and c_j.
        targets: bool [B, B], who belongs together: true on the diagonal.

    >>> infonce(jnp.zeros((2, 2)), jnp.eye(2))  # log 2
    Array([0.6931, 0.6931], dtype=float32)
    """
    chex.assert_equal_shape((logits, targets))
    own = targets.astype(logits.dtype)
    return 0.5 * (_cross_entropy(logits, own) + _cross_entropy(logits.T, own.T))


def sigmoid(logits: Array, targets: Array) -> Array:
    """Each pair by itself: -Σ_j log σ(l_ij) or -log σ(-l_ij), [B] nats.

    Args:
        logits: floats [B, B], similarities of x_i and c_j with their bias.
        targets: bool [B, B], who belongs together.

    >>> sigmoid(jnp.zeros((2, 2)), jnp.eye(2))  # 2 log 2
    Array([1.3863, 1.3863], dtype=float32)
    """
    chex.assert_equal_shape((logits, targets))
    return jnp.sum(jax.nn.softplus(jnp.where(targets > 0, -logits, logits)), axis=1)
