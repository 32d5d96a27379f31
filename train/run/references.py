"""Runs whose arrays another run reads and never changes, such as its first stage.

The record of the run that reads says where each of them is, at which step, and the
digest of its arrays; they are loaded from there, and no checkpoint holds them again.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import jax

from gengen.errors import BadInput
from gengen.types import Variables

from ..cli.options import RunOptions
from ..experiments.experiment import Reference
from . import record as records
from .digests import digest_of
from .record import Record

OPTIONS = {"autoencoder": "first_stage", "teacher": "teacher"}
OPTIONS |= {"perceptual": "perceptual"}
"""The name of another run in `Record.frozen`: the option that asks for it."""


def asked(run: RunOptions) -> dict[str, Reference]:
    """Where the runs are that this one reads; one that has begun stays with theirs."""
    return {
        name: _place(run, name, value)
        for name, option in OPTIONS.items()
        if (value := getattr(run, option)) is not None
    }


def begun(run: RunOptions) -> bool:
    """Whether the workdir holds a run that is going to be resumed."""
    return (run.workdir / records.FILE).exists() and not run.fresh


def places_of(record: Record, workdir: Path) -> dict[str, str]:
    """The options by which a run like the one in a workdir asks for the same runs."""
    return {
        OPTIONS[name]: f"{os.path.normpath(workdir / place.workdir)}@{place.step}"
        for name, place in record.frozen.items()
    }


def folder_and_step(run: str) -> tuple[str, int | str | None]:
    """(folder, step) of RUN or RUN@STEP; the step may be "best"."""
    path, _, step = run.rpartition("@")
    if not path or not (step.isdecimal() or step == "best"):
        return run, None
    return path, int(step) if step.isdecimal() else step


def _place(run: RunOptions, name: str, value: str) -> Reference:
    path, number = folder_and_step(value)
    if number == "best":
        option = OPTIONS[name].replace("_", "-")
        raise BadInput(f"--{option} {value}: name the step of that checkpoint")
    place = Reference(os.path.relpath(path, run.workdir), number)
    if begun(run) and (old := records.load(run.workdir).frozen.get(name)):
        place = dataclasses.replace(place, step=number or old.step, digest=old.digest)
    return place


def load(
    record: Record, workdir: Path, open_run: Callable, inside: tuple[Path, ...] = ()
) -> tuple[Record, dict]:
    """The runs that a record refers to, by name.

    Args:
        record: the record of a run.
        workdir: its folder.
        open_run: opens another run: `train.run.workdir.open_workdir`.
        inside: the folders of the runs that refer to this one.

    Returns:
        The record, its references with step and digest; and the runs, open.

    Raises:
        BadInput: if a run cannot be opened, or its arrays have another digest.
    """
    exact, opened = {}, {}
    for name, reference in record.frozen.items():
        trained = _open(name, reference, workdir, open_run, inside)
        digest = digest_of(variables_of(trained))
        if reference.digest not in (None, digest):
            raise BadInput(
                f"{workdir} was trained with the {name} of digest {reference.digest}, "
                f"and that of the run in {_folder(reference, workdir)} has {digest} at "
                f"step {trained.step}: put that run back, or train this one again with "
                "--fresh"
            )
        exact[name] = dataclasses.replace(reference, step=trained.step, digest=digest)
        opened[name] = trained
    return dataclasses.replace(record, frozen=exact), opened


def variables_of(trained) -> Variables:
    """The arrays of a run, on the host: averaged parameters, if it has them."""
    return jax.device_get(Variables(trained.params, trained.state))


def _folder(reference: Reference, workdir: Path) -> Path:
    return Path(os.path.normpath(workdir / reference.workdir))


def _open(
    name: str, reference: Reference, workdir: Path, open_run: Callable, inside: tuple
):
    """Another run, open."""
    path, within = _folder(reference, workdir), (*inside, workdir.resolve())
    at = "" if reference.step is None else f" at step {reference.step}"
    try:
        if path.resolve() in within:
            raise BadInput(f"{path} refers to itself")
        return open_run(path, reference.step, within)
    except BadInput as error:
        raise BadInput(
            f"{workdir} needs the {name} of the run in {path}{at}, which cannot be "
            f"opened: {error}"
        ) from error
