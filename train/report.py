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
from train.experiment import write_atomically


class Events:
    """TensorBoard's file, written as it comes.

    (tensorboardX's own writer puts events into a queue of ten that a thread empties; on
    a full disk the thread dies, and the eleventh event waits for ever.)
    """

    def __init__(self, folder: Path, start: int):
        self.folder, self._start, self._file = folder, start, None

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One point of every curve."""
        tags = [{"tag": k, "simple_value": v} for k, v in values.items()]
        self._add(step, summary={"value": tags})

    def png(self, step: int, tag: str, path: Path) -> None:
        """A picture, as its file is."""
        from PIL import Image

        with Image.open(path) as picture:
            size = dict(zip(("width", "height"), picture.size, strict=True))
        image = {**size, "colorspace": 3, "encoded_image_string": path.read_bytes()}
        self._add(step, summary={"value": [{"tag": tag, "image": image}]})

    def text(self, step: int, tag: str, path: Path) -> None:
        """A text, as its file is: indented, lest TensorBoard take it for Markdown."""
        lines = path.read_text().splitlines(keepends=True)
        raw = "".join(f"    {line}" for line in lines).encode()
        tensor = {"dtype": "DT_STRING", "string_val": [raw], "tensor_shape": {}}
        metadata = {"plugin_data": {"plugin_name": "text"}}
        value = {"tag": f"{tag}/text_summary", "metadata": metadata, "tensor": tensor}
        self._add(step, summary={"value": [value]})

    def _add(self, step: int, **what) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event

        if self._start is not None:  # TensorBoard voids an older start's later points
            start, self._start = self._start, None
            self._add(start, session_log={"status": 1})
        try:
            if self._file is None:
                own = f".{time.time_ns()}"  # two files within a second are two files
                self._file = EventsWriter(str(self.folder / "events"), own)
            self._file.write_event(Event(step=step, wall_time=time.time(), **what))
            self._file.flush()
        except OSError:
            self._file = None  # it may end in half an event: the next begins another
            raise

    def close(self) -> None:
        """All events are on disk already."""
        if self._file is not None:
            self._file.close()


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
    def surviving(self, path: Path):
        """What is only told or drawn must not end a run.

        A full disk, or samples that are not finite, are a note.
        """
        try:
            yield
        except OSError as error:
            self.say(f"note: {path} could not be written ({error.strerror or error})")
        except BadInput as error:
            self.say(f"note: {path} is not written: {error}")

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

    def picture(self, step: int, path: Path) -> None:
        """A sample grid (PNG), or text, in TensorBoard."""
        show = self.tensorboard.text if path.suffix == ".txt" else self.tensorboard.png
        show(step, "samples", path)


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


def wide_console() -> Console:
    """For tables: as wide as the terminal, and wide enough in a file."""
    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = 160
    return console


@contextlib.contextmanager
def progress(what: str, total: int):
    """`advance(done)` moves a bar on a terminal, and does nothing elsewhere."""
    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
