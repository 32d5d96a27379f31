"""Files that appear whole or not at all, and names for them."""

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """The whole text or nothing: written beside and renamed."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def file_name(dataset: str) -> str:
    """The data set's name as that of a folder."""
    return dataset.replace("folder:", "").strip("/").replace("/", "-")
