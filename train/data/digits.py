"""scikit-learn's digits."""

import functools
import importlib.util
from pathlib import Path

import numpy as np

from gengen.errors import BadInput

from .dataset import Dataset, Spec, check_split, take

BOUNDS = {"train": (0, 1000), "validation": (1000, 1350), "test": (1350, 1797)}
BOUNDS["all"] = (0, 1797)


def digits(name: str, split: str, image_size: int | None) -> Dataset:
    """scikit-learn's 1,797 digits, 8x8, 17 levels, split in file order."""
    check_split(name, split, BOUNDS)
    if image_size not in (None, 8):
        raise BadInput(
            f"image size {image_size} does not fit digits: they exist as 8x8 only, "
            "so leave --image-size out or take another data set"
        )
    first, end = BOUNDS[split]
    chosen = rows()[first:end]
    image = chosen[:, :-1].reshape(-1, 8, 8, 1)
    label = chosen[:, -1].astype(np.int32)
    spec = Spec(name, (8, 8, 1), 17, 10, tuple("0123456789"))
    note = (
        f"{name}: {end - first} of scikit-learn's 1797 images, 8x8x1; split {split} "
        "in file order (train: first 1000, validation: next 350, test: last 447)"
    )
    fetch = functools.partial(take, {"image": image, "label": label})
    return Dataset(spec, len(image), fetch, note)


@functools.cache
def rows() -> np.ndarray:
    """uint8 [1797, 65], pixels and label, from the file that scikit-learn brings.

    Its modules stay unloaded: they take longer than the file.
    """
    (folder,) = importlib.util.find_spec("sklearn").submodule_search_locations
    path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
    return np.loadtxt(path, np.uint8, delimiter=",")
