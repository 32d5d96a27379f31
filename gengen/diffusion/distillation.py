"""Distillation: what a teacher's many calls say, as a target for a student's one.

Where one step of the ODE from t to s (DDIM, Euler's in σ = b/a) is to end at z_s, the
data that it must predict are

    x̂ = (z_s - (b_s/b_t) z_t) / (a_s - (b_s/b_t) a_t),

and the other rows of the matrix follow. So a student of any prediction can be given the
end of several steps of its teacher as the target of one: `answer_for`. With two steps,
and the student as the next teacher, the number of steps halves each round
(`halved_steps`, progressive distillation).

Or the student is a generator, whose samples are of a density q that is to be the
teacher's p. Noised alike, both have scores, and the gradient of KL(q_t ‖ p_t) in a
sample is their difference, up to a weight that of the two data predictions x̂_q - x̂_p
(`matching_direction`, distribution matching): zero where p = q.

Salimans and Ho 2022, arXiv:2202.00512; Yin et al. 2023, arXiv:2311.18828.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gengen.diffusion.consistency import ode_jump
from gengen.diffusion.process import Process, expand, from_data
from gengen.types import Array


def answer_for(process: Process, z: Array, z_s: Array, t: Array, s: Array) -> Array:
    """The r̂ at (z, t) whose step of the ODE to s ends at z_s: [B, ...].

    Salimans and Ho 2022, arXiv:2202.00512, algorithm 2.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> flow, one = Process(Linear(), Velocity()), jnp.ones((1, 1))
    >>> answer_for(flow, one, 0.5 * one, one[0], 0.75 * one[0])  # (z - z_s)/(t - s)
    Array([[2.]], dtype=float32)

    Args:
        process: a path without a table of times, and what r is.
        z: the samples at the times t [B, ...].
        z_s: where the step is to end, like z.
        t: the times of z [B].
        s: the times of z_s [B], below t.
    """
    chex.assert_equal_shape((z, z_s))
    (a_t, b_t), (a_s, b_s) = (
        (process.path.a(u), process.path.b(u)) for u in (expand(t, z), expand(s, z))
    )
    ratio = b_s / b_t
    return from_data(process, z, (z_s - ratio * z) / (a_s - ratio * a_t), t)


def halved_steps(
    process: Process, predict: Callable, z: Array, t: Array, s: Array
) -> Array:
    """`answer_for` where two steps of a teacher end, t → (t + s)/2 → s: [B, ...].

    Salimans and Ho 2022, arXiv:2202.00512, section 3.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> flow, one = Process(Linear(), Velocity()), jnp.ones((1, 1))
    >>> halved_steps(flow, lambda z, t: z, one, one[0], 0 * one[0])  # ½ (1 + ½)
    Array([[0.75]], dtype=float32)

    Args:
        process: a path without a table of times, and what r is.
        predict: the teacher, (z, t) -> r̂ [B, ...].
        z: the samples at the times t [B, ...].
        t: the times of z [B].
        s: the times that the student is to reach in one step [B], below t.
    """
    m = (t + s) / 2
    z_m = ode_jump(process, z, predict(z, t), t, m)
    z_s = ode_jump(process, z_m, predict(z_m, m), m, s)
    return answer_for(process, z, z_s, t, s)


def matching_direction(x: Array, real: Array, fake: Array) -> Array:
    """(x̂_q - x̂_p)/mean |x - x̂_p|: against it, samples of q become those of p: [B, ...].

    Yin et al. 2023, arXiv:2311.18828, equations 7 and 8.

    >>> x = jnp.array([[2.0, 0.0]])
    >>> matching_direction(x, jnp.zeros((1, 2)), jnp.ones((1, 2)))
    Array([[1., 1.]], dtype=float32)

    Args:
        x: samples of q [B, ...].
        real: the data that a model of p predicts of noised x, like x.
        fake: those that a model of q predicts, like x.
    """
    chex.assert_equal_shape((x, real, fake))
    size = jnp.abs(x - real).reshape(len(x), -1).mean(axis=-1)
    return (fake - real) / expand(jnp.maximum(size, 1e-6), x)


def direction_loss(x: Array, direction: Array) -> Array:
    """½ |x - stop(x - direction)|²: the direction is its gradient in x, [B].

    >>> jax.grad(lambda x: direction_loss(x, 3 * x)[0])(jnp.ones((1, 2)))
    Array([[3., 3.]], dtype=float32)

    Args:
        x: samples [B, ...].
        direction: what is to be the gradient, like x; none goes through it.
    """
    chex.assert_equal_shape((x, direction))
    error = x - jax.lax.stop_gradient(x - direction)
    return 0.5 * jnp.sum(jnp.square(error).reshape(len(x), -1), axis=-1)
