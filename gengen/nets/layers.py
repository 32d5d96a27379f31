"""What several architectures share: norms that explain themselves, embeddings."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.nets.normalization import GroupNorm
from gengen.nets.strided import Conv, ConvTranspose
from gengen.types import Array, BadInput

# Initialisers live at module scope: a fresh closure would make equal modules unequal.
zeros = nn.initializers.zeros
dcgan_normal = nn.initializers.normal(0.02)
normal = nn.initializers.normal(1.0)  # what a layer takes for its input


def group_norm(channels: int, groups: int, dtype: Any = None) -> GroupNorm:
    """`GroupNorm`, or a BadInput that names the channels that do not divide."""
    if channels % groups:
        raise BadInput(
            f"{channels} channels cannot be normalised in {groups} groups: choose a "
            f"number of channels that is a multiple of {groups}"
        )
    return GroupNorm(groups, dtype)


class Layers(NamedTuple):
    """The layers of a network that computes in one dtype; parameters are float32.

    None computes in float32. In bfloat16 the statistics of norms are float32 all the
    same, and so is whatever a network keeps outside these layers: its output, time.
    """

    dense: Callable
    conv: Callable
    conv_transpose: Callable
    norm: Callable  # channels -> GroupNorm


def layers(dtype: Any, groups: int = 1) -> Layers:
    """nn.Dense, `Conv`, `ConvTranspose` and `group_norm` with their dtype bound."""
    kinds = (nn.Dense, Conv, ConvTranspose)
    made = [functools.partial(kind, dtype=dtype) for kind in kinds]
    return Layers(*made, functools.partial(group_norm, groups=groups, dtype=dtype))


def halvings(side: int, times: int, what: str) -> int:
    """side / 2^times, or a BadInput that names the side that does not divide."""
    if side % 2**times:
        raise BadInput(
            f"{what} halves its images {times} times, which a side of {side} pixels "
            f"does not allow: use a multiple of {2**times}, or fewer halvings"
        )
    return side // 2**times


def beside(h: Array, label: Array | None, num_classes: int) -> Array:
    """h [B, D] and the label's one-hot vector [B, D + classes]; h if no classes."""
    if num_classes == 0:
        return h
    return jnp.concatenate([h, context_vector(label, num_classes)], axis=-1)


def sinusoidal_embedding(
    position: Array, dim: int, max_period: float = 10_000.0
) -> Array:
    """Positions [...] -> [..., dim]: cos and sin at geometric frequencies.

    Vaswani et al. 2017, arXiv:1706.03762, section 3.5. Raises BadInput for an odd dim.
    """
    if dim % 2:
        raise BadInput(
            f"{dim} features cannot be pairs of cos and sin: take an even number"
        )
    frequency = max_period ** (-jnp.arange(dim // 2) / (dim // 2))
    angle = jnp.asarray(position)[..., None] * frequency
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def time_embedding(t: Array, dim: int) -> Array:
    """Times [B] in [0, 1] -> [B, dim]: `sinusoidal_embedding` of the step number 1000 t.

    Ho et al. 2020, arXiv:2006.11239, appendix B.
    """
    return sinusoidal_embedding(1000.0 * t, dim)


def context_vector(context: Array | None, num_classes: int) -> Array | None:
    """Labels int32 [B] as one-hot [B, classes]; any other context as it is."""
    if num_classes and (context is None or context.ndim != 1):
        raise BadInput(
            f"this network is conditional: give labels [B], 0 to {num_classes - 1}"
        )
    if not num_classes and context is not None and context.ndim < 2:
        raise BadInput(
            f"a context of shape {context.shape}: give vectors [B, D], or a network of "
            "labels"
        )
    return jax.nn.one_hot(context, num_classes) if num_classes else context


class Before(nn.Module):
    """x int32 [B, T] -> [B, T, D]: at t the embeddings of x_{t-1} and of the context.

    num_classes: the context is labels [B], else any vector [B, D'] or none. At the
    beginning stands symbol number `vocabulary`. One module for both views of an
    autoregressive network.
    """

    vocabulary: int
    width: int
    num_classes: int = 0
    dtype: Any = None

    def setup(self):
        self.symbol = nn.Embed(
            self.vocabulary + 1, self.width, self.dtype, embedding_init=normal
        )
        self.label = nn.Dense(self.width, use_bias=False, dtype=self.dtype)

    def __call__(self, x, context=None):
        x = jnp.pad(x[:, :-1], ((0, 0), (1, 0)), constant_values=self.vocabulary)
        label = self.start(context)
        return self.symbol(x) + (0 if label is None else label[:, None])

    def start(self, context):
        """What is added at every position, [B, D]; None without a context."""
        vector = context_vector(context, self.num_classes)
        if vector is not None and vector.ndim != 2:
            raise BadInput(
                f"a context of shape {vector.shape}: this network adds vectors [B, D]"
            )
        return None if vector is None else self.label(vector)

    def decode(self, symbol, t, label):
        """`__call__` at position t alone: [B, D]."""
        h = self.symbol(jnp.where(t == 0, self.vocabulary, symbol))
        return h if label is None else h + label


class Conditioning(nn.Module):
    """Times [B] and labels [B] -> one vector [B, dim]: the sum of both embeddings.

    Label `num_classes` is the null label of classifier-free guidance, and what no
    label means.
    """

    dim: int
    num_classes: int = 0

    @nn.compact
    def __call__(self, t: Array, label: Array | None = None) -> Array:
        h = nn.silu(nn.Dense(self.dim)(time_embedding(t, self.dim)))
        h = nn.Dense(self.dim)(h)
        if self.num_classes:
            if label is None:
                label = jnp.full(t.shape, self.num_classes)
            h = h + nn.Embed(self.num_classes + 1, self.dim)(label)
        return h
