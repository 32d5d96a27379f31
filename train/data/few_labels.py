"""A data set of which most labels are hidden, for learning with few of them."""

import dataclasses
import functools

import numpy as np

from gengen.errors import BadInput

from .dataset import Dataset

PREFIX = "few-labels:"


def parse(name: str, prefix: str = PREFIX) -> tuple[int, str]:
    """("few-labels:N:NAME") -> (N, NAME); BadInput for another form.

    >>> parse("few-labels:10:digits")
    (10, 'digits')
    """
    number, _, inner = name.removeprefix(prefix).partition(":")
    if not (number.isdecimal() and int(number) and inner):
        what = prefix.removeprefix("few-").removesuffix(":")
        raise BadInput(
            f"{name}: write {prefix}N:NAME, N {what} of each class of the data set NAME"
        )
    return int(number), inner


def few_labels(dataset: Dataset, num: int, split: str) -> Dataset:
    """The labels of the first `num` training examples of each class; -1 elsewhere.

    Other splits keep all of theirs. BadInput for a set without labels, and for a class
    of fewer examples.
    """
    spec = dataset.spec
    name = f"{PREFIX}{num}:{spec.name}"
    if not spec.num_classes:
        raise BadInput(f"{name}: {spec.name} has no labels; take a labelled data set")
    spec = dataclasses.replace(spec, name=name, labelled=num)
    if split != "train":
        return dataclasses.replace(dataset, spec=spec)
    known = known_places(every_label(dataset), num, spec)
    return dataclasses.replace(
        dataset,
        spec=spec,
        fetch=functools.partial(_fetch_few, dataset.fetch, known),
        feed=dataset.feed and functools.partial(_fetch_few, dataset.feed, known),
        note=f"{dataset.note}; the labels of the first {num} of each class are known",
    )


def every_label(dataset: Dataset) -> np.ndarray:
    """int32 [size]; everything is read once."""
    parts = np.array_split(np.arange(dataset.size), max(1, dataset.size // 4096))
    return np.concatenate([dataset.fetch(part)["label"] for part in parts])


def known_places(label: np.ndarray, num: int, spec) -> np.ndarray:
    """bool [size]: whether an example is among the first `num` of its class."""
    known = np.zeros(len(label), bool)
    for each in range(spec.num_classes):
        places = np.flatnonzero(label == each)[:num]
        if len(places) < num:
            raise BadInput(
                f"{spec.name}: class {spec.class_names[each]} has {len(places)} "
                "training examples; take fewer labels"
            )
        known[places] = True
    return known


def _fetch_few(fetch, known: np.ndarray, indices: np.ndarray) -> dict:
    batch = fetch(indices)
    label = np.where(known[indices], batch["label"], np.int32(-1))
    return {**batch, "label": label.astype(np.int32)}
