"""A run that starts from the parameters of another one: `--init-from RUN[@STEP]`."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gengen.errors import BadInput

from ..experiments.experiment import Reference
from . import record as records
from .checkpoint import Checkpoints
from .digests import digest_of, leaf_names, with_leaves
from .record import Record

GROUPS = ("params", "ema", "state")


def asked(
    record: Record, init_from: str | None, workdir: Path, fresh: bool
) -> tuple[Record, dict | None]:
    """(the record, which says where the run starts; the arrays it starts from).

    A run that has begun keeps what its record says, and needs the other run no more.
    """
    if init_from is None:
        return record, None
    path, step = folder_and_step(init_from)
    number = None if step == "best" else step
    place = Reference(os.path.relpath(path, workdir), number)
    begun = None
    if (workdir / records.FILE).exists() and not fresh:
        begun = records.load(workdir).initial
    if begun and begun.workdir == place.workdir and number in (None, begun.step):
        if Checkpoints(workdir).latest() is not None:
            return dataclasses.replace(record, initial=begun), None
        number = begun.step
    records.load(Path(path))  # says what is wrong with the folder
    number, tree = Checkpoints(Path(path)).raw(step if step == "best" else number)
    arrays = {name: tree[name] for name in GROUPS}
    exact = dataclasses.replace(place, step=number, digest=digest_of(arrays["params"]))
    return dataclasses.replace(record, initial=exact), arrays


def folder_and_step(run: str) -> tuple[str, int | str | None]:
    """(folder, step) of RUN or RUN@STEP; the step may be "best"."""
    path, _, step = run.rpartition("@")
    if not path or not (step.isdecimal() or step == "best"):
        return run, None
    return path, int(step) if step.isdecimal() else step


def check(shapes, arrays: dict | None, init_from: str | None) -> None:
    """BadInput that names the first parameter which is not the other run's."""
    if arrays is None:
        return
    ours, theirs = (
        {name: tuple(x.shape) for name, x in leaf_names(tree).items()}
        for tree in (shapes.params, arrays["params"])
    )
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            raise BadInput(
                f"--init-from {init_from}: its parameters have {name} "
                f"{theirs.get(name, 'nowhere')}, this run's {ours.get(name, 'nowhere')}"
                ": take a run of the same network"
            )


def started(train_state, arrays: dict | None):
    """The train state before step 0, with the arrays of another run.

    Its average starts at the other's, or where that has none at its parameters; of the
    other arrays those are taken which both have.
    """
    if arrays is None:
        return train_state
    given = arrays | {"ema": arrays["ema"] or arrays["params"]}
    changes = {name: _taken(getattr(train_state, name), given[name]) for name in GROUPS}
    return train_state.replace(**changes)


def _taken(tree, given) -> Any:
    """The tree, with every array that the other one has under its name and shape."""
    ours, theirs = leaf_names(tree), leaf_names(given)
    leaves = {}
    for name, x in ours.items():
        other = theirs.get(name)
        same = other is not None and other.shape == x.shape
        leaves[name] = _placed(np.asarray(other, x.dtype), x.sharding) if same else x
    return with_leaves(tree, leaves)


def _placed(array: np.ndarray, sharding) -> jax.Array:
    return jax.make_array_from_callback(array.shape, sharding, lambda i: array[i])
