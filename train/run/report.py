"""What a run tells: progress on the screen, metrics in JSONL and TensorBoard."""

import contextlib
import json
import time
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from gengen.errors import BadInput

from ..files import write_atomically
from .events import Events
from .processes import first_line


def read_rows(file: Path) -> list[dict]:
    """The lines of `metrics.jsonl`, without those that a kill or full disk cut off."""
    rows = []
    if not file.exists():
        return rows
    for line in file.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
        except ValueError:
            continue
    return rows


class Report:
    """Use as a context manager around the training loop.

    On a terminal there is a bar with the rate, the time left and the losses; elsewhere
    (a log file) about ten lines a run. `metrics.jsonl` has one line an interval;
    lines after the step that a resumed run starts from are dropped: they come again.
    """

    def __init__(self, workdir: Path, start: int, steps: int):
        self.console = Console(soft_wrap=True, highlight=False)
        self.file = workdir / "metrics.jsonl"
        self.start, self.steps = start, steps
        self.seconds = self._keep_until(start)  # in training steps, all starts together
        (workdir / "tensorboard").mkdir(exist_ok=True)
        self.tensorboard = Events(workdir / "tensorboard", start + 1)
        self.progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[rate]:.1f} steps/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task(
            "train", total=steps, completed=start, rate=0.0, losses=""
        )
        self._next_line = 0

    def _keep_until(self, step: int) -> float:
        """Drop the later lines; the training seconds of the last that stays."""
        if not self.file.exists():
            return 0.0
        rows = [row for row in read_rows(self.file) if row["step"] <= step]
        write_atomically(self.file, "".join(json.dumps(row) + "\n" for row in rows))
        return max((float(row.get("seconds", 0.0)) for row in rows), default=0.0)

    def __enter__(self):
        self.progress.start()
        return self

    def __exit__(self, *exception):
        self.progress.stop()
        self.tensorboard.close()

    @contextlib.contextmanager
    def surviving(self, what: str | Path):
        """What is only told or drawn must not end a run, whatever it raises: a note."""
        try:
            yield
        except BadInput as error:
            self.say(f"note: {what}: {error}")
        except OSError as error:
            self.say(f"note: {what} could not be written ({error.strerror or error})")
        except Exception as error:
            self.say(f"note: {what} could not be made ({first_line(error)})")

    def say(self, text: str) -> None:
        """A line for the reader, above the bar."""
        self.console.print(text, markup=False)

    def metrics(
        self,
        step: int,
        values: dict[str, float],
        num: int,
        seconds: float,
        input_share: float = 0.0,
    ) -> None:
        """One line of the JSONL, one point a curve in TensorBoard.

        The values are of the last `num` steps, which took `seconds`, of which the
        `input_share` went into waiting for data.
        """
        self.seconds += seconds
        rate = num / seconds
        speed = {"steps_per_second": rate, "input_share": round(input_share, 4)}
        times = {"time": time.time(), "seconds": self.seconds}
        row = {"step": step, **times, **speed, **values}
        with self.surviving(self.file):
            with self.file.open("a") as file:
                file.write(json.dumps(row) + "\n")
            self.tensorboard.scalars(step, {**values, **speed})
        losses = _words(values, "/loss")
        if input_share > 0.1:
            losses = f"waiting for data {input_share:.0%}  {losses}"
        held_out = _words(values, "validation/") or _words(values, "test/")
        self.progress.update(self.task, completed=step, rate=rate, losses=losses)
        terminal = self.console.is_terminal  # the bar shows the losses there
        if held_out or (step >= self._next_line and not terminal):
            rate_and_losses = "" if terminal else f"{rate:.1f} steps/s  {losses}  "
            self.say(f"step {step}/{self.steps}  {rate_and_losses}{held_out}".rstrip())
            self._next_line = step + max(1, (self.steps - self.start) // 10)

    def advance(self, step: int) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=step)

    def picture(self, step: int, name: str, path: Path) -> None:
        """A sample grid (PNG), or text, in TensorBoard."""
        show = self.tensorboard.text if path.suffix == ".txt" else self.tensorboard.png
        show(step, name, path)


class Silent:
    """The report of a process that another one speaks for."""

    seconds = 0.0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def nothing(self, *what) -> None:
        """Neither say nor write it."""

    say = metrics = advance = nothing


def _words(values: dict[str, float], kind: str) -> str:
    return "  ".join(f"{k} {v:.4g}" for k, v in values.items() if kind in k)
