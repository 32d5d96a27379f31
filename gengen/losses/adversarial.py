"""The two-player game as values: what either player minimises, [B] in nats.

A critic gives logits l; its opinion that an example is real is D = σ(l), and
log D = -softplus(-l), log(1 - D) = -softplus(l) never lose a digit. Most games part
into a loss of real and one of fake logits; with (·)₊ = max(·, 0):

    value            of a real l      of a fake l     the generator's, of a fake l
    Minimax          softplus(-l)     softplus(l)     -softplus(l)
    NonSaturating    softplus(-l)     softplus(l)      softplus(-l)
    LeastSquares     (l - 1)²/2       l²/2             (l - 1)²/2
    Hinge            (1 - l)₊         (1 + l)₊         -l
    Wasserstein      -l               l                -l

Wrappers make games of games: `Relativistic` of the difference of a real and a fake
logit, `Smoothed` with a share of each real example called fake.

    Relativistic     the critic's ℓ(l - l′), the generator's ℓ(l′ - l); real l, fake l′

For densities p of data and q of fakes, the best critic of the first two is
D* = p/(p + q), at -log 4 + 2 JS(p ‖ q) of what both play for (Goodfellow et al. 2014,
arXiv:1406.2661, theorem 1): that is least where q = p.
"""

from typing import Protocol

import chex
import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.types import Array, static

softplus = jax.nn.softplus


class AdversarialLoss(Protocol):
    """A game: the losses of both players, of logits of real and of fake examples."""

    def discriminator(self, real: Array, fake: Array) -> Array:
        """What the critic minimises [B], from logits [B]."""

    def generator(self, real: Array, fake: Array) -> Array:
        """What the generator minimises [B], from logits [B]."""

    def margin(self, real: Array, fake: Array) -> Array:
        """A number [B] above 0 where the critic is right on a real example."""


def check_logits(real: Array, fake: Array) -> None:
    """Assert floats [B] of one length.

    >>> check_logits(jnp.zeros(2), jnp.zeros(2))
    """
    chex.assert_rank((real, fake), 1)
    chex.assert_type((real, fake), float)
    chex.assert_equal_shape((real, fake))


class Separable:
    """A game that parts into `of_real` and `of_fake`; a fake is to be called real."""

    def discriminator(self, real: Array, fake: Array) -> Array:
        """of_real(real) + of_fake(fake), [B]."""
        check_logits(real, fake)
        return self.of_real(real) + self.of_fake(fake)

    def generator(self, real: Array, fake: Array) -> Array:
        """of_real(fake), [B]; the real logits are not read."""
        check_logits(real, fake)
        return self.of_real(fake)

    def margin(self, real: Array, fake: Array) -> Array:
        """The logit of a real example."""
        check_logits(real, fake)
        return real


@static
class NonSaturating(Separable):
    """-log D(x) - log(1 - D(G(z))) and -log D(G(z)): a gradient where the critic wins.

    Goodfellow et al. 2014, arXiv:1406.2661, section 3.

    >>> l = jnp.array([-99.0, 0.0])
    >>> NonSaturating().generator(l, l)
    Array([99.    ,  0.6931], dtype=float32)
    """

    def of_real(self, logit: Array) -> Array:
        """-log D."""
        return softplus(-logit)

    def of_fake(self, logit: Array) -> Array:
        """-log(1 - D)."""
        return softplus(logit)

    def probability(self, margin: Array) -> Array:
        """D = σ(l): that an example is real, which at the optimum it is."""
        return jax.nn.sigmoid(margin)


@static
class Minimax(NonSaturating):
    """The game as stated: the generator minimises log(1 - D(G(z))), flat if D wins.

    Goodfellow et al. 2014, arXiv:1406.2661, equation 1.

    >>> l = jnp.array([-99.0, 0.0])
    >>> Minimax().generator(l, l)
    Array([-0.    , -0.6931], dtype=float32)
    """

    def generator(self, real: Array, fake: Array) -> Array:
        """log(1 - D(G(z))), [B]: the critic's gain from a fake is the other's loss."""
        check_logits(real, fake)
        return -self.of_fake(fake)


@static
class LeastSquares(Separable):
    """Real to 1 and fake to 0 by squares; the optimum is D* = p/(p + q) itself.

    Mao et al. 2017, arXiv:1611.04076, equation 9.

    >>> l = jnp.array([0.0, 1.0])
    >>> LeastSquares().generator(l, l)
    Array([0.5, 0. ], dtype=float32)
    """

    def of_real(self, logit: Array) -> Array:
        """(l - 1)²/2."""
        return jnp.square(logit - 1.0) / 2

    def of_fake(self, logit: Array) -> Array:
        """l²/2."""
        return jnp.square(logit) / 2

    def margin(self, real: Array, fake: Array) -> Array:
        """l - 1/2: halfway between the two targets."""
        return super().margin(real, fake) - 0.5

    def probability(self, margin: Array) -> Array:
        """l, within [0, 1]: that an example is real."""
        return jnp.clip(margin + 0.5, 0.0, 1.0)


@static
class Hinge(Separable):
    """(1 - D(x))₊ + (1 + D(G(z)))₊ and -D(G(z)): what is clear enough counts no more.

    Lim and Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, section 4.

    >>> Hinge().discriminator(jnp.array([0.0, 2.0]), jnp.array([0.0, -2.0]))
    Array([2., 0.], dtype=float32)
    """

    def of_real(self, logit: Array) -> Array:
        """(1 - l)₊."""
        return jax.nn.relu(1.0 - logit)

    def of_fake(self, logit: Array) -> Array:
        """(1 + l)₊."""
        return jax.nn.relu(1.0 + logit)

    def generator(self, real: Array, fake: Array) -> Array:
        """-l, [B]."""
        check_logits(real, fake)
        return -fake


@static
class Wasserstein(Separable):
    """-D(x) + D(G(z)) and -D(G(z)) of a critic that is kept Lipschitz by other means.

    The critic's best value over 1-Lipschitz functions is -W₁(p, q). Arjovsky et al.
    2017, arXiv:1701.07875, equation 2.

    >>> Wasserstein().discriminator(jnp.array([3.0]), jnp.array([1.0]))
    Array([-2.], dtype=float32)
    """

    def of_real(self, logit: Array) -> Array:
        """-l."""
        return -logit

    def of_fake(self, logit: Array) -> Array:
        """l."""
        return logit

    def margin(self, real: Array, fake: Array) -> Array:
        """D(x) - D(G(z)): the critic's level means nothing."""
        return super().margin(real, fake) - fake


@static
class Relativistic:
    """ℓ(D(x) - D(G(z))) and ℓ(D(G(z)) - D(x)): is a real example more real than a fake?

    It is invariant under D + c, and log 2 wherever D is constant. ℓ is the loss of real
    logits of another game. Jolicoeur-Martineau 2018, arXiv:1807.00734; as in R3GAN,
    Huang et al. 2024, arXiv:2501.05441, equation 2.

    >>> real, fake = jnp.array([5.0, 5.0]), jnp.array([5.0, -94.0])
    >>> Relativistic().discriminator(real, fake)
    Array([0.6931, 0.    ], dtype=float32)
    """

    loss: Separable = NonSaturating()
    """The game whose loss of real logits is ℓ."""

    def discriminator(self, real: Array, fake: Array) -> Array:
        """ℓ(D(x) - D(G(z))), [B]."""
        return self.loss.of_real(self.margin(real, fake))

    def generator(self, real: Array, fake: Array) -> Array:
        """ℓ(D(G(z)) - D(x)), [B]."""
        return self.loss.of_real(-self.margin(real, fake))

    def margin(self, real: Array, fake: Array) -> Array:
        """D(x) - D(G(z)), [B]."""
        check_logits(real, fake)
        return real - fake

    def probability(self, margin: Array) -> Array:
        """σ(D(x) - D(x′)) of x being the real one of two, if ℓ is softplus(-·)."""
        return jax.nn.sigmoid(margin)


@static
class Smoothed(Separable):
    """A game whose real examples are called fake in a share of cases, in expectation.

    One-sided label smoothing: the best critic of the first two games is
    D* = (1 - share) p/(p + q). Salimans et al. 2016, arXiv:1606.03498, section 3.4.

    >>> Smoothed(NonSaturating(), 0.25).of_real(jnp.array([4.0])).round(4)
    Array([1.0181], dtype=float32)
    """

    loss: Separable
    """The game."""
    share: float = 0.1
    """The share of each real example that counts as fake, in [0, 1), else BadInput."""

    def __post_init__(self):
        if not 0 <= self.share < 1:
            raise BadInput(
                f"share={self.share} of real examples called fake: give one in [0, 1)"
            )

    def of_real(self, logit: Array) -> Array:
        """(1 - share) of_real(l) + share of_fake(l)."""
        real, fake = self.loss.of_real(logit), self.loss.of_fake(logit)
        return (1.0 - self.share) * real + self.share * fake

    def of_fake(self, logit: Array) -> Array:
        """That of the game."""
        return self.loss.of_fake(logit)

    def generator(self, real: Array, fake: Array) -> Array:
        """That of the game."""
        return self.loss.generator(real, fake)

    def margin(self, real: Array, fake: Array) -> Array:
        """That of the game."""
        return self.loss.margin(real, fake)


@static
class Adaptive:
    """The probability p of augmentation that keeps the critic from overfitting (ADA).

    After every turn of the critic, p moves by the batch's share of `examples`: up if
    the critic is right on real examples in more than `target` of cases, E sign(margin),
    else down. Karras et al. 2020, arXiv:2006.06676, section 3.1.

    >>> rises = Adaptive(examples=100).moved(jnp.float32(0.5), jnp.ones(10))
    >>> round(float(rises), 2)
    0.6
    """

    target: float = 0.6
    """The value of E sign(margin) at which p stays."""
    examples: int = 500_000
    """Examples in which p can move from 0 to 1."""

    def moved(self, p: Array, margin: Array) -> Array:
        """p after the margins [B] of one batch, in [0, 1]."""
        direction = jnp.sign(jnp.mean(jnp.sign(margin)) - self.target)
        return jnp.clip(p + direction * len(margin) / self.examples, 0.0, 1.0)
