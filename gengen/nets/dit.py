"""DiT: a transformer over the patches of a noised image, modulated by a condition.

    shift, scale, gate = W silu(embedding),    W = 0 at first (adaLN-zero)
    h ← h + gate · Attention(norm(h) (1 + scale) + shift),

then the same around an MLP, so that a block starts as the identity. If the condition
has a sequence, cross-attention to it stands between the two, as in PixArt-α (Chen et
al. 2023, arXiv:2310.00426, section 2.3). Peebles and Xie 2023, arXiv:2212.09748,
figure 3.

The blocks' parameters are stacked and `nn.scan` runs over them: the program, and the
time to compile it, are those of one block. Otherwise than there, matrices start from
LeCun's normal distribution and the class is embedded at unit scale.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.conditions import Given, Labels, Nothing, Scalar, Sequence, Text
from gengen.errors import BadInput
from gengen.nets.attention import Attention
from gengen.nets.conditioning import Conditioning, Context, refuse_parts
from gengen.nets.layers import layers_of_dtype, sinusoidal_embedding, zeros
from gengen.types import Array


def patchify(x: Array, p: int) -> Array:
    """Images [B, H, W, C] -> their p×p patches, row by row, [B, HW/p², p p C]."""
    b, height, breadth, c = x.shape
    if p < 1 or height % p or breadth % p:
        raise BadInput(
            f"images of {height}×{breadth} pixels cannot be cut into patches of "
            f"{p}×{p}: take a patch that divides both sides"
        )
    x = x.reshape(b, height // p, p, breadth // p, p, c).swapaxes(2, 3)
    return x.reshape(b, -1, p * p * c)


def unpatchify(tokens: Array, height: int, breadth: int, p: int) -> Array:
    """The inverse of `patchify`: [B, HW/p², p p C] -> [B, H, W, C]."""
    b = tokens.shape[0]
    x = tokens.reshape(b, height // p, breadth // p, p, p, -1).swapaxes(2, 3)
    return x.reshape(b, height, breadth, -1)


def positions(rows: int, columns: int, width: int) -> Array:
    """[rows columns, width]: `sinusoidal_embedding` of the row, then of the column."""
    if width % 4:
        raise BadInput(
            f"a width of {width} cannot be pairs of cos and sin of rows and columns: "
            "take a multiple of 4"
        )
    row, column = (
        sinusoidal_embedding(jnp.arange(n), width // 2) for n in (rows, columns)
    )
    row, column = jnp.repeat(row, columns, axis=0), jnp.tile(column, (rows, 1))
    return jnp.concatenate([row, column], axis=-1)


def norm(h: Array, shift: Array | float = 0.0, scale: Array | float = 0.0) -> Array:
    """LayerNorm in float32, whose scale and shift come from elsewhere."""
    plain = nn.LayerNorm(epsilon=1e-6, use_scale=False, use_bias=False)
    return plain(h) * (1.0 + scale) + shift


class Block(nn.Module):
    """h [B, T, D], embedding [B, E], a `Context` or None -> h; starts as identity."""

    heads: int
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, h, embedding, context=None, train: bool = False):
        width, dense = h.shape[-1], layers_of_dtype(self.dtype).dense
        drop = nn.Dropout(self.dropout, deterministic=not train)
        film = dense(6 * width, kernel_init=zeros)(nn.silu(embedding))[:, None]
        shift, scale, gate, *of_mlp = jnp.split(film, 6, axis=-1)
        attention = Attention(self.heads, dtype=self.dtype)
        h = h + gate * drop(attention(norm(h, shift, scale)))
        if context is not None:
            cross = Attention(self.heads, zeros, self.dtype)
            h = h + drop(cross(norm(h), context))
        shift, scale, gate = of_mlp
        mlp = nn.gelu(dense(4 * width)(norm(h, shift, scale)))
        return h + gate * drop(dense(width)(mlp))


# Recomputed in the backward pass instead of kept. A scan cannot undo that, so nothing
# need stop XLA from trying.
RematBlock = nn.remat(Block, prevent_cse=False, static_argnums=(4,))


class DiT(nn.Module):
    """z [B, H, W, C], t [B] in [0, 1], c -> r̂ [B, H, W, C], or [r̂, v] of 2 C.

    Time, labels and scalars of c modulate every block; each attends to the sequence or
    text of c. Tokens, norms, softmax and output are float32. The tokens after half of
    the blocks are sown as "features".
    """

    patch: int = 2
    """Side of a token's patch, which divides H and W."""
    width: int = 96
    """Features of a token, a multiple of `heads` and of 4."""
    blocks: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Attention heads."""
    condition: Any = Nothing()
    """What c holds: labels, scalars, and one sequence or text."""
    learned_variance: bool = False
    """Whether C more channels v say where a step's log-variance lies between its bounds
    (Nichol and Dhariwal 2021, arXiv:2102.09672, equation 15)."""
    dropout: float = 0.0
    """Dropout rate of what each branch adds."""
    dtype: Any = None
    """Type of the layers: bfloat16, or None for float32."""
    remat: bool = False
    """Whether the backward pass recomputes each block instead of keeping it."""
    unroll: int = 1
    """Blocks per iteration of the scan: more for speed, fewer for compile time."""
    time_waves: int | None = None
    """Sinusoids of the time; None for as many as features of a token."""
    max_period: float = 10_000.0
    """Period of the slowest of them, in thousandths of the time, times 2 pi."""

    @nn.compact
    def __call__(
        self, z: Array, t: Array, c: Given | None = None, train: bool = False
    ) -> Array:
        refuse_parts(self.condition, (Labels, Scalar, Sequence, Text), "a DiT")
        if self.blocks < 1:
            raise BadInput(
                f"a DiT of {self.blocks} blocks does nothing: take one or more"
            )
        _, height, breadth, channels = z.shape
        p, dense = self.patch, layers_of_dtype(self.dtype).dense
        tokens = patchify(z, p)
        where = positions(height // p, breadth // p, self.width)
        context = Context(self.condition)(c, len(z))
        waves = self.time_waves, self.max_period
        e = Conditioning(self.width, self.condition, *waves)(t, c)
        h = dense(self.width, name="patch_in")(tokens) + where

        def layer(block, h):
            h = block(h, e, context, train)
            return h, h

        kind = RematBlock if self.remat else Block
        scan = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=self.blocks,
            unroll=self.unroll,
        )
        h, each = scan(kind(self.heads, self.dropout, self.dtype, name="blocks"), h)
        self.sow("intermediates", "features", each[(self.blocks - 1) // 2])
        film = nn.Dense(2 * self.width, kernel_init=zeros)(nn.silu(e))[:, None]
        h = norm(h, *jnp.split(film, 2, axis=-1))
        outputs = p * p * channels * (1 + self.learned_variance)
        h = nn.Dense(outputs, kernel_init=zeros, name="patch_out")(h)
        return unpatchify(h, height, breadth, p)
