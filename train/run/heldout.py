"""What a model is worth on data the run does not train on, while it trains."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from gengen.conditions import Nothing, labels_of
from gengen.errors import BadInput
from gengen.images import bits_name, bits_per_dim
from gengen.tasks.retrieval import Recall
from gengen.types import Discriminative, HasCodes, Matches, OnlyReconstructs

from ..data.dataset import Dataset, named
from ..data.feed import order
from .cache import compiled_quickly
from .codebook import encoder, use_of_codes
from .shared import shared_jit

EXAMPLES = 512


def with_importance_samples(model, importance_samples: int | None):
    """The model with another K of its likelihood's bound."""
    if importance_samples is None:
        return model
    if not hasattr(model, "importance_samples"):
        raise BadInput(
            f"--importance-samples {importance_samples}: a {type(model).__name__} has "
            "no such estimate; leave it out"
        )
    return dataclasses.replace(model, importance_samples=importance_samples)


def metric(model, shape) -> tuple[str, Callable] | None:
    """(name, (params, state, batch, key) -> [B]) of a model's per-example figure.

    Bits per dimension (of text, per byte) where there is a density, accuracy where
    there is p(y|x), the squared error of what only reconstructs, the mean recall of
    images and captions where these are matched.
    """
    if getattr(model, "density", "none") != "none":  # one's own need not say it

        def bits(*arguments):
            return bits_per_dim(model.log_likelihood(*arguments), shape)

        given = "".join(f"-given-{name}" for name in model.condition.names)
        unit = getattr(getattr(model, "space", None), "unit", bits_name(shape))
        return f"{unit}_{model.likelihood_kind}{given}", bits
    if isinstance(model, Discriminative):

        def right(params, state, batch, key):
            log_p = model.log_prob_labels(params, state, batch, key)
            return (jnp.argmax(log_p, axis=-1) == batch[model.labels.key]).astype(
                jnp.float32
            )

        return "accuracy", right
    if isinstance(model, OnlyReconstructs):
        return "squared_error", partial(squared_error, model)
    if isinstance(model, Matches):
        recall = Recall(model)
        return "recall", lambda *arguments: recall(*arguments).mean(axis=1)
    return None


def figure(model, shape, params, state, batch, key):
    """The [B] of a model that has a `metric`."""
    return metric(model, shape)[1](params, state, batch, key)


def squared_error(model, params, state, batch, key):
    """The mean over dimensions of (x - reconstruction)², [B], of x in [-1, 1]."""
    x = model.space.read(batch)
    error = jnp.square(x - model.reconstruct(params, state, batch, key))
    return jnp.mean(error.reshape(len(x), -1), axis=-1)


def subset(dataset, num: int) -> np.ndarray:
    """The places of `num` examples, shuffled: files are often sorted by class."""
    return order(0, 0, num, dataset.size)


def batches(dataset, places: np.ndarray, batch_size: int) -> Iterator[dict]:
    """The examples at `places`, in that order, all batches of one size.

    The last batch is filled up with examples from the start, which do not count.
    """
    num = len(places)
    size = min(num, batch_size)
    for first in range(0, num, size):
        yield dataset.fetch(places[np.arange(first, first + size) % num])


def measure(
    function, params, state, batches, num: int, key, label: str | None = None
) -> np.ndarray:
    """`function(params, state, batch, key) -> [B]` of all batches: float64 [num].

    label: the batch's name of the label that the figure depends on, if on any:
        examples whose label is -1, unknown, are left out.
    """
    values, known = [], []
    for i, batch in enumerate(batches):
        value = function(params, state, batch, jax.random.fold_in(key, i))
        values.append(np.asarray(value, np.float64))
        known.append(batch[label] >= 0 if label else np.ones(len(value), bool))
    return np.concatenate(values)[:num][np.concatenate(known)[:num]]


def depends_on(model) -> str | None:
    """The batch's name of the label that `metric` depends on, if on any."""
    if isinstance(model, Discriminative):
        return model.labels.key
    labels = labels_of(getattr(model, "condition", Nothing()))
    return labels.key if labels else None


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """{"validation/bits_per_dim_ELBO": …} of a train state, or {} without a figure.

    512 examples of the validation split (test, where there is none), a batch at a time;
    always the same noise, so that the curve shows the model and not the draw.
    """

    every: int
    model: Any
    shape: tuple[int, ...]
    "Of an example."
    load_split: Callable[[str], Dataset]
    seed: int
    batch_size: int
    name: ClassVar = "the figure of held-out data"

    @functools.cached_property
    def _metric(self) -> tuple[str, Callable] | None:
        return metric(self.model, self.shape)

    @functools.cached_property
    def _function(self) -> Callable:
        return shared_jit(figure, self.model, self.shape, quickly=True)

    @functools.cached_property
    def _split(self) -> tuple[str, Dataset] | None:
        """The name of the first split there is, and the split."""
        if self._metric is None:
            return None
        for split in ("validation", "test"):
            try:
                dataset = self.load_split(split)
            except BadInput as error:
                if getattr(error, "no_such_split", False):
                    continue
                raise
            return (split, dataset) if dataset.size else None
        return None

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of what it measures."""
        return (f"{self._split[0]}/{self._metric[0]}",) if self._split else ()

    @property
    def note(self) -> str:
        """Which held-out examples cannot be read or have no label, if any."""
        if not self.batches:
            return ""
        (split, dataset), label = self._split, depends_on(self.model)
        notes = [f"held-out images: {named(x)}" for x in (dataset.left_out,) if x]
        if label:
            labels = np.concatenate([batch[label] for batch in self.batches])
            if num := int((labels[: self._num] < 0).sum()):
                notes.append(
                    f"{num:,} of {self._num:,} {split} images have no known label "
                    "(-1), so no figure is made of them"
                )
        return "; ".join(notes)

    @functools.cached_property
    def batches(self) -> list[dict]:
        """The examples; [] where there are none."""
        if self._split is None:
            return []
        dataset = self._split[1]
        return list(batches(dataset, subset(dataset, self._num), self.batch_size))

    @property
    def _num(self) -> int:
        return min(self._split[1].size, EXAMPLES)

    def __call__(self, train_state) -> dict[str, float]:
        if not self.batches:
            return {}
        params = train_state.params if train_state.ema is None else train_state.ema
        arguments = (params, train_state.state, self.batches, self._num)
        label, key = depends_on(self.model), jax.random.key(self.seed)
        values = measure(self._function, *arguments, key, label)
        figures = {self.figures[0]: float(np.mean(values))} if len(values) else {}
        return figures | self._use_of_codes(params, train_state.state)

    @functools.cached_property
    def _encode(self) -> Callable:
        return jax.jit(encoder(self.model), compiler_options=compiled_quickly())

    def _use_of_codes(self, params, state) -> dict[str, float]:
        """How much of its codebook the model uses, if it has one."""
        if not isinstance(self.model, HasCodes):
            return {}
        encode, size = partial(self._encode, params, state), self.model.codes.size
        use = use_of_codes(encode, size, self.batches, self._num)
        return {
            f"{self._split[0]}/codebook_{name}": use[name]
            for name in ("usage", "perplexity")
        }
