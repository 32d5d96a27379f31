"""L1 penalties: functions of a critic `x -> logits [B]` with its parameters bound."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gengen.losses.likelihood import per_example
from gengen.types import Array


def r1(critic: Callable[[Array], Array], x: Array) -> Array:
    """|∇ₓ critic(x)|² per example, [B]: zero-centred gradient penalty on real data.

    The loss adds γ/2 times it.

    Args:
        critic: x -> logits [B]. It must score examples independently (no batch
            statistics): then the gradient of the summed scores is every example's own.
        x: real examples, floats [B, ...].

    Mescheder, Geiger and Nowozin 2018, arXiv:1801.04406, equation 9.

    >>> r1(lambda x: x @ jnp.array([3.0, 4.0]), jnp.zeros((2, 2)))
    Array([25., 25.], dtype=float32)
    """
    chex.assert_type(x, float)

    def total(x):
        logits = critic(x)
        chex.assert_shape(logits, x.shape[:1])
        return jnp.sum(logits)

    return per_example(jnp.square(jax.grad(total)(x)))
