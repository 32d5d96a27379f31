"""Whether two runs are the same run: what may be resumed, and in which words not."""

import dataclasses
from pathlib import Path
from typing import Any

from gengen.errors import BadInput

from ..cli.bounds import defaults_in
from ..data.digest import change
from ..experiments.experiment import Reference
from . import record as records
from . import references
from .description import comparable, reason
from .lock import LOCK
from .published import is_published
from .record import Record


def difference(old: Record, new: Record) -> str | None:
    """The first keyword in which two runs differ: "--latent 8, not 16"; else None.

    `steps` may differ, so that a run may be continued for longer, unless the learning
    rate falls towards the last of them.
    """
    if old.experiment != new.experiment:
        return f"experiment {old.experiment}, not {new.experiment}"
    if _moved(old, new):
        name = {"dataset": new.data_options["dataset"]}
        data = dataclasses.replace(old.data, name=new.data.name)
        old = dataclasses.replace(old, data_options=old.data_options | name, data=data)
    a, b = old.as_json(), new.as_json()
    free = defaults_in(records.options_of(old.experiment))
    if a["options"].get("rate_schedule", "constant") == "constant":
        free |= {"steps"}
    for group in ("run", "options"):
        for name in a[group] | b[group]:
            there, value = a[group].get(name), b[group].get(name)
            if there != value and name not in free:
                option = f"--{name.replace('_', '-')}"
                option = {"examples": name, "left_out": "left out"}.get(name, option)
                return f"{option} {_words(there)}, not {_words(value)}"
    for name in a["description"] | b["description"]:
        there, value = a["description"].get(name), b["description"].get(name)
        if there != value and comparable(name, there, value):
            return reason(name, a["description"], b["description"])
    if a["data"] != b["data"]:
        name = next(k for k in b["data"] if a["data"].get(k) != b["data"][k])
        there, value = a["data"].get(name), b["data"][name]
        return f"a data set with {name} {_words(there)}, not {_words(value)}"
    if changed := _other_start(old.initial, new.initial):
        return changed
    for name, option in references.OPTIONS.items():
        there, value = (x.frozen.get(name) for x in (old, new))
        if (there and there.digest) != (value and value.digest):
            there, value = (x and f"{x.workdir}@{x.step}" for x in (there, value))
            return f"--{option.replace('_', '-')} {there}, not {value}"
    return None


def _moved(old: Record, new: Record) -> bool:
    """Whether the same data lie elsewhere on the disk: a folder or a file."""
    (kind, colon, _), (other, *_) = (x.data.name.partition(":") for x in (old, new))
    known, now = (x.digests.get("train") for x in (old, new))
    return bool(colon) and kind == other and now is not None and known == now


def _other_start(old: Reference | None, new: Reference | None) -> str | None:
    """How two runs that start from other runs differ, or None."""
    if old and new and None not in (old.digest, new.digest):
        same = old.digest == new.digest
    else:
        same = old == new
    old, new = (x and f"{x.workdir}@{x.step}" for x in (old, new))
    return None if same else f"--init-from {old}, not {new}"


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def refuse_other_run(workdir: Path, record: Record, fresh: bool = False) -> None:
    """BadInput if the workdir holds another run, or files that are not a run.

    fresh: another run in it is going to be moved aside.
    """
    records.check_name(workdir)
    if (workdir / records.FILE).exists():
        if fresh:
            return
        old = records.load(workdir)
        other = change(old.digests, record.digests, record.data.examples)
        changed = difference(old, record)
        if changed and not (other and changed.startswith("examples ")):
            raise BadInput(
                f"{workdir} holds another run, with {changed}: take another "
                "--workdir, with --init-from to begin with its parameters, or the same "
                "options to resume"
            )
        if other:
            raise BadInput(
                f"{other} that the run in {workdir} began with: restore them, or "
                "take another --workdir"
            )
        if is_published(workdir):
            raise BadInput(
                f"{workdir} holds a run as it was published, without what training "
                "goes on with: take another --workdir, with --init-from to begin with "
                "its parameters"
            )
        there = any(workdir.glob("checkpoints/[0-9]*"))
        if records.note(workdir, "saved") and not there:
            raise BadInput(
                f"{workdir} holds a run that has been saved, and none of its "
                "checkpoints is there: put one back, or train again with --fresh, "
                "which keeps what is there"
            )
    elif workdir.exists() and not (workdir.is_dir() and nothing_in(workdir)):
        raise BadInput(
            f"{workdir} is no run of gengen's and not an empty folder: "
            "take another --workdir"
        )


def nothing_in(folder: Path) -> bool:
    """Whether it is empty, but for what a start that was killed leaves behind."""
    return {path.name for path in folder.iterdir()} <= {LOCK, f"{records.FILE}.part"}
