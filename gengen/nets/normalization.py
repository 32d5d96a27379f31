"""Normalisation by a group's statistics, or by a batch's.

    y = scale · (x - mean) / √(var + ε) + bias,  var = E[x²] - E[x]²,

mean and variance over the pixels and channels of a group, in two passes over the input
(Wu and He 2018, arXiv:1803.08494, equations 1 to 4), or over the pixels and examples of
a batch (Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1).
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.types import Array

small = nn.initializers.normal(0.02)


class GroupNorm(nn.Module):
    """x [B, …, C] -> [B, …, C]: the parameters, statistics and values of nn.GroupNorm.

    Sums over pixels come before those over a group's channels, so that no array is cut
    into groups but the sums: XLA's CPU backend then reads x once for the statistics
    and once for the result. Statistics are float32 at least.
    """

    num_groups: int
    "Groups of channels; it divides C."
    dtype: Any = None
    "Type of the result; None for that of x and the parameters."
    epsilon: float = 1e-6
    "Added to the variance."

    @nn.compact
    def __call__(self, x: Array) -> Array:
        num, *sides, channels = x.shape
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        dtype = self.dtype or jnp.result_type(x, scale, bias)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        each = channels // self.num_groups

        def mean(x):  # [B, …, C] -> [B, groups]
            sums = jnp.sum(x, axis=range(1, x.ndim - 1))
            groups = sums.reshape(num, self.num_groups, each)
            return jnp.sum(groups, axis=-1) / (each * math.prod(sides))

        def over_pixels(x):  # [B, groups] -> [B, …, C]
            return jnp.repeat(x, each, axis=-1).reshape(num, *[1] * len(sides), -1)

        center, square = mean(x), mean(x * x)
        variance = jnp.maximum(square - center * center, 0.0)
        factor = over_pixels(jax.lax.rsqrt(variance + self.epsilon)) * scale
        return ((x - over_pixels(center)) * factor + bias).astype(dtype)


def batch_norm(
    x: Array,
    train: bool,
    axis_name: str | None = None,
    dtype: Any = None,
    vector: Array | None = None,
) -> Array:
    """x [B, …, C] normalised by nn.BatchNorm: the batch's statistics if train=True.

    vector: [B, D] of which scale - 1 and bias are linear functions: conditional batch
    norm (Dumoulin et al. 2017, arXiv:1610.07629, equation 5); None for parameters.

    Raises BadInput in training on one value per channel: it is its own mean, so that
    the result is the bias, whatever x is.
    """
    num = math.prod(x.shape[:-1])
    if train and axis_name is not None:
        num *= jax.lax.axis_size(axis_name)
    if train and num == 1:
        raise BadInput(
            f"batch normalisation of an array of shape {list(x.shape)} has one value "
            "per channel, which is its own mean: train on a batch of 2 or more"
        )
    known = {"momentum": 0.9, "axis_name": axis_name, "dtype": dtype}
    if vector is None:
        return nn.BatchNorm(not train, **known)(x)
    x = nn.BatchNorm(not train, use_scale=False, use_bias=False, **known)(x)
    film = nn.Dense(2 * x.shape[-1], use_bias=False, kernel_init=small, dtype=dtype)
    film = film(vector).reshape(len(x), *[1] * (x.ndim - 2), -1)
    scale, bias = jnp.split(film, 2, axis=-1)
    return x * (1.0 + scale) + bias
