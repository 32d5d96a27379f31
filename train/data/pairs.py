"""Two domains of images, for a model that maps one to the other.

    pair:CHANGE:NAME     domain b is a change of domain a, which is known:
        inverted    light and dark exchanged
        thick       each pixel the brightest of those around it
        tinted      light ink on a dark ground of another colour; a in grey
    unpaired:A,B         two data sets

A batch has domain a as "image" and domain b as "partner". In training no image of one
domain belongs to an image of the other: of a change, a is the first half of the set
and b is made of the second. In the other splits of a change, a row is a pair.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from gengen.errors import BadInput

from .dataset import Dataset

PAIR, UNPAIRED, STYLES = "pair:", "unpaired:", "emoji-styles:"
GROUND, INK = (0.1, 0.1, 0.4), (1.0, 0.8, 0.3)  # of what is tinted


def inverted(image: np.ndarray, levels: int) -> np.ndarray:
    """uint8 [..., H, W, C] with light and dark exchanged.

    >>> inverted(np.array([0, 16], np.uint8), 17).tolist()
    [16, 0]
    """
    return (levels - 1 - image).astype(image.dtype)


def thick(image: np.ndarray, levels: int) -> np.ndarray:
    """uint8 [..., H, W, C]: the brightest of a square, a fourteenth of the side and 1.

    >>> thick(np.array([[[0], [9], [0]]], np.uint8), 17)[0, :, 0].tolist()
    [0, 9, 9]
    """
    del levels
    for axis in (-3, -2):
        for _ in range(max(1, image.shape[axis] // 14)):
            moved = np.roll(image, 1, axis)
            first = [slice(None)] * image.ndim
            first[axis] = slice(0, 1)
            moved[tuple(first)] = 0
            image = np.maximum(image, moved)
    return image


def tinted(image: np.ndarray, levels: int) -> np.ndarray:
    """uint8 [..., H, W, 3] of one in grey: from one colour to another by its level.

    >>> tinted(np.full((1, 1, 3), 16, np.uint8), 17).tolist()
    [[[16, 13, 5]]]
    """
    share = image[..., :1] / (levels - 1)
    colour = (1.0 - share) * np.array(GROUND) + share * np.array(INK)
    return np.round(colour * (levels - 1)).astype(image.dtype)


CHANGES = {"inverted": inverted, "thick": thick, "tinted": tinted}


def knows_partners(name: str) -> bool:
    """Whether the held-out rows of a data set are pairs."""
    return name.startswith((PAIR, STYLES))


def change_of(name: str) -> Callable | None:
    """The known change (images, levels) -> images behind a name; None for none."""
    if not name.startswith(PAIR):
        return None
    return CHANGES[_parts(name.removeprefix(PAIR))[0]]


def _parts(rest: str) -> tuple[str, str]:
    change, _, inner = rest.partition(":")
    if change not in CHANGES or not inner:
        raise BadInput(
            f"{PAIR}{rest}: write {PAIR}CHANGE:NAME with one of {', '.join(CHANGES)}, "
            f"such as {PAIR}inverted:digits"
        )
    return change, inner


def paired(read: Callable[[str], Dataset], rest: str, split: str) -> Dataset:
    """Domain a a data set, domain b a change of it.

    Args:
        read: reads the split of the data set of a name.
        rest: CHANGE:NAME.
        split: in "train", a is one half and b is made of the other.
    """
    name, (change, inner) = PAIR + rest, _parts(rest)
    inner, known = read(inner), CHANGES[change]
    spec = inner.spec
    spec.images_only(name)
    if change == "tinted" and spec.shape[2] not in (1, 3):
        raise BadInput(f"{name}: images of {spec.shape[2]} channels have no tint")
    channels = 3 if change == "tinted" else spec.shape[2]
    half = inner.size // 2 if split == "train" else 0
    own = inner.fetch, known, spec.levels, half, channels
    size, who = half or inner.size, "different" if half else "the same"
    return dataclasses.replace(
        inner,
        spec=dataclasses.replace(
            spec, name=name, shape=(*spec.shape[:2], channels), partner=True
        ),
        size=size,
        fetch=functools.partial(_fetch_pair, *own),
        note=f"{inner.note}; {size} images of domain a, and {who} ones, {change}, of b",
        contents=None,
    )


def _fetch_pair(fetch, change, levels: int, half: int, channels: int, indices) -> dict:
    batch, other = fetch(indices), fetch(indices + half)["image"]
    image = batch["image"]
    if image.shape[-1] != channels:
        image, other = (x.repeat(channels, axis=-1) for x in (image, other))
    return {**batch, "image": image, "partner": change(other, levels)}


def unpaired(read: Callable[[str], Dataset], rest: str, split: str) -> Dataset:
    """Two data sets of the names "A,B", which `read` reads; without labels."""
    del split
    name, names = UNPAIRED + rest, rest.split(",")
    if len(names) != 2 or not all(names):
        raise BadInput(
            f"{name} names no two data sets: write {UNPAIRED}A,B, such as "
            f"{UNPAIRED}folder:horses,folder:zebras"
        )
    a, b = map(read, names)
    for dataset in (a, b):
        dataset.spec.images_only(name)
    if (a.spec.shape, a.spec.levels) != (b.spec.shape, b.spec.levels):
        raise BadInput(
            f"{a.spec.name} has images of shape {list(a.spec.shape)} with "
            f"{a.spec.levels} levels and {b.spec.name} of {list(b.spec.shape)} with "
            f"{b.spec.levels}: bring them to one shape, such as with --image-size"
        )
    bare = {"num_classes": 0, "class_names": (), "words": (), "caption_length": 0}
    spec = dataclasses.replace(a.spec, name=name, partner=True, **bare)
    fetch = functools.partial(_fetch_two, a.fetch, b.fetch, a.size, b.size)
    note = f"domain a: {a.note}; domain b: {b.note}"
    return Dataset(spec, max(a.size, b.size), fetch, note, a.left_out + b.left_out)


def _fetch_two(first, second, num_a: int, num_b: int, indices) -> dict:
    a, b = first(indices % num_a), second(indices % num_b)
    return {"image": a["image"], "partner": b["image"]}
