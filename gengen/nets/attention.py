"""Softmax attention, of tokens to each other and to a context sequence.

    Attention(Q, K, V) = softmax(Q Kᵀ/√d + mask) V,  one head each d = width/heads wide.

Vaswani et al. 2017, arXiv:1706.03762, equation 1.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.nets.layers import normal
from gengen.types import Array, BadInput

lecun_normal = nn.initializers.lecun_normal()


def attend(q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
    """softmax(q kᵀ/√d) v: q [B, T, N, d], k and v [B, S, N, d] -> [B, T, N, d].

    mask bool, broadcast to [B, N, T, S]; the softmax is float32 at least.
    """
    scores = jnp.einsum("btnd,bsnd->bnts", q, k) * q.shape[-1] ** -0.5
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
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


class Context(nn.Module):
    """A context [B, S, width] -> tokens [B, 1 + S, width], which are there [B, 1 + S].

    First stands a learned null token, always there. A token of zeros is not: so texts
    of several lengths are padded, and a row of zeros, like no context at all, is the
    null condition of classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598).
    """

    width: int

    @nn.compact
    def __call__(self, context: Array | None, batch: int) -> tuple[Array, Array]:
        if context is None:
            context = jnp.zeros((batch, 0, self.width))
        if context.ndim != 3 or context.shape[::2] != (batch, self.width):
            raise BadInput(
                f"a context of shape {context.shape} is not one sequence of tokens "
                f"{self.width} wide an image: give [{batch}, length, {self.width}]"
            )
        null = self.param("null", normal, (1, 1, self.width))
        there = jnp.pad(
            jnp.any(context != 0, axis=-1), ((0, 0), (1, 0)), constant_values=True
        )
        null = jnp.broadcast_to(null, (batch, 1, self.width)).astype(context.dtype)
        return jnp.concatenate([null, context], axis=1), there


def either(label: Array | None, batch: int, num_classes: int, width: int):
    """(label, None), or (None, its `Context`) where the label is a sequence.

    For networks whose condition is a class (num_classes > 0), tokens (width > 0) or
    nothing. Raises BadInput for both.
    """
    if not width:
        return label, None
    if num_classes:
        raise BadInput(
            f"a condition is one of {num_classes} classes or a context of width "
            f"{width}, not both: set num_classes=0, or context=0"
        )
    return None, Context(width)(label, batch)
