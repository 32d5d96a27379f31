"""From a small image to a map of a larger size: the context of multi-scale PixelRNN."""

from typing import Any

import chex
import flax.linen as nn

from gengen.conditions import Condition, Given, Labels, Nothing, Scalar
from gengen.nets.conditioning import flat, refuse_parts
from gengen.nets.layers import layers_of_dtype
from gengen.types import Array


class Upsample(nn.Module):
    """x [B, h, w, C] in [-1, 1], c -> a map [B, H, W, features].

    A 3×3 convolution and a deconvolution of stride `factor`, whose windows overlap;
    cropped to H and W. van den Oord, Kalchbrenner and Kavukcuoglu 2016,
    arXiv:1601.06759, section 3.4.
    """

    features: int
    """The channels of the map."""
    shape: tuple[int, int]
    """(H, W), at most factor h and factor w."""
    factor: int = 2
    """How many times larger the map is, each way."""
    condition: Condition = Nothing()
    """What c holds: labels and scalars."""
    dtype: Any = None
    """The layers' type: bfloat16, or None for the parameters'."""

    @nn.compact
    def __call__(self, x: Array, c: Given | None = None) -> Array:
        chex.assert_rank(x, 4)
        refuse_parts(self.condition, (Labels, Scalar), "upsampling")
        dense, conv, deconv, _ = layers_of_dtype(self.dtype)
        h = conv(self.features, (3, 3))(x)
        vector = flat(self.condition, c, len(x))
        if vector is not None:
            h = h + dense(self.features, use_bias=False)(vector)[:, None, None]
        window, strides = (2 * self.factor,) * 2, (self.factor,) * 2
        h = deconv(self.features, window, strides)(nn.relu(h))
        return h[:, : self.shape[0], : self.shape[1]]
