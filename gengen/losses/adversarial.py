"""The two-player game min_G max_D E[log D(x)] + E[log(1 - D(G(z)))], [B] in nats.

Written in logits l, D = σ(l), so that log D = -softplus(-l) and
log(1 - D) = -softplus(l) never lose a digit. Losses are minimised by their player.

Goodfellow et al. 2014, arXiv:1406.2661, equation 1 and section 3.
"""

import jax

from gengen.types import Array

softplus = jax.nn.softplus


def discriminator_loss(real: Array, fake: Array) -> Array:
    """-log D(x) - log(1 - D(G(z))) from logits [B] and [B].

    Its optimum over D is D* = p/(p + q), i.e. logit log p - log q, where the expected
    loss is 2 log 2 - 2 JS(p ‖ q).
    """
    return softplus(-real) + softplus(fake)


def minimax_generator_loss(fake: Array) -> Array:
    """log(1 - D(G(z))) from logits [B]: the game as stated; flat where D wins."""
    return -softplus(fake)


def nonsaturating_generator_loss(fake: Array) -> Array:
    """-log D(G(z)) from logits [B]: the same fixed point, a gradient where D wins."""
    return softplus(-fake)
