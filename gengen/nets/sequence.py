"""Two networks for sequences: a recurrent memory, and a stack of dilated convolutions.

The LSTM carries all that it keeps of x_<t in a state of fixed size,

    i, f, o = σ(z_i), σ(z_f + 1), σ(z_o),  z = W x_t + U h_{t-1} + b,
    c_t = f ⊙ c_{t-1} + i ⊙ tanh(z_g),     h_t = o ⊙ tanh(c_t),

so that its cache is its state. Hochreiter and Schmidhuber 1997; the forget gate: Gers,
Schmidhuber and Cummins 2000; its bias of 1: Jozefowicz et al. 2015; layers of them over
bytes: Graves 2013, arXiv:1308.0850.

A WaveNet sees a window that doubles with every layer, for its kernels have two taps, d
symbols apart, d = 1, 2, 4, …:

    g = tanh(W_f * h) ⊙ σ(W_g * h),  h ← h + W_r g,  the output of Σ over layers W_s g.

van den Oord et al. 2016, arXiv:1609.03499, equation 2 and figure 4. What a tap of a
layer looks back on is a queue of its last d inputs: Paine et al. 2016 (Fast WaveNet),
arXiv:1611.09482.

Both embed the symbol before (at the beginning: a start symbol), and add the vector of a
class to it at every position.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.nets.layers import Before
from gengen.types import Array

orthogonal = nn.initializers.orthogonal(column_axis=-1)


# ------------------------------------------------------------- LSTM


def gates(z: Array, c: Array) -> tuple[Array, Array]:
    """(h, c) after the pre-activations z [B, 4 D] (i, f, g, o): both [B, D]."""
    i, f, g, o = jnp.split(z.astype(jnp.float32), 4, axis=-1)
    c = jax.nn.sigmoid(f + 1.0) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return (jax.nn.sigmoid(o) * jnp.tanh(c)).astype(z.dtype), c


def _states(z, u):
    def step(state, z):
        state = gates(z + state[0] @ u, state[1])
        return state, state[0]

    num, width = z.shape[1], u.shape[0]
    start = jnp.zeros((num, width), z.dtype), jnp.zeros((num, width))
    return jax.lax.scan(step, start, z)[1]


@jax.custom_vjp
def states(z: Array, u: Array) -> Array:
    """h [T, B, D] of an LSTM from W x + b, z [T, B, 4 D], and U [D, 4 D].

    The gradient of U is Σ_t h_{t-1}ᵀ ∂z_t, taken after the loop as one product; the
    scan's own would add up T matrices of U's size.
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
    dtype: Any = None

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
        return jnp.zeros((num, self.width), self.dtype), jnp.zeros((num, self.width))

    def decode(self, x, state):
        """The state after x [B, D']."""
        z = self.dense(x)
        return gates(z + state[0] @ self.recurrent.astype(z.dtype), state[1])


RematLSTMLayer = nn.remat(LSTMLayer)  # recomputed in the backward pass, not kept


class LSTM(nn.Module):
    """x int32 [B, T] -> features [B, T, features] of x_t from x_<t; any T.

    vocabulary: symbols 0 … vocabulary-1. num_classes: the context is labels [B],
    else any vector [B, D'] or none. dropout: of what each layer hands on. dtype: of the
    layers, bfloat16 or None for float32; cells and the output are float32. remat:
    recompute each layer in the backward pass instead of keeping it. The last layer's
    output is sown as "features".
    """

    features: int
    vocabulary: int = 256
    width: int = 256
    layers: int = 2
    dropout: float = 0.0
    num_classes: int = 0
    dtype: Any = None
    remat: bool = False
    line = None  # nothing can be computed for several symbols at once

    def setup(self):
        self.before = Before(self.vocabulary, self.width, self.num_classes, self.dtype)
        kind = RematLSTMLayer if self.remat else LSTMLayer
        self.memories = [kind(self.width, self.dtype) for _ in range(self.layers)]
        self.drop, self.out = nn.Dropout(self.dropout), nn.Dense(self.features)

    def __call__(self, x, context=None, train: bool = False):
        h = jnp.swapaxes(self.before(x, context), 0, 1)
        for memory in self.memories:
            h = self.drop(memory(h), deterministic=not train)
        h = jnp.swapaxes(h, 0, 1).astype(jnp.float32)
        self.sow("intermediates", "features", h)
        return self.out(h)

    def start(self, num: int, context=None):
        """The states of all layers, and the class's vector."""
        return [memory.start(num) for memory in self.memories], self.before.start(
            context
        )

    def decode(self, symbol, t, cache, context=None):
        """Features [B, F] at position t, after symbol x_{t-1} [B] (t = 0: any)."""
        old, label = cache
        h, new = self.before.decode(symbol, t, label), []
        for memory, state in zip(self.memories, old, strict=True):
            new.append(memory.decode(h, state))
            h = new[-1][0]
        return self.out(h.astype(jnp.float32)), (new, label)


# ------------------------------------------------------------- WaveNet


class Dilated(nn.Module):
    """h [B, T, D] -> (h [B, T, D], skip [B, T, D]): one gated residual unit."""

    width: int
    dilation: int
    dropout: float = 0.0
    dtype: Any = None

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

    def start(self, num: int):
        """A queue of zeros [d + 1, B, D]."""
        return jnp.zeros((self.dilation + 1, num, self.width), self.dtype)

    def decode(self, h, t, queue):
        """`__call__` at position t alone: h [B, D].

        The queue is written before it is read: the other way round, XLA copies it.
        """
        now, ago = t % len(queue), (t + 1) % len(queue)
        queue = jax.lax.dynamic_update_index_in_dim(queue, h, now, 0)
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

    The dilations of layers are in turn 1, 2, 4, …, 2^(cycle-1), and again; x_t depends
    on as many symbols before it as they sum up to, and one. vocabulary, num_classes,
    dtype, remat: as of `LSTM`. dropout: of the gates' output. The sum of skips,
    rectified, mixed and rectified, is sown as "features".
    """

    features: int
    vocabulary: int = 256
    width: int = 128
    layers: int = 8
    cycle: int = 8
    dropout: float = 0.0
    num_classes: int = 0
    dtype: Any = None
    remat: bool = False
    line = None  # nothing can be computed for several symbols at once

    def setup(self):
        self.before = Before(self.vocabulary, self.width, self.num_classes, self.dtype)
        kind = RematDilated if self.remat else Dilated
        self.units = [
            kind(self.width, 2 ** (i % self.cycle), self.dropout, self.dtype)
            for i in range(self.layers)
        ]
        self.mix, self.out = nn.Dense(self.width), nn.Dense(self.features)

    def __call__(self, x, context=None, train: bool = False):
        h, total = self.before(x, context), 0.0
        for unit in self.units:
            h, skip = unit(h, train)
            total += skip
        h = self._hidden(total)
        self.sow("intermediates", "features", h)
        return self.out(h)

    def _hidden(self, total):
        return nn.relu(self.mix(nn.relu(total.astype(jnp.float32))))

    def start(self, num: int, context=None):
        """The queues of all units, and the class's vector."""
        return [unit.start(num) for unit in self.units], self.before.start(context)

    def decode(self, symbol, t, cache, context=None):
        """Features [B, F] at position t, after symbol x_{t-1} [B] (t = 0: any)."""
        old, label = cache
        h, total, new = self.before.decode(symbol, t, label), 0.0, []
        for unit, queue in zip(self.units, old, strict=True):
            h, skip, queue = unit.decode(h, t, queue)
            total += skip
            new.append(queue)
        return self.out(self._hidden(total)), (new, label)
