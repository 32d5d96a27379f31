"""A softmax over levels: any distribution of one symbol."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from gengen.autoregressive.tempering import PLAIN, choose, log_mass
from gengen.images import to_unit
from gengen.observations.observation import check_shapes, clamped
from gengen.types import static


@static
class Categorical:
    """softmax(features) over the symbols 0 … levels - 1, which need no order.

    Layout of the features [F = levels]: the logit of every symbol, in their order.

    van den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759, section 2.3.

    >>> coin = Categorical(levels=2)
    >>> round(coin.log_prob({}, jnp.zeros(2), jnp.array(1)).item(), 4)
    -0.6931
    """

    levels: int = 256
    """The number of symbols: grey levels, bytes, a vocabulary, a codebook's entries."""
    symbol: ClassVar[tuple[int, ...]] = ()
    continuous: ClassVar[bool] = False
    sequential: ClassVar[bool] = False

    @property
    def features(self) -> int:
        """One logit per symbol."""
        return self.levels

    def init(self, key):
        """No parameters."""
        return {}

    def log_prob(self, params, features, data):
        """log softmax(features) at the symbol."""
        check_shapes(self, features, data)
        return log_mass(features, data)

    def sample(
        self, params, keys, features, given=None, observed=None, tempering=PLAIN
    ):
        """The Gumbel maximum of the tempered logits, and its log-probability."""
        given, observed = clamped(self, features, given, observed)
        logits = tempering(features)
        symbol = choose(keys, logits, given, observed)
        return symbol, log_mass(logits, symbol)

    def mean(self, params, features):
        """Σ p(k) (2k/(levels - 1) - 1); meaningful for symbols in order."""
        x = to_unit(jnp.arange(self.levels), self.levels)
        return jax.nn.softmax(features) @ x
