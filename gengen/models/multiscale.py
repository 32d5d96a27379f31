"""Multi-scale: a small image first, then the rest of a large one around its pixels.

The small image xˢ is every `factor`-th pixel of x, in rows and columns, so it is part
of x and the density stays exact:

    p(x) = p(xˢ) Π_{t not in xˢ} p(x_t | x_<t, xˢ).

Each factor is one autoregressive model. The second one's condition is a map of the size
of x that an upsampling network makes of all of xˢ: what lies below and to the right is
thus known in coarse outline to every pixel. Where x_t is part of xˢ it is known, has
mass one, and is clamped in sampling.

van den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759, section 3.4.
"""

import math
from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gengen.autoregressive.clamping import check_particles, known_mask, resampled
from gengen.autoregressive.tempering import PLAIN, Tempering
from gengen.conditions import Condition, Given, Maps, parts_of
from gengen.errors import BadInput
from gengen.losses.likelihood import per_example
from gengen.nets.conditioning import agree
from gengen.objective import loss
from gengen.scan import fold_in, sample_keys
from gengen.spaces import Space
from gengen.types import Array, Completes, Completion, HasFeatures, Model, static


@static
class Multiscale(HasFeatures, Completes):
    """Two autoregressive models, of xˢ and of x given a map of xˢ.

    The condition is the coarse model's, and the upsampling network reads it as well.

    Raises:
        BadInput: for parts that are made for other images.
    """

    coarse: Model
    """An `Autoregressive` of xˢ."""
    fine: Model
    """An `Autoregressive` of x, whose condition is one `Maps` and nothing else."""
    upsample: nn.Module
    """(xˢ in [-1, 1] [B, h, w, C], c) -> the map; its weights are the fine player's."""
    factor: int = 2
    """The distance of the pixels of xˢ in x, 2 or more."""
    density: ClassVar[str] = "exact"
    likelihood_kind: ClassVar[str] = "exact"

    def __post_init__(self):
        h, w, c = self.fine.space.shape
        maps = parts_of(self.fine.condition)
        if self.factor < 2 or [type(part) for part in maps] != [Maps]:
            raise BadInput(
                f"factor={self.factor}, a fine model of {self.fine.condition}: the "
                "factor is 2 or more, and the fine model's condition is one Maps; give "
                "labels to the coarse model and to the upsampling network"
            )
        if maps[0].shape[:2] != (h, w):
            raise BadInput(
                f"a map of {maps[0].shape[:2]} places for an image of {(h, w)}: give "
                "the fine model a map of the image's size"
            )
        features = getattr(self.upsample, "features", maps[0].shape[2])
        if features != maps[0].shape[2]:
            raise BadInput(
                f"upsampling to {features} features for a map of {maps[0].shape[2]}: "
                "make both equal"
            )
        agree(self.upsample, self.condition)
        small = -(-h // self.factor), -(-w // self.factor), c
        coarse = self.coarse.space
        if coarse.shape != small or coarse.size != self.space.size:
            raise BadInput(
                f"a coarse model of {coarse.shape} with {coarse.size} levels: one "
                f"pixel in {self.factor} each way makes {small}, with {self.space.size}"
            )

    @property
    def space(self) -> Space:
        """The fine model's."""
        return self.fine.space

    @property
    def condition(self) -> Condition:
        """The coarse model's."""
        return self.coarse.condition

    def small(self, image: Array) -> Array:
        """xˢ of x, images [B, H, W, C] of anything."""
        return image[:, :: self.factor, :: self.factor]

    def place(self, small: Array) -> Array:
        """x of xˢ, zero elsewhere."""
        image = jnp.zeros((len(small), *self.space.shape), small.dtype)
        return image.at[:, :: self.factor, :: self.factor].set(small)

    def known(self) -> np.ndarray:
        """bool [1, H, W, C]: which dimensions of x are of xˢ."""
        mask = np.zeros((1, *self.space.shape), bool)
        self.small(mask)[...] = True
        return mask

    def _coarse(self, params):
        return {"autoregressive": params["coarse"]}

    def _fine(self, params):
        return {"autoregressive": params["fine"]["net"]}

    def _coarse_batch(self, batch):
        """The batch with xˢ in the place of x, of its own type."""
        return {**batch, self.coarse.space.key: self.small(self.space.data(batch))}

    def _map(self, params, small, c: Given) -> Given:
        """The fine model's condition, from levels xˢ and the coarse condition."""
        weights = {"params": params["fine"]["upsample"]}
        (name,) = self.fine.condition.names
        x = self.coarse.space.to_model(small)
        return {name: self.upsample.apply(weights, x, c)}

    def init(self, key, batch=None):
        """Parameters of both players; the batch, if there is one, is checked."""
        key_coarse, key_up, key_fine = jax.random.split(key, 3)
        if batch is not None:
            self.space.data(batch)
            self.condition.read(batch)
        coarse, _ = self.coarse.init(key_coarse)
        fine, _ = self.fine.init(key_fine)
        small, c = self.coarse.space.zeros(1), self.condition.zeros(1)
        upsample = self.upsample.init(key_up, small, c)["params"]
        both = {"net": fine["autoregressive"], "upsample": upsample}
        return {"coarse": coarse["autoregressive"], "fine": both}, {}

    def losses(self):
        return {
            "coarse": self.coarse_loss,
            "fine": self.fine_loss,
        }

    @loss
    def coarse_loss(self, params, state, batch, key):
        """-log p(xˢ) in nats per dimension of xˢ."""
        batch = self._coarse_batch(batch)
        return self.coarse.loss(self._coarse(params), state, batch, key)

    @loss
    def fine_loss(self, params, state, batch, key):
        """-log p(x | xˢ) in nats per dimension of x that xˢ does not have."""
        log_p = self._log_rest(params, batch, train=True, rngs={"dropout": key})
        free = math.prod(self.space.shape) - math.prod(self.coarse.space.shape)
        nats = -jnp.mean(log_p) / free
        return nats, (state, {"bits_per_dim": nats / jnp.log(2.0)})

    def _log_rest(self, params, batch, **kwargs):
        """log p(x | xˢ) [B]."""
        x = self.fine.read(batch)
        small = self.small(self.space.data(batch))
        c = self._map(params, small, self.condition.read(batch))
        features = self.fine.features_of(self._fine(params), x, c, **kwargs)
        log_p = self.fine.log_prob(features, x)
        known = self.fine.in_order(self.known())
        return per_example(jnp.where(known, 0.0, log_p))

    def log_likelihood(self, params, state, batch, key):
        """log p(x) = log p(xˢ) + log p(x | xˢ): [B] nats, exact."""
        small = self._coarse_batch(batch)
        log_p = self.coarse.log_likelihood(self._coarse(params), state, small, key)
        return log_p + self._log_rest(params, batch)

    def features(self, params, state, batch, key) -> Array:
        """The fine network's, as in `Autoregressive.features`; of class 0."""
        data = self.space.data(batch)
        c = self._map(params, self.small(data), self.condition.zeros(len(data)))
        return self.fine.hidden(self._fine(params), self.fine.read(batch), c)

    def generate(
        self,
        params,
        keys: Array,
        c: Given | None = None,
        given: Array | None = None,
        observed: Array | None = None,
        sampler: Tempering = PLAIN,
        cached: bool = True,
    ) -> tuple[Array, Array]:
        """Levels int32 [B, H, W, C], and log p of each dimension [B, H, W, C].

        The arguments are `Autoregressive.generate`'s; given and observed are images,
        [B, H, W, C].
        """
        if given is None:
            given = jnp.zeros((len(keys), *self.space.shape), jnp.int32)
            observed = jnp.zeros(given.shape, bool)
        how = {"sampler": sampler, "cached": cached}
        clamped = (self.coarse.in_order(self.small(x)) for x in (given, observed))
        small, log_small = self.coarse.generate(
            self._coarse(params), fold_in(keys, 0), c, *clamped, **how
        )
        small, log_small = map(self.coarse.from_symbols, (small, log_small))
        known = self.known()
        given = jnp.where(known, self.place(small), given)
        clamped = map(self.fine.in_order, (given, known | observed))
        fine_c = self._map(params, small, c)
        x, log_p = self.fine.generate(
            self._fine(params), fold_in(keys, 1), fine_c, *clamped, **how
        )
        x, log_p = map(self.fine.from_symbols, (x, log_p))
        return x, jnp.where(known, self.place(log_small), log_p)

    def sample(
        self,
        params,
        state,
        key,
        num,
        *,
        start_index=0,
        sampler: Tempering = PLAIN,
        cached: bool = True,
        **given,
    ):
        """[num, H, W, C] in [-1, 1]; all keywords are `Autoregressive.sample`'s."""
        keys = sample_keys(key, num, start_index)
        c = self.condition.given(given, num, keys)
        x, _ = self.generate(params, keys, c, sampler=sampler, cached=cached)
        return self.space.to_model(x)

    def complete(
        self,
        params,
        state,
        key,
        batch,
        observed,
        *,
        start_index=0,
        particles: int = 1,
        sampler: Tempering = PLAIN,
    ) -> Completion:
        """As `Autoregressive.complete`; the order is that of xˢ, then of the rest."""
        data, c = self.space.data(batch).astype(jnp.int32), self.condition.read(batch)
        num = len(data)
        mask = known_mask(self.space, observed, num)
        rest = self.fine.in_order(mask)[:, ~self.fine.in_order(self.known())[0]]
        parts = self.coarse.in_order(self.small(mask)).reshape(num, -1), rest
        check_particles(particles, np.concatenate(parts, axis=1))
        generate = partial(self.generate, params, sampler=sampler)
        rows = sample_keys(key, num, start_index), c, data, mask
        x, effective = resampled(generate, *rows, particles)
        return Completion(self.space.to_model(x), effective)

    def nfe(self, **options) -> int:
        """Passes of both networks per sample."""
        return self.coarse.nfe(**options) + self.fine.nfe(**options)
