"""A text file as a data set: windows of bytes, any language, no tokeniser to train.

The file is cut into three contiguous parts: the first 90 % are for training, the next
5 % for validation, the last 5 % for testing. A window is `length` bytes in a row of one
part. Held-out windows lie side by side, so that every byte is counted once; training
windows begin every eighth of a length, so that a byte is seen at many places. What is
left over at the end of a part is in none of its windows.
"""

import functools
from pathlib import Path

import numpy as np

from gengen.errors import BadInput

from .dataset import Dataset, Spec, check_split
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
    """The bytes of a file; BadInput if there is none, or nothing in it."""
    if not path.is_file():
        raise BadInput(f"there is no file {path}: give text:PATH an existing one")
    if not (data := path.read_bytes()):
        raise BadInput(f"{path} is empty: give text:PATH a file with text in it")
    return data


def windows(part: np.ndarray, length: int, stride: int, indices: np.ndarray) -> dict:
    """{"tokens": uint8 [B, length]}: window i begins at byte i · stride of the part."""
    places = np.asarray(indices)[:, None] * stride + np.arange(length)
    return {"tokens": part[places]}


def text(name: str, split: str, length: int | None) -> Dataset:
    """Windows of the file of `name` = "text:PATH".

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
    size = (len(part) - length) // stride + 1
    spec = Spec(name, (length,), 256, 0, (), kind="text")
    what = "Python's language reference (pydoc_data)" if built_in else path
    note = (
        f"{name}: {size:,} windows of {length} bytes, one every {stride}; split "
        f"{split} is bytes {first:,} to {end - 1:,} of the {len(data):,} of {what} "
        "(train: first 90 %, validation: next 5 %, test: last 5 %)"
    )
    fetch = functools.partial(windows, part, length, stride)
    contents = functools.partial(of_bytes, "tokens", part)
    return Dataset(spec, size, fetch, note, contents=contents)
