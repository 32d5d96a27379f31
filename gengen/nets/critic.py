"""What critics share: the last layer, the condition, spectral norm, a batch's variety.

The vector of a condition enters a critic in one of three ways:

    projection     logit + ⟨V c, h⟩, an inner product with the last features h
                   (Miyato and Koyama 2018, arXiv:1802.05637, equation 3)
    concatenation  beside x, as channels (Mirza and Osindero 2014, arXiv:1411.1784)
    auxiliary      not at all: the classes are read off h, as "classes" (Odena et al.
                   2017, arXiv:1610.09585), and the model adds their loss

The functions are called within a compact module that has the fields `condition`,
`conditioning` and `group`.
"""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from gengen.conditions import Given, Labels, Scalar, parts_of
from gengen.errors import BadInput
from gengen.nets.conditioning import flat, refuse_parts
from gengen.nets.layers import at_least_float32
from gengen.nets.minibatch import minibatch_std
from gengen.types import Array

Conditioning = Literal["projection", "concatenation", "auxiliary"]
# The vector of a label has length one, about.
unit_rows = nn.initializers.variance_scaling(1.0, "fan_out", "normal")


def with_channels(net: nn.Module, x: Array, c: Given | None) -> Array:
    """x [B, ..., C], and beside its channels the condition's if that is how it enters.

    Raises BadInput for a condition that is no vector, or another way in.
    """
    refuse_parts(net.condition, (Labels, Scalar), f"a {type(net).__name__}")
    if net.conditioning not in Conditioning.__args__:
        raise BadInput(
            f"conditioning={net.conditioning!r}: a condition enters a critic by "
            f"{', '.join(Conditioning.__args__)}"
        )
    vector = flat(net.condition, c, len(x))
    if net.conditioning != "concatenation" or vector is None:
        return x
    vector = vector.reshape(len(x), *[1] * (x.ndim - 2), -1)
    vector = jnp.broadcast_to(vector, (*x.shape[:-1], vector.shape[-1]))
    return jnp.concatenate([x, vector], axis=-1)


def logit_of(net: nn.Module, h: Array, c: Given | None, dense: Callable) -> Array:
    """The logit [B] of features h [B, ...]; these are sown as "features", [B, F].

    Args:
        net: the critic; with `group` above 1 the logit also sees the standard deviation
            over that many examples.
        h: the last features of each example by itself.
        c: the condition.
        dense: makes the linear layer: features -> a module or function.
    """
    flattened = at_least_float32(h.reshape(len(h), -1))
    net.sow("intermediates", "features", flattened)
    seen = flattened
    if net.group > 1:
        maps = h if h.ndim == 4 else h.reshape(len(h), 1, 1, -1)
        seen = at_least_float32(minibatch_std(maps, net.group).reshape(len(h), -1))
    logit = dense(1)(seen)[:, 0]
    vector = flat(net.condition, c, len(h))
    if vector is None or net.conditioning == "concatenation":
        return logit
    if net.conditioning == "auxiliary":
        labels = [p for p in parts_of(net.condition) if isinstance(p, Labels)]
        for part in labels[:1]:
            net.sow("intermediates", "classes", nn.Dense(part.num)(flattened))
        return logit
    linear = nn.Dense(
        flattened.shape[-1], use_bias=False, kernel_init=unit_rows, name="embed"
    )
    return logit + jnp.sum(linear(vector) * flattened, axis=-1)


def spectral(make: Callable, used: bool, train: bool) -> Callable:
    """A maker of layers, and if `used` one whose kernels have spectral norm one, about.

    The largest singular value is found by one step of power iteration per call in
    training; its vector is in the state. Miyato et al. 2018, arXiv:1802.05957,
    algorithm 1.

    Args:
        make: makes a layer with a kernel.
        used: whether kernels are divided by their norm.
        train: whether the vector is updated.
    """
    if not used:
        return make

    def normalised(*arguments, **values):
        layer = nn.SpectralNorm(make(*arguments, **values))
        return lambda x: layer(x, update_stats=train)

    return normalised
