"""Runs whose arrays another run reads and never changes: its first stage.

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
from .digests import digest_of
from .record import Record


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
                f"{workdir} was trained with an {name} of digest {reference.digest}, "
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
