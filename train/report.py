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


class Report:
    """Use as a context manager around the training loop.

    On a terminal there is a bar with the rate, the time left and the losses; elsewhere
    (a log file) about ten lines a run. `metrics.jsonl` has one line an interval;
    lines after the step that a resumed run starts from are dropped: they come again.
    """

    def __init__(self, workdir: Path, start: int, steps: int):
        from tensorboardX import SummaryWriter

        self.console = Console(soft_wrap=True, highlight=False)
        self.file = workdir / "metrics.jsonl"
        self.start, self.steps = start, steps
        self.seconds = self._keep_until(start)  # in training steps, all starts together
        folder = str(workdir / "tensorboard")
        self.tensorboard = SummaryWriter(folder, purge_step=start + 1)
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
        lines, seconds = [], 0.0
        if not self.file.exists():
            return seconds
        for line in self.file.read_text().splitlines():
            try:
                row = json.loads(line)
                if row["step"] <= step:
                    lines.append(line + "\n")
                    seconds = float(row.get("seconds", seconds))
            except (ValueError, KeyError, TypeError):
                continue  # a line cut off when the run was killed
        part = self.file.with_suffix(".part")
        part.write_text("".join(lines))
        part.replace(self.file)
        return seconds

    def __enter__(self):
        self.progress.start()
        return self

    def __exit__(self, *exception):
        self.progress.stop()
        self.tensorboard.close()

    @contextlib.contextmanager
    def surviving(self, path: Path):
        """What is only told or drawn must not end a run: a full disk is a note."""
        try:
            yield
        except OSError as error:
            self.say(f"note: {path} could not be written ({error.strerror})")

    def say(self, text: str) -> None:
        """A line for the reader, above the bar."""
        self.console.print(text, markup=False)

    def metrics(
        self, step: int, values: dict[str, float], num: int, seconds: float
    ) -> None:
        """One line of the JSONL, one point a curve in TensorBoard.

        The values are of the last `num` steps, which took `seconds`.
        """
        self.seconds += seconds
        rate = num / seconds
        times = {"time": time.time(), "seconds": self.seconds, "steps_per_second": rate}
        row = {"step": step, **times, **values}
        with self.surviving(self.file):
            with self.file.open("a") as file:
                file.write(json.dumps(row) + "\n")
            for name, value in values.items():
                self.tensorboard.add_scalar(name, value, step)
            self.tensorboard.add_scalar("steps_per_second", rate, step)
        losses = _words(values, "/loss")
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

    def picture(self, step: int, path: Path) -> None:
        """A sample grid (PNG) in TensorBoard."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            pixels = np.asarray(picture)
        self.tensorboard.add_image("samples", pixels, step, dataformats="HWC")


def _words(values: dict[str, float], kind: str) -> str:
    return "  ".join(f"{k} {v:.4g}" for k, v in values.items() if kind in k)


@contextlib.contextmanager
def progress(what: str, total: int):
    """`advance(done)` moves a bar on a terminal, and does nothing elsewhere."""
    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
