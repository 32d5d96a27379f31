"""Image files as pixels: 8 bits, upright, transparency on white, the first frame.

Whatever Pillow reads is read, but for what it hands to other programs. The upper 8
of 16 bits per channel are kept, v >> 8: so Pillow does with colour, and 0 stays 0 and
65535 becomes 255. Numbers of 32 bits have no known range and are refused.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .dataset import bad_record
from .resize import fit

# Ghostscript would run what an EPS says; of the others Pillow reads the header alone.
_NOT_READ = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
_ORIENTATION = 0x0112  # the EXIF tag; values 5 to 8 exchange height and width


class Header(NamedTuple):
    height: int
    width: int
    gray: bool


@functools.cache
def formats() -> tuple[str, ...]:
    """What Pillow calls the formats that are read."""
    from PIL import Image

    Image.init()
    return tuple(sorted(set(Image.OPEN) - _NOT_READ))


@functools.cache
def suffixes() -> frozenset[str]:
    """The endings of files of these formats, in lower case."""
    from PIL import Image

    known = formats()
    return frozenset(k for k, v in Image.registered_extensions().items() if v in known)


def open_picture(path: Path, read):
    """`read(picture)` of the file; whatever a broken file raises is a BadInput."""
    from PIL import Image

    try:
        with Image.open(path, formats=formats()) as picture:
            return read(picture)
    except Exception as error:  # each format's parser has its own
        raise bad_record(str(path), error) from error


def eight_bits(picture):
    """The picture with 8 bits per channel; ValueError where there is no known range."""
    from PIL import Image

    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode[0] in "IF":
        raise ValueError(f"mode {picture.mode} has 32 bits and no known range")
    return picture


def header(path: Path) -> Header:
    """What the first bytes of the file say; no pixel is decoded."""

    def read(picture):
        if picture.mode in ("I", "F"):
            eight_bits(picture)
        width, height = picture.size
        # Pillow looks for a PNG's EXIF behind its pixels if it is not before them.
        cheap = picture.format != "PNG" or "exif" in picture.info
        if cheap and picture.getexif().get(_ORIENTATION, 1) >= 5:
            width, height = height, width
        deep = picture.mode.startswith("I;16")
        gray = deep or (
            picture.mode in ("1", "L") and not picture.has_transparency_data
        )
        return Header(height, width, gray)

    return open_picture(path, read)


def decode(path: Path, shape: tuple[int, int, int], image_size: int | None):
    """uint8 pixels of `shape`: upright, transparency on white, scaled and cropped."""
    from PIL import Image, ImageOps

    def read(picture):
        picture = eight_bits(ImageOps.exif_transpose(picture))
        if shape[2] == 1:
            picture = picture.convert("L")
        elif picture.has_transparency_data:
            white = Image.new("RGBA", picture.size, "white")
            white.alpha_composite(picture.convert("RGBA"))
            picture = white.convert("RGB")
        else:
            picture = picture.convert("RGB")
        if image_size is not None:
            picture = fit(picture, image_size)
        pixels = np.asarray(picture)
        if pixels.shape[:2] != shape[:2]:
            raise ValueError(f"{pixels.shape[:2]} pixels, {shape[:2]} in its header")
        return pixels.reshape(shape)

    return open_picture(path, read)
