"""The transformer decoder: masked self-attention over symbols in order.

    h ← h + Attention(norm(h)),  h ← h + W₂ gelu(W₁ norm(h)),
    Attention(h) = softmax(Q Kᵀ/√d + mask) V,  mask = -∞ above the diagonal,

one head each d = width/heads wide. The sequence is shifted by a start symbol, so that
position t sees x_<t; sinusoidal positions, of the embedding's own scale, say where.
Given a context sequence, a cross-attention to it stands between the two. Vaswani et al.
2017, arXiv:1706.03762; norms before the blocks: Xiong et al. 2020, arXiv:2002.04745.

In decoding the cache of a layer holds the keys and values so far, in whole segments, of
which attention reads those that are filled: `gengen.nets.cache`.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.nets.attention import attend, head_width
from gengen.nets.cache import attend_cached, empty_cache, write
from gengen.nets.layers import Before, sinusoidal_embedding
from gengen.types import BadInput


class Block(nn.Module):
    """h [B, T, D] -> [B, T, D]: self-attention, cross-attention if `cross`, MLP."""

    width: int
    heads: int
    dropout: float = 0.0
    cross: bool = False
    segment: int = 128
    dtype: Any = None

    def setup(self):
        def dense(features):
            return nn.Dense(features, dtype=self.dtype)

        def norm():
            return nn.LayerNorm(dtype=self.dtype)

        self.norm, self.qkv, self.out = norm(), dense(3 * self.width), dense(self.width)
        if self.cross:
            self.norm_cross, self.q = norm(), dense(self.width)
            self.kv, self.out_cross = dense(2 * self.width), dense(self.width)
        self.norm_mlp = norm()
        self.expand, self.contract = dense(4 * self.width), dense(self.width)
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, h, context=None, train: bool = False):
        length, still = h.shape[1], not train
        causal = jnp.tril(jnp.ones((length, length), bool))
        q, k, v = map(self._heads, jnp.split(self.qkv(self.norm(h)), 3, axis=-1))
        mixed = self.out(attend(q, k, v, causal).reshape(h.shape))
        h = h + self.drop(mixed, deterministic=still)
        if self.cross:
            h = h + self.drop(self._to(h, *self.keys(context)), deterministic=still)
        return h + self.drop(self._mlp(h), deterministic=still)

    def keys(self, context):
        """Keys and values [B, S, N, d] of a context [B, S, D']."""
        return tuple(map(self._heads, jnp.split(self.kv(context), 2, axis=-1)))

    def start(self, num: int, length: int, context, dtype):
        """An empty cache of keys and one of values, and those of the context.

        dtype: what h will have, which the layers keep if they have none of their own.
        """
        shape = num, self.heads, length, self.width // self.heads
        empty = empty_cache(*shape, self.segment, self.dtype or dtype)
        return empty, empty, self.keys(context) if self.cross else None

    def decode(self, h, t, cache):
        """`__call__` at position t alone: h [B, D]."""
        k, v, keys = cache
        q, *new = map(self._heads, jnp.split(self.qkv(self.norm(h)), 3, axis=-1))
        k, v = (write(old, x, t) for old, x in zip((k, v), new, strict=True))
        h = h + self.out(attend_cached(q, k, v, t).reshape(h.shape))
        if self.cross:
            h = h + self._to(h[:, None], *keys)[:, 0]
        return h + self._mlp(h), (k, v, keys)

    def _heads(self, x):
        return x.reshape(*x.shape[:-1], self.heads, self.width // self.heads)

    def _to(self, h, k, v):
        q = self._heads(self.q(self.norm_cross(h)))
        return self.out_cross(attend(q, k, v).reshape(h.shape))

    def _mlp(self, h):
        return self.contract(nn.gelu(self.expand(self.norm_mlp(h))))


# Recomputed in the backward pass instead of kept.
RematBlock = nn.remat(Block, static_argnums=(3,))


class Transformer(nn.Module):
    """x int32 [B, T <= length] -> features [B, T, features] of x_t from x_<t.

    vocabulary: symbols 0 … vocabulary-1; `vocabulary` itself is the start. width: a
    multiple of `heads`. num_classes: the context is labels [B], else any vector [B, D']
    or none; it is embedded and added at every position. cross: it is a sequence
    [B, S, D'], attended to, and there are no labels. dtype: of the layers, bfloat16 or
    None for float32; the output is float32. segment: decoding reads that many positions
    of its cache, or twice as many, … remat: recompute each block in the backward pass
    instead of keeping it. The last layer's output is sown as "features".
    """

    features: int
    length: int
    vocabulary: int = 256
    width: int = 256
    blocks: int = 6
    heads: int = 8
    dropout: float = 0.0
    num_classes: int = 0
    cross: bool = False
    segment: int = 128
    dtype: Any = None
    remat: bool = False
    line = None  # nothing can be computed for several symbols at once

    def setup(self):
        head_width(self.width, self.heads)
        self.before = Before(self.vocabulary, self.width, self.num_classes)
        each = self.width, self.heads, self.dropout, self.cross, self.segment
        kind = RematBlock if self.remat else Block
        self.layers = [kind(*each, self.dtype) for _ in range(self.blocks)]
        self.norm, self.out = nn.LayerNorm(), nn.Dense(self.features)

    def __call__(self, x, context=None, train: bool = False):
        length = x.shape[1]
        if length > self.length:
            raise BadInput(
                f"a sequence of {length} symbols is longer than the {self.length} "
                f"positions of the network: give it length={length}"
            )
        h = self.before(x, self._vector(context))
        h = h + sinusoidal_embedding(jnp.arange(length), self.width).astype(h.dtype)
        for block in self.layers:
            h = block(h, context, train)
        h = self._normed(h)
        self.sow("intermediates", "features", h)
        return self.out(h)

    def start(self, num: int, context=None):
        """The cache before the first symbol: one a block, and the label's vector."""
        label = self.before.start(self._vector(context))
        dtype = self.before.decode(jnp.zeros(num, jnp.int32), 0, label).dtype
        caches = [
            block.start(num, self.length, context, dtype) for block in self.layers
        ]
        return caches, label

    def _normed(self, h):
        """The last norm, in float32 at least."""
        return self.norm(h.astype(jnp.promote_types(h.dtype, jnp.float32)))

    def _vector(self, context):
        """What is added at every position; a sequence is attended to instead."""
        if not self.cross:
            return context
        if self.num_classes or context is None or context.ndim != 3:
            raise BadInput(
                "cross=True: the context is a sequence of vectors [B, S, D], and there "
                "are no labels"
            )
        return None

    def decode(self, symbol, t, cache, context=None):
        """Features [B, F] at position t, after symbol x_{t-1} [B] (t = 0: any)."""
        caches, label = cache
        h = self.before.decode(symbol, t, label)
        h = h + sinusoidal_embedding(t, self.width).astype(h.dtype)
        new = []
        for block, old in zip(self.layers, caches, strict=True):
            h, kept = block.decode(h, t, old)
            new.append(kept)
        return self.out(self._normed(h)), (new, label)
