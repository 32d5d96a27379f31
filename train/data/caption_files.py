"""The captions of a folder of images, as people keep them: beside them, or in a table.

    name.txt                      beside name.png, the whole file a caption
    captions.csv, metadata.csv    columns file_name and text (or caption)
    metadata.jsonl                an object a line, with the same names

A table's file names are relative to its own folder, as the image folders of the library
`datasets` have them.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gengen.errors import BadInput

from .captions import token_table, vocabulary

TABLES = ("captions.csv", "metadata.csv", "metadata.jsonl")
_FIELDS = ("text", "caption")


def sources(root: Path, images: Sequence[Path]) -> list[Path]:
    """The files below a folder that hold captions of the images."""
    folders = sorted({root, *(image.parent for image in images)})
    tables = [folder / name for folder in folders for name in TABLES]
    beside = [image.with_suffix(".txt") for image in images]
    return [path for path in (*tables, *beside) if path.is_file()]


def captions(root: Path, images: Sequence[Path]) -> dict[Path, str]:
    """{image: its caption}; {} where there are no captions at all.

    BadInput where some images have none, for captions both in tables and beside images,
    and for a table that cannot be read.
    """
    found, where = {}, sources(root, images)
    tables = [path for path in where if path.name in TABLES]
    if tables and len(tables) < len(where):
        beside = next(path for path in where if path.name not in TABLES)
        raise BadInput(
            f"{root} has captions in {tables[0].name} and beside its images "
            f"({beside.name}): keep one of the two"
        )
    for path in tables:
        found |= dict(_rows(path))
    for image in () if tables or not where else images:
        path = image.with_suffix(".txt")
        if path.is_file():
            found[image] = _text(path)
    missing = [image for image in images if image not in found]
    if where and missing:
        raise BadInput(
            f"{len(missing):,} of the {len(images):,} images of {root} have no caption,"
            f" the first being {missing[0].relative_to(root)}: put one into "
            f"{tables[0].name if tables else missing[0].with_suffix('.txt').name}"
        )
    return {image: found[image] for image in images} if where else {}


def tokens_of(
    root: Path, images: Sequence[Path], train: Sequence[Path], chosen: Sequence[Path]
) -> tuple[np.ndarray | None, dict]:
    """(tokens of `chosen` images, fields of a `Spec`); (None, {}) without captions.

    images: all of the folder, which have captions or none; train: whose words count.
    """
    known = captions(root, images)
    if not known:
        return None, {}
    words = vocabulary([known[image] for image in train])
    fields = {"words": words.words, "caption_length": words.length}
    return token_table(words, [known[image] for image in chosen]), fields


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{path} cannot be read as a caption ({error}): save it as UTF-8"
        ) from error


def _rows(path: Path) -> Iterator[tuple[Path, str]]:
    """(image, caption) of each row of a table."""
    lines = _text(path).splitlines()
    try:
        if path.suffix == ".csv":
            rows = list(csv.DictReader(lines))
        else:
            rows = [json.loads(line) for line in lines if line.strip()]
        field = next(name for name in _FIELDS if name in rows[0])
        for row in rows:
            yield path.parent / row["file_name"], str(row[field])
    except (ValueError, LookupError, TypeError, StopIteration, csv.Error) as error:
        raise BadInput(
            f"{path} is no table of captions: give each row a file_name and a text"
        ) from error
