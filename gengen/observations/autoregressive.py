"""Pixels that know one another: an autoregressive network, given a decoder's map.

    log p(x | z) = Σ_t log p(x_t | x_<t, h),    h = decoder(z), a map

Every other observation has independent symbols given the features, so what pixels have
in common must go through z. This one can say anything of x by itself, and then it
ignores z: the bound is best at KL 0 if the network alone models p(x) as well (Chen et
al. 2017, arXiv:1611.02731, section 2). What keeps z alive is what the network cannot
see or the bound does not charge:

- a small reach: `window` and few `blocks` of the PixelCNN leave to z whatever is
  further apart than the pixels that it sees;
- `ELBO(free_nats=…)`: so much KL costs nothing, so it is used;
- a beta that rises from 0 (`Ramp`): z is in use before the network can do without.

Gulrajani et al. 2017, arXiv:1611.05013 (PixelVAE); van den Oord et al. 2016,
arXiv:1606.05328, section 2.3 (a PixelCNN given a map).
"""

import math
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gengen.autoregressive import decoding
from gengen.autoregressive.tempering import PLAIN
from gengen.conditions import Maps
from gengen.errors import BadInput
from gengen.images import to_unit
from gengen.observations.observation import Observation
from gengen.types import static


@static
class AutoregressivePixels:
    """A PixelCNN given the map [H, W, F] that a decoder makes of z; its parameters.

    Images only. Its mean has no closed form; a draw stands for it, whose randomness is
    the same for every image, so that it is a function of the map alone.

    Raises BadInput for a network that is not conditioned on one map of its image's
    size, and for a head that does not read single symbols.
    """

    net: Any
    """A network with both views, such as `GatedPixelCNN`, of condition Maps((H, W, F),
    key="features")."""
    head: Observation
    """What the network's features of a channel of a pixel are read as; discrete."""
    continuous: ClassVar[bool] = False
    sequential: ClassVar[bool] = True

    def __post_init__(self):
        if self.head.continuous or self.head.symbol:
            raise BadInput(
                f"{type(self.head).__name__} as the head of autoregressive pixels: "
                "take one that reads levels one by one, such as Categorical"
            )
        condition, side = self.net.condition, tuple(self.net.shape[:2])
        if not isinstance(condition, Maps) or condition.shape[:2] != side:
            raise BadInput(
                f"the {type(self.net).__name__} is conditioned on {condition}: give "
                f"it Maps(({side[0]}, {side[1]}, F)), the features of a decoder"
            )

    @property
    def symbol(self) -> tuple[int, ...]:
        """The channels of a pixel, whose features are read together."""
        return self.net.shape[2:]

    @property
    def features(self) -> int:
        """F, the channels of the map."""
        return self.net.condition.shape[-1]

    @property
    def levels(self) -> int:
        """Those of the head."""
        return self.head.levels

    def _given(self, features):
        return {self.net.condition.key: features}

    def init(self, key):
        """The network's parameters."""
        x = jnp.zeros((1, math.prod(self.net.shape)), jnp.int32)
        return self.net.init(key, x, self.net.condition.zeros(1))["params"]

    def log_prob(self, params, features, data):
        """log p(x_t | x_<t, features) of features [B, H, W, F], data [B, H, W, C]."""
        x = data.reshape(len(data), -1).astype(jnp.int32)
        out = self.net.apply({"params": params}, x, self._given(features))
        return self.head.log_prob({}, out, x).reshape(data.shape)

    def sample(
        self, params, keys, features, given=None, observed=None, tempering=PLAIN
    ):
        """Pixel after pixel by the network's cache; as a whole about one pass."""
        shape = (*features.shape[:-1], *self.symbol)
        if given is None:
            given, observed = jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool)
        num, length = len(features), math.prod(self.net.shape)
        apply = partial(self.net.apply, {"params": params})
        view = decoding.cached_view(
            apply, self.net.row_length, num, length, self._given(features)
        )
        draw = partial(self.head.sample, {}, tempering=tempering)
        flat = given.reshape(num, length), observed.reshape(num, length)
        x, log_p = decoding.generate(view, draw, keys, *flat)
        return x.reshape(shape), log_p.reshape(shape)

    def mean(self, params, features):
        """A draw in the place of E[x | features], with one key for all rows."""
        keys = jnp.broadcast_to(jax.random.key(0), features.shape[:1])
        return to_unit(self.sample(params, keys, features)[0], self.levels)
