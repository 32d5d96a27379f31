"""DCGAN: an all-convolutional generator and discriminator.

Strided (transposed) convolutions, BatchNorm except at the generator's output and the
discriminator's input, ReLU going up, leaky ReLU (0.2) going down, tanh at the output,
weights from N(0, 0.02²). Radford, Metz and Chintala 2016, arXiv:1511.06434.

The vector of a condition enters the generator through a linear map, beside z, or as
scale and bias of its norms (conditional batch norm), and the discriminator by one of
the ways of `gengen.nets.critic`, a projection by default.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.conditions import Given, Labels, Nothing, Scalar
from gengen.errors import BadInput
from gengen.nets.conditioning import flat, refuse_parts
from gengen.nets.critic import logit_of, spectral, unit_rows, with_channels
from gengen.nets.layers import check_divisible, dcgan_normal, layers_of_dtype
from gengen.nets.normalization import batch_norm
from gengen.types import Array


def entered(net: nn.Module, z: Array, vector: Array | None) -> tuple:
    """(z [B, ·], the vector of the norms or None): how a condition enters a generator.

    Called within a compact module with a field `conditioning`, "concatenation" or
    "batch-norm"; BadInput for another one.
    """
    if net.conditioning not in ("concatenation", "batch-norm"):
        raise BadInput(
            f"conditioning={net.conditioning!r}: a condition enters a generator by "
            "concatenation or batch-norm"
        )
    if vector is None or net.conditioning == "batch-norm":
        return z, vector
    linear = nn.Dense(z.shape[-1], use_bias=False, kernel_init=unit_rows, name="embed")
    return jnp.concatenate([z, linear(vector)], axis=-1), None


class DCGANGenerator(nn.Module):
    """z [B, latent] and c -> image [B, H, W, C] in (-1, 1).

    Collections: params, and batch_stats, which are updated when train=True.
    """

    shape: tuple[int, int, int]
    """Height, width and channels of an image."""
    channels: int = 64
    """Channels next to the image, doubled at each lower resolution."""
    downsamples: int = 2
    """Doublings of the image; its sides are multiples of 2^downsamples."""
    condition: Any = Nothing()
    """What c holds: labels and scalars."""
    axis_name: str | None = None
    """The axis of pmap over which batch statistics are averaged."""
    dtype: Any = None
    """Type of the layers: bfloat16, or None for float32."""
    conditioning: str = "concatenation"
    """How c enters: beside z (concatenation), or in the norms (batch-norm)."""

    @nn.compact
    def __call__(self, z: Array, c: Given | None = None, train: bool = False) -> Array:
        dense, _, conv_transpose, _ = layers_of_dtype(self.dtype)
        height, width, out = self.shape
        low = [
            check_divisible(s, self.downsamples, "DCGANGenerator")
            for s in (height, width)
        ]
        refuse_parts(self.condition, (Labels, Scalar), "a DCGANGenerator")
        z, vector = entered(self, z, flat(self.condition, c, len(z)))

        def norm(h):
            return batch_norm(h, train, self.axis_name, self.dtype, vector)

        top = self.channels * 2 ** (self.downsamples - 1)
        h = dense(low[0] * low[1] * top, use_bias=False, kernel_init=dcgan_normal)(z)
        h = nn.relu(norm(h.reshape(-1, *low, top)))
        for level in reversed(range(self.downsamples)):
            last = level == 0
            features = out if last else self.channels * 2 ** (level - 1)
            h = conv_transpose(
                features, (4, 4), (2, 2), use_bias=last, kernel_init=dcgan_normal
            )(h)
            h = jnp.tanh(h.astype(jnp.float32)) if last else nn.relu(norm(h))
        return h


class DCGANDiscriminator(nn.Module):
    """Image [B, H, W, C] and c -> logit [B] of being real.

    Real and fake batches go through in separate passes, each with its own batch
    statistics. The last features are sown as "features".
    """

    channels: int = 64
    """Channels next to the image, doubled at each lower resolution."""
    downsamples: int = 2
    """Halvings of the image, whose sides are multiples of 2^downsamples."""
    condition: Any = Nothing()
    """What c holds: labels and scalars."""
    batch_norm: bool = True
    """Whether batches are normalised; a gradient penalty wants images scored alone."""
    axis_name: str | None = None
    """The axis of pmap over which batch statistics are averaged."""
    dtype: Any = None
    """Type of the layers: bfloat16, or None for float32."""
    conditioning: str = "projection"
    """How c enters: projection, concatenation or auxiliary."""
    spectral_norm: bool = False
    """Whether kernels are divided by their largest singular value."""
    group: int = 1
    """Examples whose standard deviation the logit sees; 1 for none."""

    @nn.compact
    def __call__(self, x: Array, c: Given | None = None, train: bool = False) -> Array:
        for side in x.shape[1:3]:
            check_divisible(side, self.downsamples, "DCGANDiscriminator")
        h = with_channels(self, x, c)
        _, conv, _, _ = layers_of_dtype(self.dtype)
        conv = spectral(conv, self.spectral_norm, train)
        for level in range(self.downsamples):
            features = self.channels * 2**level
            normed = self.batch_norm and level > 0
            h = conv(
                features, (4, 4), 2, use_bias=not normed, kernel_init=dcgan_normal
            )(h)
            if normed:
                h = batch_norm(h, train, self.axis_name, self.dtype)
            h = nn.leaky_relu(h, 0.2)
        dense = partial(nn.Dense, kernel_init=dcgan_normal)
        return logit_of(self, h, c, spectral(dense, self.spectral_norm, train))
