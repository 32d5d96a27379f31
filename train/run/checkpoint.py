"""Checkpoints of the whole train state: orbax's files, committed by one rename.

With each stand the SHA-256 digests of its files, which are checked before anything is
parsed (`sha256sum -c SHA256SUMS` in its folder does the same): orbax itself reads a
flipped bit as another number.

Where there are several processes, each writes and reads its own part of the arrays,
and the first one does the rest; they agree after every step of that, so that none
waits in vain.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from gengen.errors import BadInput

from ..files import make_folder, write_atomically
from . import processes, published
from . import record as records
from .best import Best
from .digests import SUMS, first_change, leaf_names, sums, with_leaves
from .record import Record
from .renames import RENAMES, current_names
from .same import difference
from .system_errors import system_errors


class Damaged(BadInput):
    """A checkpoint that cannot be read: an older one may be."""


class Checkpoints:
    """The checkpoints of one workdir, in `workdir/checkpoints/STEP`.

    keep: how many are kept, beside the best one; None to read only. A folder `*.part`
    is one that is being written or removed: no step, and cleared away where a run was
    killed at that.
    record: the run's, by default that in the workdir. Each checkpoint has a copy of it
    with the step, which is compared: the checkpoint of another run is none of this one.
    """

    def __init__(
        self, workdir: Path, keep: int | None = None, record: Record | None = None
    ):
        import orbax.checkpoint as ocp
        from etils import epath

        self._ocp, self._keep, self._path_for_orbax = ocp, keep, epath.Path
        self._handler = ocp.StandardCheckpointHandler()
        self._given = record
        self.folder = (Path(workdir) / "checkpoints").absolute()
        self.best = Best(self.folder)
        if keep is not None and processes.is_primary():
            make_folder(self.folder)
            self._clear()

    @property
    def _record(self) -> Record | None:
        workdir = self.folder.parent
        there = self._given is None and (workdir / records.FILE).exists()
        return records.load(workdir) if there else self._given

    def _clear(self) -> None:
        for part in self.folder.glob("*.part"):
            if part.is_symlink():
                part.unlink()
            shutil.rmtree(part, ignore_errors=True)

    def steps(self) -> list[int]:
        """The steps that were saved, the newest first."""
        names = (path.name for path in self.folder.glob("[0-9]*"))
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def latest(self) -> int | None:
        """The last step saved, None if there is none."""
        return max(self.steps(), default=None)

    def save(self, train_state) -> str | None:
        """Save under the state's own step, unless that step is saved already.

        Synchronous, for the train state is donated to the next step. The whole
        checkpoint appears at once; then the oldest go. Where it cannot be written (the
        disk is full, …), what there was stays, and the reason is returned.
        """
        step = int(train_state.step)
        if processes.all_gather(step in self.steps())[0]:
            return None
        part, tree = self.folder / f"{step}.part", _as_dict(train_state)
        # What fails is orbax's and tensorstore's own, or an OSError.
        reason = (
            processes.try_everywhere(self._first, self._begin, part)
            or processes.try_everywhere(self._write, part / "default", tree)
            or processes.try_everywhere(self._first, self._commit, part, step)
        )
        self._first(self._clear if reason else self._tidy)
        return reason

    def _begin(self, part: Path) -> None:
        self._clear()  # threads of a save that failed may have written on
        (part / "default").mkdir(parents=True)

    def _first(self, function: Callable, *arguments) -> None:
        if processes.is_primary():
            function(*arguments)

    def _write(self, path: Path, tree: dict) -> None:
        args, sizes = self._ocp.args.StandardSave(tree), leaf_names(tree).values()
        # Where there is no room, each of orbax's threads prints a traceback of its own.
        needed = sum(x.size * x.dtype.itemsize + 2**12 for x in sizes) + 2**16
        if shutil.disk_usage(path).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with system_errors():
            self._handler.save(self._path_for_orbax(path), args=args)

    def _commit(self, part: Path, step: int) -> None:
        with system_errors():
            self._handler.finalize(self._path_for_orbax(part / "default"))
        workdir, record = self.folder.parent, self._record
        if record:
            records.save(part, record, step=step)
        write_atomically(part / SUMS, sums(part))
        part.rename(self.folder / str(step))
        if record and not records.note(workdir, "saved"):
            with contextlib.suppress(OSError):  # the next checkpoint says it
                records.save(workdir, record, saved=True)

    def _tidy(self) -> None:
        for old in self.steps()[self._keep :]:
            if old == self.best.step():
                continue
            (self.folder / str(old)).rename(self.folder / f"{old}.part")
        self._clear()

    def restore(
        self, like, step: int | Literal["best"] | None = None
    ) -> tuple[object, list[str]]:
        """The newest readable train state, on the shapes and shardings of `like`.

        step: the only step that will do, if any.

        Also a sentence for every newer one that is damaged: to be told, and, unless
        this is to read only, moved to `workdir/damaged`. BadInput if none can be read,
        or the newest belongs to another model.
        """
        damaged = {}
        steps = self.steps() if step is None else [self.existing(step)]
        for step in processes.all_gather(steps)[0]:
            train_state, failure = None, None
            try:
                train_state = self._restore(step, like)
            except Damaged as error:
                failure = str(error)
            if said := next(filter(None, processes.all_gather(failure)), None):
                damaged[step] = said
                continue
            return train_state, [self._set_aside(s, e) for s, e in damaged.items()]
        if not damaged:
            self.some_step()
        newest = max(damaged)
        others = f" (so are steps {sorted(damaged)[:-1]})" if len(damaged) > 1 else ""
        raise BadInput(
            f"{damaged[newest]}{others}: restore a folder of {self.folder} from a "
            "copy, or train again with --fresh, which keeps what is there"
        )

    def _set_aside(self, step: int, error: str) -> str:
        if self._keep is None or not processes.is_primary():
            return f"{error}; an older one is read"
        aside = self.folder.parent / "damaged" / f"{step}"
        number = 0
        while aside.exists():
            number += 1
            aside = aside.with_name(f"{step}.{number}")
        make_folder(aside.parent)
        (self.folder / str(step)).rename(aside)
        return f"{error}; it was moved to {aside}, the run goes on from an older one"

    def _restore(self, step: int, like):
        self._check(step)
        if weights := self._published(step):
            return weights.restored(like, self.folder / str(step))
        template, (saved, shapes) = _as_dict(like), self._metadata(step)
        names = current_names(shapes, leaf_names(template), RENAMES)
        if not any(name.startswith("nonfinite/") for name in names.values()):
            del template["nonfinite"]  # of a version that did not count them
            like = like.replace(nonfinite=jax.tree.map(_zeros, like.nonfinite))
        there = {names[old]: shape for old, shape in shapes.items()}
        leaves = leaf_names(template)
        published.refuse_other(there, leaves, self.folder / str(step))

        def abstract(x):
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

        asked = {old: abstract(leaves[name]) for old, name in names.items()}
        read = leaf_names(self._read(step, with_leaves(saved, asked)))
        values = {names[old]: x for old, x in read.items()}
        return like.replace(**with_leaves(template, values))

    def some_step(self) -> int:
        """The last step saved; BadInput if there is none."""
        if (step := self.latest()) is None:
            raise BadInput(f"{self.folder} holds no checkpoint yet: train first")
        return step

    def existing(self, step: int | Literal["best"]) -> int:
        """The step; BadInput, with those that there are, if it was not saved."""
        self.some_step()
        if step == "best":
            if (best := self.best.step()) is None:
                raise BadInput(
                    f"{self.folder} has no best checkpoint: train with --keep-best "
                    "METRIC, or name a step"
                )
            return best
        if step not in (steps := self.steps()):
            there = ", ".join(map(str, reversed(steps)))
            raise BadInput(
                f"{self.folder} has no checkpoint of step {step}: choose one of "
                f"{there} (training with a larger --keep keeps more)"
            )
        return step

    def raw(self, step: int | Literal["best"] | None = None) -> tuple[int, dict]:
        """(step, the saved tree) of a checkpoint, by default the last one."""
        step = self.some_step() if step is None else self.existing(step)
        self._check(step)
        weights = self._published(step)
        return step, weights.tree(step) if weights else self._read(step, None)

    def _published(self, step: int) -> published.Weights | None:
        """The arrays of a published run; None of a checkpoint of training."""
        file = self.folder / str(step) / published.FILE
        try:
            return published.read(file) if file.exists() else None
        except published.Malformed as error:
            raise self._unreadable(step, str(error)) from error

    def _path(self, step: int) -> Path:
        return self.folder / str(step) / "default"

    def _check(self, step: int) -> None:
        folder = self.folder / str(step)
        if changed := first_change(folder):
            raise self._unreadable(step, f"{changed} is not as it was saved")
        if not (folder / records.FILE).exists() or not self._record:
            return  # saved by a version without
        if (saved := records.note(folder, "step")) != step:
            raise Damaged(f"checkpoint {folder} is that of step {saved}, renamed")
        if changed := difference(records.load(folder), self._record):
            raise Damaged(
                f"checkpoint {folder} is that of another run, with {changed} as in "
                f"{self.folder.parent / records.FILE}"
            )

    def _metadata(self, step: int) -> tuple[object, dict[str, tuple[int, ...]]]:
        """(the structure of the saved tree, {path: shape} of its leaves)."""
        try:
            tree = self._handler.metadata(self._path(step)).tree
            shapes = {n: tuple(leaf.shape) for n, leaf in leaf_names(tree).items()}
            # A typed key is saved as its two words.
            return tree, {n: () if n == "key" else x for n, x in shapes.items()}
        except Exception as error:
            raise self._unreadable(step, processes.first_line(error)) from error

    def _read(self, step: int, abstract):
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        args = self._ocp.args.StandardRestore(abstract, fallback_sharding=here)
        try:
            return self._handler.restore(self._path(step), args=args)
        except Exception as error:
            raise self._unreadable(step, processes.first_line(error)) from error

    def _unreadable(self, step: int, why: str) -> Damaged:
        return Damaged(
            f"checkpoint {self.folder / str(step)} is damaged or not gengen's ({why})"
        )


def _zeros(x):
    return jax.device_put(np.zeros(x.shape, x.dtype), x.sharding)


def _as_dict(train_state) -> dict:
    fields = ("step", "key", "params", "state", "opt_state", "ema", "nonfinite")
    return {name: getattr(train_state, name) for name in fields}
