"""Runs whose arrays another run reads and never changes: an autoencoder, a teacher.

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

from ..experiments.experiment import Reference
from . import record as records
from .digests import digest_of
from .record import Record


def asked(
    record: Record, frozen: dict[str, Reference], workdir: Path, fresh: bool = False
) -> Record:
    """The record with references: those of the run in `workdir`, which it keeps.

    A run that begins has the experiment's, with their folders as seen from its own.

    Args:
        record: a run as it is asked for.
        frozen: its experiment's references.
        workdir: its folder.
        fresh: whether a run in the workdir is going to be moved aside.
    """
    if (workdir / records.FILE).exists() and not fresh:
        return dataclasses.replace(record, frozen=records.load(workdir).frozen)
    frozen = {
        name: dataclasses.replace(x, workdir=os.path.relpath(x.workdir, workdir))
        for name, x in frozen.items()
    }
    return dataclasses.replace(record, frozen=frozen)


def load(
    record: Record, workdir: Path, open_run: Callable, inside: tuple[Path, ...] = ()
) -> tuple[Record, dict[str, Variables]]:
    """The arrays of the runs that a record refers to, by name.

    Args:
        record: the record of a run.
        workdir: its folder.
        open_run: opens another run: `train.run.workdir.open_workdir`.
        inside: the folders of the runs that refer to this one.

    Returns:
        The record, its references with step and digest; and the arrays.

    Raises:
        BadInput: if a run cannot be opened, or its arrays have another digest.
    """
    exact, frozen = {}, {}
    for name, reference in record.frozen.items():
        step, variables = _open(name, reference, workdir, open_run, inside)
        digest = digest_of(variables)
        if reference.digest not in (None, digest):
            raise BadInput(
                f"{workdir} was trained with the {name} of the run in "
                f"{_folder(reference, workdir)} at step {step}, whose arrays are no "
                f"longer the same (digest {digest}, not {reference.digest}): put that "
                "run back, or train this one again with --fresh"
            )
        exact[name] = dataclasses.replace(reference, step=step, digest=digest)
        frozen[name] = variables
    return dataclasses.replace(record, frozen=exact), frozen


def _folder(reference: Reference, workdir: Path) -> Path:
    return Path(os.path.normpath(workdir / reference.workdir))


def _open(
    name: str, reference: Reference, workdir: Path, open_run: Callable, inside: tuple
) -> tuple:
    """(step, arrays) of another run."""
    path, within = _folder(reference, workdir), (*inside, workdir.resolve())
    at = "" if reference.step is None else f" at step {reference.step}"
    try:
        if path.resolve() in within:
            raise BadInput(f"{path} refers to itself")
        trained = open_run(path, reference.step, within)
    except BadInput as error:
        raise BadInput(
            f"{workdir} needs the {name} of the run in {path}{at}, which cannot be "
            f"opened: {error}"
        ) from error
    return trained.step, jax.device_get(Variables(trained.params, trained.state))
