"""A run that starts from the parameters of another one: `--init-from RUN[@STEP]`."""

import dataclasses
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gengen.errors import BadInput

from ..experiments.experiment import Experiment, Reference
from . import record as records
from .checkpoint import Checkpoints
from .digests import digest_of, leaf_names, with_leaves
from .record import Record
from .references import folder_and_step

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
    other = records.load(Path(path))  # says what is wrong with the folder
    words, others = record.data.captions, other.data.captions
    if words and others and words != others:
        raise BadInput(
            f"--init-from {init_from} reads captions of {other.data.name}, and those of"
            f" {record.data.name} have other words: take a run on this data set"
        )
    number, tree = Checkpoints(Path(path)).raw(step if step == "best" else number)
    arrays = {name: tree[name] for name in GROUPS}
    exact = dataclasses.replace(place, step=number, digest=digest_of(arrays["params"]))
    return dataclasses.replace(record, initial=exact), arrays


def matched(
    shapes, arrays: dict | None, init_from: str | None
) -> tuple[dict | None, list[str]]:
    """(the arrays that this run starts from, what is to be said of them).

    They are all parameters of a run of the same network, which may embed conditions
    that the other had not (a flow map's second time); or the encoder of another
    model: those that have the name and the shape of one in this run's own encoder; or
    another model's encoder of captions, whole.
    BadInput that names the first parameter which is not the other run's.
    """
    if arrays is None:
        return None, []
    if part := _common(shapes.params, arrays["params"]):
        return _of_part(part, shapes.params, arrays, init_from)
    ours, theirs = (_sizes(tree) for tree in (shapes.params, arrays["params"]))
    new = {name for name in ours.keys() - theirs.keys() if "Conditioning_" in name}
    said = (
        f"{sum(math.prod(ours[name]) for name in new):,} parameters embed a condition "
        f"that {init_from} has not, and are random"
    )
    for name in sorted((ours.keys() | theirs.keys()) - new):
        if ours.get(name) != theirs.get(name):
            raise BadInput(
                f"--init-from {init_from}: its parameters have {name} "
                f"{theirs.get(name, 'nowhere')}, this run's {ours.get(name, 'nowhere')}"
                ": take a run of the same network"
            )
    return arrays, [said] if new else []


def of_teacher(experiment: Experiment, frozen: dict) -> dict | None:
    """The arrays that a student starts from; None without a teacher."""
    if experiment.start is None:
        return None
    params = experiment.start(frozen["teacher"].params)
    return {"params": params, "ema": params, "state": {}}


def _sizes(tree) -> dict[str, tuple[int, ...]]:
    return {name: tuple(x.shape) for name, x in leaf_names(tree).items()}


class Part(NamedTuple):
    """What two models of different players have in common."""

    what: str
    "In words."
    ours: tuple[str, ...]
    "Where it is among this run's parameters."
    theirs: tuple[str, ...]
    "Where it is among the other run's."
    whole: bool
    "Whether all of its arrays must be alike."


def _common(ours: dict, theirs: dict) -> Part | None:
    """The encoder of images, or of captions, of two models of different players."""
    if ours.keys() == theirs.keys():
        return None
    for what, name, depth in (
        ("encoder", "encoder", 2),
        ("encoder of captions", "Context_0", 9),
    ):
        found = _place_of(ours, name, depth), _place_of(theirs, name, depth)
        if None not in found:
            return Part(what, *found, name != "encoder")
    return None


def _place_of(tree, name: str, depth: int) -> tuple[str, ...] | None:
    """The path of the first subtree of this name, of so many names at most."""
    for key, inner in tree.items() if isinstance(tree, dict) and depth else ():
        if key == name:
            return (key,)
        if rest := _place_of(inner, name, depth - 1):
            return key, *rest
    return None


def _at(tree: dict, path: tuple[str, ...]):
    for name in path:
        tree = tree[name]
    return tree


def _of_part(part: Part, params, arrays: dict, init_from: str):
    """The other model's part as that of this one, and how much of it fits."""
    ours, theirs = _sizes(_at(params, part.ours)), _at(arrays["params"], part.theirs)
    sizes = _sizes(theirs)
    same = [name for name in ours if sizes.get(name) == ours[name]]
    if part.whole and ours != sizes:
        raise BadInput(
            f"--init-from {init_from}: its {part.what} has other sizes than this run's:"
            " give --text-width, --text-blocks and --text-heads of that run"
        )
    if not same:
        raise BadInput(
            f"--init-from {init_from}: none of the arrays of its {part.what} "
            f"({', '.join(sizes)}) has the name and shape of one here "
            f"({', '.join(ours)}): give this network the same widths"
        )
    num = sum(math.prod(ours[name]) for name in same)
    said = (
        f"{num:,} parameters of the {part.what} ({len(same)} of {len(ours)} arrays) "
        f"are those of {init_from}; the others are random"
    )

    def placed(tree):
        for name in reversed(part.ours):
            tree = {name: tree}
        return tree

    taken = {"params": placed(theirs)}
    if arrays["ema"]:
        taken["ema"] = placed(_at(arrays["ema"], part.theirs))
    return {"ema": None, "state": {}, **taken}, [said]


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
