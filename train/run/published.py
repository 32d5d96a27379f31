"""A run as it is handed on: one checkpoint, of the arrays that draw, in safetensors.

    DIR/experiment.json, README.md, metrics.jsonl, evaluation.json, samples.png
    DIR/checkpoints/STEP/model.safetensors, experiment.json, SHA256SUMS

Where a checkpoint of training has the whole train state in orbax's files, this one has
the averaged parameters ("params/…"; without an average the last ones) and the model's
other arrays ("state/…"). Every command opens it; no training goes on from it.
"""

import contextlib
import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from gengen.errors import BadInput

from ..cli.doors import version
from ..files import to_json, write_atomically, written_atomically
from . import card, tensors
from . import record as records
from .digests import SUMS, leaf_names, sums, with_leaves
from .processes import first_line
from .record import Record
from .renames import RENAMES, current_names
from .report import read_rows

FILE = "model.safetensors"
_COPIED = ("evaluation.json", "samples.png", "samples.txt")
_MALFORMED = (SafetensorError, OSError, LookupError, ValueError, TypeError)


class Malformed(Exception):
    """A file that no published run has: why, in a line."""


class Weights(NamedTuple):
    """The arrays of a published run."""

    arrays: dict[str, np.ndarray]
    """By path: "params/…", "state/…"."""
    averaged: bool
    """Whether the parameters are averages."""

    def tree(self, step: int) -> dict[str, Any]:
        """What a checkpoint of training has, without what only training needs."""
        tree = {"params": {}, "state": {}, **nested(self.arrays)}
        averaged = tree["params"] if self.averaged else None
        rest = dict.fromkeys(("key", "opt_state", "nonfinite"))
        return {"step": np.int32(step), **tree, "ema": averaged, **rest}

    def restored(self, like, folder: Path):
        """A train state on the places of `like`; BadInput for another model's."""
        template = {"params": like.params, "state": like.state}
        leaves = leaf_names(template)
        names = current_names(self.arrays, leaves, RENAMES)
        there = {names[old]: x for old, x in self.arrays.items()}
        refuse_other({name: x.shape for name, x in there.items()}, leaves, folder)
        placed = {
            name: jax.device_put(np.asarray(there[name], x.dtype), x.sharding)
            for name, x in leaves.items()
        }
        tree = with_leaves(template, placed)
        ema = tree["params"] if self.averaged else None
        rest = {"key": None, "opt_state": None, "nonfinite": None}
        return like.replace(step=np.int32(folder.name), ema=ema, **tree, **rest)


def read(file: Path) -> Weights:
    """The arrays of a file; Malformed for one that is damaged, or another's."""
    try:
        with safe_open(file, "numpy") as tensors:
            averaged = tensors.metadata()["averaged"] == "true"
            arrays = {name: tensors.get_tensor(name) for name in list(tensors.keys())}
        nested(arrays)  # a name that is another's folder
        return Weights(arrays, averaged)
    except _MALFORMED as error:
        raise Malformed(first_line(error)) from error


def nested(leaves: dict[str, Any]) -> dict:
    """Dictionaries in dictionaries, of paths.

    >>> nested({"a/b": 1, "a/c": 2})
    {'a': {'b': 1, 'c': 2}}
    """
    tree = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        inside = tree
        for folder in folders:
            inside = inside.setdefault(folder, {})
        inside[name] = leaf
    return tree


def refuse_other(there: dict[str, tuple], leaves: dict[str, Any], folder: Path) -> None:
    """BadInput that names the first array which a checkpoint and a model do not share.

    Args:
        there: {path: shape} in the checkpoint.
        leaves: the model's arrays, by path.
        folder: the checkpoint.
    """
    wanted = {name: tuple(x.shape) for name, x in leaves.items()}
    for name in sorted(there.keys() | wanted.keys()):
        if there.get(name) != wanted.get(name):
            raise BadInput(
                f"checkpoint {folder} is of another model: it has {name} "
                f"{there.get(name, 'nowhere')}, this one {wanted.get(name, 'nowhere')}"
                "; take another --workdir"
            )


def check_new(out: Path) -> None:
    """BadInput for a folder that is there, and not empty."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BadInput(f"--out {out} is there already: name a new folder, or remove it")


def publish(trained, out: Path, license: str | None = None) -> int:
    """Write a run that is open to a new folder; the bytes of its arrays."""
    arrays = arrays_of(trained.params, trained.train_state.state)
    with new_folder(out) as part:
        record = moved(trained, out)
        write_run(part, record, trained.step, arrays, trained.averaged)
        rows = read_rows(trained.workdir / "metrics.jsonl")
        rows = [to_json(row) for row in rows if row["step"] <= trained.step]
        write_atomically(part / "metrics.jsonl", "".join(rows))
        for name in _COPIED:
            if (trained.workdir / name).exists():
                shutil.copyfile(trained.workdir / name, part / name)
    card.write(out, trained.model, license)
    return (out / "checkpoints" / str(trained.step) / FILE).stat().st_size


@contextlib.contextmanager
def new_folder(out: Path):
    """A folder that becomes `out` at the end of the block, whole or not at all."""
    check_new(out)
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    if out.exists():
        out.rmdir()
    part.rename(out)


def write_run(
    workdir: Path, record: Record, step: int, arrays: dict, averaged: bool
) -> None:
    """The record and the one checkpoint of a published run."""
    folder = workdir / "checkpoints" / str(step)
    folder.mkdir(parents=True)
    notes = {"gengen": version(), "averaged": str(averaged).lower()}
    with written_atomically(folder / FILE) as file:
        tensors.write(file, arrays, notes)
    records.save(folder, record, step=step)
    write_atomically(folder / SUMS, sums(folder))
    records.save(workdir, record, saved=True)


def arrays_of(params, state) -> dict[str, np.ndarray]:
    """What the file holds, by path."""
    leaves = leaf_names({"params": params, "state": state})
    return {name: np.asarray(x, order="C") for name, x in leaves.items()}


def moved(trained, out: Path) -> Record:
    """The record, with its paths to other runs as they are seen from another folder."""
    record = trained.record

    def seen(reference):
        path = os.path.normpath(trained.workdir / reference.workdir)
        return dataclasses.replace(reference, workdir=os.path.relpath(path, out))

    frozen = {name: seen(reference) for name, reference in record.frozen.items()}
    initial = record.initial and seen(record.initial)
    return dataclasses.replace(record, frozen=frozen, initial=initial)


def is_published(workdir: Path) -> bool:
    """Whether a workdir holds a published run."""
    return any(workdir.glob(f"checkpoints/*/{FILE}"))
