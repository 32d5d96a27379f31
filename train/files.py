"""Files that appear whole or not at all, and names for them."""

import json
import math
import os
from pathlib import Path
from typing import Any


def write_atomically(path: Path, text: str) -> None:
    """The whole text or nothing: written beside and renamed."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def file_name(dataset: str) -> str:
    """The data set's name as that of a folder."""
    return dataset.replace("folder:", "").strip("/").replace("/", "-")


def write_json(path: Path, value: Any) -> None:
    """Strict JSON, whole or not at all: numbers that are not finite become null."""
    text = json.dumps(finite_or_null(value), indent=2, allow_nan=False)
    write_atomically(path, text + "\n")


def finite_or_null(value: Any) -> Any:
    """The value with None in the place of every float that is not finite."""
    if isinstance(value, dict):
        return {name: finite_or_null(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
