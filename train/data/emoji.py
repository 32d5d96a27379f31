"""Noto's colour emoji, drawn small: about 2,000 pictures in colour."""

import dataclasses
import functools
import io
import unicodedata
from pathlib import Path

import numpy as np

from gengen.errors import BadInput

from .captions import KEY, token_table, vocabulary
from .dataset import READER, Dataset, Spec, check_split, take
from .split import PARTS, parts_of

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
SIDE = 32
_TONES = set(range(0x1F3FB, 0x1F400))  # of skin: the same picture five more times
_LIGATURES = 4  # the number of OpenType's lookups that join glyphs into one


def emoji(
    name: str,
    split: str,
    data_dir: str | Path | None,
    image_size: int | None,
    reader: int = READER,
) -> Dataset:
    """The pictures of the font `NotoColorEmoji.ttf`, in `data_dir` or where Debian's
    package fonts-noto-color-emoji puts it: without labels, on white, area-resized.
    Captions are their Unicode names.

    A skin tone is a change of another picture and is left out. Who belongs to which
    split, a hash of the emoji's characters says (80/10/10).
    """
    check_split(name, split, PARTS)
    side = SIDE if image_size is None else image_size
    path = font_at(name, data_dir)
    pictures = noto(path)
    whose = parts(pictures)
    chosen = np.array(list(pictures.values()), object)[whose == split]
    arrays = {"image": np.stack([on_white(png, side) for png in chosen])}
    spec = Spec(name, (side, side, 3), 256, 0, ())
    if reader >= 3:
        names = list(map(named, pictures))
        train, here = (
            [text for text, part in zip(names, whose, strict=True) if part == which]
            for which in ("train", split)
        )
        known = vocabulary(train)
        arrays[KEY] = token_table(known, here)
        own = {"words": known.words, "caption_length": known.length}
        spec = dataclasses.replace(spec, **own)
    note = (
        f"{name}: {len(chosen)} of the {len(pictures)} emoji of {path}, "
        f"{side}x{side}x3, on white, area-resized; split {split} by a hash"
    )
    return Dataset(spec, len(chosen), functools.partial(take, arrays), note)


def named(characters: tuple[int, ...]) -> str:
    """The Unicode names of an emoji's characters, without joiners and variants.

    >>> named((0x1F469, 0x200D, 0x1F680))
    'woman rocket'
    """
    names = [unicodedata.name(chr(code), "") for code in characters]
    left_out = ("ZERO WIDTH", "VARIATION SELECTOR")
    return " ".join(n.lower() for n in names if n and not n.startswith(left_out))


def font_at(name: str, data_dir: str | Path | None) -> Path:
    """The font's file; BadInput where there is none."""
    path = FONT if data_dir is None else Path(data_dir).expanduser() / FONT.name
    if not path.is_file():
        raise BadInput(
            f"{name} needs the font {path}: apt-get install fonts-noto-color-emoji, "
            "name the folder that holds it with --data-dir, or take another data set"
        )
    return path


def parts(pictures: dict) -> np.ndarray:
    """The split of each emoji, by a hash of its characters."""
    return parts_of(["-".join(f"{code:X}" for code in codes) for codes in pictures])


def noto(path: Path) -> dict[tuple[int, ...], bytes]:
    """{characters: PNG} of a font with colour bitmaps (CBDT), sorted."""
    from fontTools.ttLib import TTFont, TTLibError

    try:
        font = TTFont(path)
        bitmaps = font["CBDT"].strikeData[0]
        codes = _codes(font)
    except (OSError, KeyError, TTLibError) as error:
        raise BadInput(
            f"{path} cannot be read as a font of colour bitmaps ({error}): fetch it "
            "again, or take another data set"
        ) from error
    known = {codes[glyph]: glyph for glyph in bitmaps if glyph in codes}
    plain = sorted(characters for characters in known if not _TONES & set(characters))
    return {characters: bitmaps[known[characters]].imageData for characters in plain}


def _codes(font) -> dict[str, tuple[int, ...]]:
    """{glyph: the characters that it shows}, ligatures resolved."""
    codes = {glyph: (code,) for code, glyph in font.getBestCmap().items()}
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable:
            table = getattr(table, "ExtSubTable", table)
            if table.LookupType != _LIGATURES:
                continue
            for first, ligatures in table.ligatures.items():
                for ligature in ligatures:
                    parts = [first, *ligature.Component]
                    if all(part in codes for part in parts):
                        joined = sum((codes[part] for part in parts), ())
                        codes.setdefault(ligature.LigGlyph, joined)
    return codes


def on_white(png: bytes, side: int) -> np.ndarray:
    """uint8 [side, side, 3]: the picture in the middle of a white square, resized."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    whole = max(picture.size)
    square = Image.new("RGBA", (whole, whole), "white")
    square.alpha_composite(picture, tuple((whole - n) // 2 for n in picture.size))
    return np.asarray(square.convert("RGB").resize((side, side), Image.Resampling.BOX))
