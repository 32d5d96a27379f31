"""Flow maps: the average velocity over an interval of time, in place of its solver.

With velocity v = dz/dt along the flow, the average from r to t is

    u(z_t, t, r) = (z_t - z_r)/(t - r) = 1/(t - r) ∫_r^t v(z_τ, τ) dτ,

so z_r = z_t - (t - r) u: one jump, however far. Two identities tell u from every other
function of (z, t, r), each a regression with its gradient stopped on the right side:

    u(t, r) = v - (t - r) du/dt,      du/dt = ẋ · ∂_z u + ∂_t u       `meanflow_loss`
    u(t, r) = ½ u(t, m) + ½ u(m, r),  m = (t + r)/2                   `shortcut_loss`

Both are flow matching at r = t, where u = v. In the first, v is the conditional
velocity a′x + b′ε, and the direction ẋ of the derivative is either that, too (MeanFlow,
equations 9 to 11), or the network's own velocity u(z, t, t) (`improved_meanflow_loss`):
then the target holds the sample in v alone, so that the loss is a plain regression.

The losses have one signature, (u, z, v, r, t) -> [B], so that a model takes one as a
value; v may be a guided velocity, and then the map is guided. Geng et al.
2025, arXiv:2505.13447 (MeanFlow) and arXiv:2512.02012 (improved MeanFlow); Frans et al.
2024, arXiv:2410.12557 (shortcut models).
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gengen.conditions import Scalar
from gengen.diffusion.paths import Path
from gengen.diffusion.process import expand
from gengen.diffusion.times import LogitNormal, Times
from gengen.errors import BadInput
from gengen.types import Array, Key, static

SECOND_TIME = Scalar("r")
"""The entry of c that holds r."""


def jump(u: Callable, z: Array, t: Array, r: Array) -> Array:
    """z_r = z_t - (t - r) u(z_t, t, r), [B, ...].

    >>> u, one = lambda z, t, r: z / t[:, None], jnp.ones((1, 1))
    >>> jump(u, one, one[0], 0.25 * one[0])
    Array([[0.25]], dtype=float32)

    Args:
        u: (z, t, r) -> the average velocity [B, ...].
        z: the samples at the times t [B, ...].
        t: the later times [B].
        r: the earlier times [B].
    """
    return z - expand(t - r, z) * u(z, t, r)


def squared_error(found: Array, target: Array) -> Array:
    """|found - stop(target)|², a mean over the dimensions: [B].

    >>> squared_error(jnp.array([[3.0, 1.0]]), jnp.zeros((1, 2)))
    Array([5.], dtype=float32)

    Args:
        found: what is learned [B, ...].
        target: like it; no gradient reaches it.
    """
    chex.assert_equal_shape((found, target))
    error = jnp.square(found - jax.lax.stop_gradient(target))
    return jnp.mean(error.reshape(len(found), -1), axis=-1)


def meanflow_loss(u: Callable, z: Array, v: Array, r: Array, t: Array) -> Array:
    """|u - stop(v - (t - r) du/dt)|², du/dt along (v, 1, 0): [B].

    Geng et al. 2025, arXiv:2505.13447, equations 9 to 11.

    Args:
        u: (z, t, r) -> the average velocity [B, ...], which can be differentiated.
        z: the samples at the times t [B, ...].
        v: their velocity, conditional on the data and noise behind them [B, ...].
        r: the earlier times [B], in [0, t].
        t: the later times [B].

    >>> exact = lambda z, t, r: z / t[:, None]  # of data at 0: u = v = ε
    >>> one = jnp.ones((1, 1))
    >>> meanflow_loss(exact, 0.5 * one, one, 0.2 * one[0], 0.5 * one[0])
    Array([0.], dtype=float32)
    """
    return _identity_loss(u, z, v, v, r, t)


def improved_meanflow_loss(
    u: Callable, z: Array, v: Array, r: Array, t: Array
) -> Array:
    """`meanflow_loss` with du/dt along (u(z, t, t), 1, 0): [B].

    The direction is the network's own velocity, so the derivative is a function of z
    and not of the sample behind it. Geng et al. 2025, arXiv:2512.02012, section 4.

    Args:
        u: (z, t, r) -> the average velocity [B, ...], which can be differentiated.
        z: the samples at the times t [B, ...].
        v: their velocity, conditional on the data and noise behind them [B, ...].
        r: the earlier times [B], in [0, t].
        t: the later times [B].

    >>> exact, one = lambda z, t, r: z / t[:, None], jnp.ones((1, 1))
    >>> improved_meanflow_loss(exact, 0.5 * one, one, 0.2 * one[0], 0.5 * one[0])
    Array([0.], dtype=float32)
    """
    return _identity_loss(u, z, v, u(z, t, t), r, t)


def _identity_loss(u, z, v, direction, r, t):
    """|u - stop(v - (t - r) du/dt)|², the derivative along `direction`."""
    chex.assert_equal_shape((z, v))
    chex.assert_shape((r, t), z.shape[:1])
    along = jax.lax.stop_gradient(direction), jnp.ones_like(t), jnp.zeros_like(r)
    value, slope = jax.jvp(u, (z, t, r), along)
    return squared_error(value, v - expand(t - r, z) * slope)


def shortcut_loss(u: Callable, z: Array, v: Array, r: Array, t: Array) -> Array:
    """|u(t, r) - stop(½ u(t, m) + ½ u(m, r))|² with m = (t + r)/2, [B].

    Where r = t it is flow matching, |u - v|². Frans et al. 2024, arXiv:2410.12557,
    equations 4 and 5, for intervals of any length.

    Args:
        u: (z, t, r) -> the average velocity [B, ...].
        z: the samples at the times t [B, ...].
        v: their velocity, conditional on the data and noise behind them [B, ...].
        r: the earlier times [B], in [0, t].
        t: the later times [B].

    >>> exact, one = lambda z, t, r: z / t[:, None], jnp.ones((1, 1))
    >>> shortcut_loss(exact, one, one, 0.25 * one[0], one[0])
    Array([0.], dtype=float32)
    """
    chex.assert_equal_shape((z, v))
    chex.assert_shape((r, t), z.shape[:1])
    m = (t + r) / 2
    first = u(z, t, m)
    halves = (first + u(z - expand(t - m, z) * first, m, r)) / 2
    return squared_error(u(z, t, r), jnp.where(expand(r == t, z), v, halves))


@static
class SortedTimes:
    """Two draws, of which the greater is t; in the share `equal` of rows, r = t.

    Geng et al. 2025, tables 1a and 1d: half to three quarters of equal times.
    """

    times: Times = LogitNormal(-0.4, 1.0)
    """The distribution of the one time."""
    other: Times | None = None
    """That of the other time; None for the same."""
    equal: float = 0.75
    """The share of rows with r = t, which learn the velocity."""

    def __post_init__(self):
        if not 0 <= self.equal <= 1:
            raise BadInput(f"equal={self.equal}: it is a share, from 0 to 1")

    def draw(self, key: Key, path: Path, num: int) -> tuple[Array, Array]:
        """(r, t), each [num], r <= t.

        Args:
            key: one key.
            path: the path of the process.
            num: how many.
        """
        key_one, key_other, key_equal = jax.random.split(key, 3)
        one, other = (
            times.quantile(jax.random.uniform(k, (num,)), path)
            for times, k in (
                (self.times, key_one),
                (self.other or self.times, key_other),
            )
        )
        t, r = jnp.maximum(one, other), jnp.minimum(one, other)
        same = jax.random.bernoulli(key_equal, self.equal, (num,))
        return jnp.where(same, t, r), t


@static
class DyadicTimes:
    """r = t - d with d one of 1, ½, ¼, …, 2/N and t a multiple of d; N = `finest`.

    In the share `equal` of rows, r = t, and t is any multiple of 1/N. Frans et al.
    2024, section 3.2: an eighth of the batch learns intervals, N = 128.
    """

    finest: int = 128
    """N, a power of two, at least 2."""
    equal: float = 0.75
    """The share of rows with r = t, which learn the velocity."""

    def __post_init__(self):
        if self.finest < 2 or self.finest & (self.finest - 1):
            raise BadInput(f"finest={self.finest}: give a power of two, such as 128")
        if not 0 <= self.equal <= 1:
            raise BadInput(f"equal={self.equal}: it is a share, from 0 to 1")

    def draw(self, key: Key, path: Path, num: int) -> tuple[Array, Array]:
        """(r, t), each [num], r <= t.

        Args:
            key: one key.
            path: the path of the process, which is not read.
            num: how many.
        """
        key_size, key_place, key_equal = jax.random.split(key, 3)
        halvings = self.finest.bit_length() - 1
        pieces = 2.0 ** jax.random.randint(key_size, (num,), 0, halvings)
        same = jax.random.bernoulli(key_equal, self.equal, (num,))
        pieces = jnp.where(same, float(self.finest), pieces)
        t = (
            jnp.ceil(jax.random.uniform(key_place, (num,), minval=1e-6) * pieces)
            / pieces
        )
        return jnp.where(same, t, t - 1.0 / pieces), t
