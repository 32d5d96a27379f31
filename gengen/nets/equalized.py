"""Layers with equalised learning rates: unit weights, scaled where they are used.

    y = x · (m w/√fan_in) + m b,        w ~ N(0, 1/m²),  b = bias/m at first

Adam's updates have the same size whatever the scale of a parameter. A weight of size
one, scaled at run time, therefore learns at the same *relative* rate in each layer; m
makes that rate m times as large (0.01 in StyleGAN's mapping). The function of the first
weights does not depend on m.

Karras et al. 2018, arXiv:1710.10196, section 4.1; 2019, arXiv:1812.04948, appendix C.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.nets.resample import BINOMIAL, reduced, upfirdn
from gengen.nets.strided import convolution
from gengen.types import Array


def leaky(x: Array) -> Array:
    """√2 · leaky ReLU (0.2): about the variance of its input."""
    return math.sqrt(2.0) * nn.leaky_relu(x, 0.2)


def normalised(x: Array) -> Array:
    """x [B, D] of mean square one in each row."""
    return x * jnp.reciprocal(jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-8))


def weight(module: nn.Module, shape: tuple[int, ...], rate: float = 1.0) -> Array:
    """The module's "kernel" of this shape, its last axis the output's, scaled."""
    kernel = module.param("kernel", nn.initializers.normal(1.0 / rate), shape)
    return kernel * (rate / math.sqrt(math.prod(shape[:-1])))


class EqualDense(nn.Module):
    """x [..., D] -> [..., features]."""

    features: int
    "The width of the result."
    bias: float | None = 0.0
    "The bias at first; None for no bias."
    rate: float = 1.0
    "m, by which the learning rate is multiplied."
    dtype: Any = None
    "Type of the product: bfloat16, or None for float32."

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = weight(self, (x.shape[-1], self.features), self.rate)
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        y = x @ kernel
        if self.bias is None:
            return y
        first = nn.initializers.constant(self.bias / self.rate)
        return y + (self.rate * self.param("bias", first, (self.features,))).astype(
            y.dtype
        )


class EqualConv(nn.Module):
    """x [B, H, W, C] -> [B, H, W, features], or half the size with `down`."""

    features: int
    "Channels of the result."
    taps: int = 3
    "The side of the kernel."
    down: bool = False
    "Filter, then keep every other pixel."
    use_bias: bool = True
    "Whether a bias is added, 0 at first."
    dtype: Any = None
    "Type of the convolution: bfloat16, or None for float32."

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = weight(self, (self.taps, self.taps, x.shape[-1], self.features))
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        plain = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        if self.down and self.taps == 1:
            y = convolution(reduced(x), kernel, (1, 1), "SAME", **plain)
        elif self.down:
            y = self._down(x, kernel, plain)
        else:
            y = convolution(x, kernel, (1, 1), "SAME", **plain)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return y + bias.astype(y.dtype)

    def _down(self, x: Array, kernel: Array, plain: dict) -> Array:
        low = (self.taps - 1) // 2 + 1  # of the filter and of the kernel
        x = upfirdn(x, BINOMIAL, pad=(low, low))
        return convolution(x, kernel, (2, 2), "VALID", **plain)
