"""scikit-learn's digits."""

import functools

import numpy as np

from gengen.errors import BadInput

from .dataset import Dataset, Spec, check_split, take


def digits(name: str, split: str, image_size: int | None) -> Dataset:
    """scikit-learn's 1,797 digits, 8x8, 17 levels, split in file order."""
    bounds = {"train": (0, 1000), "validation": (1000, 1350), "test": (1350, 1797)}
    bounds["all"] = (0, 1797)
    check_split(name, split, bounds)
    if image_size not in (None, 8):
        raise BadInput(
            f"image size {image_size} does not fit digits: they exist as 8x8 only, "
            "so leave --image-size out or take another data set"
        )
    from sklearn.datasets import load_digits

    first, end = bounds[split]
    bunch = load_digits()
    image = bunch.images[first:end, :, :, None].astype(np.uint8)
    label = bunch.target[first:end].astype(np.int32)
    spec = Spec(name, (8, 8, 1), 17, 10, tuple("0123456789"))
    note = (
        f"{name}: {end - first} of scikit-learn's 1797 images, 8x8x1; split {split} "
        "in file order (train: first 1000, validation: next 350, test: last 447)"
    )
    fetch = functools.partial(take, {"image": image, "label": label})
    return Dataset(spec, len(image), fetch, note)
