"""The same emoji in two styles: Noto's, and those of an emoji-datasource package.

    emoji-styles:FOLDER    domain a is Noto's font, b the pictures of FOLDER

FOLDER is what `npm pack emoji-datasource-twitter` holds, unpacked. A picture is known
by its characters, so that the partners are known; in training no image of a has its
partner in b.
"""

import functools
from pathlib import Path

import numpy as np

from gengen.errors import BadInput

from .dataset import Dataset, Spec, check_split, take
from .emoji import SIDE, font_at, noto, on_white, parts
from .pairs import STYLES
from .split import PARTS

VARIANT = 0xFE0F  # asks for the coloured form; some names have it, some have not


def emoji_styles(
    name: str, split: str, data_dir: str | Path | None, image_size: int | None
) -> Dataset:
    """Pairs of pictures; in "train" a is one half of them, b the other half."""
    check_split(name, split, PARTS)
    side = SIDE if image_size is None else image_size
    ours, path = noto(font_at(name, data_dir)), folder_of(name)
    theirs = {plain(codes_of(file)): file for file in path.glob("*.png")}
    both = {codes: png for codes, png in ours.items() if plain(codes) in theirs}
    if len(both) < 2 * len(PARTS):
        raise BadInput(
            f"{name}: {path} has {len(theirs)} pictures, of which {len(both)} are "
            "also Noto's: unpack emoji-datasource-twitter there"
        )
    chosen = [c for c, part in zip(both, parts(both), strict=True) if part == split]
    half = len(chosen) // 2 if split == "train" else 0
    a, b = (chosen[:half], chosen[half : 2 * half]) if half else (chosen, chosen)
    image = np.stack([on_white(both[codes], side) for codes in a])
    partner = np.stack([on_white(theirs[plain(c)].read_bytes(), side) for c in b])
    spec = Spec(name, (side, side, 3), 256, 0, (), partner=True)
    arrays = {"image": image, "partner": partner}
    who = "different" if half else "the same"
    note = f"{name}: {len(a)} of {len(both)} emoji in domain a, {who} ones in b"
    return Dataset(spec, len(a), functools.partial(take, arrays), note)


def folder_of(name: str) -> Path:
    """The folder of pictures in an unpacked package, or the folder itself."""
    given = name.removeprefix(STYLES)
    folder = Path(given).expanduser()
    if not given or not folder.is_dir():
        raise BadInput(
            f"{name}: there is no such folder; unpack emoji-datasource-twitter (npm) "
            f"and write {STYLES}FOLDER"
        )
    inside = sorted(folder.glob("**/img/*/64"))
    return inside[0] if inside else folder


def codes_of(file: Path) -> tuple[int, ...]:
    """The characters that a file's name spells; () where it spells none.

    >>> codes_of(Path("0023-fe0f-20e3.png"))
    (35, 65039, 8419)
    """
    try:
        return tuple(int(part, 16) for part in file.stem.split("-"))
    except ValueError:
        return ()


def plain(codes: tuple[int, ...]) -> tuple[int, ...]:
    """The characters without the variant's mark."""
    return tuple(code for code in codes if code != VARIANT)
