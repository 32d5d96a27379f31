"""Convolutions of stride two, as products that XLA computes fast: equal to rounding.

With a kernel w of 4 taps, a transposed convolution of stride two is, in each dimension,

    y[2p] = x[p-1] w[0] + x[p] w[2],        y[2p+1] = x[p] w[1] + x[p+1] w[3],

one convolution of 2 taps for each phase of the output (Shi et al. 2016,
arXiv:1609.07009). Doubling an image by its nearest neighbours and convolving it with 3
taps v is the same with w = v ∗ (1, 1): 4/9 of the multiplications in two dimensions. A
strided convolution is one of stride one over pixels that are gathered, two by two, into
channels.

XLA's CPU backend has a fast kernel for convolutions, and leaves it where the window is
wider than an image that it dilates: there it computes 5 to 20 GFLOP/s in the place of
100 to 200. Two such windows matter: the gradient of every transposed convolution with
respect to its kernel, and the gradient of a strided one with respect to an image whose
half is narrower than the kernel. The functions below never form them. Other backends
were not measured, and are given the plain convolutions.
"""

from functools import partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from gengen.types import Array


def convolve(x: Array, kernel: Array, padding: Any) -> Array:
    """The convolution of stride one of x [B, H, W, C] with a kernel [k, l, C, F]."""
    plain = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=plain)


def space_to_depth(x: Array) -> Array:
    """Gather each 2×2 pixels into channels: [B, 2 H, 2 W, C] -> [B, H, W, 4 C].

    >>> space_to_depth(jnp.arange(4.0).reshape(1, 2, 2, 1)).tolist()
    [[[[0.0, 1.0, 2.0, 3.0]]]]
    """
    chex.assert_rank(x, 4)
    b, height, width, c = x.shape
    x = x.reshape(b, height // 2, 2, width // 2, 2, c).swapaxes(2, 3)
    return x.reshape(b, height // 2, width // 2, 4 * c)


def depth_to_space(x: Array) -> Array:
    """Spread channels over 2×2 pixels: the inverse of `space_to_depth`.

    >>> depth_to_space(jnp.arange(4.0).reshape(1, 1, 1, 4))[0, ..., 0].tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """
    chex.assert_rank(x, 4)
    b, height, width, c = x.shape
    x = x.reshape(b, height, width, 2, 2, c // 4).swapaxes(2, 3)
    return x.reshape(b, 2 * height, 2 * width, c // 4)


def strided(x: Array, kernel: Array, padding: Any = "SAME") -> Array:
    """The convolution of stride two, computed at stride one over `space_to_depth`.

    Args:
        x: images [B, H, W, C].
        kernel: [k, l, C, F].
        padding: "SAME", "VALID" or ((top, bottom), (left, right)).

    Returns:
        [B, ⌈H/2⌉, ⌈W/2⌉, F] for "SAME".

    >>> strided(jnp.ones((1, 4, 4, 1)), jnp.ones((2, 2, 1, 1))).ravel().tolist()
    [4.0, 4.0, 4.0, 4.0]
    """
    chex.assert_rank([x, kernel], 4)
    chex.assert_equal(x.shape[3], kernel.shape[2])
    sides, taps = x.shape[1:3], kernel.shape[:2]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(sides, taps, (2, 2), padding)
    kernel = jnp.pad(kernel, [(0, n % 2) for n in taps] + [(0, 0)] * 2)  # pairs of taps
    ends = []
    for side, n, (low, high) in zip(sides, taps, padding, strict=True):
        pairs = (side + low + high - n) // 2 + (n + 1) // 2  # of pixels under windows
        ends.append((low, 2 * pairs - side - low, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *ends, (0, 0, 0)])
    x = space_to_depth(x)
    rows, columns, c, f = kernel.shape
    kernel = kernel.reshape(rows // 2, 2, columns // 2, 2, c, f).swapaxes(1, 2)
    return convolve(x, kernel.reshape(rows // 2, columns // 2, 4 * c, f), "VALID")


def transposed(x: Array, kernel: Array) -> Array:
    """`lax.conv_transpose` of stride two with 4×4 taps, "SAME", phase by phase.

    Args:
        x: images [B, H, W, C].
        kernel: [4, 4, C, F].

    Returns:
        [B, 2 H, 2 W, F].

    >>> transposed(jnp.ones((1, 1, 1, 1)), jnp.ones((4, 4, 1, 1))).ravel().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    chex.assert_rank([x, kernel], 4)
    chex.assert_shape(kernel, (4, 4, x.shape[3], None))
    b, height, width, _ = x.shape

    def phase(i, j):  # [B, H, W, F]
        return convolve(x, kernel[i::2, j::2], ((1 - i, i), (1 - j, j)))

    rows = [jnp.stack([phase(i, 0), phase(i, 1)], axis=3) for i in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(b, 2 * height, 2 * width, -1)


def doubled(x: Array, kernel: Array) -> Array:
    """Double an image by its nearest neighbours, then convolve with 3×3 taps, "SAME".

    Args:
        x: images [B, H, W, C].
        kernel: [3, 3, C, F].

    Returns:
        [B, 2 H, 2 W, F].

    >>> doubled(jnp.ones((1, 1, 1, 1)), jnp.ones((3, 3, 1, 1))).ravel().tolist()
    [4.0, 4.0, 4.0, 4.0]
    """
    chex.assert_rank([x, kernel], 4)
    chex.assert_shape(kernel, (3, 3, x.shape[3], None))
    padded = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
    rows = padded[1:] + padded[:-1]  # w = v ∗ (1, 1), in each dimension
    return transposed(x, rows[:, 1:] + rows[:, :-1])


def is_cpu() -> bool:
    """Whether programs are compiled for the CPU."""
    return jax.default_backend() == "cpu"


def convolution(x: Array, kernel: Array, strides, padding, **options) -> Array:
    """`lax.conv_general_dilated`, as `nn.Conv` calls it; `strided` where that pays."""
    sides, taps = x.shape[1:-1], kernel.shape[:-2]
    narrow = any(-(-side // 2) < k for side, k in zip(sides, taps, strict=True))
    if narrow and tuple(strides) == (2, 2) and is_cpu():
        return strided(x, kernel, padding)
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def transposition(x: Array, kernel: Array, strides, padding, **options) -> Array:
    """`lax.conv_transpose`, called as `nn.Conv` does; `transposed` for 4×4 taps."""
    del options
    if kernel.shape[:2] == (4, 4) and strides == (2, 2) and is_cpu():
        return transposed(x, kernel)
    return lax.conv_transpose(x, kernel, strides, padding)


def doubling(x: Array, kernel: Array, *_, **__) -> Array:
    """`doubled` as `nn.Conv` calls it."""
    if is_cpu():
        return doubled(x, kernel)
    b, height, width, c = x.shape
    x = jax.image.resize(x, (b, 2 * height, 2 * width, c), "nearest")
    return convolve(x, kernel, "SAME")


Conv = partial(nn.Conv, conv_general_dilated_cls=lambda: convolution)
DoubledConv = partial(nn.Conv, conv_general_dilated_cls=lambda: doubling)


class ConvTranspose(nn.Conv):
    """`nn.ConvTranspose` of padding "SAME": the same parameters, by `transposition`."""

    conv_general_dilated_cls: Any = lambda: transposition
