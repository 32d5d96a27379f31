"""Scenes: coloured digits and shapes on a dark ground, and a caption that says which.

    a red seven above a blue disc

Scene i of a split is a function of (split, i) alone, in whole numbers, so it is the
same picture on every machine. Each of the 13 kinds lacks one of the 6 colours in
training: such pairs stand in the split `unseen` alone, and show whether a model has
learned colours and kinds or their pairs (Okawa et al. 2023, arXiv:2310.09336). Digits
are scikit-learn's, of a split of their own for each split of scenes.

    scenes        one or two things; two halves, "above", "below", "left of", "right of"
    scenes:N      one to N <= 4; three and four stand in quarters, joined by "and"
    scenes:1      labelled by the pair of colour and kind
    scenes:N:all  no pair is left out: for a classifier that judges samples
"""

import functools
from typing import NamedTuple

import numpy as np

from gengen.errors import BadInput

from .captions import KEY, Captions, words_of
from .dataset import Dataset, Spec, check_split
from .digest import of_fetch
from .digits import BOUNDS, rows

PREFIX = "scenes"
SIDES = (32, 64, 128)
SIZES = {"train": 50_000, "validation": 2_000, "test": 2_000, "unseen": 2_000}
COLOURS = {
    "red": (225, 45, 45),
    "green": (55, 185, 65),
    "blue": (70, 105, 240),
    "yellow": (235, 215, 60),
    "purple": (175, 75, 215),
    "white": (235, 235, 235),
}
DIGITS = ("zero", "one", "two", "three", "four")
DIGITS += ("five", "six", "seven", "eight", "nine")
KINDS = (*DIGITS, "square", "disc", "triangle")
RELATIONS = (("above", "below"), ("left of", "right of"))
PAIRS = tuple((colour, kind) for colour in COLOURS for kind in KINDS)
UNSEEN = tuple((c, k) for c, k in PAIRS if KINDS.index(k) % 6 == [*COLOURS].index(c))
SEEN = tuple(pair for pair in PAIRS if pair not in UNSEEN)
JITTER, GROUND, FINE = 20, 48, 4  # of colours, of the ground; points a pixel's side


class Thing(NamedTuple):
    """One thing of a scene: what it is, and its box in pixels."""

    colour: str
    kind: str
    rgb: tuple[int, int, int]
    top: int
    left: int
    side: int
    which: int
    "Which of the digits of its kind, before a remainder."


class Scene(NamedTuple):
    """What is in a picture; no pixel."""

    caption: str
    ground: int
    things: tuple[Thing, ...]


def scene(split: str, index: int, most: int = 2, every: bool = False, side: int = 32):
    """The `Scene` number `index` of a split, with one to `most` things.

    >>> scene("train", 0).caption
    'a white nine'
    >>> scene("unseen", 3, 1).things[0][:2] in UNSEEN
    True
    """
    seed = [*SIZES].index(split)
    raw = np.random.Philox(key=np.array([seed, index], np.uint64)).random_raw(48)
    bits = iter(raw.tolist())
    count, axis, ground = 1 + next(bits) % most, next(bits) % 2, next(bits) % GROUND
    things = []
    for place, (top, left, height, width) in enumerate(_cells(count, axis, bits, side)):
        pairs = PAIRS if every else SEEN
        pairs = UNSEEN if split == "unseen" and place == 0 else pairs
        colour, kind = pairs[next(bits) % len(pairs)]
        rgb = [v + next(bits) % (2 * JITTER + 1) - JITTER for v in COLOURS[colour]]
        rgb = tuple(min(255, max(0, v)) for v in rgb)
        size = 3 * side // 8 + next(bits) % (side // 8 + 1)
        top += next(bits) % (height - size + 1)
        left += next(bits) % (width - size + 1)
        things.append(Thing(colour, kind, rgb, top, left, size, next(bits)))
    return Scene(_caption(things, axis), ground, tuple(things))


def _cells(count: int, axis: int, bits, side: int) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) of `count` cells that do not overlap, shuffled."""
    half = side // 2
    if count == 1:
        cells = [(0, 0, side, side)]
    elif count == 2 and axis == 0:
        cells = [(0, 0, half, side), (half, 0, half, side)]
    elif count == 2:
        cells = [(0, 0, side, half), (0, half, side, half)]
    else:
        cells = [(y, x, half, half) for y in (0, half) for x in (0, half)]
    return [cells.pop(next(bits) % len(cells)) for _ in range(count)]


def _caption(things: list[Thing], axis: int) -> str:
    named = [f"a {thing.colour} {thing.kind}" for thing in things]
    if len(named) != 2:
        return " and ".join(named)
    first, second = things
    behind = (first.top, first.left)[axis] > (second.top, second.left)[axis]
    return f"{named[0]} {RELATIONS[axis][behind]} {named[1]}"


def drawn(found: Scene, split: str, side: int = 32) -> np.ndarray:
    """uint8 [side, side, 3]: the pixels of a scene."""
    image = np.full((side, side, 3), found.ground, np.int64)
    for thing in found.things:
        share, whole = _share(thing, split)
        end = thing.top + thing.side, thing.left + thing.side
        part = image[thing.top : end[0], thing.left : end[1]]
        inked = (
            share[..., None] * np.array(thing.rgb) + (whole - share)[..., None] * part
        )
        part[:] = (inked + whole // 2) // whole
    return image.astype(np.uint8)


def _share(thing: Thing, split: str) -> tuple[np.ndarray, int]:
    """(int64 [side, side], whole): which share of a pixel a thing covers."""
    if thing.kind in DIGITS:
        digits = _digits(split)[DIGITS.index(thing.kind)]
        weight, whole = _resizing(thing.side)
        digit = digits[thing.which % len(digits)]
        return weight @ digit @ weight.T, 16 * whole**2
    return _shape(thing.kind, thing.side), FINE**2


@functools.cache
def _digits(split: str) -> tuple[np.ndarray, ...]:
    """For each digit, int64 [N, 8, 8] of 0 … 16."""
    first, end = BOUNDS["test" if split == "unseen" else split]
    chosen = rows()[first:end].astype(np.int64)
    images, labels = chosen[:, :-1].reshape(-1, 8, 8), chosen[:, -1]
    return tuple(images[labels == label] for label in range(10))


@functools.cache
def _resizing(side: int) -> tuple[np.ndarray, int]:
    """(int64 [side, 8], the sum of each row): bilinear interpolation of 8 pixels."""
    weight = np.zeros((side, 8), np.int64)
    for i in range(side):
        place = min(max(8 * (2 * i + 1) - side, 0), 14 * side)  # of 2 side per pixel
        low, rest = divmod(place, 2 * side)
        weight[i, low] += 2 * side - rest
        weight[i, min(low + 1, 7)] += rest
    return weight, 2 * side


@functools.cache
def _shape(kind: str, side: int) -> np.ndarray:
    """int64 [side, side]: of FINE² points of a pixel, how many are inside."""
    points = 2 * np.arange(side * FINE) + 1 - side * FINE  # twice, from the middle
    down, right, edge = points[:, None], points[None], side * FINE - 2 * FINE
    if kind == "square":
        inside = np.maximum(np.abs(down), np.abs(right)) <= edge
    elif kind == "disc":
        inside = down**2 + right**2 <= edge**2
    else:  # the tip above
        inside = (np.abs(down) <= edge) & (2 * np.abs(right) <= down + edge)
    return inside.reshape(side, FINE, side, FINE).sum((1, 3))


@functools.cache
def captions_of(most: int) -> Captions:
    """The tokens of scenes with one to `most` things."""
    texts = [f"a {colour} {kind}" for colour, kind in PAIRS]
    texts += [word for pair in RELATIONS for word in pair] if most > 1 else []
    texts += ["and"] if most > 2 else []
    words = sorted({word for text in texts for word in words_of(text)})
    return Captions(tuple(words), {1: 3, 2: 8, 3: 11, 4: 15}[most])


def scenes(name: str, split: str, image_size: int | None) -> Dataset:
    """The split of a name like "scenes:1", "scenes:2:all"."""
    most, every = _parts(name)
    splits = [each for each in SIZES if not every or each != "unseen"]
    check_split(name, split, splits)
    side = SIDES[0] if image_size is None else image_size
    if side not in SIDES:
        raise BadInput(
            f"--image-size {side}: {name} is drawn at {', '.join(map(str, SIDES))} "
            "pixels: take one of those"
        )
    tokens, labelled = captions_of(most), most == 1
    spec = Spec(
        name,
        (side, side, 3),
        256,
        len(PAIRS) if labelled else 0,
        tuple(map(" ".join, PAIRS)) if labelled else (),
        words=tokens.words,
        caption_length=tokens.length,
    )
    fetch = functools.partial(_fetch, split, most, every, side)
    size, held_out = SIZES[split], "" if every else f", {len(UNSEEN)} of them unseen"
    things = "one thing" if most == 1 else f"one to {most} things"
    note = (
        f"{name}: {size:,} drawn scenes of {things}, {side}x{side}x3, of "
        f"{len(PAIRS)} pairs of colour and kind{held_out}; split {split}"
    )
    some = functools.partial(of_fetch, fetch, np.arange(0, size, 25))
    return Dataset(spec, size, fetch, note, contents=some)


def _parts(name: str) -> tuple[int, bool]:
    _, *rest = name.split(":")
    every = rest[-1:] == ["all"]
    rest = rest[:-1] if every else rest
    if len(rest) > 1 or any(each not in ("1", "2", "3", "4") for each in rest):
        raise BadInput(
            f"{name}: write {PREFIX}, {PREFIX}:N with one to four things, or "
            f"{PREFIX}:N:all with every pair of colour and kind"
        )
    return int(rest[0]) if rest else 2, every


def _fetch(split: str, most: int, every: bool, side: int, indices) -> dict:
    found = [scene(split, int(i), most, every, side) for i in indices]
    tokens = captions_of(most)
    batch = {
        "image": np.stack([drawn(each, split, side) for each in found]),
        KEY: np.stack([tokens.encode(each.caption) for each in found]),
    }
    if most == 1:
        pairs = [PAIRS.index(each.things[0][:2]) for each in found]
        batch["label"] = np.array(pairs, np.int32)
    return batch
