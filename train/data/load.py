"""The data set that a name stands for, scaled and requantised as asked."""

import dataclasses
import functools
from pathlib import Path
from typing import Literal

import numpy as np

from gengen.errors import BadInput

from .binarise import PREFIX as BINARISED
from .binarise import binarised
from .dataset import READER, Dataset, named
from .digits import digits
from .emoji import emoji
from .emoji_styles import emoji_styles
from .few_labels import PREFIX as FEW_LABELS
from .few_labels import few_labels, parse
from .folder import folder
from .gaussians import PREFIX as GAUSSIANS
from .gaussians import gaussians
from .idx import idx
from .more import FEW_IMAGES, MORE, few_images, more
from .npz import npz
from .pairs import PAIR, STYLES, UNPAIRED, paired, unpaired
from .scenes import PREFIX as SCENES
from .scenes import scenes
from .shapes import shapes
from .stacked import PREFIX as STACKED
from .stacked import stacked
from .text import text
from .tfds import prepared

OnBadRecord = Literal["refuse", "skip"]
WRAPPERS = {  # prefix -> (a reader of names, the rest of the name, split) -> Dataset
    BINARISED: lambda read, name, split: binarised(read(name)),
    STACKED: lambda read, name, split: stacked(read(name), split),
    FEW_IMAGES: few_images,
    MORE: more,
    PAIR: paired,
    UNPAIRED: unpaired,
}


def load(
    name: str,
    *,
    split: str = "train",
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    levels: int | None = None,
    on_bad_record: OnBadRecord = "refuse",
    length: int | None = None,
    reader: int = READER,
) -> Dataset:
    """One split of a data set.

    name: "digits" (scikit-learn), "shapes" (drawn, of known factors), "scenes" (drawn,
        with captions), "mnist" or "fashion_mnist" (IDX files), "folder:PATH" (images),
        "npz:FILE" (arrays), "text:PATH" (bytes of a file), else a set that TFDS has
        prepared as array_record. "binarised:NAME" draws pixels 0 or 1 of any set of
        images by their grey levels; "stacked:NAME" puts three of them into the channels
        of one; "few-labels:N:NAME" hides all but N training labels of each class,
        "few-images:N:NAME" leaves out the images, "more:FILE.npz:NAME" adds those of a
        file to the training split; "pair:CHANGE:NAME" and "unpaired:A,B" have two
        domains (pairs.py).
        "gaussians:ring" and ":grid" are points of the plane.
    data_dir: where the IDX files or the prepared TFDS sets are.
    image_size: scale the shorter side to this and crop the centre; None keeps the
        size there is, which must then be one for all images.
    levels: requantise the natural 0..n-1 (n = 17 for digits, else 256) to
        floor(v · levels / n), 2 <= levels <= n; None keeps them.
    on_bad_record: "skip" reads everything once, now, and leaves out what cannot be
        read: the set is smaller and its order that of the smaller set, whatever is
        read when. One that goes bad later is refused.
    length: bytes of a window of text; None is 256.
    reader: the rules by which folders and text are read, of `READER`.
    Raises BadInput for whatever the user can get wrong, before training.
    """
    if image_size is not None and image_size < 1:
        raise BadInput(f"image size {image_size} is no size: --image-size takes 1 up")
    again = functools.partial(
        load,
        split=split,
        data_dir=data_dir,
        image_size=image_size,
        levels=levels,
        on_bad_record=on_bad_record,
        length=length,
        reader=reader,
    )
    for prefix, wrapped in WRAPPERS.items():
        if name.startswith(prefix):
            return wrapped(again, name.removeprefix(prefix), split)
    if name.startswith(FEW_LABELS):
        num, inner = parse(name)
        return few_labels(again(inner), num, split)
    if name.partition(":")[0] == "text":
        _refuse(name, image_size=image_size, levels=levels)
        return text(name, split, length, reader)
    _refuse(name, length=length)
    if name.partition(":")[0] == GAUSSIANS:
        _refuse(name, image_size=image_size, levels=levels)
        return gaussians(name, split)
    if name == "digits":
        dataset = digits(name, split, image_size)
    elif name == "shapes":
        _refuse(name, image_size=image_size)
        dataset = shapes(name, split)
    elif name.partition(":")[0] == SCENES:
        dataset = scenes(name, split, image_size)
    elif name in ("mnist", "fashion_mnist"):
        dataset = idx(name, split, data_dir, image_size)
    elif name == "emoji":
        dataset = emoji(name, split, data_dir, image_size, reader)
    elif name.startswith(STYLES):
        dataset = emoji_styles(name, split, data_dir, image_size)
    elif name.startswith("folder:"):
        dataset = folder(name, split, image_size, on_bad_record == "skip", reader)
    elif name.startswith("npz:"):
        dataset = npz(name, split, image_size)
        if dataset.spec.kind != "images":
            _refuse(name, levels=levels)
    else:
        dataset = prepared(name, split, data_dir, image_size)
    if on_bad_record == "skip":
        dataset = without_bad(dataset)
    return dataset if levels is None else _requantise(dataset, levels)


def _refuse(name: str, **options) -> None:
    """BadInput for an option that says nothing about this data set."""
    for option, value in options.items():
        if value is not None:
            raise BadInput(
                f"--{option.replace('_', '-')} {value} says nothing about {name}: "
                "leave it out"
            )


def _requantise(dataset: Dataset, levels: int) -> Dataset:
    natural = dataset.spec.levels
    if not 2 <= levels <= natural:
        raise BadInput(
            f"levels {levels} do not fit {dataset.spec.name}, whose pixels have "
            f"{natural} levels: --levels takes 2 to {natural}"
        )
    table = (np.arange(natural) * levels // natural).astype(np.uint8)
    return dataclasses.replace(
        dataset,
        spec=dataclasses.replace(dataset.spec, levels=levels),
        fetch=functools.partial(_fetch_through, dataset.fetch, table),
        note=f"{dataset.note}; {natural} levels requantised to {levels}",
    )


def _fetch_through(fetch, table: np.ndarray, indices: np.ndarray) -> dict:
    batch = fetch(indices)
    return {**batch, "image": table[batch["image"]]}


def _bad(fetch, indices: np.ndarray) -> dict[int, str]:
    """Index -> name of the bad records among `indices`, found by halving."""
    try:
        fetch(indices)
    except ValueError as error:  # a BadInput
        if not hasattr(error, "record"):
            raise
        if len(indices) == 1:
            return {int(indices[0]): error.record}
        first, second = np.array_split(indices, 2)
        return _bad(fetch, first) | _bad(fetch, second)
    return {}


def without_bad(dataset: Dataset) -> Dataset:
    """The data set without the records that cannot be read, which its note names."""
    from ..progress import progress

    bad, size = {}, dataset.size
    with progress("reading every record", size, "starting") as advance:
        for start in range(0, size, 1024):
            end = min(start + 1024, size)
            bad |= _bad(dataset.fetch, np.arange(start, end))
            advance(end)
    left_out = (*dataset.left_out, *bad.values())
    if not left_out:
        return dataset
    if len(bad) == size:
        raise BadInput(
            f"no record of {dataset.spec.name} can be read, the first being "
            f"{left_out[0]}: fetch the data again"
        )
    good = np.delete(np.arange(size), list(bad))
    return dataclasses.replace(
        dataset,
        size=len(good),
        fetch=functools.partial(_fetch_at, dataset.fetch, good),
        note=f"{dataset.note}; {named(left_out)}",
        left_out=left_out,
    )


def _fetch_at(fetch, places: np.ndarray, indices: np.ndarray) -> dict:
    return fetch(places[indices])
