"""The one place where pixel levels meet real numbers, and nats become bits.

A data set stores uint8 levels k in 0 … L-1 (L = 256, or 17 for `digits`). Networks
see x in [-1, 1]. Level k is the centre of a bin of width 2/(L-1):

    x = 2 k/(L-1) - 1                                   (`to_unit`, inverse `to_levels`)
    y = x + 2 u/(L-1),  u ~ U[-1/2, 1/2)                (`dequantize`)

If q is a density of y, P(k) = ∫ q over the bin is a probability of the level, and
Jensen gives log P(k) >= E_u log q(y) + log(2/(L-1)): densities of dequantised data
bound the discrete likelihood (Theis, van den Oord and Bethge 2016, arXiv:1511.01844,
equation 5).
"""

import math

import jax
import jax.numpy as jnp

from gengen.types import Array, Key


def bin_width(levels: int) -> float:
    """2/(levels-1), the distance of two neighbouring levels in [-1, 1]."""
    return 2.0 / (levels - 1)


def to_unit(image: Array, levels: int = 256) -> Array:
    """Levels 0 … levels-1 -> float32 in [-1, 1]: x = 2 k/(levels-1) - 1."""
    return image.astype(jnp.float32) * bin_width(levels) - 1.0


def to_levels(x: Array, levels: int = 256) -> Array:
    """The nearest level of x, clipped to 0 … levels-1, as uint8."""
    k = jnp.round((x + 1.0) / bin_width(levels))
    return jnp.clip(k, 0, levels - 1).astype(jnp.uint8)


def dequantize(key: Key, image: Array, levels: int = 256) -> Array:
    """Levels plus uniform noise over their bins: y = x + (u - 1/2) 2/(levels-1)."""
    u = jax.random.uniform(key, image.shape)
    return to_unit(image, levels) + (u - 0.5) * bin_width(levels)


def log_bin_volume(shape: tuple[int, ...], levels: int = 256) -> float:
    """D log(2/(levels-1)): turns the log-density of `dequantize`d data into nats.

    `shape` is one example's shape, D the product of its sides.
    """
    return math.prod(shape) * math.log(bin_width(levels))


def bits_name(shape: tuple[int, ...]) -> str:
    """What bits per dimension of an example are called: of text, bits_per_byte."""
    return "bits_per_byte" if len(shape) == 1 else "bits_per_dim"


def bits_per_dim(log_likelihood: Array, shape: tuple[int, ...]) -> Array:
    """-log P / (D log 2) of discrete data from nats [...]; D the dimensions in `shape`.

    A uniform guess over L levels costs log2(L) bits.
    """
    return -log_likelihood / (math.prod(shape) * math.log(2.0))
