"""What a model says of each example: likelihood, accuracy; their means over splits."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gengen.conditions import labels_of
from gengen.images import bits_name, bits_per_dim
from gengen.metrics.result import standard_error
from gengen.tasks.latents import rate_and_distortion
from gengen.tasks.retrieval import GALLERY, Recall
from gengen.types import (
    Discriminative,
    Encodes,
    HasCodes,
    InfersLabels,
    Matches,
    OnlyReconstructs,
)

from ..data.dataset import Dataset
from ..progress import counted, progress
from ..run.codebook import encoder, use_of_codes
from ..run.heldout import (
    batches,
    measure,
    squared_error,
    subset,
    with_importance_samples,
)
from ..run.shared import shared_jit
from ..run.workdir import OpenRun
from .mixture import KIND, mixture_over_classes


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number per example, whose mean is reported."""

    name: str
    kind: str
    "What the number is: an ELBO, a share, nats."
    function: Callable
    "(params, state, batch, key) -> [B]."
    likelihoods: int = 1
    "How many of them an example takes."
    label: str | None = None
    "The batch's name of the label that it depends on, which must then be known."

    def cost(self, num: int, noun: str) -> str:
        """How often it is computed, in words."""
        each = f", {self.likelihoods} likelihoods each (one per class)"
        option = "; --likelihood-num 0 leaves it out"
        more = each + option if self.likelihoods > 1 else ""
        return f"{self.name} of {num:,} {noun}{more}"


def example_metrics(trained: OpenRun, train: Dataset, options) -> list[Metric]:
    """The metrics of the run's model.

    Bits per dimension (of text, per byte) where there is a density, of the mixture over
    classes where it is conditional; rate and distortion where there is a posterior;
    accuracy and cross-entropy where there is p(y|x); the squared error of what only
    reconstructs; recall, both ways, where images and captions are matched.
    """
    model, shape = trained.model, trained.record.data.shape
    model = with_importance_samples(model, options.importance_samples)
    if isinstance(model, Discriminative):
        return classifier_metrics(model)
    if not options.likelihood_num:
        return []
    if isinstance(model, OnlyReconstructs):
        error = shared_jit(squared_error, model)
        return [Metric("squared_error", "per dimension of x in [-1, 1]", error)]
    if isinstance(model, Matches):
        num = min(options.batch_size, options.likelihood_num, train.size)
        return recalls(model, num)
    if model.density == "none":
        return []
    more = classifier_metrics(model) if isinstance(model, InfersLabels) else []
    kind, likelihoods = model.likelihood_kind, 1
    if labels := labels_of(model.condition):
        model = mixture_over_classes(model, train)
        kind, likelihoods = f"{kind}, {KIND}", labels.num

    if isinstance(trained.model, Encodes):
        more += bound_metrics(trained.model, shape)
    unit = getattr(getattr(trained.model, "space", None), "unit", bits_name(shape))
    return [Metric(unit, kind, shared_jit(bits, model, shape), likelihoods), *more]


def bits(model, shape, *arguments):
    """Bits per dimension, or per byte of text, of each example [B]."""
    return bits_per_dim(model.log_likelihood(*arguments), shape)


def bound_metrics(model: Encodes, shape: tuple[int, ...]) -> list[Metric]:
    """The two terms of the ELBO, in bits per dimension; their sum is the bound."""

    rate, distortion = (shared_jit(term, place, model, shape) for place in (0, 1))
    labels = labels_of(model.condition)
    name = labels.key if labels else None
    return [
        Metric("rate", "bits/dim", rate, label=name),
        Metric("distortion", "bits/dim", distortion, label=name),
    ]


def term(place, model, shape, *arguments):
    """Rate (0) or distortion (1) of each example in bits per dimension [B]."""
    return -bits_per_dim(rate_and_distortion(model, *arguments)[place], shape)


def classifier_metrics(model: InfersLabels) -> list[Metric]:
    """Accuracy, and cross-entropy in nats."""
    accuracy, entropy = shared_jit(right, model), shared_jit(surprise, model)
    return [
        Metric("accuracy", "share", accuracy, label=model.labels.key),
        Metric("cross_entropy", "nats", entropy, label=model.labels.key),
    ]


def right(model, params, state, batch, key):
    """Whether the likeliest class is the label [B]."""
    log_p = model.log_prob_labels(params, state, batch, key)
    return jnp.argmax(log_p, axis=-1) == batch[model.labels.key]


def surprise(model, params, state, batch, key):
    """-log p(label|x) in nats [B]."""
    log_p = model.log_prob_labels(params, state, batch, key)
    label = batch[model.labels.key][:, None]
    return -jnp.take_along_axis(log_p, label, axis=-1)[:, 0]


def recalls(model: Matches, batch_size: int) -> list[Metric]:
    """Recall at one, of images' captions and of captions' images."""
    recall = Recall(model)

    def way(place):
        return jax.jit(lambda *arguments: recall(*arguments)[:, place])

    kind = f"of {min(GALLERY, batch_size)}"
    names = "recall_image_to_text", "recall_text_to_image"
    return [Metric(name, kind, way(place)) for place, name in enumerate(names)]


def over_splits(trained, splits: dict, metrics: list[Metric], options) -> dict:
    """{metric: {split: its mean, standard error, kind and number of examples}}."""
    result = {}
    for metric in metrics:
        result[metric.name] = {
            split: mean
            for split, dataset in splits.items()
            if (mean := mean_over(trained, split, dataset, metric, options))
        }
    return result


def codebook_use(trained: OpenRun, splits: dict, options) -> dict:
    """{"codebook": {split: its use}} of a model with codes, over all of each split."""
    model, use = trained.model, {}
    if not isinstance(model, HasCodes):
        return use
    encode = partial(jax.jit(encoder(model)), trained.params, trained.state)
    for split, dataset in splits.items():
        stream = batches(dataset, np.arange(dataset.size), options.batch_size)
        use[split] = use_of_codes(encode, model.codes.size, stream, dataset.size)
        use[split]["size"] = model.codes.size
    return {"codebook": use}


def mean_over(
    trained: OpenRun, split: str, dataset: Dataset, metric: Metric, options
) -> dict[str, Any] | None:
    """The mean of a metric over a split; None, said, where no label is known."""
    num = min(dataset.size, options.likelihood_num)
    stream = batches(dataset, subset(dataset, num), options.batch_size)
    weights, key = (trained.params, trained.state), jax.random.key(options.seed)
    with progress(f"{split} examples", num) as advance:
        stream = counted(stream, advance, min(num, options.batch_size))
        values = measure(metric.function, *weights, stream, num, key, metric.label)
    if unknown := num - len(values):
        name = metric.name.replace("_", " ")
        print(
            f"note: {unknown:,} of {num:,} {split} labels are unknown: "
            f"{f'{name} leaves them out' if len(values) else f'there is no {name}'}"
        )
    if not len(values):
        return None
    return {
        "value": float(np.mean(values)),
        "standard_error": standard_error(values),  # None of one example
        "kind": metric.kind,
        "num": len(values),
    }
