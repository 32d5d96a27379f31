"""L1 penalties: functions of a critic `x -> logits [B]` with its parameters bound."""

import jax
import jax.numpy as jnp

from gengen.losses.likelihood import per_example
from gengen.types import Array


def r1(critic, x: Array) -> Array:
    """|∇ₓ critic(x)|² per example, [B]: zero-centred gradient penalty on real data.

    The critic must score examples independently (no batch statistics): then the
    gradient of the summed scores holds every example's own. Add γ/2 times it.
    Mescheder, Geiger and Nowozin 2018, arXiv:1801.04406, equation 9.
    """
    return per_example(jnp.square(jax.grad(lambda x: jnp.sum(critic(x)))(x)))
