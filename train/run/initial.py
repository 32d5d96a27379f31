"""A run that starts from the parameters of another one: `--init-from RUN[@STEP]`."""

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

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
    records.load(Path(path))  # says what is wrong with the folder
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
    model: those that have the name and the shape of one in this run's own encoder.
    BadInput that names the first parameter which is not the other run's.
    """
    if arrays is None:
        return None, []
    if encoders := _encoders(shapes.params, arrays["params"]):
        return _of_encoder(*encoders, shapes.params, arrays, init_from)
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


def _encoders(ours: dict, theirs: dict) -> tuple[str, str] | None:
    """The players with an encoder of two models of different players, if both have."""

    def with_encoder(params):
        trees = params.items()
        return next(
            (p for p, t in trees if isinstance(t, dict) and "encoder" in t), None
        )

    found = with_encoder(ours), with_encoder(theirs)
    return None if ours.keys() == theirs.keys() or None in found else found


def _of_encoder(player, other, params, arrays: dict, init_from):
    """The other model's encoder as that of this one, and how much of it fits."""
    ours, theirs = (
        _sizes(tree["encoder"]) for tree in (params[player], arrays["params"][other])
    )
    same = [name for name in ours if theirs.get(name) == ours[name]]
    if not same:
        raise BadInput(
            f"--init-from {init_from}: none of the arrays of its encoder "
            f"({', '.join(theirs)}) has the name and shape of one here "
            f"({', '.join(ours)}): give this network the same widths"
        )
    num = sum(math.prod(ours[name]) for name in same)
    said = (
        f"{num:,} parameters of the encoder ({len(same)} of {len(ours)} arrays) are "
        f"those of {init_from}; the others are random"
    )
    taken = {"params": {player: {"encoder": arrays["params"][other]["encoder"]}}}
    if arrays["ema"]:
        taken["ema"] = {player: {"encoder": arrays["ema"][other]["encoder"]}}
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
