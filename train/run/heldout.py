"""What a model is worth on data the run does not train on, while it trains."""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from gengen.errors import BadInput
from gengen.images import bits_name, bits_per_dim
from gengen.types import Discriminative

from ..cli.options import RunOptions
from ..data.feed import order
from ..data.load import load

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
    there is p(y|x).
    """
    if model.density != "none":

        def bits(*arguments):
            return bits_per_dim(model.log_likelihood(*arguments), shape)

        given = "".join(f"-given-{name}" for name in model.condition.names)
        return f"{bits_name(shape)}_{model.likelihood_kind}{given}", bits
    if isinstance(model, Discriminative):

        def right(params, state, batch, key):
            log_p = model.log_prob_labels(params, state, batch, key)
            return (jnp.argmax(log_p, axis=-1) == batch[model.labels.key]).astype(
                jnp.float32
            )

        return "accuracy", right
    return None


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


def measure(function, params, state, batches, num: int, key) -> np.ndarray:
    """`function(params, state, batch, key) -> [B]` of all batches: float64 [num]."""
    values = [
        function(params, state, batch, jax.random.fold_in(key, i))
        for i, batch in enumerate(batches)
    ]
    return np.concatenate([np.asarray(x, np.float64) for x in values])[:num]


class HeldOut:
    """{"validation/bits_per_dim_ELBO": …} of a train state, or {} without a figure.

    512 examples of the validation split (test, where there is none), a
    batch at a time; always the same noise, so that the curve shows the model and not
    the draw.
    """

    def __init__(self, run: RunOptions, model, spec, batch_size: int):
        self.batches, self.num, self.left_out = [], 0, ()
        self.figure = metric(model, spec.shape)
        if self.figure is None:
            return
        for split in ("validation", "test"):
            try:
                dataset = load(
                    run.dataset,
                    split=split,
                    data_dir=run.data_dir,
                    image_size=run.image_size,
                    levels=run.levels,
                    on_bad_record=run.on_bad_record,
                    length=run.length,
                )
            except BadInput:
                continue  # this data set has no such split
            self.left_out = dataset.left_out
            self.num = min(dataset.size, EXAMPLES)
            self.batches = list(batches(dataset, subset(dataset, self.num), batch_size))
            self.name = f"{split}/{self.figure[0]}"
            self._function = jax.jit(self.figure[1])
            self.key = jax.random.key(run.seed)
            return

    def __call__(self, train_state) -> dict[str, float]:
        if not self.batches:
            return {}
        params = train_state.params if train_state.ema is None else train_state.ema
        arguments = (params, train_state.state, self.batches, self.num, self.key)
        return {self.name: float(np.mean(measure(self._function, *arguments)))}
