"""L1 regularisers of a critic `x -> logits [B]` with its parameters bound, as values.

Each is asked `regulariser(critic, real, fake, key) -> [B]`, and the critic's loss adds
the mean. They differ in where the critic is looked at, and in what is asked there:

    x ∈ at       real examples, fake ones, or points between the two
    gradients    weight · (|∇ₓ D(x)| - target)²      R1, R2, R1 + R2, WGAN-GP
    consistency  weight · (D(x) - D(T(x)))²          CR, bCR

All points of one regulariser are joined to one batch, so that R1 and R2 together are
one pass of a gradient of a gradient. The norm is each example's own: a critic that
mixes examples, by batch statistics, has none.

The oldest of them, `gengen.gradients.clip_weights`, keeps parameters small.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.losses.likelihood import per_example
from gengen.types import Array, Key, static

Critic = Callable[[Array], Array]
POINTS = ("real", "fake", "between")


def squared_gradients(critic: Critic, x: Array) -> Array:
    """|∇ₓ critic(x)|² per example, [B].

    Args:
        critic: x -> logits [B]. It must score examples independently (no batch
            statistics): then the gradient of the summed scores is every example's own.
        x: floats [B, ...].

    >>> squared_gradients(lambda x: x @ jnp.array([3.0, 4.0]), jnp.zeros((2, 2)))
    Array([25., 25.], dtype=float32)
    """
    chex.assert_type(x, float)

    def total(x):
        logits = critic(x)
        chex.assert_shape(logits, x.shape[:1])
        return jnp.sum(logits)

    return per_example(jnp.square(jax.grad(total)(x)))


def points(at: tuple[str, ...], real: Array, fake: Array, key: Key) -> Array:
    """The places of a regulariser as one batch, [len(at) · B, ...].

    Args:
        at: some of "real", "fake" and "between", the last of which are
            u x + (1 - u) G(z) with u uniform in [0, 1], one per example.
        real: floats [B, ...].
        fake: floats [B, ...].
        key: for u.

    >>> points(("real", "fake"), jnp.ones((1, 2)), jnp.zeros((1, 2)), jax.random.key(0))
    Array([[1., 1.],
           [0., 0.]], dtype=float32)
    """
    chex.assert_equal_shape((real, fake))
    places = {"real": real, "fake": fake}
    if "between" in at:
        u = jax.random.uniform(key, (len(real),) + (1,) * (real.ndim - 1))
        places["between"] = u * real + (1.0 - u) * fake
    return jnp.concatenate([places[name] for name in at])


class _At:
    """What regularisers share: their places, checked, and a sum over them."""

    def __post_init__(self):
        if not self.at or not set(self.at) <= set(POINTS):
            raise BadInput(
                f"at={self.at}: a regulariser looks at some of {', '.join(POINTS)}"
            )

    def __call__(self, critic: Critic, real: Array, fake: Array, key: Key) -> Array:
        """weight · Σ over `at`, [B]."""
        key_points, key_own = jax.random.split(key)
        x = points(self.at, real, fake, key_points)
        value = self.of(critic, x, key_own)
        return self.weight * jnp.sum(value.reshape(len(self.at), -1), axis=0)


@static
class GradientPenalty(_At):
    """weight · Σ_at (|∇ₓ D(x)| - target)², [B]: a norm per example.

    `r1`, `r2`, `r1_r2` and `wgan_gp` are the published ones.

    >>> penalty, ones = GradientPenalty(2.0, ("real", "fake"), 3.0), jnp.ones((1, 2))
    >>> penalty(lambda x: x @ jnp.array([3.0, 4.0]), ones, ones, jax.random.key(0))
    Array([16.], dtype=float32)
    """

    weight: float
    """What the square is multiplied by."""
    at: tuple[str, ...] = ("real",)
    """Where: some of "real", "fake" and "between"."""
    target: float = 0.0
    """The norm that costs nothing; 0 centres the penalty at zero."""

    def of(self, critic: Critic, x: Array, key: Key) -> Array:
        """(|∇ₓ D(x)| - target)² of each x."""
        square = squared_gradients(critic, x)
        if self.target == 0.0:
            return square
        # The root has no derivative at 0, where the gradient says no direction.
        norm = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
        return jnp.square(norm - self.target)


def r1(gamma: float) -> GradientPenalty:
    """γ/2 |∇D(x)|² on real examples.

    Mescheder, Geiger and Nowozin 2018, arXiv:1801.04406, equation 9.

    >>> r1(2.0)
    GradientPenalty(weight=1.0, at=('real',), target=0.0)
    """
    return GradientPenalty(gamma / 2, ("real",))


def r2(gamma: float) -> GradientPenalty:
    """γ/2 |∇D(G(z))|² on fakes.

    Mescheder et al. 2018, arXiv:1801.04406, equation 10.

    >>> r2(2.0).at
    ('fake',)
    """
    return GradientPenalty(gamma / 2, ("fake",))


def r1_r2(gamma: float) -> GradientPenalty:
    """Both, in one pass over the joined batch.

    Huang et al. 2024, arXiv:2501.05441, section 2.2.

    >>> r1_r2(2.0).at
    ('real', 'fake')
    """
    return GradientPenalty(gamma / 2, ("real", "fake"))


def wgan_gp(weight: float = 10.0) -> GradientPenalty:
    """weight · (|∇D| - 1)² between real and fake examples.

    Gulrajani et al. 2017, arXiv:1704.00028, equation 3.

    >>> wgan_gp().target
    1.0
    """
    return GradientPenalty(weight, ("between",), 1.0)


@static
class Consistency(_At):
    """weight · Σ_at (D(x) - D(T(x)))², [B]: what T changes is not to be seen.

    On real examples: CR (Zhang et al. 2020, arXiv:1910.12027, equation 3); on both, at
    the same weight: bCR (Zhao et al. 2021, arXiv:2002.04724, section 3.1).

    >>> def double(x, key):
    ...     return 2 * x
    >>> ones = jnp.ones((1, 2))
    >>> Consistency(double, 1.0)(lambda x: x[:, 0], ones, ones, jax.random.key(0))
    Array([1.], dtype=float32)
    """

    transform: Callable[[Array, Key], Array]
    """T(x, key), of the shape of x."""
    weight: float = 10.0
    """What the square is multiplied by."""
    at: tuple[str, ...] = ("real",)
    """Where: some of "real", "fake" and "between"."""

    def of(self, critic: Critic, x: Array, key: Key) -> Array:
        """(D(x) - D(T(x)))² of each x."""
        return jnp.square(critic(x) - critic(self.transform(x, key)))
