"""The vocabulary every other file speaks: pytrees that flow, and two protocols.

Static things are frozen dataclasses, dynamic things are pytrees, and every
function between them is pure. A `static` dataclass is hashable and comparable, so
it is a safe static argument of `jax.jit`: rebuilding an equal one in a notebook
cell hits the compilation cache. Arrays live only in params, state, batch and key.
"""

import abc
import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax

from gengen.errors import BadInput

Array = jax.Array
Key = jax.Array  # a typed key, `jax.random.key(seed)`
Tree = Any

# player -> parameters: the only arrays ever differentiated.
Params = dict[str, Tree]
# Every other array a loss needs: batch statistics, codebooks, buffers.
# The train step adds the RESERVED entries, which losses may read, not write: "step"
# (int32 scalar), "ema" (averaged Params; the parameters without EMA) and "frozen"
# ({name: Variables}, arrays of other models that nothing changes).
State = dict[str, Tree]
# {"image": uint8 [B, H, W, C], "label": int32 [B], "tokens": int32 [B, L], ...}
Batch = Mapping[str, Array]
# Scalars; the train step prefixes them by player: "vae/kl".
Metrics = dict[str, Array]

RESERVED = ("step", "ema", "frozen")

static = dataclasses.dataclass(frozen=True)


def check_hashable(value: Any) -> None:
    """BadInput for a static value that holds a list or an array: no `jit` takes it.

    >>> check_hashable((1, "a"))
    """
    try:
        hash(value)
    except TypeError as error:
        raise BadInput(
            f"{type(value).__name__}(…) holds what cannot be hashed ({error}): give "
            "tuples in the place of lists, and no arrays"
        ) from error


class Variables(NamedTuple):
    """All arrays of a trained model, as its methods take them: `f(*variables, …)`.

    As state["frozen"][name] they are another model's, which losses and samplers read.
    """

    params: Params
    state: State


def frozen(state: State, name: str) -> Variables:
    """state["frozen"][name]; a BadInput says what is missing, or is no `Variables`."""
    held = state.get("frozen") or {}
    if name not in held:
        raise BadInput(
            f'state["frozen"] holds {", ".join(held) or "nothing"} and no {name}: give '
            f'{{**state, "frozen": {{"{name}": Variables(params, state)}}}}'
        )
    return check_frozen(held)[name]


def check_frozen(held: Mapping[str, Any] | None) -> dict[str, Variables]:
    """Frozen arrays by name, {} for None; BadInput unless each entry is Variables."""
    for name, value in (held or {}).items():
        if not isinstance(value, Variables):
            raise BadInput(
                f"frozen[{name!r}] is a {type(value).__name__}: make it "
                "gengen.types.Variables(params, state)"
            )
    return dict(held or {})


class Completion(NamedTuple):
    """Samples that agree with what was observed."""

    x: Array
    """The samples [B, …]."""
    effective: Array
    """The effective number of particles behind each sample, 1/Σ w² [B]; it is 0 if the
    tempered model gives what was observed no probability, for every particle."""


class LossFn(Protocol):
    """The one shape of every family's loss.

    `(params, state, batch, key) -> (loss, (state, metrics))` with a float32 scalar
    loss. Make it a `static` dataclass with `__call__`: then equal losses are equal.
    """

    def __call__(
        self, params: Params, state: State, batch: Batch, key: Key
    ) -> tuple[Array, tuple[State, Metrics]]: ...


class Model(Protocol):
    """A generative model: initial arrays, one loss a player, and a sampler.

    `density` is the taxonomy of generative models as a fact of the type: "exact"
    (tractable p(x)), "bound" (a lower bound on log p(x)) or "none" (samples only).
    `log_likelihood` raises BadInput where `density` is "none"; elsewhere there is,
    beside it, `likelihood_kind`, what it is: "exact", "ELBO", "IWAE-64", …; of a
    conditional model it is log p(x | c), c as the batch has it.

    What else it can do, it declares by inheriting from the capabilities below.
    """

    density: str
    space: Any  # a gengen.spaces.Space: what is generated
    condition: Any  # a gengen.conditions.Condition: what it depends on

    def init(self, key: Key, batch: Batch | None = None) -> tuple[Params, State]:
        """Parameters by player, and every other array; a batch is checked."""
        ...

    def losses(self) -> dict[str, LossFn]:
        """Player -> loss, in order of play."""
        ...

    def sample(
        self, params: Params, state: State, key: Key, num: int, **condition
    ) -> Array:
        """x [num, *shape] of the space; condition: c by name, else drawn. Sample i
        depends on (key, i) only; `start_index=n` numbers them from n on."""
        ...

    def log_likelihood(
        self, params: Params, state: State, batch: Batch, key: Key
    ) -> Array:
        """[B] nats of the *discrete* data: its log-probability or a lower bound."""
        ...


class InfersLabels(abc.ABC):
    """A model with a p(y|x), of `labels`: a `gengen.conditions.Labels`."""

    @abc.abstractmethod
    def log_prob_labels(self, params, state, batch: Batch, key: Key) -> Array:
        """log p(y|x) [B, classes] in nats."""


class Discriminative(InfersLabels):
    """A model of p(y|x) alone; its `sample` raises BadInput."""


class Guides(abc.ABC):
    """A model whose gradient guides a sampler to c, of `target`: a condition; `path` is
    that of the noise that it has seen, None of clean data alone."""

    @abc.abstractmethod
    def log_prob_at(self, params, state, z: Array, t: Array, c) -> Array:
        """log p(c | z) [B] nats, up to a constant, of noisy z at times t, [] or [B]."""


class Matches(abc.ABC):
    """A model of which x and c belong together; its `sample` raises BadInput."""

    @abc.abstractmethod
    def embeddings(self, params, state, batch: Batch) -> tuple[Array, Array]:
        """Unit vectors of a batch's x and of its c, each [B, D]."""

    def score(self, params, state, batch: Batch) -> Array:
        """The cosine of x and its own c, [B]: how well they fit."""
        x, c = self.embeddings(params, state, batch)
        return (x * c).sum(axis=-1)


class HasLatents(abc.ABC):
    """A model whose samples are a function of latents of shape `latent_shape`."""

    @abc.abstractmethod
    def from_latent(self, params, state, z: Array, **condition) -> Array:
        """Samples from latents [B, *latent_shape]; those drawn as below give p(x)."""

    def sample_latent(self, params, state, keys: Array) -> Array:
        """Latents of keys [B], standard normal unless the model says otherwise."""
        draw = partial(jax.random.normal, shape=self.latent_shape)
        return jax.vmap(draw)(keys)


class HasStyles(HasLatents):
    """A model that maps a latent to a style w for each of its layers."""

    num_styles: int
    """The layers that take a style."""

    @abc.abstractmethod
    def styles(self, params, state, z: Array, **condition) -> Array:
        """w [B, num_styles, D] of latents, the same one for every layer."""

    @abc.abstractmethod
    def mean_style(self, params, state) -> Array:
        """The mean of w over latents, [D]."""

    @abc.abstractmethod
    def from_styles(self, params, state, w: Array) -> Array:
        """Samples of styles [B, num_styles, D], which may differ between layers."""


class Inverts(abc.ABC):
    """A model that finds the latent of which a given sample is the function."""

    @abc.abstractmethod
    def to_latent(self, params, state, x: Array, **condition) -> Array:
        """Latents [B, *latent_shape] of samples."""


class Translates(abc.ABC):
    """A model of two domains, a and b; its `sample` raises BadInput."""

    @abc.abstractmethod
    def translate(self, params, state, x: Array, to: str = "b") -> Array:
        """x [B, *shape] of one domain as images of the domain `to`, "a" or "b"."""


class Encodes(abc.ABC):
    """A model with a posterior q(z|x) and a density p(x|z)."""

    @abc.abstractmethod
    def posterior(self, params, batch: Batch, train: bool = False):
        """(mean, logvar) of q(z|x), each [B, *latent_shape]."""

    @abc.abstractmethod
    def log_prob_given(self, params, batch: Batch, key: Key, train: bool = False):
        """The function z [B, Z] -> log p(x|z) [B] in nats."""

    @abc.abstractmethod
    def latents(self, params, mean: Array, logvar: Array):
        """The function z₀ -> (z, surplus) of another prior or a flow, see `elbo`."""


class HasCodes(abc.ABC):
    """An autoencoder whose latents are codes: a prior over them makes it a model."""

    @abc.abstractmethod
    def log_prob_by_place(self, params, state, batch: Batch, codes: Array, key: Key):
        """log p(x | codes) [B, *shape] in nats, codes int32 [B, *latent_shape].

        Summed over an example it is log p of its data; a symbol of several dimensions
        spreads its own over them.
        """

    def log_prob_of_codes(self, params, state, batch: Batch, codes: Array, key: Key):
        """log p(x | codes) [B] in nats, of codes int32 [B, *latent_shape]."""
        by_place = self.log_prob_by_place(params, state, batch, codes, key)
        return by_place.reshape(len(by_place), -1).sum(axis=-1)


class HasFeatures(abc.ABC):
    """A model with a representation."""

    @abc.abstractmethod
    def features(self, params, state, batch: Batch, key: Key) -> Array:
        """A representation of the batch, [B, F]."""


class Reconstructs(abc.ABC):
    """An autoencoder."""

    @abc.abstractmethod
    def reconstruct(self, params, state, batch: Batch, key: Key) -> Array:
        """The batch after encoding and decoding: images in [-1, 1]."""


class FirstStage:
    """A mark of autoencoders whose codes another draws: they show what they restore."""


class OnlyReconstructs(Reconstructs, FirstStage):
    """An autoencoder without p(z): its `sample` raises BadInput."""


def draws(model: Any) -> bool:
    """Whether `sample` draws: not of a classifier, an autoencoder, a translator, ….

    >>> draws(object())
    False
    """
    others = Discriminative, Matches, OnlyReconstructs, Translates
    return hasattr(model, "sample") and not isinstance(model, others)


class Completes(abc.ABC):
    """A model that draws what was not observed."""

    @abc.abstractmethod
    def complete(self, params, state, key: Key, batch: Batch, observed) -> Completion:
        """Samples that agree with the batch where `observed`."""
