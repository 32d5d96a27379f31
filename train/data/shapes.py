"""Shapes whose factors are known: a pure function of what a code should find.

    kind        square, disc, triangle
    size        four, half a side from 1.5 to 4.5 pixels
    row, column eight each, where the middle is
    grey        three

All 2,304 combinations are there once. In the manner of dSprites (Matthey et al. 2017).
"""

import functools

import numpy as np

from .dataset import Dataset, Spec, check_split
from .split import PARTS, parts_of

SIDE, FINE = 16, 4  # pixels, and points per pixel's side that are tested
FACTORS = {"kind": 3, "size": 4, "row": 8, "column": 8, "grey": 3}
KINDS = ("square", "disc", "triangle")


def factors_of(indices: np.ndarray) -> np.ndarray:
    """int32 [B, 5]: kind, size, row, column, grey of the examples 0 … 2303.

    >>> factors_of(np.array([0, 2303])).tolist()
    [[0, 0, 0, 0, 0], [2, 3, 7, 7, 2]]
    """
    return np.stack(np.unravel_index(indices, [*FACTORS.values()]), -1).astype(np.int32)


def drawn(factors: np.ndarray) -> np.ndarray:
    """uint8 [16, 16, 1] of five factors [5]; edges are the share of a pixel inside.

    >>> image = drawn(np.array([0, 0, 0, 0, 2]))
    >>> image.shape, int(image.max())
    ((16, 16, 1), 255)
    """
    kind, size, row, column, grey = (int(f) for f in factors)
    points = (np.arange(SIDE * FINE) + 0.5) / FINE
    half = 1.5 + size
    down = points[:, None] - (5.0 + row * 6.0 / 7.0)
    right = points[None] - (5.0 + column * 6.0 / 7.0)
    if KINDS[kind] == "square":
        inside = np.maximum(np.abs(down), np.abs(right)) <= half
    elif KINDS[kind] == "disc":
        inside = down**2 + right**2 <= half**2
    else:  # the tip above
        inside = (np.abs(down) <= half) & (np.abs(right) <= (down + half) / 2)
    share = inside.reshape(SIDE, FINE, SIDE, FINE).mean((1, 3))
    return np.rint(share * (105 + 75 * grey)).astype(np.uint8)[..., None]


@functools.cache
def _every() -> tuple[np.ndarray, np.ndarray]:
    """(the images of all combinations, their factors)."""
    factors = factors_of(np.arange(np.prod([*FACTORS.values()])))
    return np.stack([drawn(each) for each in factors]), factors


def shapes(name: str, split: str) -> Dataset:
    """A split, by a hash of an example's index: 80 % train, 10 % each held out."""
    check_split(name, split, (*PARTS, "all"))
    images, _ = _every()
    places = np.arange(len(images))
    if split != "all":
        places = places[parts_of([str(i) for i in places]) == split]
    spec = Spec(name, images.shape[1:], 256, 3, KINDS, factors=tuple(FACTORS))
    note = f"{name}: {len(places)} of 2304 drawn shapes, 16x16x1; split {split}"
    fetch = functools.partial(_fetch, places)
    known = functools.partial(_factors, places)
    return Dataset(spec, len(places), fetch, note, factors=known)


def _fetch(places: np.ndarray, indices: np.ndarray) -> dict:
    images, factors = _every()
    chosen = places[indices]
    return {"image": images[chosen], "label": factors[chosen, 0]}


def _factors(places: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return _every()[1][places[indices]]
