"""What the loop works with, and how it saves."""

import dataclasses
import signal
import sys

from gengen.errors import BadInput
from gengen.types import Variables

from ..cli.options import RunOptions
from ..data.feed import Feed
from ..experiments.experiment import Experiment
from .checkpoint import Checkpoints
from .devices import Global
from .record import Record
from .report import Report
from .signals import Stop


@dataclasses.dataclass(frozen=True)
class Job:
    """A run that is under way."""

    run: RunOptions
    record: Record
    experiment: Experiment
    feed: Feed
    view: Global
    checkpoints: Checkpoints
    report: Report
    frozen: dict[str, Variables]
    "The arrays that the losses read and never change, by name."

    def save(self, train_state, last: bool = False) -> None:
        """Save, unless the last step was skipped; the last save must not fail."""
        if int(train_state.nonfinite.consecutive_notfinite):
            return  # it may be what made the last steps fail
        if reason := self.checkpoints.save(train_state):
            kept = self.checkpoints.latest()
            stays = (
                "nothing is saved yet" if kept is None else f"step {kept} stays saved"
            )
            sentence = (
                f"step {int(train_state.step)} could not be saved in "
                f"{self.checkpoints.folder} ({reason}): free space there; {stays}"
            )
            if last:
                raise BadInput(f"{sentence}, and the same command goes on from it")
            self.report.say(f"note: {sentence}, training goes on")

    def save_and_exit(self, train_state, asked: signal.Signals) -> None:
        """Save and exit as asked; the same command goes on."""
        self.save(train_state)
        kept = self.checkpoints.latest()
        where = "nothing was saved yet" if kept is None else f"saved at step {kept}"
        self.report.say(f"{asked.name}: {where}; the same command goes on")
        sys.exit(Stop.STATUS[asked])
