"""Draws of one symbol from logits: tempering, the Gumbel maximum, and its mass.

A draw is a function of a key and the logits: the first maximum of the logits plus
Gumbel noise (Gumbel 1954; Maddison, Tarlow and Minka 2014, arXiv:1411.0030). Equal
logits under one key give equal symbols, in whatever order or batch they are computed.
"""

import chex
import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.types import Array, static


@static
class Tempering:
    """softmax(logits / temperature), cut to its `top_k` largest and to its nucleus.

    The nucleus is the fewest symbols, largest first, whose mass reaches `top_p`; it has
    at least one. Equal logits at the border stay together. Tempering turns an
    autoregressive model into another one, so the log-probabilities of tempered draws
    are those of the tempered conditionals.

    Fan, Lewis and Dauphin 2018, arXiv:1805.04833; Holtzman et al. 2020,
    arXiv:1904.09751, equation 2.

    Raises:
        BadInput: for a value that is out of range.

    >>> Tempering(top_k=1)(jnp.array([0.0, 2.0, 1.0])).tolist()
    [-inf, 0.0, -inf]
    """

    temperature: float = 1.0
    """The divisor of the logits, above 0: below 1 sharpens, above 1 flattens."""
    top_k: int | None = None
    """The number of symbols that may be drawn; None keeps all."""
    top_p: float | None = None
    """The mass of the nucleus, in (0, 1]; None or 1 keeps all."""

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
        """Logits [..., V] -> logits [..., V], -∞ for every symbol that is cut."""
        chex.assert_type(logits, float)
        # The maximum is subtracted first, so that a low temperature cannot overflow.
        logits = (logits - jnp.max(logits, -1, keepdims=True)) / self.temperature
        nucleus = self.top_p is not None and self.top_p < 1
        if self.top_k is None and not nucleus:
            return logits
        falling = -jnp.sort(-logits, axis=-1)
        kept = jnp.arange(logits.shape[-1]) < (self.top_k or logits.shape[-1])
        if nucleus:
            kept &= self._in_nucleus(jnp.where(kept, falling, -jnp.inf))
        least = jnp.min(jnp.where(kept, falling, jnp.inf), axis=-1, keepdims=True)
        return jnp.where(logits >= least, logits, -jnp.inf)

    def _in_nucleus(self, falling: Array) -> Array:
        """Whether less than `top_p` lies before a symbol, from falling logits [..., V].

        Whichever of the masses before and after the border is the smaller is summed
        up: a float32 sum that is close to 1 has lost the symbols behind it.
        """
        mass = jax.nn.softmax(falling, axis=-1)
        if self.top_p <= 0.5:
            return jnp.cumsum(mass, axis=-1) - mass < self.top_p
        return jax.lax.cumsum(mass, mass.ndim - 1, reverse=True) > 1 - self.top_p


PLAIN = Tempering()


def choose(keys: Array, logits: Array, given: Array, observed: Array) -> Array:
    """A draw of softmax(logits) in each place, or `given` where `observed`.

    Args:
        keys: [B] keys, one per row.
        logits: float [B, ..., V].
        given: the observed symbols, int32 [B, ...].
        observed: bool [B, ...].

    Returns:
        The symbols, int32 [B, ...].

    >>> logits = jnp.array([[0.0, 99.0], [0.0, 99.0]])
    >>> seen = jnp.array([False, True])
    >>> choose(jax.random.split(jax.random.key(0)), logits, jnp.array([0, 0]), seen)
    Array([1, 0], dtype=int32)
    """
    chex.assert_type(logits, float)
    chex.assert_shape([given, observed], logits.shape[:-1])
    chex.assert_shape(keys, logits.shape[:1])
    noise = jax.vmap(lambda key, row: jax.random.gumbel(key, row.shape))(keys, logits)
    drawn = jnp.argmax(logits + noise, axis=-1).astype(given.dtype)
    return jnp.where(observed, given, drawn)


def log_mass(logits: Array, symbol: Array) -> Array:
    """log softmax(logits) at a symbol, in nats.

    Args:
        logits: float [..., V].
        symbol: integers [...], 0 to V - 1.

    >>> nats = log_mass(jnp.log(jnp.array([0.25, 0.75])), jnp.array(1))
    >>> round(nats.item(), 4)
    -0.2877
    """
    chex.assert_type([logits, symbol], [float, int])
    chex.assert_shape(symbol, logits.shape[:-1])
    log_p = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_p, symbol[..., None], axis=-1)[..., 0]
