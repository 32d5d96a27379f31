"""What a run tells: progress on the screen, metrics in JSONL and TensorBoard."""

import contextlib
import json
import math
import threading
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

from ..files import append, make_folder, to_json, write_atomically
from .events import Events
from .processes import first_line

HEARTBEAT = 30.0  # seconds of silence in a log file, at most


def _is_row(row) -> bool:
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return False
    if any(type(value) not in (int, float) for value in row.values()):
        return False
    return math.isfinite(row.get("seconds", 0.0))


def read_rows(file: Path) -> list[dict]:
    """The lines of `metrics.jsonl`, without those that are cut off or no metrics."""
    rows = []
    if not file.exists():
        return rows
    for line in file.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict):  # null is a number that was not finite
                row = {k: math.nan if x is None else x for k, x in row.items()}
            if _is_row(row):
                rows.append(row)
    return rows


class Report:
    """Use as a context manager around the training loop.

    On a terminal there is a bar with the rate, the time left and the losses; elsewhere
    (a log file) about ten lines a run, and one after each 30 seconds of silence.
    `metrics.jsonl` has one line an interval; lines after the step that a resumed run
    starts from are dropped: they come again.
    """

    def __init__(self, workdir: Path, start: int, steps: int):
        self.console = Console(soft_wrap=True, highlight=False)
        self.file = workdir / "metrics.jsonl"
        self.start, self.steps = start, steps
        self.seconds = self._keep_until(start)  # in training steps, all starts together
        make_folder(workdir / "tensorboard")
        self.tensorboard = Events(workdir / "tensorboard", start + 1)
        self.progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task(
            "train", total=steps, completed=start, rate="", losses=""
        )
        self._next_line = 0
        self._doing = "starting"
        self._spoken, self._over = time.monotonic(), threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def _keep_until(self, step: int) -> float:
        """Drop the later lines; the training seconds of the last that stays."""
        if not (self.file.exists() or self.file.is_symlink()):
            return 0.0
        rows = [row for row in read_rows(self.file) if row["step"] <= step]
        write_atomically(self.file, "".join(map(to_json, rows)))
        return max((float(row.get("seconds", 0.0)) for row in rows), default=0.0)

    def __enter__(self):
        self.progress.start()
        if not self.console.is_terminal:
            self._heart.start()
        return self

    def __exit__(self, *exception):
        self._over.set()
        if self._heart.is_alive():
            self._heart.join()
        self.progress.stop()
        self.tensorboard.close()

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT / 10):
            if time.monotonic() - self._spoken >= HEARTBEAT:
                self.say(self._doing)

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
        self._spoken = time.monotonic()
        self.console.print(text, markup=False)

    @contextlib.contextmanager
    def doing(self, what: str):
        """Say what takes long, now, in this block: beside the bar, or as a line."""
        before, self._doing = self._doing, f"{what} …"
        if self.console.is_terminal:
            self.progress.update(self.task, rate=what)
        else:
            self.say(self._doing)
        yield
        self._doing = before
        self.progress.update(self.task, rate="")

    def options(self, options: dict) -> None:
        """The run's options as a table, in TensorBoard."""
        with self.surviving(self.tensorboard.folder):
            self.tensorboard.table(self.start, "options", options)

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
            append(self.file, to_json(row))
            self.tensorboard.scalars(step, {**values, **speed})
        losses, held_out = _words(values, "/loss"), _words(values, *HELD_OUT)
        if input_share > 0.1:
            losses = f"waiting for data {input_share:.0%}  {losses}"
        self.advance(step, rate)
        self.progress.update(self.task, losses=losses)
        terminal = self.console.is_terminal  # the bar shows the losses there
        if held_out or (step >= self._next_line and not terminal):
            rate_and_losses = "" if terminal else f"{rate:.1f} steps/s  {losses}  "
            self.say(f"step {step}/{self.steps}  {rate_and_losses}{held_out}".rstrip())
            self._next_line = step + max(1, (self.steps - self.start) // 10)

    def advance(self, step: int, rate: float) -> None:
        """Move the bar; in a log file, the next sign of life has this step."""
        told = f"{rate:.1f} steps/s"
        self._doing = f"step {step}/{self.steps}  {told}"
        self.progress.update(self.task, completed=step, rate=told)

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

    say = metrics = advance = options = nothing

    def doing(self, what: str):
        """Do it in silence."""
        return contextlib.nullcontext()


HELD_OUT = ("validation/", "test/", "quality/")


def _words(values: dict[str, float], *kinds: str) -> str:
    named = {k: v for k, v in values.items() if any(kind in k for kind in kinds)}
    return "  ".join(f"{k} {v:.4g}" for k, v in named.items())
