"""Multi-scale: a small image first, then the rest of a large one around its pixels.

The small image xˢ is every `factor`-th pixel of x, in rows and columns, so it is part
of x and the density stays exact:

    p(x) = p(xˢ) Π_{t not in xˢ} p(x_t | x_<t, xˢ).

One autoregressive model plays each factor. The second one's context is a map of the
size of x that an upsampling network makes of all of xˢ: what lies below and to the
right is thus known in coarse outline to every pixel. Where x_t is part of xˢ it is
known, has mass one, and is clamped in sampling.

van den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759, section 3.4.
"""

import math
from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gengen.heads import PLAIN, Tempering, check_symbols
from gengen.images import to_unit
from gengen.labels import given_labels, sample_labels
from gengen.losses.likelihood import per_example
from gengen.objective import Bind
from gengen.particles import check_particles, observed_mask, resampled
from gengen.scan import fold_in, sample_keys
from gengen.types import Array, BadInput, Completion, Model, static


@static
class Multiscale:
    """coarse: an `Autoregressive` of xˢ; fine: of x, whose network's context is a map.

    upsample: (xˢ in [-1, 1] [B, h, w, C], label [B] or None) -> map [B, H, W, D], the
    fine player's too. Labels, if the coarse model knows any, are told to both. Raises
    BadInput for a coarse model of another image.
    """

    coarse: Model
    fine: Model
    upsample: nn.Module
    factor: int = 2
    density: ClassVar[str] = "exact"
    likelihood_kind: ClassVar[str] = "exact"

    def __post_init__(self):
        h, w, c = self.fine.shape
        if self.factor < 2 or self.fine.num_classes:
            raise BadInput(
                f"factor={self.factor}, a fine model of {self.fine.num_classes} "
                "classes: the factor is 2 or more, and labels are the coarse model's "
                "and the map's"
            )
        small = -(-h // self.factor), -(-w // self.factor), c
        if self.coarse.shape != small or self.coarse.levels != self.fine.levels:
            raise BadInput(
                f"a coarse model of {self.coarse.shape} with {self.coarse.levels} "
                f"levels: one pixel in {self.factor} each way makes {small}, with "
                f"{self.fine.levels}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return self.fine.shape

    @property
    def levels(self) -> int:
        return self.fine.levels

    @property
    def num_classes(self) -> int:
        return self.coarse.num_classes

    def small(self, image: Array) -> Array:
        """xˢ of x, images [B, H, W, C] of anything."""
        return image[:, :: self.factor, :: self.factor]

    def place(self, small: Array) -> Array:
        """x of xˢ, zero elsewhere."""
        image = jnp.zeros((len(small), *self.shape), small.dtype)
        return image.at[:, :: self.factor, :: self.factor].set(small)

    def known(self) -> np.ndarray:
        """bool [1, H, W, C]: which dimensions of x are of xˢ."""
        mask = np.zeros((1, *self.shape), bool)
        self.small(mask)[...] = True
        return mask

    def _label(self, batch):
        if not self.num_classes:
            return None
        num = len(batch["image"])
        return given_labels(batch.get("label"), num, self.num_classes)

    def _coarse(self, params):
        return {"autoregressive": params["coarse"]}

    def _fine(self, params):
        return {"autoregressive": params["fine"]["net"]}

    def _coarse_batch(self, batch):
        return {**batch, "image": self.small(batch["image"])}

    def _fine_batch(self, upsample, batch):
        """The batch with a map as context, `upsample` of (xˢ, label)."""
        small = to_unit(jnp.asarray(self.small(batch["image"])), self.levels)
        context = upsample(small, self._label(batch))
        return {**batch, "context": context}

    def _upsample(self, params):
        return partial(self.upsample.apply, {"params": params["fine"]["upsample"]})

    def init(self, key, batch):
        key_coarse, key_up, key_fine = jax.random.split(key, 3)
        one = jax.tree.map(lambda a: a[:1], dict(batch))
        coarse, _ = self.coarse.init(key_coarse, self._coarse_batch(one))
        variables = {}

        def upsample(*args):
            context, new = self.upsample.init_with_output(key_up, *args)
            variables.update(new)
            return context

        fine, _ = self.fine.init(key_fine, self._fine_batch(upsample, one))
        both = {"net": fine["autoregressive"], "upsample": variables["params"]}
        return {"coarse": coarse["autoregressive"], "fine": both}, {}

    def losses(self):
        return {
            "coarse": Bind(Multiscale.coarse_loss, self),
            "fine": Bind(Multiscale.fine_loss, self),
        }

    def coarse_loss(self, params, state, batch, key):
        """-log p(xˢ) in nats a dimension of xˢ."""
        batch = self._coarse_batch(batch)
        return self.coarse.loss(self._coarse(params), state, batch, key)

    def fine_loss(self, params, state, batch, key):
        """-log p(x | xˢ) in nats a dimension of x that xˢ does not have."""
        log_p = self._log_rest(params, batch, train=True, rngs={"dropout": key})
        free = math.prod(self.shape) - math.prod(self.coarse.shape)
        nats = -jnp.mean(log_p) / free
        return nats, (state, {"bits_per_dim": nats / jnp.log(2.0)})

    def _log_rest(self, params, batch, **kwargs):
        """log p(x | xˢ) [B]."""
        batch = self._fine_batch(self._upsample(params), batch)
        x = self.fine.to_symbols(batch["image"])
        features = self.fine.features_of(
            self._fine(params), x, batch["context"], **kwargs
        )
        log_p = self.fine.head.log_prob(features, x)
        known = self.fine.in_order(self.known())
        return per_example(jnp.where(known, 0.0, log_p))

    def log_likelihood(self, params, state, batch, key):
        """log p(x) = log p(xˢ) + log p(x | xˢ): [B] nats, exact."""
        small = self._coarse_batch(batch)
        log_p = self.coarse.log_likelihood(self._coarse(params), state, small, key)
        return log_p + self._log_rest(params, batch)

    def features(self, params, state, batch, key) -> Array:
        """The fine network's, as in `Autoregressive.features`; of class 0."""
        batch = {**batch, "label": jnp.zeros(len(batch["image"]), jnp.int32)}
        batch = self._fine_batch(self._upsample(params), batch)
        return self.fine.features(self._fine(params), state, batch, key)

    def generate(
        self,
        params,
        keys: Array,
        label: Array | None = None,
        given: Array | None = None,
        observed: Array | None = None,
        tempering: Tempering = PLAIN,
        cached: bool = True,
    ) -> tuple[Array, Array]:
        """(levels int32 [B, H, W, C], log p of its dimensions [B, H, W, C]).

        given, observed (bool): [B, H, W, C], what is clamped; nothing if None.
        """
        if given is None:
            given = jnp.zeros((len(keys), *self.shape), jnp.int32)
            observed = jnp.zeros(given.shape, bool)
        how = {"tempering": tempering, "cached": cached}
        clamped = (self.coarse.in_order(self.small(x)) for x in (given, observed))
        small, log_small = self.coarse.generate(
            self._coarse(params), fold_in(keys, 0), label, *clamped, **how
        )
        small, log_small = map(self.coarse.from_symbols, (small, log_small))
        context = self._upsample(params)(to_unit(small, self.levels), label)
        known = self.known()
        given = jnp.where(known, self.place(small), given)
        clamped = map(self.fine.in_order, (given, known | observed))
        x, log_p = self.fine.generate(
            self._fine(params), fold_in(keys, 1), context, *clamped, **how
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
        label=None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        cached: bool = True,
    ):
        """[num, H, W, C] in [-1, 1]; all keywords are `Autoregressive.sample`'s."""
        keys = sample_keys(key, num, start_index)
        label = sample_labels(keys, label, self.num_classes)
        tempering = Tempering(temperature, top_k, top_p)
        x, _ = self.generate(params, keys, label, tempering=tempering, cached=cached)
        return to_unit(x, self.levels)

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
        **tempering,
    ) -> Completion:
        """As `Autoregressive.complete`; the order is that of xˢ, then of the rest."""
        check_symbols(batch["image"], self.shape, self.levels)
        data = jnp.asarray(batch["image"], jnp.int32)
        num = len(data)
        mask = observed_mask(observed, num, self.shape)
        rest = self.fine.in_order(mask)[:, ~self.fine.in_order(self.known())[0]]
        parts = self.coarse.in_order(self.small(mask)).reshape(num, -1), rest
        check_particles(particles, np.concatenate(parts, axis=1))
        label = self._label(batch)

        generate = partial(self.generate, params, tempering=Tempering(**tempering))
        rows = sample_keys(key, num, start_index), label, data, mask
        x, effective = resampled(generate, *rows, particles)
        return Completion(to_unit(x, self.levels), effective)

    def nfe(self, **options) -> int:
        """Passes of both networks a sample."""
        return self.coarse.nfe(**options) + self.fine.nfe(**options)
