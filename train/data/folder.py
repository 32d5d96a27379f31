"""A folder of images as a data set: one subfolder a class, or no classes at all."""

import concurrent.futures
import functools
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gengen.errors import BadInput

from .dataset import Dataset, Spec, bad_record, check_split
from .resize import fit, rule

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")
_THREADS = min(8, os.cpu_count() or 1)
_ORIENTATION = 0x0112  # the EXIF tag; values 5 to 8 exchange height and width


class _Header(NamedTuple):
    height: int
    width: int
    gray: bool


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name[0] != ".")


def _images(folder: Path) -> list[Path]:
    return [
        path
        for path in _visible(folder)
        if path.suffix.lower() in _SUFFIXES and path.is_file()
    ]


def _groups(root: Path) -> dict[str, list[Path]]:
    """Class name -> its images, sorted; one nameless group where there is no class."""
    if not root.is_dir():
        raise BadInput(f"there is no folder {root}: give folder:PATH an existing one")
    loose = _images(root)
    groups = {path.name: _images(path) for path in _visible(root) if path.is_dir()}
    empty = [name for name, images in groups.items() if not images]
    if len(empty) == len(groups):
        if not loose:
            raise BadInput(
                f"{root} holds no image ({', '.join(_SUFFIXES)}), directly or in its "
                "subfolders: put images there, one subfolder a class, or name the "
                "folder just above the classes"
            )
        return {"": loose}
    if loose:
        raise BadInput(
            f"{root} holds images both directly ({loose[0].name}) and in subfolders: "
            "move all into subfolders, one a class, or none"
        )
    if empty:
        raise BadInput(
            f"the class folder {root / empty[0]} holds no image: fill it or remove it"
        )
    return groups


def _open(path: Path, read):
    """`read(picture)` of the file; whatever a broken file raises is a BadInput."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return read(picture)
    except Exception as error:  # each format's parser has its own
        raise bad_record(str(path), error) from error


def _header(path: Path) -> _Header:
    """What the first bytes of the file say; no pixel is decoded."""

    def read(picture):
        if picture.mode[0] in "IF":
            raise ValueError(f"mode {picture.mode} has more than 8 bits a channel")
        width, height = picture.size
        # Pillow looks for a PNG's EXIF behind its pixels if it is not before them.
        cheap = picture.format != "PNG" or "exif" in picture.info
        if cheap and picture.getexif().get(_ORIENTATION, 1) >= 5:
            width, height = height, width
        gray = picture.mode in ("1", "L") and not picture.has_transparency_data
        return _Header(height, width, gray)

    return _open(path, read)


def _decode(path: Path, shape: tuple[int, int, int], image_size: int | None):
    """uint8 pixels of `shape`: upright, transparency on white, scaled and cropped."""
    from PIL import Image, ImageOps

    def read(picture):
        picture = ImageOps.exif_transpose(picture)
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

    return _open(path, read)


def _read_files(
    paths: list[Path],
    labels: np.ndarray | None,
    shape: tuple[int, int, int],
    image_size: int | None,
    indices: np.ndarray,
) -> dict[str, np.ndarray]:
    image = np.empty((len(indices), *shape), np.uint8)

    def put(row: int) -> None:
        image[row] = _decode(paths[indices[row]], shape, image_size)

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(put, range(len(indices))):
            pass  # an exception of `put` surfaces here, the first file's first
    return {"image": image} | ({} if labels is None else {"label": labels[indices]})


def _common_size(headers: dict[Path, _Header]) -> tuple[int, int]:
    where, first = next(iter(headers.items()))
    for path, other in headers.items():
        if other[:2] != first[:2]:
            raise BadInput(
                f"the images have more than one size, {where} is "
                f"{first.width}x{first.height} and {path} {other.width}x"
                f"{other.height}: --image-size N scales and crops all of them to N x N"
            )
    return first[:2]


def _headers(files: list[Path], skip: bool) -> dict[Path, _Header]:
    """The headers of the files; without those of broken ones, if `skip`."""

    def header(path: Path) -> _Header | Exception:
        try:
            return _header(path)
        except ValueError as error:  # a BadInput
            return error

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        headers = dict(zip(files, pool.map(header, files), strict=True))
    bad = {file: h for file, h in headers.items() if isinstance(h, Exception)}
    if bad and (not skip or len(bad) == len(files)):
        raise next(iter(bad.values()))
    return {file: h for file, h in headers.items() if file not in bad}


def folder(
    name: str, split: str, image_size: int | None, skip: bool = False
) -> Dataset:
    """The images under PATH of `name` = "folder:PATH".

    Each subfolder is a class, in sorted order; images directly in PATH make an
    unlabelled set. Every tenth file of a class, in sorted order, is a test image.
    One channel where all images are grayscale, otherwise RGB. Headers are read now,
    pixels when fetched. skip: files with broken headers are left out, and change the
    split of no other file; otherwise they are refused.
    """
    check_split(name, split, ("train", "test"))
    path = name.removeprefix("folder:")
    if not path:
        raise BadInput(f"{name!r} names no folder: write folder:PATH")
    groups = _groups(Path(path).expanduser())
    everything = [file for files in groups.values() for file in files]
    headers = _headers(everything, skip)
    channels = 1 if all(header.gray for header in headers.values()) else 3
    if image_size is None:
        height, width = _common_size(headers)
    else:
        height = width = image_size

    test = {file for files in groups.values() for file in files[9::10]}
    of_split = [
        (file, label)
        for label, files in enumerate(groups.values())
        for file in files
        if (file in test) == (split == "test")
    ]
    chosen = [(file, label) for file, label in of_split if file in headers]
    left_out = tuple(str(file) for file, _ in of_split if file not in headers)
    if not chosen:
        error = BadInput(
            f"the split 'test' of {name} is empty, for it is every tenth image of a "
            f"class and the largest class has {max(map(len, groups.values()))}: "
            "add images or take the split 'train'"
        )
        error.no_such_split = True
        raise error
    paths, labels = [file for file, _ in chosen], None
    classes = () if "" in groups else tuple(groups)
    if classes:
        labels = np.array([label for _, label in chosen], np.int32)
    shape = (height, width, channels)
    spec = Spec(name, shape, 256, len(classes), classes)
    note = (
        f"{name}: {len(chosen)} images of {len(everything)}, {height}x{width}x"
        f"{channels}{rule(image_size)}; split {split} (every tenth file of a class, "
        "sorted by name, is test)"
    )
    fetch = functools.partial(_read_files, paths, labels, shape, image_size)
    return Dataset(spec, len(chosen), fetch, note, left_out)
