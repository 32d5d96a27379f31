"""A mixture of discretised logistics, of all channels of a pixel jointly."""

import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from gengen.autoregressive.tempering import PLAIN, choose, log_mass
from gengen.errors import BadInput
from gengen.images import bin_width, to_unit
from gengen.losses.likelihood import discretized_logistic_log_prob
from gengen.observations.observation import check_shapes, clamped
from gengen.scan import fold_in
from gengen.types import static


@static
class LogisticMixture:
    """Σ_i π_i Π_c P_i(x_c | x_<c): all `channels` of a pixel share one component.

    P_i is a discretised logistic (`discretized_logistic_log_prob`) of scale s_i,c, and
    its mean is linear in the channels before: with x in [-1, 1],

        μ_i,c + Σ_{c' < c} tanh(κ_i,c,c') x_c'.

    The conditional of a channel is a mixture of the same logistics with the weights of
    the posterior, ∝ π_i Π_{c' < c} P_i(x_c'), which is how it is drawn and tempered.

    Layout of the features [F]: blocks of K = `components` numbers, in the order

        1 block            the logits of π
        C blocks           μ of channels 0 … C - 1
        C blocks           log s of channels 0 … C - 1, raised to -7 at least
        C (C - 1)/2 blocks κ of the pairs (c, c'): (1, 0), (2, 0), (2, 1), (3, 0), …

    Salimans, Karpathy, Chen and Kingma 2017, arXiv:1701.05517, equations 1 to 3.

    >>> LogisticMixture(levels=256, channels=3, components=10).features
    100
    """

    levels: int = 256
    """The number of levels of a channel."""
    channels: int = 3
    """C, the channels of a pixel."""
    components: int = 10
    """K, the logistics that are mixed."""
    continuous: ClassVar[bool] = False
    sequential: ClassVar[bool] = False

    @property
    def symbol(self) -> tuple[int, ...]:
        """All channels of a pixel."""
        return (self.channels,)

    @property
    def features(self) -> int:
        """K (1 + 2 C + C (C - 1)/2)."""
        c = self.channels
        return self.components * (1 + 2 * c + c * (c - 1) // 2)

    def init(self, key):
        """No parameters."""
        return {}

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
        """log P_i(level) of every component: [...], [..., K] twice -> [..., K]."""
        every = jnp.broadcast_arrays(level[..., None], *logistic)
        return discretized_logistic_log_prob(*every, self.levels)

    def log_prob(self, params, features, data):
        """log p(x_c | x_<c) of every channel; their sum is the pixel's."""
        check_shapes(self, features, data)
        parts = self._parts(features)
        joint, log_probs = parts[0], []
        for c in range(self.channels):
            before = jax.nn.logsumexp(joint, axis=-1)
            logistic = self._logistics(parts, data, c)
            joint += self._log_mass(data[..., c], logistic)
            log_probs.append(jax.nn.logsumexp(joint, axis=-1) - before)
        return jnp.stack(log_probs, axis=-1)

    def logits(self, log_weight, mean, log_scale):
        """log Σ_i w_i P_i of every level: [..., K] three times -> [..., levels]."""
        every = jnp.arange(self.levels)
        log_p = self._log_mass(every, (mean[..., None, :], log_scale[..., None, :]))
        log_p = jax.nn.logsumexp(log_weight[..., None, :] + log_p, axis=-1)
        return log_p - jax.nn.logsumexp(log_weight, axis=-1, keepdims=True)

    def _cdf(self, log_weight, mean, log_scale):
        """P(x below the edge) at the edges between levels, [..., levels - 1]."""
        edges = jnp.arange(1, self.levels) * bin_width(self.levels) - 1.0
        edges = edges - bin_width(self.levels) / 2
        at = (edges[:, None] - mean[..., None, :]) * jnp.exp(-log_scale[..., None, :])
        weight = jnp.exp(log_weight - jax.nn.logsumexp(log_weight, -1, keepdims=True))
        return jnp.sum(weight[..., None, :] * jax.nn.sigmoid(at), axis=-1)

    def table(self, log_weight, mean, log_scale):
        """`logits` from differences of CDFs: faster, and right to 1e-7 of mass.

        Draws cannot see a smaller error, unless a temperature raises rare levels.
        """
        cdf = self._cdf(log_weight, mean, log_scale)
        ends = [(0, 0)] * (cdf.ndim - 1)
        cdf = jnp.pad(cdf, [*ends, (1, 0)])
        cdf = jnp.pad(cdf, [*ends, (0, 1)], constant_values=1.0)
        return jnp.log(jnp.maximum(jnp.diff(cdf), 0.0))

    def sample(
        self, params, keys, features, given=None, observed=None, tempering=PLAIN
    ):
        """Channel by channel, each from its conditional given those before it."""
        given, observed = clamped(self, features, given, observed)
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
            return symbol, self.log_prob(params, features, symbol)
        return symbol, jnp.stack(log_probs, axis=-1)

    def mean(self, params, features):
        """E[x_c] = Σ p(x_<c) E[x_c | x_<c], by enumeration of the channels before.

        That is levels^(C - 1) terms, one after the other: 65,536 for colours of 256
        levels. Raises BadInput for more.
        """
        before = self.levels ** (self.channels - 1)
        if before > 2**16:
            raise BadInput(
                f"the mean of {self.channels} channels of {self.levels} levels is a "
                f"sum of {before:,} terms: draw samples and take their mean, or take "
                "fewer levels"
            )
        parts = self._parts(features)
        every = itertools.product(range(self.levels), repeat=self.channels - 1)
        every = np.array(list(every), np.int32).reshape(before, self.channels - 1)

        def add(total, symbol):
            joint = parts[0]
            for c, level in enumerate(symbol):
                logistic = self._logistics(parts, symbol, c)
                joint += self._log_mass(level, logistic)
            last = self._logistics(parts, symbol, self.channels - 1)
            above = jnp.sum(1.0 - self._cdf(joint, *last), axis=-1)  # E[k]
            x = jnp.broadcast_to(
                to_unit(symbol, self.levels), (*above.shape, len(symbol))
            )
            x = jnp.append(x, above[..., None] * bin_width(self.levels) - 1.0, axis=-1)
            weight = jnp.exp(jax.nn.logsumexp(joint, axis=-1, keepdims=True))
            return total + weight * x, None

        start = jnp.zeros((*features.shape[:-1], self.channels), features.dtype)
        return jax.lax.scan(add, start, every)[0]
