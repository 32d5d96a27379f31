"""WaveNet: a stack of dilated convolutions over a sequence.

The window doubles with every layer, because kernels have two taps, d symbols apart, for
d = 1, 2, 4, …:

    g = tanh(W_f * h) ⊙ σ(W_g * h),  h ← h + W_r g,  the output of Σ over layers W_s g.

van den Oord et al. 2016, arXiv:1609.03499, equation 2 and figure 4. In decoding, a
layer keeps a queue of its last d inputs: Paine et al. 2016 (Fast WaveNet),
arXiv:1611.09482.

The network embeds the symbol before (at the beginning, a start symbol), and adds an
embedding of the condition at every position.
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import Condition, Given, Labels, Nothing, Scalar
from gengen.nets.conditioning import ShiftedEmbedding, refuse_parts
from gengen.nets.layers import at_least_float32
from gengen.types import Array


class Dilated(nn.Module):
    """h [B, T, D] -> (h [B, T, D], skip [B, T, D]): one gated residual unit."""

    width: int
    """D."""
    dilation: int
    """d, the distance of the two taps."""
    dropout: float = 0.0
    """The rate of dropout on the gates' output."""
    dtype: Any = None
    """The layer's type: bfloat16, or None for the parameters'."""

    def setup(self):
        def dense(features, **kwargs):
            return nn.Dense(features, dtype=self.dtype, **kwargs)

        self.now, self.ago = (
            dense(2 * self.width),
            dense(2 * self.width, use_bias=False),
        )
        self.out, self.drop = dense(2 * self.width), nn.Dropout(self.dropout)

    def __call__(self, h, train: bool = False):
        past = jnp.pad(h, ((0, 0), (self.dilation, 0), (0, 0)))[:, : h.shape[1]]
        return self._unit(h, past, train)

    def start(self, num: int, dtype):
        """A queue of zeros [d + 1, B, D]."""
        return jnp.zeros((self.dilation + 1, num, self.width), dtype)

    def decode(self, h, t, queue):
        """`__call__` at position t alone: h [B, D].

        The queue is written before it is read: in the other order, XLA copies it.
        """
        now, ago = t % len(queue), (t + 1) % len(queue)
        queue = jax.lax.dynamic_update_index_in_dim(
            queue, h.astype(queue.dtype), now, 0
        )
        past = jax.lax.dynamic_index_in_dim(queue, ago, keepdims=False)
        return *self._unit(h, past), queue

    def _unit(self, h, past, train=False):
        filter, gate = jnp.split(self.now(h) + self.ago(past), 2, axis=-1)
        g = self.drop(jnp.tanh(filter) * jax.nn.sigmoid(gate), deterministic=not train)
        residual, skip = jnp.split(self.out(g), 2, axis=-1)
        return h + residual, skip


RematDilated = nn.remat(Dilated, static_argnums=(2,))


class WaveNet(nn.Module):
    """x int32 [B, T] -> features [B, T, features] of x_t from x_<t; any T.

    The dilations of the layers are 1, 2, 4, …, 2^(cycle-1), and again; x_t depends on
    one symbol more than they sum up to. The sum of skips, rectified, mixed and
    rectified, is sown as "features".
    """

    features: int
    """F, the head's features of a symbol."""
    vocabulary: int = 256
    """The number of symbols; symbol number `vocabulary` is the start."""
    width: int = 128
    """The features of a position."""
    layers: int = 8
    """The number of layers."""
    cycle: int = 8
    """The number of layers after which the dilations start again."""
    dropout: float = 0.0
    """The rate of dropout on the gates' output."""
    condition: Condition = Nothing()
    """What c holds: labels and scalars."""
    dtype: Any = None
    """The layers' type: bfloat16, or None for the parameters'."""
    remat: bool = False
    """Whether the backward pass recomputes each layer instead of keeping it."""
    row_length = None  # nothing can be computed for several symbols at once

    def setup(self):
        refuse_parts(self.condition, (Labels, Scalar), "a WaveNet")
        self.before = ShiftedEmbedding(
            self.vocabulary, self.width, self.condition, self.dtype
        )
        kind = RematDilated if self.remat else Dilated
        self.units = [
            kind(self.width, 2 ** (i % self.cycle), self.dropout, self.dtype)
            for i in range(self.layers)
        ]
        self.mix, self.out = nn.Dense(self.width), nn.Dense(self.features)

    def __call__(self, x: Array, c: Given | None = None, train: bool = False) -> Array:
        chex.assert_rank(x, 2)
        h, total = self.before(x, c), 0.0
        for unit in self.units:
            h, skip = unit(h, train)
            total += skip
        h = self._hidden(total)
        self.sow("intermediates", "features", h)
        return self.out(h)

    def _hidden(self, total):
        return nn.relu(self.mix(nn.relu(at_least_float32(total))))

    def start(self, num: int, c: Given | None = None):
        """The queues of all units, and what the condition adds."""
        dtype = self.dtype or self.before.symbol.embedding.dtype
        queues = [unit.start(num, dtype) for unit in self.units]
        return queues, self.before.bias(c, num)

    def decode(self, symbol, t, cache, c: Given | None = None):
        """Features [B, F] at position t, after symbol x_{t-1} [B] (t = 0: any)."""
        old, bias = cache
        h, total, new = self.before.decode(symbol, t, bias), 0.0, []
        for unit, queue in zip(self.units, old, strict=True):
            h, skip, queue = unit.decode(h, t, queue)
            total += skip
            new.append(queue)
        return self.out(self._hidden(total)), (new, bias)
