"""Consistency: one answer along each path of the flow, so that one call ends it.

The data prediction of the matrix, f(z, t) = x̂, is z itself at t = 0. A consistency
function says the same x along a whole path of the probability-flow ODE. So two points
of a path, at times t > s, teach it:

    w |f(z_t, t) - stop(f(z_s, s))|,     f(z_0, 0) = z_0,

where both points mix the same data and the same noise (consistency training), or where
a teacher's ODE leads from z_t to z_s (consistency distillation). As s → t the first
becomes exact, but its gradient noisy; with s = 0 it is the loss of a denoiser. A
schedule goes from the one to the other. The weight is w = 1/(σ_t - σ_s), σ = b/a.

Song et al. 2023, arXiv:2303.01469; Song and Dhariwal 2024, arXiv:2310.14189; Geng et
al. 2024, arXiv:2406.14548 (easy consistency tuning).
"""

from collections.abc import Callable
from typing import Protocol

import chex
import jax
import jax.numpy as jnp

from gengen.diffusion.paths import Path
from gengen.diffusion.process import Process, expand, recover
from gengen.errors import BadInput
from gengen.types import Array, static


def ode_jump(process: Process, z: Array, r: Array, t: Array, s: Array) -> Array:
    """z_s = a_s x̂ + b_s ε̂, [B, ...]: one step of the ODE, Euler's in σ = b/a (DDIM).

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> flow, one = Process(Linear(), Velocity()), jnp.ones((1, 1))
    >>> ode_jump(flow, one, 2 * one, one[0], 0.75 * one[0])  # z - (t - s) r̂
    Array([[0.5]], dtype=float32)

    Args:
        process: a path, and what r is.
        z: the samples at the times t [B, ...].
        r: what the network says of them, like z.
        t: the times of z [B].
        s: the times to reach [B].
    """
    x, noise = recover(process, z, r, t)
    s = expand(s, z)
    return process.path.a(s) * x + process.path.b(s) * noise


def pseudo_huber(found: Array, target: Array, c: float = 0.00054) -> Array:
    """√(|found - target|² + c²D) - c√D, summed over the D dimensions: [B].

    A norm far from the target, a square close to it. Song and Dhariwal 2024,
    arXiv:2310.14189, section 3.3.

    >>> pseudo_huber(jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2))).round(3)
    Array([4.999], dtype=float32)

    Args:
        found: what is learned [B, ...].
        target: like it.
        c: where the square ends, per root of a dimension, above 0.
    """
    chex.assert_equal_shape((found, target))
    error = (found - target).reshape(len(found), -1)
    edge = c * error.shape[-1] ** 0.5
    return jnp.sqrt(jnp.sum(jnp.square(error), axis=-1) + edge**2) - edge


def consistency_loss(
    denoise: Callable, path: Path, z: Array, t: Array, z_s: Array, s: Array
) -> Array:
    """|f(z_t, t) - stop(f(z_s, s))|/(σ_t - σ_s) by `pseudo_huber`, [B].

    >>> from gengen.diffusion.paths import Linear
    >>> z, t, s = jnp.ones((1, 1)), jnp.array([0.5]), jnp.array([0.25])
    >>> exact = lambda z, t: 0 * z  # of data at 0
    >>> consistency_loss(exact, Linear(), z, t, z / 2, s)
    Array([0.], dtype=float32)

    Args:
        denoise: (z, t) -> x̂ [B, ...], of all data predictions of a process.
        path: the path of z.
        z: the samples at the later times t [B, ...].
        t: the later times [B], above s.
        z_s: the same paths at the earlier times, like z.
        s: the earlier times [B]; at 0 the target is z_s.
    """
    chex.assert_equal_shape((z, z_s))
    chex.assert_shape((s, t), z.shape[:1])
    end = s == 0
    earlier = denoise(z_s, jnp.where(end, t, s))  # finite, where it is not looked at
    target = jnp.where(expand(end, z), z_s, earlier)
    sigma_t, sigma_s = (path.b(x) / path.a(x) for x in (t, s))
    gap = jnp.where(sigma_t > sigma_s, sigma_t - sigma_s, 1.0)
    return pseudo_huber(denoise(z, t), jax.lax.stop_gradient(target)) / gap


class Schedule(Protocol):
    """How far apart the two points of a path are."""

    def earlier(self, path: Path, t: Array, step: Array) -> Array:
        """s [B] in [0, t), for times t [B] at a step of training."""
        ...


@static
class ClosingGap:
    """σ_s = σ_t (1 - n/q^(stage + 1)), n = 1 + k sigmoid(-b σ_t); at least 0.

    A stage is `every` steps long: training begins as that of a denoiser (s = 0 wherever
    σ is small), and the gap closes by the factor q each stage. Geng et al. 2024,
    arXiv:2406.14548, section 3.3, with the values for CIFAR-10.
    """

    every: int
    """Steps of a stage, at least 1; about an eighth of the training."""
    q: float = 2.0
    """By how much the gap closes, above 1."""
    k: float = 8.0
    """How much wider the gap is near the data, 0 or above."""
    b: float = 1.0
    """At which noise 1/σ that ends."""

    def __post_init__(self):
        if self.every < 1 or not self.q > 1 or self.k < 0:
            raise BadInput(
                f"every={self.every}, q={self.q}, k={self.k}: a stage has a step, the "
                "gap closes by a factor above 1, and k is not negative"
            )

    def earlier(self, path, t, step):
        """s [B]; no gap is so small that s rounds to t."""
        sigma = path.b(t) / path.a(t)
        stage = jnp.asarray(step // self.every, t.dtype)
        wide = 1.0 + self.k * jax.nn.sigmoid(-self.b * sigma)
        ratio = jnp.clip(1.0 - wide / self.q ** (stage + 1), 0.0, 1.0 - 2.0**-10)
        return path.time_of_ratio(path.a(t), path.b(t) * ratio)


@static
class EvenSteps:
    """s = t - 1/num, at least 0: a teacher's steps, for distillation."""

    num: int = 40
    """Steps of the whole time, at least 1."""

    def __post_init__(self):
        if self.num < 1:
            raise BadInput(f"num={self.num}: a teacher takes one step or more")

    def earlier(self, path, t, step):
        """s [B]."""
        return jnp.maximum(t - 1.0 / self.num, 0.0)
