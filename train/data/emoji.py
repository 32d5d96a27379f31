"""Noto's colour emoji, drawn small: about 2,000 pictures in colour."""

import functools
import io
from pathlib import Path

import numpy as np

from gengen.errors import BadInput

from .dataset import Dataset, Spec, check_split, take
from .split import PARTS, parts_of

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
SIDE = 32
_TONES = set(range(0x1F3FB, 0x1F400))  # of skin: the same picture five more times
_LIGATURES = 4  # the number of OpenType's lookups that join glyphs into one


def emoji(
    name: str, split: str, data_dir: str | Path | None, image_size: int | None
) -> Dataset:
    """The pictures of the font `NotoColorEmoji.ttf`, in `data_dir` or where Debian's
    package fonts-noto-color-emoji puts it: without labels, on white, area-resized.

    A skin tone is a change of another picture and is left out. Who belongs to which
    split, a hash of the emoji's characters says (80/10/10).
    """
    check_split(name, split, PARTS)
    side = SIDE if image_size is None else image_size
    path = FONT if data_dir is None else Path(data_dir).expanduser() / FONT.name
    if not path.is_file():
        raise BadInput(
            f"{name} needs the font {path}: apt-get install fonts-noto-color-emoji, "
            "name the folder that holds it with --data-dir, or take another data set"
        )
    pictures = _pictures(path)
    chosen = np.array(list(pictures.values()), object)[_parts(pictures) == split]
    image = np.stack([_on_white(png, side) for png in chosen])
    note = (
        f"{name}: {len(image)} of the {len(pictures)} emoji of {path}, "
        f"{side}x{side}x3, on white, area-resized; split {split} by a hash"
    )
    spec = Spec(name, (side, side, 3), 256, 0, ())
    return Dataset(spec, len(image), functools.partial(take, {"image": image}), note)


def _parts(pictures: dict) -> np.ndarray:
    return parts_of(["-".join(f"{code:X}" for code in codes) for codes in pictures])


def _pictures(path: Path) -> dict[tuple[int, ...], bytes]:
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


def _on_white(png: bytes, side: int) -> np.ndarray:
    """uint8 [side, side, 3]: the picture in the middle of a white square, resized."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    whole = max(picture.size)
    square = Image.new("RGBA", (whole, whole), "white")
    square.alpha_composite(picture, tuple((whole - n) // 2 for n in picture.size))
    return np.asarray(square.convert("RGB").resize((side, side), Image.Resampling.BOX))
