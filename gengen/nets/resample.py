"""Resampling by finite impulse responses: zero insertion, a filter, decimation.

    y[m] = Σ_k f[k] u[m·down - k],    u = x with up - 1 zeros after each sample, padded

in each dimension of an image: "upfirdn". The filter is the binomial one, (1, 3, 3, 1),
of unit gain at frequency zero. Karras et al. 2020, arXiv:1912.04958, appendix B; Zhang
2019, arXiv:1904.11486 (why to filter before decimating).

As (1, 3, 3, 1) = (1, 1) ∗ (1, 2, 1), a convolution of an image that is enlarged by this
filter is one of its nearest neighbours, filtered by (1, 2, 1): 4/9 of the products.
"""

from collections.abc import Sequence

import chex
import jax.numpy as jnp
from jax import lax

from gengen.types import Array

BINOMIAL = (0.125, 0.375, 0.375, 0.125)
TRIANGLE = (0.25, 0.5, 0.25)


def upfirdn(
    x: Array,
    taps: Sequence[float],
    up: int = 1,
    down: int = 1,
    pad: tuple[int, int] = (0, 0),
) -> Array:
    """Enlarge by zeros, pad, filter and decimate rows and columns of images.

    Args:
        x: images [B, H, W, C].
        taps: the filter f, the same for rows and columns.
        up: up - 1 zeros stand after each sample.
        down: every so many-th sample is kept.
        pad: zeros before and after the enlarged samples; negative crops.

    Returns:
        [B, H′, W′, C] with H′ = ⌊(H·up + Σ pad - K)/down⌋ + 1 of K taps.

    >>> upfirdn(jnp.ones((1, 2, 1, 1)), (1.0, 1.0), 2, pad=(1, 0))[0, :, 0, 0].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    chex.assert_rank(x, 4)
    for axis in (1, 2):
        x = _along(x, axis, taps, up, down, pad)
    return x


def _along(x: Array, axis: int, taps, up: int, down: int, pad) -> Array:
    ends = [(0, 0, 0)] * x.ndim
    ends[axis] = (pad[0], pad[1] + up - 1, up - 1)
    x = lax.pad(x, jnp.zeros((), x.dtype), ends)
    num = (x.shape[axis] - len(taps)) // down + 1
    y = 0.0
    for start, tap in enumerate(reversed(taps)):
        end = start + (num - 1) * down + 1
        y = y + tap * lax.slice_in_dim(x, start, end, down, axis)
    return y


def enlarged(x: Array) -> Array:
    """Images of twice the size: [B, H, W, C] -> [B, 2 H, 2 W, C].

    >>> enlarged(jnp.ones((1, 3, 3, 1)))[0, 2, 1:5, 0].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    return upfirdn(x, [2.0 * tap for tap in BINOMIAL], up=2, pad=(2, 1))


def reduced(x: Array) -> Array:
    """Images of half the size: [B, 2 H, 2 W, C] -> [B, H, W, C].

    >>> reduced(jnp.ones((1, 6, 6, 1)))[0, 1, 1].tolist()
    [1.0]
    """
    return upfirdn(x, BINOMIAL, down=2, pad=(1, 1))


def blurred(x: Array) -> Array:
    """Images filtered by (1, 2, 1)/4, of the same size.

    >>> blurred(jnp.ones((1, 3, 3, 1)))[0, 1, 1].tolist()
    [1.0]
    """
    return upfirdn(x, TRIANGLE, pad=(1, 1))
