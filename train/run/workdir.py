"""A finished (or unfinished) run, opened by its workdir alone."""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

from gengen.errors import BadInput

from ..data.dataset import Dataset
from ..data.load import load
from ..experiments.experiment import Experiment
from . import record as records
from . import references
from .checkpoint import Checkpoints
from .devices import make_mesh
from .record import Record
from .state import InitialState


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A run's record, its model and a checkpoint's arrays.

    params are the averaged ones (EMA) if the run keeps an average; state holds, as
    "frozen", the arrays of the runs that it refers to.
    """

    record: Record
    experiment: Experiment
    step: int
    params: Any
    state: Any
    train_state: Any

    @property
    def model(self):
        return self.experiment.model

    def dataset(self, split: str, data_dir: Path | None = None) -> Dataset:
        """A split of the run's data set."""
        run = self.record.data_options
        same = {k: run.get(k) for k in ("image_size", "levels", "length")}
        same["on_bad_record"] = run.get("on_bad_record", "refuse")
        same["reader"] = run.get("reader", 1)
        return load(run["dataset"], split=split, data_dir=data_dir, **same)

    def dataset_if_any(self, split: str, data_dir: Path | None = None):
        """A split of the run's data set, or None where it has no such split."""
        try:
            return self.dataset(split, data_dir)
        except BadInput as error:
            if getattr(error, "no_such_split", False):
                return None
            raise

    @property
    def averaged(self) -> bool:
        """Whether `params` are averaged."""
        return self.train_state.ema is not None


def open_workdir(
    workdir: Path, step: int | Literal["best"] | None = None, inside=()
) -> OpenRun:
    """The run in a workdir; BadInput if there is none or it cannot be read.

    Args:
        workdir: the run's folder.
        step: the step of the checkpoint, or "best", of a run with --keep-best; None for
            the last one that can be read.
        inside: the folders of the runs that refer to this one.
    """
    record = records.load(workdir)
    record, frozen = references.load(record, Path(workdir), open_workdir, inside)
    experiment = record.build()
    checkpoints = Checkpoints(workdir)
    checkpoints.some_step()
    seed = record.data_options["seed"]
    batch = record.data.example(experiment.batch_size)
    like = InitialState(experiment, seed, batch, make_mesh()).abstract
    train_state, notes = checkpoints.restore(like, step)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    params = train_state.params if train_state.ema is None else train_state.ema
    return OpenRun(
        record,
        experiment,
        int(train_state.step),
        params,
        {**train_state.state, "frozen": frozen},
        train_state,
    )
