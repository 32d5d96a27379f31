"""What several architectures share: norms that explain themselves, embeddings."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.nets.normalization import GroupNorm
from gengen.nets.strided import Conv, ConvTranspose
from gengen.types import Array

# Initialisers live at module scope: a fresh closure would make equal modules unequal.
zeros = nn.initializers.zeros
dcgan_normal = nn.initializers.normal(0.02)
normal = nn.initializers.normal(1.0)  # what a layer takes for its input
small = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")


def group_norm(channels: int, groups: int, dtype: Any = None) -> GroupNorm:
    """`GroupNorm`, or a BadInput that names the channels that do not divide."""
    if channels % groups:
        raise BadInput(
            f"{channels} channels cannot be normalised in {groups} groups: choose a "
            f"number of channels that is a multiple of {groups}"
        )
    return GroupNorm(groups, dtype)


def at_least_float32(x: Array) -> Array:
    """x in float32, or in its own type if that is wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Layers(NamedTuple):
    """The layers of a network that computes in one dtype; parameters are float32.

    None computes in float32. In bfloat16 the statistics of norms are float32 all the
    same, and so is whatever a network keeps outside these layers: its output, time.
    """

    dense: Callable
    conv: Callable
    conv_transpose: Callable
    norm: Callable  # channels -> GroupNorm


def layers_of_dtype(dtype: Any, groups: int = 1) -> Layers:
    """nn.Dense, `Conv`, `ConvTranspose` and `group_norm` with their dtype bound."""
    kinds = (nn.Dense, Conv, ConvTranspose)
    made = [functools.partial(kind, dtype=dtype) for kind in kinds]
    return Layers(*made, functools.partial(group_norm, groups=groups, dtype=dtype))


def check_divisible(side: int, times: int, what: str) -> int:
    """side / 2^times, or a BadInput that names the side that does not divide."""
    if side % 2**times:
        raise BadInput(
            f"{what} halves its images {times} times, which a side of {side} pixels "
            f"does not allow: use a multiple of {2**times}, or fewer halvings"
        )
    return side // 2**times


def sinusoidal_embedding(
    position: Array, dim: int, max_period: float = 10_000.0
) -> Array:
    """Positions [...] -> [..., dim]: cos and sin at geometric frequencies.

    Vaswani et al. 2017, arXiv:1706.03762, section 3.5. Raises BadInput for an odd dim.
    """
    if dim % 2:
        raise BadInput(
            f"{dim} features cannot be pairs of cos and sin: take an even number"
        )
    frequency = max_period ** (-jnp.arange(dim // 2) / (dim // 2))
    angle = jnp.asarray(position)[..., None] * frequency
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def time_embedding(t: Array, dim: int, max_period: float = 10_000.0) -> Array:
    """Times [B] in [0, 1] -> [B, dim]: `sinusoidal_embedding` of 1000 t, a step number.

    Ho et al. 2020, arXiv:2006.11239, appendix B.
    """
    return sinusoidal_embedding(1000.0 * t, dim, max_period)
