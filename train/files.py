"""Files that appear whole or not at all, none of them through a link; names for them.

Whoever may write into a workdir could place a link there, and a program that followed
it would overwrite a file elsewhere.
"""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gengen.errors import BadInput


def open_to_write(path: Path, flags: int) -> int:
    """A descriptor for writing, by `os.open`; BadInput where a link stands."""
    try:
        return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError:
        refuse_link(path)
        raise


def refuse_link(path: Path) -> None:
    """BadInput if the path is a link."""
    if path.is_symlink():
        raise BadInput(
            f"{path} is a link, and nothing is written through one: remove it"
        )


def make_folder(path: Path) -> None:
    """The folder, if it is not there yet; BadInput where a link stands."""
    refuse_link(path)
    path.mkdir(parents=True, exist_ok=True)


def append(path: Path, text: str) -> None:
    """Add text at the end of a file, which is made if need be."""
    with os.fdopen(open_to_write(path, os.O_WRONLY | os.O_APPEND), "w") as file:
        file.write(text)


@contextlib.contextmanager
def written_atomically(path: Path) -> Iterator:
    """A binary file that becomes `path` at the end of the block, whole or not at all.

    It is written beside, as PATH.part, and renamed. A link at either place is removed.
    """
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with os.fdopen(open_to_write(part, os.O_WRONLY | os.O_EXCL), "wb") as file:
            yield file
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)  # where the disk is full, half a file takes space
        raise


def write_atomically(path: Path, text: str) -> None:
    """The whole text or nothing."""
    with written_atomically(path) as file:
        file.write(text.encode())


def file_name(dataset: str) -> str:
    """The data set's name as that of a folder."""
    name = dataset.replace("folder:", "").strip("/")
    return name.replace("/", "-").replace(":", "-")


def write_json(path: Path, value: Any) -> None:
    """Strict JSON, whole or not at all: numbers that are not finite become null."""
    write_atomically(path, to_json(value, indent=2))


def to_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON that ends its line: numbers that are not finite become null."""
    return json.dumps(finite_or_null(value), indent=indent, allow_nan=False) + "\n"


def finite_or_null(value: Any) -> Any:
    """The value with None in the place of every float that is not finite."""
    if isinstance(value, dict):
        return {name: finite_or_null(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
