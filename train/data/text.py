"""Text as a data set: windows of bytes, any language, no tokeniser to train.

The text is a file, or all files of a folder, in the order of their paths, with an empty
line between them. It is cut into three contiguous parts: the first 90 % are for
training, the next 5 % for validation, the last 5 % for testing. A window is `length`
bytes in a row of one part. Held-out windows lie side by side, so that every byte is
counted once; training windows begin every eighth of a length, so that a byte is seen at
many places. What is left over at the end of a part is in none of its windows.

Where the text is UTF-8, a window that would begin within a character begins behind it,
up to three bytes later (at the end of a part before it). It may end within one: all
windows have one length in bytes.
"""

import functools
from pathlib import Path

import numpy as np

from gengen.errors import BadInput

from .dataset import READER, Dataset, Spec, check_split, visible_files
from .digest import of_bytes

LENGTH = 256
OVERLAP = 8  # training windows over each byte
PARTS = {"train": (0, 18), "validation": (18, 19), "test": (19, 20)}  # in twentieths


def pydoc() -> bytes:
    """Python's language reference as its own help() holds it, each paragraph once.

    Its topics repeat one another, and what is learnt by heart would be found again in
    the part for testing.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise BadInput(
            "this Python comes without pydoc_data, the text of its own reference: give "
            "--dataset text:PATH a file"
        ) from error
    whole = "\n\n".join(topics[name] for name in sorted(topics))
    return "\n\n".join(dict.fromkeys(whole.split("\n\n"))).encode()


def read(path: Path) -> bytes:
    """The bytes of a file, or of all files of a folder; BadInput if there are none."""
    if path.is_dir():
        return _joined(path)
    if not path.is_file():
        raise BadInput(f"there is no file {path}: give text:PATH an existing one")
    if not (data := path.read_bytes()):
        raise BadInput(f"{path} is empty: give text:PATH a file with text in it")
    return data


def _joined(folder: Path) -> bytes:
    files = [(file, file.read_bytes()) for file in visible_files(folder)]
    if not any(data for _, data in files):
        raise BadInput(f"{folder} holds no text: give text:PATH a folder with files")
    if binary := [str(file) for file, data in files if b"\0" in data]:
        raise BadInput(
            f"{folder} holds what is no text ({', '.join(binary[:3])}"
            f"{' and others' if len(binary) > 3 else ''}): move that out of the folder"
        )
    return b"\n\n".join(data for _, data in files if data)


def starts(part: np.ndarray, length: int, stride: int, whole: bool) -> np.ndarray:
    """int64 [N]: where the windows begin: every `stride`, or just behind.

    whole: not within a character of UTF-8, whose bytes but the first are 10xxxxxx.
    """
    places = np.arange(0, len(part) - length + 1, stride)
    if not whole:
        return places
    within = (part & 0xC0) == 0x80
    last = len(part) - length
    while last > 0 and within[last]:
        last -= 1
    for _ in range(3):
        places += within[places]
    return np.minimum(places, last)


def windows(part: np.ndarray, length: int, begin: np.ndarray, indices) -> dict:
    """{"tokens": uint8 [B, length]}: window i begins at byte begin[i] of the part."""
    places = begin[np.asarray(indices)][:, None] + np.arange(length)
    return {"tokens": part[places]}


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def text(name: str, split: str, length: int | None, reader: int = READER) -> Dataset:
    """Windows of the file or folder of `name` = "text:PATH".

    "text:pydoc", or "text" alone, is the language reference inside of Python itself.
    """
    check_split(name, split, PARTS)
    length = LENGTH if length is None else length
    if length < 2:
        raise BadInput(f"windows of {length} bytes are no text: --length takes 2 up")
    path = name.partition(":")[2]
    built_in = path in ("", "pydoc")
    data = pydoc() if built_in else read(Path(path).expanduser())
    cuts = {key: [len(data) * at // 20 for at in ends] for key, ends in PARTS.items()}
    least = min(end - first for first, end in cuts.values())
    if least < length:
        remedy = f"--length {least} or less, or more text" if least > 1 else "more text"
        raise BadInput(
            f"{name} has {len(data):,} bytes, of which a twentieth is for testing, too "
            f"few for one window of {length}: give {remedy}"
        )
    first, end = cuts[split]
    part = np.frombuffer(data, np.uint8)[first:end]
    stride = max(1, length // OVERLAP) if split == "train" else length
    begin = starts(part, length, stride, whole=reader > 1 and _is_utf8(data))
    size = len(begin)
    spec = Spec(name, (length,), 256, 0, (), kind="text")
    what = "Python's language reference (pydoc_data)" if built_in else path
    note = (
        f"{name}: {size:,} windows of {length} bytes, one every {stride}; split "
        f"{split} is bytes {first:,} to {end - 1:,} of the {len(data):,} of {what} "
        "(train: first 90 %, validation: next 5 %, test: last 5 %)"
    )
    fetch = functools.partial(windows, part, length, begin)
    contents = functools.partial(of_bytes, "tokens", part)
    return Dataset(spec, size, fetch, note, contents=contents)
