"""Memory: how near samples are to training images, and which are nearest."""

from pathlib import Path

import numpy as np

from gengen.images import to_unit
from gengen.metrics.neighbours import nearest

from ..data.dataset import Dataset
from ..data.feed import order
from ..run.pictures import save_grid, to_uint8

ROWS, NEIGHBOURS = 10, 6


def memory(fake, train, test=None) -> dict[str, float | None]:
    """The median distance to the nearest training image, in an extractor's features.

    A model that copies its training images is nearer to them than held-out images are.

    Args:
        fake: features of samples [N, F].
        train: features of training images [M, F].
        test: features of held-out images, or None.
    """
    others = {"samples": fake, "test_images": test}
    return {
        name: None if x is None else float(np.median(nearest(x, train)[1]))
        for name, x in others.items()
    }


def draw_neighbours(path: Path, x: np.ndarray, reference, train: Dataset) -> Path:
    """A row per sample x [N, H, W, C]: it, then its nearest training images.

    reference: the training images in an extractor's features, in their shuffled order.
    """
    features, _ = reference.extractor(x)
    kept = reference.features.kept
    places, _ = nearest(features, kept, min(NEIGHBOURS, len(kept)))
    indices = order(0, 0, train.size, train.size)[places]
    images = train.fetch(indices.ravel())["image"]
    images = np.asarray(to_unit(images, train.spec.levels))
    rows = images.reshape(*indices.shape, *images.shape[1:])
    flat = np.concatenate([x[:, None], rows], axis=1)
    columns = flat.shape[1]
    return save_grid(
        path,
        to_uint8(flat.reshape(-1, *x.shape[1:])),
        columns,
        column_names=["sample", "nearest"],
        caption=f"Samples, and the {columns - 1} training images nearest to each in "
        f"the features of: {reference.extractor.name}.",
    )
