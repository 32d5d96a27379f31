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

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gengen.errors import BadInput
from gengen.types import Array, Key


def bin_width(levels: int) -> float:
    """2/(levels-1), the distance of two neighbouring levels in [-1, 1].

    Args:
        levels: L, the number of levels, at least 2 (else BadInput).

    >>> bin_width(17)
    0.125
    """
    if levels < 2:
        raise BadInput(f"levels={levels}: an image has at least 2 levels")
    return 2.0 / (levels - 1)


def to_unit(image: Array, levels: int = 256, dtype=float) -> Array:
    """x = 2 k/(levels-1) - 1, level k as a real number in [-1, 1].

    Args:
        image: integers 0 … levels-1, any shape.
        levels: L, the number of levels, at least 2.
        dtype: the result's; by default JAX's own float: float32, or float64 under
            `jax_enable_x64`, so that nothing is rounded to float32 in between.

    >>> to_unit(jnp.array([0, 8, 16]), levels=17)
    Array([-1.,  0.,  1.], dtype=float32)
    """
    chex.assert_type(image, int)
    x = image.astype(jax.dtypes.canonicalize_dtype(dtype))
    return x * bin_width(levels) - 1.0


def to_levels(x: Array, levels: int = 256) -> Array:
    """The nearest level of x, clipped to 0 … levels-1, as uint8.

    Args:
        x: floats, any shape, meant to be in [-1, 1].
        levels: L, the number of levels, 2 … 256 (else BadInput).

    Raises BadInput for an x with a number that is not finite, which has no nearest
    level. Under a trace nobody can know: there NaN becomes level 0, -∞ level 0 and ∞
    level L-1, so check what was drawn by `require_finite` outside.

    >>> to_levels(jnp.array([-1.0, 0.05, 7.0]), levels=17)
    Array([ 0,  8, 16], dtype=uint8)
    """
    chex.assert_type(x, float)
    if levels > 256:
        raise BadInput(f"levels={levels}: uint8 holds 256 levels at most")
    require_finite(x, "row")
    k = jnp.round((x + 1.0) / bin_width(levels))
    k = jnp.where(jnp.isnan(k), 0.0, k)  # a cast of NaN differs between devices
    return jnp.clip(k, 0, levels - 1).astype(jnp.uint8)


def require_finite(x: Array, name: str = "sample", start: int = 0) -> None:
    """Raises BadInput that names the first row of x that is not finite.

    Args:
        x: numbers [B, ...]; integers are always finite. Under a trace the numbers are
            not known, and nothing is checked.
        name: what a row is called in the sentence.
        start: the number of row 0.

    >>> require_finite(jnp.array([[0.0], [1.0]]))
    """
    if isinstance(x, jax.core.Tracer) or not jnp.issubdtype(x.dtype, jnp.inexact):
        return
    finite = np.isfinite(np.asarray(x))
    if finite.all():
        return
    row = int(np.argmin(finite.reshape(len(finite), -1).all(axis=1))) if x.ndim else 0
    raise BadInput(
        f"{name} {start + row} is not finite (NaN or infinity): look at what made it, "
        "such as a guidance scale that is too large or a run that diverged"
    )


def dequantize(key: Key, image: Array, levels: int = 256, dtype=float) -> Array:
    """y = x + (u - 1/2) 2/(levels-1): levels plus uniform noise over their bins.

    Args:
        key: one key for the whole array.
        image: integers 0 … levels-1, any shape.
        levels: L, the number of levels, at least 2.
        dtype: the result's; by default JAX's own float, as of `to_unit`.

    >>> y = dequantize(jax.random.key(0), jnp.array([0, 8, 16]), levels=17)
    >>> to_levels(y, levels=17)
    Array([ 0,  8, 16], dtype=uint8)
    """
    u = jax.random.uniform(key, image.shape, dtype)
    return to_unit(image, levels, dtype) + (u - 0.5) * bin_width(levels)


def log_bin_volume(shape: tuple[int, ...], levels: int = 256) -> float:
    """D log(2/(levels-1)): turns the log-density of `dequantize`d data into nats.

    Args:
        shape: one example's shape; D is the product of its sides.
        levels: L, the number of levels, at least 2.

    >>> log_bin_volume((8, 8, 1), levels=3)
    0.0
    """
    return math.prod(shape) * math.log(bin_width(levels))


def bits_name(shape: tuple[int, ...]) -> str:
    """The name of bits per dimension: `bits_per_byte` for text, else `bits_per_dim`.

    Args:
        shape: one example's shape; text has one side.

    >>> bits_name((256,))
    'bits_per_byte'
    """
    return "bits_per_byte" if len(shape) == 1 else "bits_per_dim"


def bits_per_dim(log_likelihood: Array, shape: tuple[int, ...]) -> Array:
    """-log P / (D log 2) of discrete data. A uniform guess over L levels: log2(L) bits.

    Args:
        log_likelihood: floats [...], nats of one example each.
        shape: one example's shape; D is the product of its sides.

    >>> float(bits_per_dim(-6 * jnp.log(4.0), (2, 3)))
    2.0
    """
    chex.assert_type(log_likelihood, float)
    return -log_likelihood / (math.prod(shape) * math.log(2.0))
