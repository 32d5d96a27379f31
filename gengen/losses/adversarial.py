"""The two-player game min_G max_D E[log D(x)] + E[log(1 - D(G(z)))], [B] in nats.

Written in logits l, D = σ(l), so that log D = -softplus(-l) and
log(1 - D) = -softplus(l) never lose a digit. Losses are minimised by their player.

Goodfellow et al. 2014, arXiv:1406.2661, equation 1 and section 3.
"""

import chex
import jax

from gengen.types import Array

softplus = jax.nn.softplus


def discriminator_loss(real: Array, fake: Array) -> Array:
    """-log D(x) - log(1 - D(G(z))), [B] nats.

    Its optimum over D is D* = p/(p + q), i.e. logit log p - log q, where the expected
    loss is 2 log 2 - 2 JS(p ‖ q).

    Args:
        real: floats [B], the logits of real examples.
        fake: floats [B], the logits of fake examples.

    >>> import jax.numpy as jnp
    >>> discriminator_loss(jnp.array([0.0, 99.0]), jnp.array([0.0, -99.0]))
    Array([1.3863, 0.    ], dtype=float32)
    """
    chex.assert_rank((real, fake), 1)
    chex.assert_type((real, fake), float)
    chex.assert_equal_shape((real, fake))
    return softplus(-real) + softplus(fake)


def minimax_generator_loss(fake: Array) -> Array:
    """log(1 - D(G(z))), [B] nats: the game as stated; flat where D wins.

    Args:
        fake: floats [B], the logits of fake examples.

    >>> import jax.numpy as jnp
    >>> minimax_generator_loss(jnp.array([-99.0, 0.0]))
    Array([-0.    , -0.6931], dtype=float32)
    """
    chex.assert_rank(fake, 1)
    chex.assert_type(fake, float)
    return -softplus(fake)


def nonsaturating_generator_loss(fake: Array) -> Array:
    """-log D(G(z)), [B] nats: the same fixed point, and a gradient where D wins.

    Args:
        fake: floats [B], the logits of fake examples.

    >>> import jax.numpy as jnp
    >>> nonsaturating_generator_loss(jnp.array([-99.0, 0.0]))
    Array([99.    ,  0.6931], dtype=float32)
    """
    chex.assert_rank(fake, 1)
    chex.assert_type(fake, float)
    return softplus(-fake)
