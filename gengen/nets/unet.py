"""A small U-Net conditioned on time and more, for images from 8×8 up.

Residual blocks of GroupNorm, SiLU and 3×3 convolutions are modulated by the embedding
of time and of the condition's vectors; one downsampling lies between levels; every
block's output on the way down is concatenated on the way up. Ronneberger et al. 2015,
arXiv:1505.04597; Ho et al. 2020, arXiv:2006.11239, appendix B; the scale-and-shift
modulation of Dhariwal and Nichol 2021, arXiv:2105.05233, section 3.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.conditions import Given, Labels, Nothing, Scalar, Sequence, Text
from gengen.errors import BadInput
from gengen.nets.attention import Attention
from gengen.nets.conditioning import Conditioning, Context, refuse_parts
from gengen.nets.layers import check_divisible, layers_of_dtype, zeros
from gengen.nets.strided import DoubledConv
from gengen.types import Array


class ResidualBlock(nn.Module):
    """h [B, H, W, C], embedding [B, E] -> [B, H, W, channels]; starts as identity."""

    channels: int
    groups: int = 8
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, h: Array, embedding: Array, train: bool = False) -> Array:
        dense, conv, _, norm = layers_of_dtype(self.dtype, self.groups)
        skip = h
        h = nn.silu(norm(h.shape[-1])(h))
        h = conv(self.channels, (3, 3))(h)
        film = dense(2 * self.channels)(nn.silu(embedding))[:, None, None]
        scale, shift = jnp.split(film, 2, axis=-1)
        h = norm(self.channels)(h) * (1.0 + scale) + shift
        h = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(h))
        h = conv(self.channels, (3, 3), kernel_init=zeros)(h)
        if skip.shape[-1] != self.channels:
            skip = dense(self.channels)(skip)
        return skip + h


class PixelAttention(nn.Module):
    """h [B, H, W, C] -> [B, H, W, C]: each pixel attends to all of them.

    And then, given a `Context`, to its tokens. Starts as identity. Ho et al. 2020,
    appendix B; Rombach et al. 2022, arXiv:2112.10752, section 3.3.
    """

    heads: int = 1
    groups: int = 8
    dtype: Any = None

    @nn.compact
    def __call__(self, h: Array, context: tuple[Array, Array] | None = None) -> Array:
        norm = layers_of_dtype(self.dtype, self.groups).norm
        pixels = h.reshape(h.shape[0], -1, h.shape[-1])
        for source in (None,) if context is None else (None, context):
            attention = Attention(self.heads, zeros, self.dtype)
            pixels = pixels + attention(norm(h.shape[-1])(pixels), source)
        return pixels.reshape(h.shape)


# Recomputed in the backward pass instead of kept; the same parameters by name.
RematBlock = nn.remat(ResidualBlock, static_argnums=(3,))
RematBlock.__name__ = ResidualBlock.__name__
RematAttention = nn.remat(PixelAttention)
RematAttention.__name__ = PixelAttention.__name__


class UNet(nn.Module):
    """z [B, H, W, C], t [B] in [0, 1], c -> r̂ [B, H, W, C], or [r̂, v] of 2 C.

    The middle block's output is sown as "features". Labels and scalars of c modulate
    every block; the middle and the places of `attention` attend to its sequence or
    text. Parameters and output are float32.
    """

    channels: int = 32
    """Width of the first level, a multiple of `groups`."""
    multipliers: tuple[int, ...] = (1, 2)
    """Width of each level over `channels`; sides are multiples of 2^(levels - 1)."""
    blocks: int = 1
    """Residual blocks per level."""
    condition: Any = Nothing()
    """What c holds: labels, scalars, and one sequence or text."""
    groups: int = 8
    """Groups of each GroupNorm."""
    dropout: float = 0.0
    """Dropout rate in the residual blocks."""
    dtype: Any = None
    """Type of the computation: bfloat16, or None for float32."""
    remat: bool = False
    """Whether the backward pass recomputes each block instead of keeping it."""
    attention: tuple[int, ...] = ()
    """Heights of images, such as (16,), at which self-attention follows every block."""
    heads: int = 1
    """Attention heads."""
    learned_variance: bool = False
    """Whether C more channels v say where a step's log-variance lies between its bounds
    (Nichol and Dhariwal 2021, arXiv:2102.09672, equation 15)."""

    @nn.compact
    def __call__(
        self, z: Array, t: Array, c: Given | None = None, train: bool = False
    ) -> Array:
        refuse_parts(self.condition, (Labels, Scalar, Sequence, Text), "a UNet")
        levels = range(len(self.multipliers))
        for side in z.shape[1:3]:
            check_divisible(side, levels[-1], "UNet")
        sides = [z.shape[1] // 2**level for level in levels]
        for side in self.attention:
            if side not in sides:
                raise BadInput(
                    f"no level of this UNet has a side of {side} pixels to attend "
                    f"over: take attention from {sides}"
                )
        _, conv, _, norm = layers_of_dtype(self.dtype, self.groups)
        kind = RematBlock if self.remat else ResidualBlock
        mixer = RematAttention if self.remat else PixelAttention
        widths = [self.channels * m for m in self.multipliers]
        context = Context(self.condition)(c, len(z))
        e = Conditioning(4 * self.channels, self.condition)(t, c)

        def residual(h, width):
            return kind(width, self.groups, self.dropout, self.dtype)(h, e, train)

        def mix(h):
            return mixer(self.heads, self.groups, self.dtype)(h, context)

        def block(h, width):
            h = residual(h, width)
            return mix(h) if h.shape[1] in self.attention else h

        h = conv(self.channels, (3, 3))(z)
        skips = [h]
        for level, width in enumerate(widths):
            if level > 0:
                h = conv(width, (3, 3), strides=2)(h)
                skips.append(h)
            for _ in range(self.blocks):
                h = block(h, width)
                skips.append(h)
        h = residual(h, widths[-1])
        if self.attention or context is not None:
            h = residual(mix(h), widths[-1])
        self.sow("intermediates", "features", h)
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(self.blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], axis=-1), width)
            if level > 0:
                h = DoubledConv(widths[level - 1], (3, 3), dtype=self.dtype)(h)
        h = nn.silu(norm(h.shape[-1])(h))
        outputs = z.shape[-1] * (1 + self.learned_variance)
        return nn.Conv(outputs, (3, 3), kernel_init=zeros)(h)
