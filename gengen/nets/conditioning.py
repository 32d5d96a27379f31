"""How a condition enters a network: as a vector, as tokens, or as a map beside x.

    Conditioning   time and every vector part -> one embedding [B, D], their sum
    Context        a sequence or a text -> tokens to attend to, and which are there
    flat           labels and scalars -> one vector [B, D], without parameters
    places         a map, or a vector at every place -> [B, H | 1, W | 1, D]

A network has a field `condition` and reads the entries of that condition alone; other
entries of c are not seen. A missing entry is null (`known`), so a conditional network
also runs without c.
"""

import inspect
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import (
    Condition,
    Given,
    Labels,
    Maps,
    Nothing,
    Scalar,
    Sequence,
    Text,
    both,
    parts_of,
)
from gengen.errors import BadInput
from gengen.nets.attention import Attention
from gengen.nets.layers import normal, sinusoidal_embedding, time_embedding
from gengen.types import Array, Key, Tree


def known(condition: Condition, c: Given | None, num: int) -> Given:
    """c with null entries where the network's own are missing.

    Raises BadInput for a missing entry that has no null, and for one of another shape
    or number of rows.
    """
    c = dict(c or {})
    for part in parts_of(condition):
        if part.key not in c:
            if not part.droppable:
                raise BadInput(
                    f"the network reads {part.key}, which has no null: give it in c"
                )
            c |= part.null(part.zeros(num))
            continue
        if not isinstance(part, Labels):  # of which null is none of the classes
            c[part.key] = part.checked(c[part.key])
        if len(c[part.key]) != num:
            raise BadInput(
                f"{part.key} has {len(c[part.key])} rows and x has {num}: give one row "
                "per example"
            )
    return c


def refuse_parts(condition: Condition, kinds: tuple[type, ...], network: str) -> None:
    """BadInput for a part that the network has no place for."""
    for part in parts_of(condition):
        if not isinstance(part, kinds):
            takes = ", ".join(kind.__name__ for kind in kinds)
            raise BadInput(f"{network} does not read {part}: it takes {takes}")


def agree(net, condition: Condition, *more: Condition) -> None:
    """BadInput if a network's own `condition` is not the model's.

    A network without such a field, a user's own, is trusted. more: conditions that the
    model adds to its own, such as a second time.
    """
    asked, every = getattr(net, "condition", None), both(condition, *more)
    if asked is None:
        return
    own, wanted = set(parts_of(asked)), set(parts_of(every))
    if own != wanted:
        reads, knows = (
            ", ".join(map(str, sorted(parts, key=str))) or "nothing"
            for parts in (own, wanted)
        )
        raise BadInput(
            f"the {type(net).__name__} is conditioned on {reads} and the model on "
            f"{knows}: give both the same condition"
        )


def init_params(net: nn.Module, key: Key, *arguments) -> Tree:
    """The parameters of a network, which a model calls as net(*arguments, train=...).

    Raises BadInput for a network, a user's own, that does not take these arguments, or
    that keeps something beside its parameters, such as the averages of a batch norm.

    Args:
        net: the network.
        key: for the initial values.
        *arguments: arrays of the shapes that it is called with, the condition last.

    >>> class Own(nn.Module):
    ...     def __call__(self, z, t):
    ...         return z
    >>> try:
    ...     init_params(Own(), jax.random.key(0), jnp.ones(1), jnp.ones(1), {})
    ... except BadInput as error:
    ...     print(str(error)[:35])
    Own.__call__(z, t) cannot be called
    """
    name, call = type(net).__name__, inspect.signature(net.__call__)
    try:
        call.bind(*arguments, train=False)
    except TypeError as error:
        takes = ", ".join(call.parameters)
        raise BadInput(
            f"{name}.__call__({takes}) cannot be called with {len(arguments)} arguments"
            " and train: give it the arguments that the model names, then c=None and "
            "train=False, used or not"
        ) from error
    variables = net.init(key, *arguments)
    if more := sorted(set(variables) - {"params", "intermediates"}):
        raise BadInput(
            f"{name} keeps {', '.join(more)} beside its parameters, which this model "
            "does not carry along: take a norm without averages, such as GroupNorm"
        )
    return variables.get("params", {})


def sequence_of(condition: Condition) -> Sequence | Text | None:
    """The one part that a network attends to, if there is one; BadInput for two."""
    parts = [p for p in parts_of(condition) if isinstance(p, Sequence | Text)]
    if len(parts) > 1:
        raise BadInput(
            f"a network attends to one sequence, not to {parts[0].key} and "
            f"{parts[1].key}: concatenate them before"
        )
    return parts[0] if parts else None


class Conditioning(nn.Module):
    """Times [B] and c -> one vector [B, dim]: the sum of all embeddings.

    A label is embedded (the null label, too), a time or a scalar goes through sinusoids
    and an MLP of two layers. Ho et al. 2020, arXiv:2006.11239, appendix B. The time has
    `waves` sinusoids, by default dim.
    """

    dim: int
    condition: Any = Nothing()
    waves: int | None = None
    max_period: float = 10_000.0

    @nn.compact
    def __call__(self, t: Array, c: Given | None = None) -> Array:
        waves = time_embedding(t, self.waves or self.dim, self.max_period)
        h = nn.silu(nn.Dense(self.dim)(waves))
        h = nn.Dense(self.dim)(h)
        c = known(self.condition, c, len(t))
        for part in parts_of(self.condition):
            if isinstance(part, Labels):
                h = h + nn.Embed(part.num + 1, self.dim)(c[part.key])
            elif isinstance(part, Scalar):
                waves = sinusoidal_embedding(part.unit * c[part.key], self.dim)
                h = h + nn.Dense(self.dim)(nn.silu(nn.Dense(self.dim)(waves)))
        return h


class Context(nn.Module):
    """c -> (tokens [B, 1 + S, D], which are there [B, 1 + S]); None without a sequence.

    First stands a learned null token, always there. A token of zeros of a `Sequence`,
    or the padding of a `Text`, is not: so texts of several lengths are padded, and a
    row without tokens, which is the null condition of classifier-free guidance (Ho and
    Salimans 2022, arXiv:2207.12598), still has something to attend to. A text is
    encoded by `blocks` of self-attention and an MLP behind that null token.
    """

    condition: Any = Nothing()

    @nn.compact
    def __call__(self, c: Given | None, num: int) -> tuple[Array, Array] | None:
        part = sequence_of(self.condition)
        if part is None:
            return None
        value = known(self.condition, c, num)[part.key]
        if isinstance(part, Text):
            tokens, there = nn.Embed(part.vocabulary, part.width)(value), value != 0
            places = jnp.arange(value.shape[1])
            tokens = tokens + sinusoidal_embedding(places, part.width)
        else:
            tokens, there = value, jnp.any(value != 0, axis=-1)
        null = self.param("null", normal, (1, 1, part.width))
        null = jnp.broadcast_to(null, (num, 1, part.width)).astype(tokens.dtype)
        tokens = jnp.concatenate([null, tokens], axis=1)
        there = jnp.pad(there, ((0, 0), (1, 0)), constant_values=True)
        for _ in range(part.blocks if isinstance(part, Text) else 0):
            h = nn.LayerNorm()(tokens)
            tokens = tokens + Attention(part.heads)(h, (h, there))
            h = nn.gelu(nn.Dense(2 * part.width)(nn.LayerNorm()(tokens)))
            tokens = tokens + nn.Dense(part.width)(h)
        return tokens, there


def flat(condition: Condition, c: Given | None, num: int) -> Array | None:
    """The labels, one-hot, and scalars of c as one vector [B, D]; None without any.

    The null label is the zero vector. Sequences and texts are no vectors and left out.
    """
    refuse_parts(condition, (Labels, Scalar, Sequence, Text), "this network")
    c, vectors = known(condition, c, num), []
    for part in parts_of(condition):
        if isinstance(part, Labels):
            vectors.append(jax.nn.one_hot(c[part.key], part.num))
        elif isinstance(part, Scalar):
            vectors.append(c[part.key][:, None])
    return jnp.concatenate(vectors, axis=-1) if vectors else None


def places(
    condition: Condition, c: Given | None, num: int, shape: tuple[int, int]
) -> Array | None:
    """c at every place, [B, H | 1, W | 1, D]: a map, or one vector for all places."""
    maps = [part for part in parts_of(condition) if isinstance(part, Maps)]
    if not maps:
        vector = flat(condition, c, num)
        return None if vector is None else vector[:, None, None]
    value = known(condition, c, num)[maps[0].key]
    if len(parts_of(condition)) > 1 or value.shape[1:3] != tuple(shape):
        raise BadInput(
            f"a map of {value.shape[1:3]} places for an image of {tuple(shape)}: give "
            "this network one map of the image's size, or vectors"
        )
    return value


def with_condition(h: Array, condition: Condition, c: Given | None) -> Array:
    """h [B, D] and `flat` of c, [B, D + D′]."""
    refuse_parts(condition, (Labels, Scalar), "this network")
    vector = flat(condition, c, len(h))
    return h if vector is None else jnp.concatenate([h, vector], axis=-1)


class ShiftedEmbedding(nn.Module):
    """x int32 [B, T] -> [B, T, D]: at t the embeddings of x_{t-1} and of c, `flat`.

    At the beginning stands the symbol `start`; by default one of its own, number
    `vocabulary`. One module serves both views of an autoregressive network.
    """

    vocabulary: int
    width: int
    condition: Any = Nothing()
    dtype: Any = None
    start: int | None = None
    embedding_init: Any = normal

    def setup(self):
        self.first = self.vocabulary if self.start is None else self.start
        rows = self.vocabulary + (self.start is None)
        self.symbol = nn.Embed(
            rows, self.width, self.dtype, embedding_init=self.embedding_init
        )
        self.label = nn.Dense(self.width, use_bias=False, dtype=self.dtype)

    def __call__(self, x: Array, c: Given | None = None) -> Array:
        bias = self.bias(c, len(x))
        x = jnp.pad(x[:, :-1], ((0, 0), (1, 0)), constant_values=self.first)
        return self.symbol(x) + (0 if bias is None else bias[:, None])

    def bias(self, c: Given | None, num: int) -> Array | None:
        """What is added at every position, [B, D]; None without a vector in c."""
        vector = flat(self.condition, c, num)
        return None if vector is None else self.label(vector)

    def decode(self, symbol: Array, t: Array, bias: Array | None) -> Array:
        """`__call__` at position t alone: [B, D]."""
        h = self.symbol(jnp.where(t == 0, self.first, symbol))
        return h if bias is None else h + bias
