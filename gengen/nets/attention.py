"""Softmax attention, of tokens to each other and to a context sequence.

    Attention(Q, K, V) = softmax(Q Kᵀ/√d + mask) V,  one head each d = width/heads wide.

Vaswani et al. 2017, arXiv:1706.03762, equation 1.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.nets.layers import at_least_float32
from gengen.types import Array

lecun_normal = nn.initializers.lecun_normal()


def attend(q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
    """softmax(q kᵀ/√d) v: q [B, T, N, d], k and v [B, S, N, d] -> [B, T, N, d].

    mask bool, broadcast to [B, N, T, S]; the softmax is float32 at least.
    """
    scores = jnp.einsum("btnd,bsnd->bnts", q, k) * q.shape[-1] ** -0.5
    scores = at_least_float32(scores)
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    return jnp.einsum("bnts,bsnd->btnd", jax.nn.softmax(scores).astype(v.dtype), v)


def head_width(width: int, heads: int) -> int:
    """width / heads, or a BadInput that names the width that does not divide."""
    if heads < 1 or width % heads:
        raise BadInput(
            f"a width of {width} cannot be cut into {heads} heads: take a multiple of "
            f"the heads, and at least one"
        )
    return width // heads


class Attention(nn.Module):
    """h [B, T, D] -> [B, T, D]: `attend` in `heads` heads, to h or to a context.

    context: tokens [B, S, D'] and which of them are there, bool [B, S]. out_init: of
    the last matrix; zero makes a residual branch start as nothing.
    """

    heads: int
    out_init: Callable = lecun_normal
    dtype: Any = None

    @nn.compact
    def __call__(self, h: Array, context: tuple[Array, Array] | None = None) -> Array:
        width, mask, source = h.shape[-1], None, h
        if context is not None:
            source, there = context
            mask = there[:, None, None]
        heads = self.heads, head_width(width, self.heads)
        q = nn.Dense(width, dtype=self.dtype, name="q")(h)
        kv = nn.Dense(2 * width, dtype=self.dtype, name="kv")(source)
        q, k, v = (
            x.reshape(*x.shape[:2], *heads) for x in (q, *jnp.split(kv, 2, axis=-1))
        )
        mixed = attend(q, k, v, mask).reshape(h.shape)
        out = nn.Dense(width, kernel_init=self.out_init, dtype=self.dtype, name="out")
        return out(mixed)
