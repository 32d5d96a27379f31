"""Autoregressive models: p(x) = Π_t p(x_t | x_<t), an exact density.

Any distribution is a product of conditionals, in any order. One network predicts them
all: its features at position t are a function of x_<t alone, because its masks, shifts
or recurrences let nothing else through. A head, which is a discrete observation
(`gengen.observations`), reads them as the distribution of x_t. In training all x_t are
known, so one pass scores a whole sequence (teacher forcing). Sampling goes one symbol
after the other, but need not start again at every symbol. A network therefore has two
views of one set of weights:

    net(x, c) -> features                           all positions, x [B, T, …] known
    net.start(num, c) -> cache
    net.start_row(symbol, i, cache, c) -> cache     before row i of symbols
    net.decode(symbol, t, cache, c) -> (features_t, cache)         after symbol x_{t-1}

The law is that both views agree. `row_length` is the number of symbols in a row of the
network (of an image), and None without rows; what can be computed for a whole row at
once is computed in `start_row`. `gengen.autoregressive.decoding` samples by either
view, or by Jacobi's sweeps.

Larochelle and Murray 2011 (NADE); van den Oord et al. 2016, arXiv:1601.06759.
"""

from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from gengen.autoregressive import decoding
from gengen.autoregressive.clamping import check_particles, known_mask, resampled
from gengen.autoregressive.decoding import View
from gengen.autoregressive.order import check_order, in_order, in_raster_order
from gengen.autoregressive.tempering import PLAIN, Tempering
from gengen.conditions import Condition, Given, Nothing
from gengen.errors import BadInput
from gengen.losses.likelihood import per_example
from gengen.nets.conditioning import agree, init_params
from gengen.objective import loss
from gengen.observations.observation import Observation, check_head, symbols_of
from gengen.scan import sample_keys
from gengen.spaces import Space
from gengen.types import Array, Completes, Completion, HasFeatures, static


@static
class Autoregressive(HasFeatures, Completes):
    """A network x, c -> features of every position, and how they are read.

    An example is cut into T symbols of the head's shape, in raster order (row, column,
    channel), or in the given order.

    Raises:
        BadInput: for an order that is no permutation, and for a network or a head that
            is made for other data.
    """

    net: nn.Module
    """The network, with both views."""
    head: Observation
    """What the features of a position are read as; discrete."""
    space: Space
    """What is generated: `Images`, or `Symbols`."""
    condition: Condition = Nothing()
    """What it depends on; the network's own."""
    order: tuple[int, ...] | None = None
    """A permutation of 0 … T-1: the position of the t-th symbol; None for raster."""
    density: ClassVar[str] = "exact"
    likelihood_kind: ClassVar[str] = "exact"

    def __post_init__(self):
        check_head(self.head, self.space)
        num = symbols_of(self.space.shape, self.head)
        check_order(self.order, num)
        here = {"shape": self.space.shape, "length": num}
        here |= {"levels": self.space.size, "vocabulary": self.space.size}
        here["features"] = self.head.features
        for name, value in here.items():
            other = getattr(self.net, name, value)
            if other != value and not (name == "length" and other > value):
                raise BadInput(
                    f"a network of {name}={other} in a model of {name}={value}: make "
                    "both for the same data"
                )
        agree(self.net, self.condition)

    @property
    def length(self) -> int:
        """T, the number of symbols of an example."""
        return symbols_of(self.space.shape, self.head)

    def read(self, batch) -> Array:
        """The batch's symbols, int32 [B, T, *symbol], in the model's order.

        Raises BadInput for what is not of the space.
        """
        return self.in_order(self.space.data(batch).astype(jnp.int32))

    def in_order(self, data):
        """[B, *shape] -> [B, T, *symbol], in the model's order."""
        x = data.reshape(len(data), self.length, *self.head.symbol)
        return in_order(x, self.order)

    def from_symbols(self, x: Array) -> Array:
        """[B, T, *symbol], in the model's order -> [B, *shape]."""
        return in_raster_order(x, self.order).reshape(len(x), *self.space.shape)

    def to_model(self, symbols: Array) -> Array:
        """Symbols, in the model's order -> x as samplers of the space return it."""
        return self.space.to_model(self.from_symbols(symbols))

    def init(self, key, batch=None):
        """Parameters; the batch, if there is one, is checked and not needed."""
        if batch is not None:
            self.space.data(batch)
            self.condition.read(batch)
        x = self.in_order(jnp.zeros((1, *self.space.shape), jnp.int32))
        params = init_params(self.net, key, x, self.condition.zeros(1))
        return {"autoregressive": params}, {}

    def losses(self):
        return {"autoregressive": self.loss}

    def features_of(self, params, x, c: Given | None = None, **kwargs) -> Array:
        """The parallel view: symbols [B, T, *symbol] -> [B, T, F]."""
        weights = {"params": params["autoregressive"]}
        features = self.net.apply(weights, x, c, **kwargs)
        if features.shape[2:] != (self.head.features,):
            raise BadInput(
                f"the network has features {features.shape[2:]} a symbol and the head "
                f"reads ({self.head.features},): give the network features="
                f"{self.head.features}, and a head of its own symbols (subpixels: "
                "Categorical)"
            )
        return features

    def log_prob(self, features: Array, x: Array) -> Array:
        """What the head says of symbols x: nats [B, T, *symbol]."""
        return self.head.log_prob({}, features, x)

    @loss
    def loss(self, params, state, batch, key):
        """-log p(x | c) in nats per dimension, mean over the batch.

        Dropout is drawn from the key.
        """
        x, rngs = self.read(batch), {"dropout": key}
        c = self.condition.read(batch)
        features = self.features_of(params, x, c, train=True, rngs=rngs)
        nats = -jnp.mean(self.log_prob(features, x))
        return nats, (state, {self.space.unit: nats / jnp.log(2.0)})

    def log_likelihood(self, params, state, batch, key):
        """log p(x | c): [B] nats, exact."""
        x = self.read(batch)
        features = self.features_of(params, x, self.condition.read(batch))
        return per_example(self.log_prob(features, x))

    def features(self, params, state, batch, key) -> Array:
        """The network's last hidden activations, their mean over positions [B, F].

        The network must sow "features". The condition is its zeros (class 0), as the
        batch's own would give the class away. Chen et al. 2020 (image GPT), 2.3.
        """
        x = self.read(batch)
        return self.hidden(params, x, self.condition.zeros(len(x)))

    def hidden(self, params, x: Array, c: Given) -> Array:
        """What the network sows as "features", averaged over positions: [B, F]."""
        weights = {"params": params["autoregressive"]}
        _, sown = self.net.apply(weights, x, c, mutable="intermediates")
        h = sown["intermediates"]["features"][0]
        return jnp.mean(h.reshape(h.shape[0], -1, h.shape[-1]), axis=1)

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
        """Symbols and their log-probabilities [B, T, *symbol], one after the other.

        Args:
            params: the model's parameters.
            keys: [B] keys.
            c: the condition of B rows.
            given: the clamped symbols [B, T, *symbol]; None clamps nothing.
            observed: which symbols are clamped, bool of the same shape.
            sampler: the tempering of every conditional.
            cached: whether the network's cache is used, or a pass for every symbol.
        """
        if given is None:
            given = jnp.zeros((len(keys), self.length, *self.head.symbol), jnp.int32)
            observed = jnp.zeros(given.shape, bool)
        view = (self.cached_view if cached else self.naive_view)(params, len(keys), c)
        draw = partial(self.head.sample, {}, tempering=sampler)
        return decoding.generate(view, draw, keys, given, observed)

    def cached_view(self, params, num: int, c: Given | None = None) -> View:
        """The network's own step-by-step view."""
        apply = partial(self.net.apply, {"params": params["autoregressive"]})
        row_length = self.net.row_length
        return decoding.cached_view(apply, row_length, num, self.length, c)

    def naive_view(self, params, num: int, c: Given | None = None) -> View:
        """The same by a whole pass per symbol."""
        shape = num, self.length, *self.head.symbol
        return decoding.naive_view(lambda x: self.features_of(params, x, c), shape)

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
        """x [num, *shape], at about the cost of one pass over all symbols.

        Args:
            params: the model's parameters.
            state: not used.
            key: sample i depends on (key, i) only.
            num: the number of samples.
            start_index: the number of the first sample.
            sampler: the tempering of every conditional.
            cached: whether the network's cache is used; False takes T passes.
            **given: the condition by name, one value or one per sample. A missing
                label is drawn uniformly; other missing entries are refused.
        """
        keys = sample_keys(key, num, start_index)
        c = self.condition.given(given, num, keys)
        x, _ = self.generate(params, keys, c, sampler=sampler, cached=cached)
        return self.to_model(x)

    def sample_jacobi(
        self,
        params,
        state,
        key,
        num,
        *,
        start_index=0,
        sampler: Tempering = PLAIN,
        **given,
    ) -> tuple[Array, Array]:
        """`sample`'s own samples by sweeps over all positions, and their number."""
        keys = sample_keys(key, num, start_index)
        c = self.condition.given(given, num, keys)

        def draw(keys, features):
            return self.head.sample({}, keys, features, tempering=sampler)[0]

        shape = num, self.length, *self.head.symbol
        predict = partial(self.features_of, params, c=c)
        x, sweeps = decoding.jacobi(predict, draw, keys, shape)
        return self.to_model(x), sweeps

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
        """Samples of p(x | x_observed, c): what is observed stays, exactly.

        Args, beside those of `sample`:
            batch: the data, of which the observed part is read, and the condition.
            observed: bool, of a shape that broadcasts to [B, *shape]; known values.
            particles: the number of draws that are weighed against each other per row,
                see `gengen.autoregressive.clamping`. One is enough, and exact, where
                what is observed is a beginning of the order; elsewhere it is refused.
        """
        x, c = self.read(batch), self.condition.read(batch)
        mask = self.in_order(known_mask(self.space, observed, len(x)))
        check_particles(particles, mask.reshape(len(x), -1))
        rows = sample_keys(key, len(x), start_index), c, x, mask
        generate = partial(self.generate, params, sampler=sampler)
        x, effective = resampled(generate, *rows, particles)
        return Completion(self.to_model(x), effective)

    def nfe(self, **options) -> int:
        """Passes over all symbols per sample: about one by the cache, T without."""
        return 1 if options.get("cached", True) else self.length
