"""What turns images into the features in which samples and data are compared.

Either the FID convention's Inception-v3, from a weight file that the user has, or the
penultimate layer of a classifier trained on the same data set, which needs no file.
A metric means nothing without its extractor, so each has a name that tells it apart,
down to a digest of its weights.
"""

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gengen.errors import BadInput
from gengen.images import to_levels, to_unit
from gengen.types import Discriminative

from ..cli.doors import command
from ..cli.options import IDENTITY, RunOptions
from ..data.dataset import Spec
from ..files import file_name
from ..run.digests import digest_of
from ..run.pictures import to_uint8
from ..run.record import Record
from ..run.shared import shared_jit


@dataclasses.dataclass(frozen=True)
class Extractor:
    """Call it with images [N, H, W, C] in [-1, 1]: (features [N, F], probs [N, K]).

    probs are p(y|x) over the extractor's own classes; `labels`: whether they are
    those of the data set. name: what it is; note: where it comes from.
    """

    name: str
    note: str
    labels: bool
    batch_size: int
    weights: Any
    apply: Callable  # (weights, x [batch_size, ...]) -> features, log probabilities

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features, probs = [], []
        for first in range(0, len(x), self.batch_size):
            here = x[first : first + self.batch_size]
            padding = [(0, self.batch_size - len(here))] + [(0, 0)] * (x.ndim - 1)
            padded = np.pad(here, padding, mode="edge")
            f, log_p = jax.device_get(self.apply(self.weights, padded))
            features.append(f[: len(here)])
            probs.append(np.exp(log_p[: len(here)].astype(np.float64)))
        return np.concatenate(features), np.concatenate(probs)


def open_extractor(
    path: Path | None, workdir: Path, record: Record, data_dir: Path | None = None
) -> Extractor:
    """The extractor at `path`, for the data of a run.

    path: a weight file of Inception-v3, the workdir of a classifier, or None: the
    classifier beside the run's workdir, which is trained first where there is none.
    """
    if path is None:
        path = workdir.absolute().parent / default_name(record)
        train_default(path, record, data_dir)
        return of_classifier(path, record, same_name=True)
    if path.suffix in (".pth", ".pt", ".safetensors") and not path.exists():
        raise BadInput(f"--extractor {path}: there is no such file; check its name")
    if path.is_file():
        return inception(path, record.data.levels)
    return of_classifier(path, record)


def extractor_if_any(
    path: Path | None, workdir: Path, record: Record, data_dir: Path | None = None
) -> Extractor | None:
    """`open_extractor`; None without labels and `path`, and for what is no images."""
    if record.data.kind != "images" or not (path or record.data.num_classes):
        return None
    return open_extractor(path, workdir, record, data_dir)


def default_name(record: Record) -> str:
    """The folder of the default classifier: "classifier-digits", "…-mnist-size16"."""
    run = record.data_options
    parts = [file_name(run["dataset"])]
    parts += [f"{k.replace('image_', '')}{run[k]}" for k in IDENTITY[1:3] if run[k]]
    return "-".join(["classifier", *parts])


def train_default(path: Path, record: Record, data_dir: Path | None) -> None:
    """Train the default classifier of the run's data set into `path`, to its end.

    One that is there goes on with its own options, if it has not ended.
    """
    from ..experiments.classifier import classifier, recipe
    from ..run import record as experiments
    from ..run.checkpoint import Checkpoints
    from ..run.loop import train

    if (path / experiments.FILE).exists():
        own = experiments.load(path)
        if (Checkpoints(path).latest() or 0) >= own.build().steps:
            return
        print(f"the classifier in {path} has not ended: training it to its end first")
        name, options, shared = own.experiment, own.options, own.data_options
    else:
        name, options, shared = "classifier", recipe(record.data), record.data_options
        usual = inspect.signature(classifier).parameters["batch_size"].default
        batch_size = options.get("batch_size", usual)
        if shared["examples"] < batch_size:
            options = {**options, "batch_size": shared["examples"]}
        classifier(record.data, **options)  # refuses data without labels, at once
        print(
            f"no classifier in {path} to compare features with: training one first "
            "(--extractor takes another, or the weight file of Inception-v3)"
        )
    same = {key: shared[key] for key in IDENTITY}
    same["on_bad_record"] = shared.get("on_bad_record", "refuse")
    train(RunOptions(workdir=path, **same, data_dir=data_dir), name, options)


def of_classifier(
    path: Path, record: Record, batch_size: int = 256, same_name: bool = False
) -> Extractor:
    """The last features of the classifier in the workdir `path`.

    same_name: the data set must have the run's name, not only its shape and levels.
    """
    from ..run.workdir import open_workdir

    trained = open_workdir(path)
    model, data = trained.model, trained.record.data
    if not isinstance(model, Discriminative):
        raise BadInput(
            f"--extractor {path} holds a {trained.record.experiment}, not a classifier:"
            f" train one with {command('classifier')} --workdir DIR"
        )
    ours: Spec = record.data
    kinds = [(d.shape, d.levels, d.name if same_name else "") for d in (data, ours)]
    if kinds[0] != kinds[1]:
        raise BadInput(
            f"--extractor {path} is for {data.name}, images {data.shape} of "
            f"{data.levels} levels, the run is of {ours.name}, {ours.shape} of "
            f"{ours.levels}: take a classifier trained on the run's data set"
        )

    weights = (trained.params, trained.state)
    like = {"image": np.zeros((1, *data.shape), np.uint8)}
    width = jax.eval_shape(model.features, *weights, like, None).shape[-1]
    name = (
        f"classifier of {data.name}, {width} features, step {trained.step}, "
        f"weights {digest_of(trained.params)}"
    )
    same = (data.name, data.class_names) == (ours.name, ours.class_names)
    apply = shared_jit(judged, model, data.levels)
    return Extractor(name, f"from {path}", same, batch_size, weights, apply)


def judged(model, levels, weights, x):
    """Features and log p(y|x) of images in [-1, 1], by a classifier of levels."""
    arguments = (*weights, {"image": to_levels(x, levels)}, jax.random.key(0))
    return model.features(*arguments), model.log_prob_labels(*arguments)


def inception(path: Path, levels: int, batch_size: int = 32) -> Extractor:
    """Inception-v3 of the FID convention, 2048 pooled features; images as uint8.

    Samples are rounded to the data's levels first.
    """
    from gengen.nets.inception import InceptionV3, from_torch

    from .weights import read_tensors

    net = InceptionV3()
    weights = jax.device_put(from_torch(read_tensors(path)))

    @jax.jit
    def on_uint8(weights, image):
        features, logits = net.apply(weights, image)
        # The inception score is defined without the last layer's bias.
        return features, jax.nn.log_softmax(logits - weights["params"]["fc"]["bias"])

    def apply(weights, x):
        return on_uint8(weights, to_uint8(to_unit(to_levels(x, levels), levels)))

    name = (
        f"Inception-v3 (FID), pool 2048, {net.preprocess.__name__} resizing, "
        f"weights {digest_of(weights)}"
    )
    return Extractor(name, f"from {path}", False, batch_size, weights, apply)
