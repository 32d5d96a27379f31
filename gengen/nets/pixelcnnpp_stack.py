"""The stacks of PixelCNN++: gated residual blocks over several resolutions.

    c = φ(K₁ ∗ φ(h) + W φ(a)),   (α, β) = K₂ ∗ dropout(c) + V y,   h ← h + α σ(β),

φ(h) = (elu(h), elu(-h)). Each resolution begins with a strided convolution and ends
with a transposed one: a U-Net. Salimans, Karpathy, Chen and Kingma 2017,
arXiv:1701.05517, section 2 and figure 2.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.nets.layers import zeros
from gengen.nets.pixelcnn import after_block, each_in_turn
from gengen.nets.raster import RasterConv, convolve, lecun
from gengen.types import Array

small = nn.initializers.variance_scaling(
    0.01, "fan_in", "truncated_normal", in_axis=-2, out_axis=-1, batch_axis=0
)
unfolding = nn.initializers.variance_scaling(
    1.0, "fan_in", "truncated_normal", batch_axis=(0, 1)
)


def concat_elu(h: Array) -> Array:
    """(elu(h), elu(-h)), [..., F] -> [..., 2 F].

    >>> [round(h, 3) for h in concat_elu(jnp.array([1.0])).tolist()]
    [1.0, -0.632]
    """
    return nn.elu(jnp.concatenate([h, -h], axis=-1))


class RowConv(nn.Module):
    """h [B, H, W, F] -> [B, H, W, F'] from rows i - 1 and i, columns j - 1 … j + 1.

    `apply_to_rows` of two rows [B, 2, W, F] gives the output row of the last one.
    """

    inputs: int
    """F."""
    features: int
    """F'."""
    kernel_init: Callable = lecun
    """The initialiser of the kernel."""
    stride: int = 1
    """The stride of rows and columns."""
    dtype: Any = None
    """The layer's type: bfloat16, or None for the parameters'."""

    def setup(self):
        shape = 1, 6 * self.inputs, self.features
        self.kernel = self.param("kernel", self.kernel_init, shape)
        self.bias = self.param("bias", zeros, (self.features,))

    def __call__(self, h: Array) -> Array:
        return self.apply_to_rows(jnp.pad(h, ((0, 0), (1, 0), (0, 0), (0, 0))))

    def apply_to_rows(self, rows: Array) -> Array:
        """The output rows of all input rows but the first."""
        chex.assert_rank(rows, 4)
        each = rows, self.kernel, self.bias
        rows, kernel, bias = nn.dtypes.promote_dtype(*each, dtype=self.dtype)
        rows = jnp.pad(rows, ((0, 0), (0, 0), (1, 1), (0, 0)))
        return convolve(rows, kernel.reshape(2, 3, self.inputs, -1), self.stride) + bias


def pixel_conv(inputs, features, kernel_init=lecun, stride=1, dtype=None, **kwargs):
    """A RasterConv whose 2×2 window ends at the pixel."""
    window = {"rows": 1, "left": 1, "kernel_init": kernel_init, "stride": stride}
    return RasterConv(inputs, features, dtype=dtype, **window | kwargs)


class Unfold(nn.Module):
    """A transposed 2×2 convolution of stride 2: pixel (2I + a, 2J + b) is K_ab h_IJ."""

    features: int
    """F, of input and output."""
    dtype: Any = None
    """The layer's type: bfloat16, or None for the parameters'."""

    def setup(self):
        shape = 2, 2, self.features, self.features
        self.kernel = self.param("kernel", unfolding, shape)
        self.bias = self.param("bias", zeros, (self.features,))

    def __call__(self, h: Array, rows=None, columns=None) -> Array:
        """h [B, I, J, F] -> [B, 2 I, 2 J, F].

        Args:
            h: the image.
            rows: the one a that is wanted; None for both.
            columns: the one b that is wanted; None for both.
        """
        chex.assert_rank(h, 4)
        kernel = self.kernel
        for axis, which in enumerate((rows, columns)):
            if which is not None:
                kernel = jax.lax.dynamic_slice_in_dim(kernel, which, 1, axis)
        each = h, kernel, self.bias
        h, kernel, bias = nn.dtypes.promote_dtype(*each, dtype=self.dtype)
        h = jnp.einsum("bijf,acfg->biajcg", h, kernel) + bias
        b, i, a, j, c, g = h.shape
        return h.reshape(b, i * a, j * c, g)


class Stack(nn.Module):
    """One of the two stacks: a U-Net of one kind of convolution."""

    make: Callable
    """(inputs, features, kernel_init, stride=1, dtype) -> a convolution."""
    width: int
    """F, the features of the residual stream."""
    blocks: int
    """The blocks of each resolution on the way down."""
    resolutions: int
    """The number of resolutions."""
    dropout: float = 0.0
    """The rate of dropout before each gate."""
    dtype: Any = None
    """The layers' type: bfloat16, or None for the parameters'."""

    def setup(self):
        make, width = partial(self.make, dtype=self.dtype), self.width
        lowest = self.resolutions - 1

        def pairs(num):
            sizes = (2 * width, width, lecun), (2 * width, 2 * width, small)
            return [make(*size) for _ in range(num) for size in sizes]

        def level(shrinks):
            ups = pairs(self.blocks + shrinks)
            shrink = [make(width, width, stride=2)] if shrinks else []
            return [*pairs(self.blocks), *shrink, *ups]

        ups = [self.blocks + 1] * lowest + [self.blocks]
        self.convs = [level(n < lowest) for n in range(self.resolutions)]
        self.skips = [
            [nn.Dense(width, dtype=self.dtype) for _ in range(n)] for n in ups
        ]
        self.unfold = [Unfold(width, self.dtype) for _ in range(lowest)]
        self.drop = nn.Dropout(self.dropout)

    def run(self, level, h, conv, below, train=False):
        """The outputs of the blocks of one resolution; the last is the resolution's.

        Args:
            level: the number of the resolution, 0 for the image's own.
            h: its input.
            conv: conv(h) is the next of its `convs`; the one between the way down and
                the way up is strided.
            below: h -> the output of the lower resolutions for input h.
            train: whether dropout is on.
        """
        outputs, skips = [], [h]

        def block(h, skip=0.0):
            c = concat_elu(conv(concat_elu(h)) + skip)
            a, b = jnp.split(conv(self.drop(c, deterministic=not train)), 2, axis=-1)
            outputs.append(after_block(h + a * jax.nn.sigmoid(b)))
            return outputs[-1]

        for _ in range(self.blocks):
            skips.append(block(skips[-1]))
        h = below(skips[-1]) if level + 1 < self.resolutions else skips.pop()
        for dense, skip in zip(self.skips[level], reversed(skips), strict=True):
            h = block(h, dense(concat_elu(skip)))
        return outputs

    def over_images(self, h, added, train=False, level=0):
        """The outputs of all blocks of every resolution from `level` on, [B, H, W, F].

        added[level][n] is added to the output of its n-th convolution.
        """
        lower = []

        def apply(n, layer, h):
            out = layer(h)
            return out.reshape(*out.shape[:3], -1) + added[level][n]

        def below(h):
            lower.extend(self.over_images(conv(h), added, train, level + 1))
            return self.unfold[level](lower[0][-1])

        conv = each_in_turn(self.convs[level], apply)
        return [self.run(level, h, conv, below, train), *lower]
