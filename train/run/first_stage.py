"""What a run has of other runs: latents of its first stage, the model of its teacher.

The first stage is another run, whose latents are modelled in place of the data. The
latents of the training set are computed once, when the run starts, and are what its
steps read. The record says which run it was, with the digest of its arrays, and what
its latents are: their shape, and the number of codes, or the mean and the standard
deviation of each channel over the training set, by which the model standardises them.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gengen.errors import BadInput
from gengen.spaces import Reals
from gengen.spaces.kinds import standardised
from gengen.tasks import require
from gengen.types import HasCodes, Reconstructs, Variables

from ..cli.options import RunOptions
from ..data.captions import KEY as CAPTION
from ..data.dataset import KEYS, Dataset, Spec, take
from ..experiments.experiment import Experiment
from . import record as records
from . import references
from .codebook import encoder
from .record import Record
from .sampler import drawn_by
from .workdir import OpenRun, open_workdir

NAME = "autoencoder"  # of the first stage in `Record.frozen`
BATCH = 256  # examples that are encoded at a time


class Stage(NamedTuple):
    """What a run has of other runs; of one without any, {}, {} and the data."""

    record: Record
    models: dict[str, Any]
    frozen: dict[str, Variables]
    dataset: Dataset
    "What the steps read: latents of the training set, or the training set."

    def build(self) -> Experiment:
        """The experiment, with the other runs' models."""
        return self.record.build(**self.models)


def staged(run: RunOptions, record: Record, dataset: Dataset) -> Stage:
    """The record of a run as it is asked for, with the runs that it refers to."""
    if run.first_stage is not None and run.augment:
        raise BadInput(
            f"--augment {' '.join(run.augment)} changes images in each step, and the "
            "latents of --first-stage are computed once: leave one out"
        )
    record = dataclasses.replace(record, frozen=references.asked(run))
    record, opened = references.load(record, run.workdir, open_workdir)
    if (first := opened.get(NAME)) is not None:
        check(record, first, run.first_stage)
        begun = references.begun(run) and records.load(run.workdir).latents
        dataset = encoded(first, dataset, begun)
        record = dataclasses.replace(record, latents=dataset.spec)
    if (classifier := opened.get("perceptual")) is not None:
        same_data(record, classifier.record, f"--perceptual {run.perceptual}")
    if (teacher := opened.get("teacher")) is not None:
        check_teacher(record, teacher.record, run.teacher)
    models = {name: other.model for name, other in opened.items()}
    frozen = {name: references.variables_of(other) for name, other in opened.items()}
    return Stage(record, models, frozen, dataset)


def prepared(stage: Stage, experiment: Experiment, seed: int) -> Stage:
    """The stage with what the model makes once of the other runs' arrays, if any."""
    prepare = getattr(drawn_by(experiment.model), "prepared", None)
    if prepare is None:
        return stage
    made = jax.jit(prepare)(jax.random.key(seed), {"frozen": stage.frozen})
    return stage._replace(frozen={**stage.frozen, **jax.device_get(made)})


def check_teacher(record: Record, teacher: Record, name: str) -> None:
    """BadInput for a teacher of other data, or of another first stage's latents."""
    same_data(record, teacher, f"--teacher {name}")
    ours, theirs = (x.frozen.get(NAME) for x in (record, teacher))
    if (ours and ours.digest) != (theirs and theirs.digest):
        remedy = "leave --first-stage out"
        if theirs is not None:
            folder = Path(references.folder_and_step(name)[0])
            remedy = f"give {references.places_of(teacher, folder)['first_stage']}"
            remedy = f"{remedy} with --first-stage"
        raise BadInput(f"--teacher {name} is of other latents than this run: {remedy}")


def same_data(record: Record, other: Record, what: str) -> None:
    """BadInput for a run of other images."""
    ours, theirs = record.data, other.data
    if (ours.shape, ours.levels) != (theirs.shape, theirs.levels):
        raise BadInput(
            f"{what} is of images {list(theirs.shape)} of {theirs.levels} levels, and "
            f"--dataset {ours.name} has {list(ours.shape)} of {ours.levels}: take the "
            "run's data set"
        )


def check(record: Record, first: OpenRun, name: str) -> None:
    """BadInput for a run that is no first stage, or one of other data."""
    model = first.model
    what = f"--first-stage {name}"
    if record.experiment == "prior" and not isinstance(model, HasCodes):
        raise BadInput(
            f"{what} holds a {first.record.experiment}, which has no codes for a prior:"
            " take the run of a vqvae"
        )
    require(model, Reconstructs, f"{what} takes an autoencoder, a VAE or a VQ-VAE")
    if getattr(model, "condition", None) and model.condition.names:
        raise BadInput(
            f"{what} is conditioned on {', '.join(model.condition.names)}: take an "
            "unconditional run"
        )
    same_data(record, first.record, what)


def encoded(first: OpenRun, dataset: Dataset, known: Spec | None) -> Dataset:
    """The latents of a data set, with its labels and captions, in memory.

    known: what they are, of a run that has begun; None to measure it.
    """
    encode = partial(jax.jit(encoder(first.model)), first.params, first.state)
    parts, others = [], []
    for start in range(0, dataset.size, BATCH):
        places = np.arange(start, start + BATCH)
        batch = dataset.fetch(places % dataset.size)  # all batches of one size
        parts.append(np.asarray(encode(batch)))
        others.append({k: v for k, v in batch.items() if k in ("label", CAPTION)})
    z = np.concatenate(parts)[: dataset.size]
    spec = known or spec_of(first, z, dataset.spec)
    rows = {k: np.concatenate([each[k] for each in others]) for k in others[0]}
    arrays = {k: value[: dataset.size] for k, value in rows.items()}
    arrays[KEYS[spec.kind]] = z
    note = f"{dataset.note}; as {spec.examples} of {first.workdir}"
    return Dataset(spec, dataset.size, partial(take, arrays), note)


def spec_of(first: OpenRun, z: np.ndarray, data: Spec) -> Spec:
    """What the latents z [N, …] are."""
    name, classes = str(first.workdir), (data.num_classes, data.class_names)
    known = {"words": data.words, "caption_length": data.caption_length}
    if isinstance(first.model, HasCodes):
        return Spec(
            name, z.shape[1:], first.model.codes.size, *classes, "symbols", **known
        )
    if not z.std(axis=tuple(range(z.ndim - 1))).all():
        raise BadInput(
            f"a channel of the latents of {name} is constant: train it again"
        )
    space = standardised(Reals(z.shape[1:]), z)
    return Spec(name, z.shape[1:], 0, *classes, "reals", space.mean, space.std, **known)
