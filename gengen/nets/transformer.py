"""The transformer decoder: masked self-attention over symbols in order.

    h ← h + Attention(norm(h)),  h ← h + W₂ gelu(W₁ norm(h)),
    Attention(h) = softmax(Q Kᵀ/√d + mask) V,  mask = -∞ above the diagonal,

one head each d = width/heads wide. The sequence is shifted by a start symbol, so that
position t sees x_<t; sinusoidal positions, of the embedding's own scale, say where, or
learned ones. With those, tied embeddings and a symbol of the vocabulary at the start it
is GPT-2 (Radford et al. 2019): `gengen.interchange.gpt2`.
A sequence or a text that x is conditioned on is read by a cross-attention between the
two. Vaswani et al. 2017, arXiv:1706.03762; norms before the blocks: Xiong et al. 2020,
arXiv:2002.04745.

In decoding the cache of a layer holds the keys and values so far, in whole segments, of
which attention reads those that are filled: `gengen.nets.cache`.
"""

from typing import Any

import chex
import flax.linen as nn
import jax.numpy as jnp

from gengen.conditions import Condition, Given, Labels, Nothing, Scalar, Sequence, Text
from gengen.errors import BadInput
from gengen.nets.attention import attend, head_width
from gengen.nets.cache import attend_cached, empty_cache, write
from gengen.nets.conditioning import (
    Context,
    ShiftedEmbedding,
    refuse_parts,
    sequence_of,
)
from gengen.nets.layers import (
    at_least_float32,
    dcgan_normal,
    normal,
    sinusoidal_embedding,
)
from gengen.types import Array


class Block(nn.Module):
    """h [B, T, D] -> [B, T, D]: self-attention, cross-attention if `cross`, MLP."""

    width: int
    """D, a multiple of `heads`."""
    heads: int
    """The attention heads."""
    dropout: float = 0.0
    """The rate of dropout on each residual branch."""
    cross: bool = False
    """Whether the layer attends to a context."""
    segment: int = 128
    """The positions of the cache that are read together."""
    dtype: Any = None
    """The layer's type: bfloat16, or None for the parameters'."""
    epsilon: float = 1e-6
    """What the norms add to a variance."""

    def setup(self):
        def dense(features):
            return nn.Dense(features, dtype=self.dtype)

        def norm():
            return nn.LayerNorm(self.epsilon, dtype=self.dtype)

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
            mixed = self._attend_context(h, *self.keys(context))
            h = h + self.drop(mixed, deterministic=still)
        return h + self.drop(self._mlp(h), deterministic=still)

    def keys(self, context):
        """Keys and values [B, S, N, d] of a context [B, S, D'], and their mask."""
        tokens, there = context
        k, v = map(self._heads, jnp.split(self.kv(tokens), 2, axis=-1))
        return k, v, there[:, None, None]

    def start(self, num: int, length: int, context, dtype):
        """An empty cache of keys and one of values, and those of the context.

        dtype: of the layers' output.
        """
        shape = num, self.heads, length, self.width // self.heads
        empty = empty_cache(*shape, self.segment, dtype)
        return empty, empty, self.keys(context) if self.cross else None

    def decode(self, h, t, cache):
        """`__call__` at position t alone: h [B, D]."""
        k, v, keys = cache
        q, *new = map(self._heads, jnp.split(self.qkv(self.norm(h)), 3, axis=-1))
        k, v = (write(old, x, t) for old, x in zip((k, v), new, strict=True))
        h = h + self.out(attend_cached(q, k, v, t).reshape(h.shape))
        if self.cross:
            h = h + self._attend_context(h[:, None], *keys)[:, 0]
        return h + self._mlp(h), (k, v, keys)

    def _heads(self, x):
        return x.reshape(*x.shape[:-1], self.heads, self.width // self.heads)

    def _attend_context(self, h, k, v, mask):
        q = self._heads(self.q(self.norm_cross(h)))
        return self.out_cross(attend(q, k, v, mask).reshape(h.shape))

    def _mlp(self, h):
        return self.contract(nn.gelu(self.expand(self.norm_mlp(h))))


# Recomputed in the backward pass instead of kept.
RematBlock = nn.remat(Block, static_argnums=(3,))


class Transformer(nn.Module):
    """x int32 [B, T <= length] -> features [B, T, features] of x_t from x_<t.

    Labels and scalars of the condition are embedded and added at every position; a
    sequence or a text is attended to, behind a learned null token (`Context`). The
    output is float32 at least. The last layer's output is sown as "features".
    """

    features: int
    """F, the head's features of a symbol."""
    length: int
    """The most positions."""
    vocabulary: int = 256
    """The number of symbols."""
    width: int = 256
    """The features of a position, a multiple of `heads`."""
    blocks: int = 6
    """The number of layers."""
    heads: int = 8
    """The attention heads of a layer."""
    dropout: float = 0.0
    """The rate of dropout on each residual branch."""
    condition: Condition = Nothing()
    """What c holds: labels, scalars, and one sequence or text."""
    segment: int = 128
    """Decoding reads this many positions of its cache, or twice as many, and so on."""
    dtype: Any = None
    """The layers' type: bfloat16, or None for the parameters'."""
    remat: bool = False
    """Whether the backward pass recomputes each layer instead of keeping it."""
    learned_positions: bool = False
    """Whether a position has a learned vector, in the place of sinusoids."""
    tied: bool = False
    """Whether the features are products with the symbols' embeddings, without a bias;
    then there are as many as symbols."""
    start_symbol: int | None = None
    """The symbol before the first one; None for one that is not in the vocabulary."""
    epsilon: float = 1e-6
    """What the norms add to a variance."""
    row_length = None  # nothing can be computed for several symbols at once

    def setup(self):
        head_width(self.width, self.heads)
        kinds = (Labels, Scalar, Sequence, Text)
        refuse_parts(self.condition, kinds, "a transformer")
        self._check_symbols()
        init = dcgan_normal if self.tied else normal
        self.before = ShiftedEmbedding(
            self.vocabulary,
            self.width,
            self.condition,
            start=self.start_symbol,
            embedding_init=init,
        )
        if self.learned_positions:
            shape = self.length, self.width
            self.positions = self.param("positions", dcgan_normal, shape)
        self.context = Context(self.condition)
        cross = sequence_of(self.condition) is not None
        each = self.width, self.heads, self.dropout, cross, self.segment
        kind = RematBlock if self.remat else Block
        each += self.dtype, self.epsilon
        self.layers = [kind(*each) for _ in range(self.blocks)]
        self.norm = nn.LayerNorm(self.epsilon)
        if not self.tied:
            self.out = nn.Dense(self.features)

    def _check_symbols(self):
        if self.tied and self.features != self.vocabulary:
            raise BadInput(
                f"tied embeddings give a feature to each of {self.vocabulary} symbols, "
                f"and the head takes {self.features}: leave tied out"
            )
        if self.start_symbol is not None and not (
            0 <= self.start_symbol < self.vocabulary
        ):
            raise BadInput(
                f"start_symbol={self.start_symbol} is none of {self.vocabulary} "
                "symbols, which begin at 0"
            )

    def __call__(self, x: Array, c: Given | None = None, train: bool = False) -> Array:
        chex.assert_rank(x, 2)
        length = x.shape[1]
        if length > self.length:
            raise BadInput(
                f"a sequence of {length} symbols is longer than the {self.length} "
                f"positions of the network: give it length={length}"
            )
        context = self.context(c, len(x))
        h = self.before(x, c)
        h = self._positioned(h, jnp.arange(length))
        for block in self.layers:
            h = block(h, context, train)
        h = self.norm(at_least_float32(h))
        self.sow("intermediates", "features", h)
        return self._output(h)

    def _output(self, h):
        if not self.tied:
            return self.out(h)
        rows = self.before.symbol.embedding[: self.vocabulary]
        return h @ at_least_float32(rows).T

    def _positioned(self, h, t):
        if self.learned_positions:
            return h + jnp.asarray(self.positions, h.dtype)[t]
        return h + sinusoidal_embedding(t, self.width).astype(h.dtype)

    def start(self, num: int, c: Given | None = None):
        """The cache before the first symbol: one per block, and what labels add."""
        context = self.context(c, num)
        dtype = self.dtype or self.before.symbol.embedding.dtype
        caches = [
            block.start(num, self.length, context, dtype) for block in self.layers
        ]
        return caches, self.before.bias(c, num)

    def decode(self, symbol, t, cache, c: Given | None = None):
        """Features [B, F] at position t, after symbol x_{t-1} [B] (t = 0: any)."""
        caches, bias = cache
        h = self._positioned(self.before.decode(symbol, t, bias), t)
        new = []
        for block, old in zip(self.layers, caches, strict=True):
            h, kept = block.decode(h, t, old)
            new.append(kept)
        return self._output(self.norm(at_least_float32(h))), (new, bias)
