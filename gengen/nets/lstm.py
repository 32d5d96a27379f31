"""A recurrent network for sequences: layers of LSTMs.

An LSTM carries all that it keeps of x_<t in a state of fixed size,

    i, f, o = σ(z_i), σ(z_f + 1), σ(z_o),  z = W x_t + U h_{t-1} + b,
    c_t = f ⊙ c_{t-1} + i ⊙ tanh(z_g),     h_t = o ⊙ tanh(c_t),

so its cache is its state. Hochreiter and Schmidhuber 1997; the forget gate: Gers,
Schmidhuber and Cummins 2000; its bias of 1: Jozefowicz et al. 2015; layers of them over
bytes: Graves 2013, arXiv:1308.0850.

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

orthogonal = nn.initializers.orthogonal(column_axis=-1)


def gates(z: Array, c: Array) -> tuple[Array, Array]:
    """One step of an LSTM.

    Args:
        z: the pre-activations [B, 4 D], in the order i, f, g, o.
        c: the cell [B, D], float32 at least.

    Returns:
        h and the new cell, [B, D] each.

    >>> round(gates(jnp.zeros((1, 4)), jnp.ones((1, 1)))[1].item(), 3)
    0.731
    """
    chex.assert_rank([z, c], 2)
    chex.assert_shape(z, (len(c), 4 * c.shape[1]))
    i, f, g, o = jnp.split(at_least_float32(z), 4, axis=-1)
    c = jax.nn.sigmoid(f + 1.0) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return (jax.nn.sigmoid(o) * jnp.tanh(c)).astype(z.dtype), c


def _states(z, u):
    def step(state, z):
        state = gates(z + state[0] @ u, state[1])
        return state, state[0]

    num, width = z.shape[1], u.shape[0]
    h = jnp.zeros((num, width), z.dtype)
    start = h, at_least_float32(h)
    return jax.lax.scan(step, start, z)[1]


@jax.custom_vjp
def states(z: Array, u: Array) -> Array:
    """h [T, B, D] of an LSTM from W x + b, z [T, B, 4 D], and U [D, 4 D].

    The gradient of U is Σ_t h_{t-1}ᵀ ∂z_t, taken after the loop as one product; the
    scan's own would add up T matrices of U's size.

    >>> states(jnp.zeros((2, 1, 4)), jnp.zeros((1, 4))).shape
    (2, 1, 1)
    """
    return _states(z, u)


def _forward(z, u):
    h, back = jax.vjp(lambda z: _states(z, u), z)
    return h, (h, back)


def _backward(kept, dh):
    h, back = kept
    (dz,) = back(dh)
    return dz, jnp.einsum("tbd,tbg->dg", h[:-1], dz[1:])


states.defvjp(_forward, _backward)


class LSTMLayer(nn.Module):
    """h [T, B, D'] -> [T, B, D]."""

    width: int
    """D, the size of the state."""
    dtype: Any = None
    """The layer's type: bfloat16, or None for the parameters'."""

    def setup(self):
        self.dense = nn.Dense(4 * self.width, dtype=self.dtype)
        self.recurrent = self.param(
            "recurrent", orthogonal, (self.width, 4 * self.width)
        )

    def __call__(self, h):
        z = self.dense(h)
        return states(z, self.recurrent.astype(z.dtype))

    def start(self, num):
        """The state (h, c) before the first symbol."""
        h = jnp.zeros((num, self.width), self.dtype or self.recurrent.dtype)
        return h, at_least_float32(h)

    def decode(self, x, state):
        """The state after x [B, D']."""
        z = self.dense(x)
        return gates(z + state[0] @ self.recurrent.astype(z.dtype), state[1])


RematLSTMLayer = nn.remat(LSTMLayer)  # recomputed in the backward pass, not kept


class LSTM(nn.Module):
    """x int32 [B, T] -> features [B, T, features] of x_t from x_<t; any T.

    Cells and the output are float32 at least. The last layer's output is sown as
    "features".
    """

    features: int
    """F, the head's features of a symbol."""
    vocabulary: int = 256
    """The number of symbols; symbol number `vocabulary` is the start."""
    width: int = 256
    """D, the size of each layer's state."""
    layers: int = 2
    """The number of layers."""
    dropout: float = 0.0
    """The rate of dropout on each layer's output."""
    condition: Condition = Nothing()
    """What c holds: labels and scalars."""
    dtype: Any = None
    """The layers' type: bfloat16, or None for the parameters'."""
    remat: bool = False
    """Whether the backward pass recomputes each layer instead of keeping it."""
    row_length = None  # nothing can be computed for several symbols at once

    def setup(self):
        refuse_parts(self.condition, (Labels, Scalar), "an LSTM")
        self.before = ShiftedEmbedding(
            self.vocabulary, self.width, self.condition, self.dtype
        )
        kind = RematLSTMLayer if self.remat else LSTMLayer
        self.memories = [kind(self.width, self.dtype) for _ in range(self.layers)]
        self.drop, self.out = nn.Dropout(self.dropout), nn.Dense(self.features)

    def __call__(self, x: Array, c: Given | None = None, train: bool = False) -> Array:
        chex.assert_rank(x, 2)
        h = jnp.swapaxes(self.before(x, c), 0, 1)
        for memory in self.memories:
            h = self.drop(memory(h), deterministic=not train)
        h = at_least_float32(jnp.swapaxes(h, 0, 1))
        self.sow("intermediates", "features", h)
        return self.out(h)

    def start(self, num: int, c: Given | None = None):
        """The states of all layers, and what the condition adds."""
        states = [memory.start(num) for memory in self.memories]
        return states, self.before.bias(c, num)

    def decode(self, symbol, t, cache, c: Given | None = None):
        """Features [B, F] at position t, after symbol x_{t-1} [B] (t = 0: any)."""
        old, bias = cache
        h, new = self.before.decode(symbol, t, bias), []
        for memory, state in zip(self.memories, old, strict=True):
            new.append(memory.decode(h, state))
            h = new[-1][0]
        return self.out(at_least_float32(h)), (new, bias)
