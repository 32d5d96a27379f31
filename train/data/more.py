"""Fewer or more training images: the first of each class, or with others from a file.

    few-images:N:NAME    N training images of each class, and no other
    more:FILE:NAME       those of NAME, and the images and labels of an npz file

So a model of N images of each class can draw others, and a classifier can say what they
are worth to it. Other splits are those of NAME.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from gengen.errors import BadInput

from .dataset import Dataset, take
from .few_labels import every_label, known_places, parse
from .npz import read_npz

FEW_IMAGES, MORE = "few-images:", "more:"


def few_images(read, rest: str, split: str) -> Dataset:
    """The first N training images of each class; BadInput for a class with fewer."""
    name = FEW_IMAGES + rest
    num, inner = parse(name, FEW_IMAGES)
    dataset = read(inner)
    spec = dataclasses.replace(dataset.spec, name=name)
    if not spec.num_classes:
        raise BadInput(f"{name}: {inner} has no labels; take a labelled data set")
    if split != "train":
        return dataclasses.replace(dataset, spec=spec)
    places = np.flatnonzero(known_places(every_label(dataset), num, spec))
    feed = dataset.feed and functools.partial(take, dataset.feed(places))
    return dataclasses.replace(
        dataset,
        spec=spec,
        size=len(places),
        fetch=functools.partial(take, dataset.fetch(places)),
        feed=feed,
        contents=None,
        note=f"{dataset.note}; the first {num} of each class alone",
    )


def more(read, rest: str, split: str) -> Dataset:
    """The training examples of NAME and then those of a file of `train.sample`.

    Raises BadInput for a file of other arrays, shapes, levels or classes.
    """
    name, (file, _, inner) = MORE + rest, rest.partition(".npz:")
    if not (file and inner):
        raise BadInput(f"{name}: write {MORE}FILE.npz:NAME, NAME being a data set")
    dataset = read(inner)
    no_captions = {"words": (), "caption_length": 0}
    spec = dataclasses.replace(dataset.spec, name=name, **no_captions)
    if spec.kind != "images" or spec.partner or spec.grey or not spec.num_classes:
        raise BadInput(f"{name}: {inner} is no plain set of images with labels")
    if split != "train":
        return dataclasses.replace(dataset, spec=spec)
    path = Path(f"{file}.npz").expanduser()
    if not path.is_file():
        raise BadInput(f"there is no file {path}: train.sample --out {path} writes one")
    arrays = read_npz(path)
    check_alike(path, arrays, spec)
    joined = functools.partial(_fetch_joined, dataset.fetch, dataset.size, arrays)
    num = len(arrays["label"])
    note = f"{dataset.note}; and {num:,} images of {path}"
    size = dataset.size + num
    changes = {"spec": spec, "size": size, "fetch": joined, "note": note}
    return dataclasses.replace(dataset, **changes, feed=None, contents=None)


def check_alike(path: Path, arrays: dict, spec) -> None:
    """BadInput for arrays that are not the data set's kind of images and labels."""
    wanted = {"image": (spec.shape, spec.levels), "label": ((), spec.num_classes)}
    remedy = "draw them by train.sample from a conditional run on that data set"
    for key, (shape, size) in wanted.items():
        array = arrays.get(key)
        if array is None or array.dtype.kind not in "iu" or array.shape[1:] != shape:
            there = "none" if array is None else f"{array.dtype} {array.shape}"
            raise BadInput(
                f"{path}: {spec.name} needs an array {key} of integers [N, "
                f"{', '.join(map(str, shape))}], and the file has {there}: {remedy}"
            )
        if len(array) and not 0 <= array.min() <= array.max() < size:
            raise BadInput(
                f"{path}: {key} goes from {array.min()} to {array.max()}, beyond 0 to "
                f"{size - 1}: {remedy}"
            )
    if len(arrays["image"]) != len(arrays["label"]):
        raise BadInput(
            f"{path} holds {len(arrays['image'])} images and {len(arrays['label'])} "
            f"labels: {remedy}"
        )


def _fetch_joined(fetch, size: int, arrays: dict, indices: np.ndarray) -> dict:
    own = indices < size
    batch = fetch(np.where(own, indices, 0))
    others = take(arrays, np.maximum(indices - size, 0))
    joined = {}
    for key, value in ((key, batch[key]) for key in ("image", "label")):
        mine = own.reshape(-1, *[1] * (value.ndim - 1))
        joined[key] = np.where(mine, value, others[key]).astype(value.dtype)
    return joined
