"""p(x_t | features): the conditional distribution of one symbol, its mass and its draw.

An autoregressive network answers every position with features; a head reads them as a
distribution of the symbol there. A symbol is one level (`Categorical`: a subpixel, a
byte, a token) or all channels of a pixel (`LogisticMixture`), of shape `symbol`.

A draw is a function of a key and the features, and the first maximum of logits plus
Gumbel noise (Gumbel 1954; Maddison, Tarlow and Minka 2014, arXiv:1411.0030): under one
key, equal features give equal symbols, in whatever order or batch they are computed.
Symbols that are `observed` are taken as `given`, and their mass is reported just so.
Tempering turns an autoregressive model into another one, so `log_prob` of a tempered
draw is that of the tempered conditional.
"""

import math
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gengen.errors import BadInput
from gengen.images import bin_width, to_unit
from gengen.losses.likelihood import discretized_logistic_log_prob
from gengen.scan import fold_in
from gengen.types import Array, static


@static
class Tempering:
    """softmax(logits / temperature), cut to its `top_k` largest and to its nucleus.

    The nucleus: the fewest symbols, largest first, whose mass reaches `top_p`; at least
    one. Equal logits at the border stay together. Raises BadInput out of range.
    Fan, Lewis and Dauphin 2018, arXiv:1805.04833; Holtzman et al. 2020,
    arXiv:1904.09751, equation 2.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        if not self.temperature >= jnp.finfo("float32").tiny:
            raise BadInput(
                f"temperature {self.temperature}: it must be above 0 (top_k=1 always "
                "takes the most probable symbol)"
            )
        if self.top_k is not None and self.top_k < 1:
            raise BadInput(f"top_k {self.top_k}: it must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise BadInput(f"top_p {self.top_p}: it must be above 0 and at most 1")

    def __call__(self, logits: Array) -> Array:
        """Logits [..., V] -> logits [..., V], -∞ where the symbol was cut."""
        # Below their maximum, so that none overflows where it is cold.
        logits = (logits - jnp.max(logits, -1, keepdims=True)) / self.temperature
        if self.top_k is None and self.top_p is None:
            return logits
        falling = -jnp.sort(-logits, axis=-1)
        keep = jnp.arange(logits.shape[-1]) < (self.top_k or logits.shape[-1])
        if self.top_p is not None:
            mass = jax.nn.softmax(jnp.where(keep, falling, -jnp.inf), axis=-1)
            keep &= jnp.cumsum(mass, axis=-1) - mass < self.top_p
        least = jnp.min(jnp.where(keep, falling, jnp.inf), axis=-1, keepdims=True)
        return jnp.where(logits >= least, logits, -jnp.inf)


PLAIN = Tempering()


def choose(keys: Array, logits: Array, given: Array, observed: Array) -> Array:
    """int32 [B]: a draw of softmax(logits [B, V]), or `given` where `observed`."""
    noise = jax.vmap(lambda key, row: jax.random.gumbel(key, row.shape))(keys, logits)
    return jnp.where(observed, given, jnp.argmax(logits + noise, axis=-1))


def log_mass(logits: Array, symbol: Array) -> Array:
    """log softmax(logits [..., V]) at symbol [...]."""
    log_p = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_p, symbol[..., None], axis=-1)[..., 0]


class Head(Protocol):
    """What a network's `features` mean; `symbol` is the shape of one symbol."""

    @property
    def features(self) -> int: ...

    @property
    def symbol(self) -> tuple[int, ...]: ...

    @property
    def levels(self) -> int: ...

    def log_prob(self, features: Array, symbol: Array) -> Array:
        """[..., F], int32 [..., *symbol] -> [..., *symbol] nats."""
        ...

    def draw(
        self, keys, features, given, observed, tempering: Tempering
    ) -> tuple[Array, Array]:
        """(int32 [B, *symbol], nats [B, *symbol]) from keys [B], features [B, F]."""
        ...


@static
class Categorical:
    """softmax(features) over `levels` symbols: no order, no shape, any distribution.

    van den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759, section 2.3.
    """

    levels: int = 256
    symbol = ()

    @property
    def features(self) -> int:
        """One logit a level."""
        return self.levels

    def log_prob(self, features, symbol):
        return log_mass(features, symbol)

    def draw(self, keys, features, given, observed, tempering=PLAIN):
        logits = tempering(features)
        symbol = choose(keys, logits, given, observed)
        return symbol, log_mass(logits, symbol)


@static
class LogisticMixture:
    """Σ_i π_i Π_c P_i(x_c | x_<c): all `channels` of a pixel share one component.

    P_i is a discretised logistic (`discretized_logistic_log_prob`) of scale s_i,c, and
    its mean is linear in the channels before: with x in [-1, 1],

        μ_i,c + Σ_{c' < c} tanh(κ_i,c,c') x_c'.

    features: π, μ, log s (at least -7) and κ of each component. The conditional of a
    channel is a mixture of the same logistics with the weights of the posterior,
    ∝ π_i Π_{c' < c} P_i(x_c'), which is how it is drawn and tempered.

    Salimans, Karpathy, Chen and Kingma 2017, arXiv:1701.05517, equations 1 to 3.
    """

    levels: int = 256
    channels: int = 3
    components: int = 10

    @property
    def symbol(self) -> tuple[int, ...]:
        """All channels."""
        return (self.channels,)

    @property
    def features(self) -> int:
        """A weight, and for each channel a mean, a scale and its coefficients."""
        c = self.channels
        return self.components * (1 + 2 * c + c * (c - 1) // 2)

    def _parts(self, features):
        """log π [..., K]; μ, log s [..., C, K]; tanh κ [..., C(C-1)/2, K]."""
        c = self.channels
        parts = features.reshape(*features.shape[:-1], -1, self.components)
        log_weight = jax.nn.log_softmax(parts[..., 0, :])
        mean, log_scale, coefficient = jnp.split(parts[..., 1:, :], [c, 2 * c], axis=-2)
        return log_weight, mean, jnp.maximum(log_scale, -7.0), jnp.tanh(coefficient)

    def _logistics(self, parts, symbol, c):
        """(mean, log s) [..., K] of channel c, given those before it in `symbol`."""
        _, mean, log_scale, coefficient = parts
        mean, first = mean[..., c, :], c * (c - 1) // 2
        for before in range(c):
            x = to_unit(symbol[..., before, None], self.levels)
            mean = mean + coefficient[..., first + before, :] * x
        return mean, log_scale[..., c, :]

    def _log_mass(self, level, logistic):
        """log P_i(level), [..., K], of level [...] and each logistic (mean, log s)."""
        every = jnp.broadcast_arrays(level[..., None], *logistic)
        return discretized_logistic_log_prob(*every, self.levels)

    def log_prob(self, features, symbol):
        parts = self._parts(features)
        joint, log_probs = parts[0], []
        for c in range(self.channels):
            before = jax.nn.logsumexp(joint, axis=-1)
            logistic = self._logistics(parts, symbol, c)
            joint += self._log_mass(symbol[..., c], logistic)
            log_probs.append(jax.nn.logsumexp(joint, axis=-1) - before)
        return jnp.stack(log_probs, axis=-1)

    def logits(self, log_weight, mean, log_scale):
        """log Σ_i w_i P_i of every level: [..., K] three times -> [..., levels]."""
        parts = (x[..., None, :] for x in (mean, log_scale))
        log_p = self._log_mass(jnp.arange(self.levels), parts)
        log_p = jax.nn.logsumexp(log_weight[..., None, :] + log_p, axis=-1)
        return log_p - jax.nn.logsumexp(log_weight, axis=-1, keepdims=True)

    def table(self, log_weight, mean, log_scale):
        """`logits` from differences of CDFs, faster: right to 1e-7 of mass.

        Which is all that a draw can see, until temperature raises what is rare.
        """
        edges = jnp.arange(1, self.levels) * bin_width(self.levels) - 1.0
        edges = edges - bin_width(self.levels) / 2
        at = (edges[:, None] - mean[..., None, :]) * jnp.exp(-log_scale[..., None, :])
        weight = jnp.exp(log_weight - jax.nn.logsumexp(log_weight, -1, keepdims=True))
        cdf = jnp.sum(weight[..., None, :] * jax.nn.sigmoid(at), axis=-1)
        ends = [(0, 0)] * (cdf.ndim - 1)
        cdf = jnp.pad(cdf, [*ends, (1, 0)])
        cdf = jnp.pad(cdf, [*ends, (0, 1)], constant_values=1.0)
        return jnp.log(jnp.maximum(jnp.diff(cdf), 0.0))

    def draw(self, keys, features, given, observed, tempering=PLAIN):
        parts = self._parts(features)
        every_level = self.table if tempering == PLAIN else self.logits
        joint, symbol, log_probs = parts[0], jnp.zeros_like(given), []
        for c in range(self.channels):
            logistic = self._logistics(parts, symbol, c)
            logits = tempering(every_level(joint, *logistic))
            channel = choose(fold_in(keys, c), logits, given[..., c], observed[..., c])
            symbol = symbol.at[..., c].set(channel)
            joint += self._log_mass(channel, logistic)
            log_probs.append(log_mass(logits, channel))
        if tempering == PLAIN:  # without the table's rounding
            return symbol, self.log_prob(features, symbol)
        return symbol, jnp.stack(log_probs, axis=-1)


def check_symbols(data: Array, shape: tuple[int, ...], levels: int) -> None:
    """BadInput for data that are not [B, *shape] of whole numbers 0 … levels - 1."""
    if data.shape[1:] != shape:
        raise BadInput(
            f"data of shape {data.shape[1:]} for a model of {shape}: make both for the "
            "same data"
        )
    if isinstance(data, jax.core.Tracer) or not data.size:
        return
    if not jnp.issubdtype(data.dtype, jnp.integer):
        raise BadInput(
            f"data of type {data.dtype}: symbols are whole numbers, 0 to {levels - 1}"
        )
    least, most = int(np.min(data)), int(np.max(data))
    if least < 0:
        raise BadInput(f"symbol {least} is out of range: the least is 0")
    if most >= levels:
        raise BadInput(
            f"symbol {most} is out of range: the model knows 0 to {levels - 1}, so "
            f"give it levels={most + 1} or more, or other data"
        )


def symbols_of(shape: tuple[int, ...], head: Head) -> int:
    """How many symbols an example of `shape` is; BadInput if the head does not fit."""
    size, each = math.prod(shape), math.prod(head.symbol)
    if head.symbol and head.symbol != tuple(shape[-1:]):
        raise BadInput(
            f"{shape[-1]} channels do not fit a head of {each}: give it channels="
            f"{shape[-1]}"
        )
    return size // each
