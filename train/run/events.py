"""TensorBoard's event files."""

import time
from pathlib import Path


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
        self._markdown(step, tag, "".join(f"    {line}" for line in lines))

    def table(self, step: int, tag: str, values: dict) -> None:
        """Names and values, as a table."""
        rows = "".join(f"| {k} | `{v}` |\n" for k, v in values.items())
        self._markdown(step, tag, f"| option | value |\n|---|---|\n{rows}")

    def _markdown(self, step: int, tag: str, text: str) -> None:
        raw = text.encode()
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
