"""The first stage of a run: another run, whose latents it models in place of the data.

The latents of the training set are computed once, when the run starts, and are what its
steps read. The record says which run it was, with the digest of its arrays, and what
its latents are: their shape, and the number of codes, or the mean and the standard
deviation of each channel over the training set, by which the model standardises them.
"""

import dataclasses
import os
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
from ..experiments.experiment import Reference
from . import record as records
from . import references
from .codebook import encoder
from .initial import folder_and_step
from .record import Record
from .workdir import OpenRun, open_workdir

NAME = "autoencoder"  # of the first stage in `Record.frozen`
BATCH = 256  # examples that are encoded at a time


class Stage(NamedTuple):
    """What a run has of its first stage; of a run without one, Nones and the data."""

    record: Record
    autoencoder: Any
    frozen: dict[str, Variables]
    dataset: Dataset
    "What the steps read: latents of the training set, or the training set."


def staged(run: RunOptions, record: Record, dataset: Dataset) -> Stage:
    """The record of a run as it is asked for, with its first stage, if it has one."""
    if run.first_stage is None:
        return Stage(record, None, {}, dataset)
    if run.augment:
        raise BadInput(
            f"--augment {' '.join(run.augment)} changes images in each step, and the "
            "latents of --first-stage are computed once: leave one out"
        )
    place = asked(run)
    record = dataclasses.replace(record, frozen={NAME: place})
    record, opened = references.load(record, run.workdir, open_workdir)
    first = opened[NAME]
    check(record, first, run.first_stage)
    latents = encoded(first, dataset, begun(run) and records.load(run.workdir).latents)
    record = dataclasses.replace(record, latents=latents.spec)
    frozen = {NAME: references.variables_of(first)}
    return Stage(record, first.model, frozen, latents)


def place_of(record: Record, workdir: Path) -> str | None:
    """The option --first-stage of another run like the one in a workdir."""
    if (place := record.frozen.get(NAME)) is None:
        return None
    return f"{os.path.normpath(workdir / place.workdir)}@{place.step}"


def begun(run: RunOptions) -> bool:
    """Whether the workdir holds a run that is going to be resumed."""
    return (run.workdir / records.FILE).exists() and not run.fresh


def asked(run: RunOptions) -> Reference:
    """Where --first-stage is; a run that has begun stays with its step and digest."""
    path, number = folder_and_step(run.first_stage)
    if number == "best":
        raise BadInput(
            f"--first-stage {run.first_stage}: name the step of that checkpoint"
        )
    place = Reference(os.path.relpath(path, run.workdir), number)
    if begun(run) and (old := records.load(run.workdir).frozen.get(NAME)):
        place = dataclasses.replace(place, step=number or old.step, digest=old.digest)
    return place


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
    ours, theirs = record.data, first.record.data
    if (ours.shape, ours.levels) != (theirs.shape, theirs.levels):
        raise BadInput(
            f"{what} is of images {list(theirs.shape)} of {theirs.levels} levels, and "
            f"--dataset {ours.name} has {list(ours.shape)} of {ours.levels}: take the "
            "run's data set"
        )


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
