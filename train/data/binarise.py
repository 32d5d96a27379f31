"""Binary pixels, each drawn with its grey level as the probability of white.

In training they are drawn anew in every step (dynamic binarisation; Burda, Grosse and
Salakhutdinov 2016, arXiv:1509.00519, section 5), so the model sees no fixed set of
images to learn by heart. Everywhere else an image's pixels are drawn once, from its
index alone: figures of two models are of the same images.
"""

import dataclasses
import functools
import math

import numpy as np

from .dataset import Dataset

PREFIX = "binarised:"


def binarised(dataset: Dataset) -> Dataset:
    """The images as pixels 0 or 1; a training step reads the grey levels themselves.

    Raises BadInput for what is no image.
    """
    spec = dataset.spec
    name = f"{PREFIX}{spec.name}"
    spec.images_only(name)
    return dataclasses.replace(
        dataset,
        spec=dataclasses.replace(spec, name=name, levels=2, grey=spec.levels),
        fetch=functools.partial(_fetch_drawn, dataset.fetch, spec.levels),
        feed=dataset.fetch,
        note=f"{dataset.note}; pixels are drawn as 0 or 1 by their grey level, for "
        "training in each step anew, else once",
    )


def _fetch_drawn(fetch, levels: int, indices: np.ndarray) -> dict:
    batch = fetch(indices)
    drawn = map(drawn_once, batch["image"], indices, [levels] * len(indices))
    return {**batch, "image": np.stack([*drawn])}


def drawn_once(image: np.ndarray, index: int, levels: int) -> np.ndarray:
    """uint8 0 or 1 of one image: white with probability level/(levels - 1).

    >>> drawn_once(np.array([0, 255], np.uint8), 7, levels=256).tolist()
    [0, 1]
    """
    # Raw bits, because NumPy does not promise the same draws in every version.
    raw = np.random.Philox(key=int(index)).random_raw(math.ceil(image.size / 2))
    uniform = raw.astype("<u8").view("<u4")[: image.size].reshape(image.shape)
    limit = image.astype(np.uint64) * 2**32
    return (uniform.astype(np.uint64) * (levels - 1) < limit).astype(np.uint8)
