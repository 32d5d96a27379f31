"""The evidence p(x) by annealed importance sampling: a check on how tight a bound is.

Chains start in a distribution that can be sampled, π₀, and are led to the joint
p(x, z) through

    f_b(z) = π₀(z)^(1 - b) p(x, z)^b,      b from 0 to 1,

by Hamiltonian moves, each of which leaves its f_b as it is. Along the way each chain
collects

    log w = Σ_t (b_t - b_{t-1}) [log p(x, z_{t-1}) - log π₀(z_{t-1})],      E w = p(x),

so log w is below log p(x) in expectation, and the mean over chains is a tight bound.

Neal 2001, Statistics and Computing 11, 125; for decoders Wu et al. 2017,
arXiv:1611.04273.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gengen.types import Array, Key

ACCEPTED = 0.65  # the share of moves that step sizes are adapted to


def temperatures(num: int, sharp: float = 4.0) -> Array:
    """b_0 = 0 … b_num = 1, dense at both ends: a sigmoid, rescaled. Wu et al. 2017.

    Args:
        num: the number of moves, at least 1.
        sharp: how far into its tails the sigmoid goes.

    >>> [round(float(b), 2) for b in temperatures(4)]
    [0.0, 0.1, 0.5, 0.9, 1.0]
    """
    line = jax.nn.sigmoid(jnp.linspace(-sharp, sharp, num + 1))
    return (line - line[0]) / (line[-1] - line[0])


def annealed(
    key: Key,
    start: Callable[[Key], Array],
    log_start: Callable[[Array], Array],
    log_joint: Callable[[Array], Array],
    schedule: Array,
    leapfrogs: int = 10,
    step_size: float = 0.1,
) -> tuple[Array, Array, Array]:
    """One chain per example: (z [B, *latent], log w [B], moves accepted [B]).

    Weighted by w, the ends z of the chains are draws of the posterior: an average
    Σ w f(z)/Σ w tends to E[f(z) | x]. The last is a share, of 1.

    A pilot run adapts the step sizes, along its own way; the run that is measured
    takes them as they are, so that each of its moves leaves f_b as it is and E w = p(x)
    holds exactly.

    Args:
        key: for both runs.
        start: key -> draws of π₀, floats [B, *latent].
        log_start: z -> log π₀(z) [B], normalised.
        log_joint: z -> log p(x, z) [B].
        schedule: b_0 = 0 … b_T = 1, floats [T + 1], such as `temperatures(T)`.
        leapfrogs: steps of one Hamiltonian move, at least 1.
        step_size: the pilot's first step size; it grows and shrinks with what is
            accepted, a chain for itself.

    >>> def start(key):
    ...     return jax.random.normal(key, (1, 1))
    >>> def log_start(z):
    ...     return -0.5 * jnp.sum(z**2, 1) - 0.5 * jnp.log(2 * jnp.pi)
    >>> def log_joint(z):  # p(x|z) = e for any z
    ...     return log_start(z) + 1.0
    >>> key, steps = jax.random.key(0), temperatures(5)
    >>> z, log_w, _ = annealed(key, start, log_start, log_joint, steps)
    >>> z.shape, round(log_w.item(), 4)
    ((1, 1), 1.0)
    """
    chex.assert_type(schedule, float)
    chex.assert_rank(schedule, 1)
    key_pilot, key_start, key_moves, key_first = jax.random.split(key, 4)
    z = start(key_start)
    chex.assert_type(z, float)
    axes, moves = tuple(range(1, z.ndim)), len(schedule) - 1

    def rows(x):
        return x.reshape(-1, *(1,) * len(axes))

    def move(carry, inputs):
        z, log_w, size, accepted = carry
        b_before, b, key, fixed = inputs
        now_size = size if fixed is None else fixed
        log_w = log_w + (b - b_before) * (log_joint(z) - log_start(z))

        def log_f(z):
            return (1.0 - b) * log_start(z) + b * log_joint(z)

        key_momentum, key_accept = jax.random.split(key)
        momentum = jax.random.normal(key_momentum, z.shape, z.dtype)
        slope = jax.grad(lambda z: jnp.sum(log_f(z)))

        def leap(_, now):
            z, momentum = now
            momentum = momentum + 0.5 * rows(now_size) * slope(z)
            z = z + rows(now_size) * momentum
            return z, momentum + 0.5 * rows(now_size) * slope(z)

        new, last = jax.lax.fori_loop(0, leapfrogs, leap, (z, momentum))
        change = log_f(new) - log_f(z)
        kinetic = jnp.sum(jnp.square(momentum) - jnp.square(last), axis=axes)
        chance = jnp.exp(jnp.minimum(0.0, change + 0.5 * kinetic))
        taken = jax.random.uniform(key_accept, chance.shape) < chance  # NaN is refused
        z = jnp.where(rows(taken), new, z)
        size = size * jnp.where(accepted > ACCEPTED, 1.02, 0.98)
        accepted = 0.9 * accepted + 0.1 * taken
        return (z, log_w, size, accepted), (taken, now_size)

    def run(key, z, sizes):
        zeros = jnp.zeros(len(z), z.dtype)
        first = jnp.full_like(zeros, step_size), jnp.full_like(zeros, ACCEPTED)
        steps = schedule[:-1], schedule[1:], jax.random.split(key, moves), sizes
        (z, log_w, _, _), seen = jax.lax.scan(move, (z, zeros, *first), steps)
        return z, log_w, seen

    *_, (_, sizes) = run(key_pilot, start(key_first), None)
    z, log_w, (taken, _) = run(key_moves, z, jax.lax.stop_gradient(sizes))
    return z, log_w, jnp.mean(taken, axis=0)
