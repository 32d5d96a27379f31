"""A small time- and class-conditioned U-Net, for images from 8×8 up.

Residual blocks of GroupNorm, SiLU and 3×3 convolutions, modulated by the embedding of
time and class; one halving between levels; every block's output on the way down is
concatenated on the way up. Ronneberger et al. 2015, arXiv:1505.04597; Ho et al. 2020,
arXiv:2006.11239, appendix B; the scale-and-shift modulation of Dhariwal and Nichol
2021, arXiv:2105.05233, section 3.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.nets.attention import Attention, either
from gengen.nets.layers import Conditioning, halvings, layers, zeros
from gengen.nets.strided import DoubledConv
from gengen.types import Array, BadInput


class ResidualBlock(nn.Module):
    """h [B, H, W, C], embedding [B, E] -> [B, H, W, channels]; starts as identity."""

    channels: int
    groups: int = 8
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, h: Array, embedding: Array, train: bool = False) -> Array:
        dense, conv, _, norm = layers(self.dtype, self.groups)
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
        norm = layers(self.dtype, self.groups).norm
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
    """z [B, H, W, C], t [B] in [0, 1], label [B] -> r̂ [B, H, W, C], or [r̂, v] of 2 C.

    channels: width of the first level, a multiple of `groups`. multipliers: width of
    each level over `channels`; H and W must be multiples of 2^(levels - 1). blocks:
    residual blocks a level. num_classes: 0 for none, else labels 0 … num_classes-1
    and the null label num_classes. The middle block's output is sown as "features".
    dtype: of the computation, bfloat16 or None for float32; the output is float32.
    remat: recompute each block in the backward pass instead of keeping it.

    attention: heights of images, such as (16,), at which self-attention in `heads`
    heads follows every block, and one stands in the middle. context: width D of the
    tokens of a sequence [B, S, D], given as the label, 0 for none: the middle and those
    places attend to it, see `attention.Context`. learned_variance: as many channels
    again, v: where the log-variance of a step lies between its bounds (Nichol and
    Dhariwal 2021, arXiv:2102.09672, equation 15).
    """

    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    num_classes: int = 0
    groups: int = 8
    dropout: float = 0.0
    dtype: Any = None
    remat: bool = False
    attention: tuple[int, ...] = ()
    heads: int = 1
    context: int = 0
    learned_variance: bool = False

    @nn.compact
    def __call__(
        self, z: Array, t: Array, label: Array | None = None, train: bool = False
    ) -> Array:
        levels = range(len(self.multipliers))
        for side in z.shape[1:3]:
            halvings(side, levels[-1], "UNet")
        sides = [z.shape[1] // 2**level for level in levels]
        for side in self.attention:
            if side not in sides:
                raise BadInput(
                    f"no level of this UNet has a side of {side} pixels to attend "
                    f"over: take attention from {sides}"
                )
        _, conv, _, norm = layers(self.dtype, self.groups)
        kind = RematBlock if self.remat else ResidualBlock
        mixer = RematAttention if self.remat else PixelAttention
        widths = [self.channels * m for m in self.multipliers]
        label, context = either(label, len(z), self.num_classes, self.context)
        e = Conditioning(4 * self.channels, self.num_classes)(t, label)

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
        if self.attention or self.context:
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
