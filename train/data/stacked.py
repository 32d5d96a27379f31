"""Three images of another data set in the colour channels: 1,000 known modes.

Metz et al. 2017, arXiv:1611.02163, section 3.3.1, stacked MNIST; any set of grey images
with classes will do, such as "stacked:digits" and "stacked:fashion_mnist".
"""

import dataclasses
import functools

import numpy as np

from gengen.errors import BadInput

from .dataset import Dataset

PREFIX = "stacked:"
SIZES = {"train": 60_000, "validation": 10_000, "test": 10_000}


def stacked(dataset: Dataset, split: str) -> Dataset:
    """Each example is three of the split's images, drawn by its index alone.

    They are without labels: that a model finds all 1,000 combinations is the point.
    Raises BadInput for what is no grey image with classes.
    """
    spec = dataset.spec
    name = f"{PREFIX}{spec.name}"
    spec.images_only(name)
    if spec.shape[-1] != 1 or not spec.num_classes:
        raise BadInput(
            f"{name}: {spec.name} has {spec.shape[-1]} channels and "
            f"{spec.num_classes} classes: stack grey images that have classes"
        )
    num = SIZES.get(split, SIZES["test"])
    bits = np.random.Philox(list(SIZES).index(split) if split in SIZES else 9)
    places = (bits.random_raw(3 * num) % np.uint64(dataset.size)).astype(np.int64)
    return Dataset(
        dataclasses.replace(
            spec,
            name=name,
            shape=(*spec.shape[:2], 3),
            num_classes=0,
            class_names=(),
            words=(),
            caption_length=0,
        ),
        num,
        functools.partial(_fetch_three, dataset.fetch, places.reshape(num, 3)),
        f"{name}: {num:,} triples of {dataset.note}",
    )


def _fetch_three(fetch, places: np.ndarray, indices: np.ndarray) -> dict:
    image = fetch(places[indices].ravel())["image"]  # [3 B, H, W, 1]
    three = image.reshape(len(indices), 3, *image.shape[1:3])
    return {"image": np.moveaxis(three, 1, -1)}
