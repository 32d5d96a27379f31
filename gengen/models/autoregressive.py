"""Autoregressive models: p(x) = Π_t p(x_t | x_<t), an exact density.

Any distribution is a product of conditionals, in any order. One network predicts them
all: its features at position t are a function of x_<t alone, because its masks, shifts
or recurrences let nothing else through, and a head (`gengen.heads`) reads them as the
distribution of x_t. In training all x_t are known, so one pass scores a whole
sequence (teacher forcing):

    log p(x) = Σ_t log p(x_t | features_t(x_<t)).

Sampling must go one symbol after the other, but need not start again at every symbol.
A network therefore has two views of one set of weights:

    net(x, context) -> features                     all positions, x [B, T, …] known
    net.start(num, context) -> cache
    net.turn(line, cache, context) -> cache         before each line of symbols
    net.decode(symbol, t, cache, context) -> (features_t, cache)   after symbol x_{t-1}

The law: the views agree. The cache is what it takes to extend by one symbol (keys and
values, the rows that a kernel looks back on, a recurrent state), so that all T steps
together cost about one pass. `line` is how many symbols a network calls a line (a
row of an image), None if it has none; what can be computed for a whole line at
once, it computes in `turn`.

Two more ways to the same sample: by passing over everything at every symbol (`cached=
False`: T passes, the oldest complaint of this field), or as the fixed point of

    x ← draw(features(x), noise),   the noise of every position fixed,        (Jacobi)

in which after k sweeps at least the first k symbols are those of the sequential
sample; where little depends on little, many more. Song, Meng, Liao and Ermon 2021,
arXiv:2002.03629, section 4.

Larochelle and Murray 2011 (NADE); van den Oord et al. 2016, arXiv:1601.06759; caches:
Ramachandran et al. 2017, arXiv:1704.06001.
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gengen.heads import PLAIN, Head, Tempering, check_symbols, symbols_of
from gengen.images import bits_name, to_unit
from gengen.labels import given_labels, sample_labels
from gengen.losses.likelihood import per_example
from gengen.objective import Bind
from gengen.particles import check_particles, observed_mask, resampled
from gengen.scan import fold_in, sample_keys, sample_scan
from gengen.types import Array, BadInput, Completion, static


class View(NamedTuple):
    """How to go on by one symbol; `line` symbols from one `turn` to the next."""

    start: Callable  # () -> cache
    turn: Callable  # (symbol, line number, cache) -> cache
    decode: Callable  # (symbol, t, cache) -> (features, cache)
    line: int


@static
class Autoregressive:
    """net (x, context) -> features of every position, and how to read them.

    shape: of an example, (H, W, C) levels or (L,) tokens, cut into T symbols of the
    head's shape, in raster order (row, column, channel). order: a permutation of
    0 … T-1, the position of the symbol that comes t-th; None for raster. num_classes:
    0 for unconditional, else the context is the label; without classes it is
    `batch["context"]`, if there is one.

    Raises BadInput for an order that is no permutation, a head that does not fit.
    """

    net: nn.Module
    head: Head
    shape: tuple[int, ...]
    num_classes: int = 0
    order: tuple[int, ...] | None = None
    density: ClassVar[str] = "exact"
    likelihood_kind: ClassVar[str] = "exact"

    def __post_init__(self):
        num = symbols_of(self.shape, self.head)
        if self.order is not None and sorted(self.order) != list(range(num)):
            raise BadInput(
                f"an order of {len(self.order)} places, {self.order[:8]} …: give a "
                f"permutation of 0 … {num - 1}, the symbols there are"
            )
        here = {"num_classes": self.num_classes, "shape": self.shape}
        here |= {"levels": self.levels, "vocabulary": self.levels, "length": num}
        for name, value in here.items():
            other = getattr(self.net, name, value)
            if other != value and not (name == "length" and other > value):
                raise BadInput(
                    f"a network of {name}={other} in a model of {name}={value}: make "
                    "both for the same data"
                )

    @property
    def levels(self) -> int:
        """Levels of an image, or the vocabulary."""
        return self.head.levels

    @property
    def length(self) -> int:
        """T, the symbols of an example."""
        return symbols_of(self.shape, self.head)

    def to_symbols(self, data: Array) -> Array:
        """[B, *shape] -> int32 [B, T, *symbol], in the order of play.

        Raises BadInput for data of another shape and, where values are known, for one
        that is not a symbol.
        """
        check_symbols(data, self.shape, self.levels)
        return self.in_order(jnp.asarray(data, jnp.int32))

    def in_order(self, data):
        """[B, *shape] -> [B, T, *symbol], in the order of play."""
        x = data.reshape(len(data), self.length, *self.head.symbol)
        return x if self.order is None else x[:, np.array(self.order)]

    def from_symbols(self, x: Array) -> Array:
        """int32 [B, T, *symbol] -> [B, *shape]."""
        if self.order is not None:
            x = x[:, np.argsort(self.order)]
        return x.reshape(x.shape[0], *self.shape)

    def to_data(self, x: Array) -> Array:
        """Symbols -> data space: images in [-1, 1], int32 tokens."""
        levels = self.from_symbols(x)
        return to_unit(levels, self.levels) if len(self.shape) == 3 else levels

    def context(self, batch) -> Array | None:
        """What the network is told beside x: labels, if it knows any."""
        if not self.num_classes:
            return batch.get("context")
        return given_labels(batch.get("label"), len(_data(batch)), self.num_classes)

    def init(self, key, batch):
        one = jax.tree.map(lambda a: a[:1], dict(batch))
        x = self.to_symbols(_data(one))
        params = self.net.init(key, x, self.context(one))["params"]
        return {"autoregressive": params}, {}

    def losses(self):
        return {"autoregressive": Bind(Autoregressive.loss, self)}

    def features_of(self, params, x, context=None, **kwargs) -> Array:
        """The parallel view: symbols [B, T, *symbol] -> [B, T, F]."""
        weights = {"params": params["autoregressive"]}
        features = self.net.apply(weights, x, context, **kwargs)
        if features.shape[2:] != (self.head.features,):
            raise BadInput(
                f"the network has features {features.shape[2:]} a symbol and the head "
                f"reads ({self.head.features},): give the network features="
                f"{self.head.features}, and a head of its own symbols (subpixels: "
                "Categorical)"
            )
        return features

    def loss(self, params, state, batch, key):
        """-log p(x) in nats a dimension, mean over the batch; dropout from the key."""
        x, rngs = self.to_symbols(_data(batch)), {"dropout": key}
        features = self.features_of(
            params, x, self.context(batch), train=True, rngs=rngs
        )
        nats = -jnp.mean(self.head.log_prob(features, x))
        return nats, (state, {bits_name(self.shape): nats / jnp.log(2.0)})

    def log_likelihood(self, params, state, batch, key):
        """log p(x | context): [B] nats, exact."""
        x = self.to_symbols(_data(batch))
        features = self.features_of(params, x, self.context(batch))
        return per_example(self.head.log_prob(features, x))

    def features(self, params, state, batch, key) -> Array:
        """The network's last hidden activations, their mean over positions [B, F].

        Needs a net that sows "features". Without a label in a conditional network,
        that of class 0 speaks. Chen et al. 2020 (image GPT), section 2.3.
        """
        x, context = self.to_symbols(_data(batch)), batch.get("context")
        if self.num_classes:
            context = jnp.zeros(x.shape[0], jnp.int32)
        weights = {"params": params["autoregressive"]}
        _, sown = self.net.apply(weights, x, context, mutable="intermediates")
        h = sown["intermediates"]["features"][0]
        return jnp.mean(h.reshape(h.shape[0], -1, h.shape[-1]), axis=1)

    def generate(
        self,
        params,
        keys: Array,
        context: Array | None = None,
        given: Array | None = None,
        observed: Array | None = None,
        tempering: Tempering = PLAIN,
        cached: bool = True,
    ) -> tuple[Array, Array]:
        """(symbols, their log-probabilities) [B, T, *symbol], one after the other.

        given, observed (bool): [B, T, *symbol], what is clamped; nothing if None.
        """
        num = keys.shape[0]
        if given is None:
            given = jnp.zeros((num, self.length, *self.head.symbol), jnp.int32)
            observed = jnp.zeros(given.shape, bool)
        view = (self.cached_view if cached else self.naive_view)(params, num, context)
        line = view.line

        def step(keys, carry, x):
            t, given, observed = x
            features, cache = view.decode(carry[0], t, carry[1])
            symbol, log_p = self.head.draw(keys, features, given, observed, tempering)
            return (symbol, cache), (symbol, log_p)

        def one_line(carry, i_xs):
            i, xs = i_xs
            symbol, cache = carry
            carry = symbol, view.turn(symbol, i, cache)
            return sample_scan(step, keys, carry, xs, start_index=i * line)

        def lines(x):  # [T, …] -> [lines, line, …]
            return x.reshape(-1, line, *x.shape[1:])

        xs = jnp.arange(self.length), jnp.moveaxis(given, 1, 0)
        xs = jax.tree.map(lines, (*xs, jnp.moveaxis(observed, 1, 0)))
        carry = jnp.zeros_like(given[:, 0]), view.start()
        _, emits = jax.lax.scan(one_line, carry, (jnp.arange(len(xs[0])), xs))
        x, log_p = (
            jnp.moveaxis(e.reshape(self.length, *e.shape[2:]), 0, 1) for e in emits
        )
        return x, log_p

    def cached_view(self, params, num: int, context: Array | None = None) -> View:
        """The network's own two views: the cache is what it takes to extend by one."""
        net = partial(self.net.apply, {"params": params["autoregressive"]})

        def start():
            return net(num, context, method="start")

        def turn(symbol, i, cache):
            if self.net.line is None:
                return cache
            return net(symbol, i, cache, context, method="turn")

        def decode(symbol, t, cache):
            return net(symbol, t, cache, context, method="decode")

        return View(start, turn, decode, self.net.line or self.length)

    def naive_view(self, params, num: int, context: Array | None = None) -> View:
        """The same, where the cache is x and every symbol costs a whole pass."""

        def start():
            return jnp.zeros((num, self.length, *self.head.symbol), jnp.int32)

        def decode(symbol, t, x):
            # At t = 0 this writes to the last position, which no features see.
            x = x.at[:, t - 1].set(symbol)
            return self.features_of(params, x, context)[:, t], x

        return View(start, lambda symbol, i, x: x, decode, self.length)

    def _context(self, keys, label, context):
        """The context of samples: labels as in `sample_labels`, or what was given."""
        label = sample_labels(keys, label, self.num_classes)
        if label is not None and context is not None:
            raise BadInput("the context of this model is the label: leave context out")
        if context is None:
            return label
        return jnp.broadcast_to(context, (len(keys), *jnp.shape(context)[1:]))

    def sample(
        self,
        params,
        state,
        key,
        num,
        *,
        start_index=0,
        label=None,
        context=None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        cached: bool = True,
    ):
        """[num, *shape] in data space, at about the cost of one pass over all symbols.

        label: int or [num], uniform if None. context: [num, …] or [1, …], of a network
        that has one. temperature, top_k, top_p: `Tempering`'s. cached=False: T passes.
        """
        keys = sample_keys(key, num, start_index)
        context = self._context(keys, label, context)
        tempering = Tempering(temperature, top_k, top_p)
        x, _ = self.generate(params, keys, context, tempering=tempering, cached=cached)
        return self.to_data(x)

    def sample_jacobi(
        self,
        params,
        state,
        key,
        num,
        *,
        start_index=0,
        label=None,
        context=None,
        **tempering,
    ) -> tuple[Array, Array]:
        """(`sample`'s own samples, sweeps): sweeps over all positions until none moves.

        At most T + 1 sweeps of one pass each, of which the last only confirms.
        """
        keys = sample_keys(key, num, start_index)
        context = self._context(keys, label, context)
        tempering = Tempering(**tempering)
        shape = (num, self.length, *self.head.symbol)
        free = (
            jnp.zeros(shape[:1] + shape[2:], int),
            jnp.zeros(shape[:1] + shape[2:], bool),
        )

        def draw(t, features):
            return self.head.draw(fold_in(keys, t), features, *free, tempering)[0]

        def sweep(carry):
            x, _, sweeps = carry
            features = self.features_of(params, x, context)
            new = jax.vmap(draw, (0, 1), 1)(jnp.arange(self.length), features)
            return new, jnp.any(new != x), sweeps + 1

        start = jnp.zeros(shape, jnp.int32), jnp.bool_(True), jnp.int32(0)
        x, _, sweeps = jax.lax.while_loop(lambda carry: carry[1], sweep, start)
        return self.to_data(x), sweeps

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
        """Samples of p(x | x_observed): what is observed stays, exactly.

        observed: bool, an array whose shape broadcasts to [B, *shape]; its values must
        be known. particles: how many draws are weighed against each other a row, see
        `gengen.particles`; one is enough, and exact, where what is observed is a
        beginning of the order, and BadInput elsewhere.
        """
        data = _data(batch)
        num = len(data)
        mask = self.in_order(observed_mask(observed, num, self.shape))
        check_particles(particles, mask.reshape(num, -1))
        context = self.context(batch)
        if context is not None:  # one for all, as in `sample`
            context = jnp.broadcast_to(context, (num, *context.shape[1:]))
        generate = partial(self.generate, params, tempering=Tempering(**tempering))
        rows = sample_keys(key, num, start_index), context, self.to_symbols(data), mask
        x, effective = resampled(generate, *rows, particles)
        return Completion(self.to_data(x), effective)

    def nfe(self, **options) -> int:
        """Passes over all symbols a sample: about one by the cache, T without."""
        return 1 if options.get("cached", True) else self.length


def _data(batch) -> Array:
    return batch["image"] if "image" in batch else batch["tokens"]
