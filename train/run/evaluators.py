"""What a run asks of its model while it trains: figures and pictures.

An evaluator is a frozen value. The loop calls it every so many steps and at the last
one, on the first process, and goes on whatever it raises.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from gengen.types import Discriminative, FirstStage, Matches

from ..cli.options import RunOptions
from ..data.dataset import Dataset
from ..experiments.experiment import Experiment
from ..files import make_folder, written_atomically
from .heldout import HeldOut
from .record import Record
from .samples import picture
from .scatter import is_plane


class Evaluator(Protocol):
    """`evaluator(train_state) -> {name: figure, path of a picture or text, sentence}`.

    It may have `figures`, the names that `--keep-best` can be given, and `note`, a
    sentence to be said before the first step.
    """

    name: str
    "What it makes, for the note that says why it could not."
    every: int
    "Steps between two calls."

    def __call__(self, train_state) -> dict[str, float | Path | str]: ...


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A picture of every so many steps, the last of them also as WORKDIR/samples.*."""

    every: int
    workdir: Path
    make: Callable[[], Any]
    "Makes what draws: a Grid, Texts or Sorted; None where there is nothing to draw."

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.workdir / "samples")

    @functools.cached_property
    def _grid(self):
        return self.make()

    def __call__(self, train_state) -> dict[str, Path]:
        if self._grid is None:
            return {}
        suffix = self._grid.suffix
        path = self.workdir / "samples" / f"step_{int(train_state.step):08d}{suffix}"
        make_folder(path.parent)
        self._grid.save(path, train_state)
        with written_atomically(self.workdir / f"samples{suffix}") as file:
            file.write(path.read_bytes())
        return {"samples": path}


def own_evaluators(
    run: RunOptions,
    record: Record,
    experiment: Experiment,
    load_split: Callable[[str], Dataset],
) -> list[Evaluator]:
    """What every run evaluates: a figure of held-out data, and a picture."""
    model, batch_size = experiment.model, experiment.batch_size
    common = {"seed": run.seed, "batch_size": batch_size}
    held_out = HeldOut(run.sample_every, model, record.data.shape, load_split, **common)

    def make():
        drawn = record.data.kind in ("images", "text") or is_plane(record.data)
        of_held_out = isinstance(model, Discriminative | FirstStage | Matches)
        can = held_out.batches if of_held_out else hasattr(model, "sample")
        if not drawn or not can:
            return None
        more = {"batches": held_out.batches, "load_split": load_split}
        return picture(model, record.data, **more, **common)

    return [held_out, Drawing(run.sample_every, run.workdir, make)]
