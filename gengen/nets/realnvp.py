"""RealNVP: an invertible network of images, affine couplings at several scales."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from gengen.conditions import Given, Nothing
from gengen.nets.conditioning import places
from gengen.nets.flows import soft_clamp
from gengen.nets.layers import check_divisible, layers_of_dtype, zeros
from gengen.nets.strided import depth_to_space, space_to_depth
from gengen.types import Array


def kept_places(shape: tuple[int, ...], by_channel: bool, layer: int) -> np.ndarray:
    """float [H, W, C]: 1 where a layer keeps x; a chessboard, or half the channels.

    Dinh et al. 2017, figure 3.
    """
    height, width, channels = shape
    if by_channel:
        kept = np.arange(channels) < channels // 2
        kept = np.broadcast_to(kept, shape)
    else:
        board = np.add.outer(np.arange(height), np.arange(width)) % 2 == 0
        kept = np.broadcast_to(board[..., None], shape)
    return (kept if layer % 2 == 0 else ~kept).astype(np.float32)


class _ScaleAndShift(nn.Module):
    """x [B, H, W, C] -> s and t of the same shape; both zero at first."""

    channels: int
    blocks: int
    condition: Any
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, c: Given | None) -> tuple[Array, Array]:
        dense, conv, _, _ = layers_of_dtype(self.dtype)
        h = conv(self.channels, (3, 3))(x)
        there = places(self.condition, c, len(x), x.shape[1:3])
        if there is not None:
            h = h + dense(self.channels, use_bias=False)(there)
        for _ in range(self.blocks):
            y = conv(self.channels, (3, 3))(nn.silu(h))
            h = h + conv(self.channels, (3, 3))(nn.silu(y))
        out = nn.Conv(2 * x.shape[-1], (3, 3), kernel_init=zeros)(nn.silu(h))
        s, t = jnp.split(out, 2, axis=-1)
        return soft_clamp(s), t


class RealNVP(nn.Module):
    """x [B, H, W, C] and c -> (u [B, D], log |det ∂u/∂x| [B]), and back.

    At each scale three couplings keep the fields of a chessboard in turn; then 2×2
    pixels become channels, three couplings keep half of those in turn, and half of
    what there is leaves for u. The last scale has four couplings. Dinh, Sohl-Dickstein
    and Bengio 2017, arXiv:1605.08803, section 3.6; without their batch norm.
    """

    shape: tuple[int, int, int]
    """H, W and C of an image, its sides multiples of 2^(scales - 1)."""
    channels: int = 32
    """Width of the networks behind scale and shift, doubled at each scale."""
    blocks: int = 2
    """Residual blocks of those networks."""
    scales: int = 2
    """Resolutions."""
    condition: Any = Nothing()
    """What c holds: labels and scalars, which enter at every place."""
    dtype: Any = None
    """Type of the layers: bfloat16, or None for float32."""

    @nn.compact
    def __call__(
        self, x: Array, c: Given | None = None, reverse: bool = False
    ) -> tuple[Array, Array]:
        for side in self.shape[:2]:
            check_divisible(side, self.scales - 1, "RealNVP")
        return self._backward(x, c) if reverse else self._forward(x, c)

    def _forward(self, x, c):
        total, leaving = jnp.zeros(len(x), x.dtype), []
        for scale in range(self.scales - 1):
            x, log_det = self._couple(x, c, scale, False, 3)
            x, more = self._couple(space_to_depth(x), c, scale, True, 3)
            out, x = jnp.split(x, 2, axis=-1)
            leaving.append(out.reshape(len(x), -1))
            total = total + log_det + more
        x, log_det = self._couple(x, c, self.scales - 1, False, 4)
        leaving.append(x.reshape(len(x), -1))
        return jnp.concatenate(leaving, axis=-1), total + log_det

    def _backward(self, u, c):
        height, width, channels = self.shape
        shapes = []  # of what leaves at each scale
        for _ in range(self.scales - 1):
            height, width, channels = height // 2, width // 2, 2 * channels
            shapes.append((height, width, channels))
        shapes.append((height, width, channels))
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
        parts = [
            part.reshape(len(u), *shape)
            for part, shape in zip(jnp.split(u, ends, axis=-1), shapes, strict=True)
        ]
        x, total = self._couple(parts[-1], c, self.scales - 1, False, 4, reverse=True)
        for scale in reversed(range(self.scales - 1)):
            x = jnp.concatenate([parts[scale], x], axis=-1)
            x, log_det = self._couple(x, c, scale, True, 3, reverse=True)
            x = depth_to_space(x)
            x, more = self._couple(x, c, scale, False, 3, reverse=True)
            total = total + log_det + more
        return x, total

    def _couple(self, x, c, scale, by_channel, num, reverse=False):
        """`num` couplings of one scale, and their log-determinant."""
        total, kind = jnp.zeros(len(x), x.dtype), "channels" if by_channel else "board"
        for layer in reversed(range(num)) if reverse else range(num):
            kept = jnp.asarray(kept_places(x.shape[1:], by_channel, layer), x.dtype)
            net = _ScaleAndShift(
                self.channels * 2**scale,
                self.blocks,
                self.condition,
                self.dtype,
                name=f"scale_{scale}_{kind}_{layer}",
            )
            s, t = (part * (1.0 - kept) for part in net(kept * x, c))
            x = (x - t) * jnp.exp(-s) if reverse else x * jnp.exp(s) + t
            total = total + jnp.sum(-s if reverse else s, axis=(1, 2, 3))
        return x, total
