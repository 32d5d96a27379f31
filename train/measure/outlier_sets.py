"""Sets of images that a trained run has not learnt: its test images and outliers.

Outliers are made from test images, which needs no other data set, or are the test
images of another data set in the size, channels and levels of the run's.
"""

import numpy as np

from ..data.dataset import Dataset
from ..data.feed import order
from ..data.load import load


def noise(image: np.ndarray, levels: int, rng) -> np.ndarray:
    """Every pixel a uniform level."""
    return rng.integers(0, levels, image.shape).astype(np.uint8)


def inverted(image: np.ndarray, levels: int, rng) -> np.ndarray:
    """levels - 1 - x: the same edges, the histogram reversed."""
    return (levels - 1 - image).astype(np.uint8)


def constant(image: np.ndarray, levels: int, rng) -> np.ndarray:
    """One uniform level an image."""
    level = rng.integers(0, levels, (len(image), *(1,) * (image.ndim - 1)))
    return np.broadcast_to(level, image.shape).astype(np.uint8)


def shuffled(image: np.ndarray, levels: int, rng) -> np.ndarray:
    """The pixels of each image in another order: the same histogram."""
    flat = image.reshape(len(image), -1, image.shape[-1])
    places = np.argsort(rng.random(flat.shape[:2]), axis=1)[..., None]
    return np.take_along_axis(flat, places, axis=1).reshape(image.shape)


def faint(image: np.ndarray, levels: int, rng) -> np.ndarray:
    """A quarter of the contrast: what densities take for better data than the data.

    Nalisnick et al. 2019, arXiv:1810.09136, section 5: less variance, more likelihood.
    """
    return image // 4


FAMILIES = (noise, inverted, constant, shuffled, faint)
MADE = {made.__name__: made for made in FAMILIES}


def another(name: str, spec, num: int, seed: int, data_dir) -> np.ndarray:
    """Test images of another data set in the size and levels of the run's."""
    import jax

    from gengen.errors import BadInput

    height, width, channels = spec.shape
    if name == spec.name:
        raise BadInput(f"--against {name} is the run's own data set: take another")
    try:
        size = None if name == "digits" else max(height, width)
        dataset = load(name, split="test", data_dir=data_dir, image_size=size)
    except BadInput as error:
        raise BadInput(f"--against {' '.join(MADE)}, or a data set: {error}") from error
    if dataset.spec.shape[-1] != channels:
        raise BadInput(
            f"--against {name}: its images have {dataset.spec.shape[-1]} channels, the "
            f"run's have {channels}; take a set with as many"
        )
    x = subset(dataset, num, seed)["image"] / (dataset.spec.levels - 1)
    if x.shape[1:] != spec.shape:
        x = jax.image.resize(x, (len(x), *spec.shape), "cubic")
    return np.round(np.clip(x, 0, 1) * (spec.levels - 1)).astype(np.uint8)


def subset(dataset: Dataset, num: int, seed: int) -> dict[str, np.ndarray]:
    """`num` examples, at most, in shuffled order: files are often sorted by class."""
    num = min(num, dataset.size)
    return dataset.fetch(order(seed, 0, num, dataset.size))


def labelled_subset(dataset: Dataset, num: int, seed: int) -> dict[str, np.ndarray]:
    """`subset` without the examples whose label is unknown, -1; BadInput if all are."""
    from gengen.errors import BadInput

    batch = subset(dataset, num, seed)
    known = batch["label"] >= 0
    if not known.any():
        raise BadInput(
            f"no example has a known label (-1 means unknown) of {dataset.note}: take "
            "a run on a data set whose test images are labelled"
        )
    if not known.all():
        print(f"note: {(~known).sum():,} images without a known label are left out")
    return {key: array[known] for key, array in batch.items()}


def outlier_sets(image: np.ndarray, spec, options) -> dict[str, np.ndarray]:
    """{name: images [N, H, W, C]} of `options.against`, the made ones from `image`.

    By default all that can be made, and digits where they are another grey set.
    options: against, num (at most), seed and data_dir.
    """
    grey = spec.shape[-1] == 1 and spec.name != "digits"
    usual = (*MADE, "digits") if grey else tuple(MADE)
    return {
        name: MADE[name](image, spec.levels, np.random.default_rng([options.seed, i]))
        if name in MADE
        else another(name, spec, options.num, options.seed, options.data_dir)
        for i, name in enumerate(options.against or usual)
    }
