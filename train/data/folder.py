"""A folder of images as a data set: one subfolder a class, or no classes at all.

An image's path below PATH decides by a hash whether it is for training, validation or
testing, so that images which are added later move no others; a folder of subfolders
train, validation (val, valid) and test is split already. Runs that were begun by an
older version keep its rules, `reader` 1: every tenth image of a class is for
testing, what lies in deeper folders is not read, and of formats only `_OLD_SUFFIXES`.
"""

import concurrent.futures
import functools
import os
import warnings
from pathlib import Path

import numpy as np

from gengen.errors import BadInput

from .caption_files import sources, tokens_of
from .captions import KEY
from .dataset import (
    READER,
    Dataset,
    Spec,
    bad_records,
    check_split,
    named,
    visible_files,
)
from .digest import of_bytes, of_files
from .pictures import Header, decode, header, suffixes
from .resize import rule
from .split import PARTS, part_of

Groups = dict[str, list[Path]]
"""Class name -> its images, sorted; one nameless group where there is no class."""

_OLD_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif"))
_NAMES = {"train": "train", "validation": "validation", "test": "test"}
_NAMES |= {"valid": "validation", "val": "validation"}
_THREADS = min(8, os.cpu_count() or 1)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name[0] != ".")


def _files(folder: Path, deep: bool) -> list[Path]:
    if deep:
        return visible_files(folder)
    return [path for path in _visible(folder) if path.is_file()]


def _images(folder: Path, deep: bool, kinds: frozenset[str]) -> list[Path]:
    return [file for file in _files(folder, deep) if file.suffix.lower() in kinds]


def _groups(root: Path, reader: int) -> Groups:
    deep, kinds = reader > 1, suffixes()
    if reader == 1:
        kinds = _OLD_SUFFIXES
    loose = _images(root, False, kinds)
    inside = [path for path in _visible(root) if path.is_dir()]
    groups = {path.name: _images(path, deep, kinds) for path in inside}
    empty = [name for name, images in groups.items() if not images]
    if len(empty) == len(groups):
        if not loose:
            raise BadInput(
                f"{root} holds no image ({', '.join(sorted(_OLD_SUFFIXES))} …), "
                "directly or in its subfolders: put images there, one subfolder a "
                "class, or name the folder just above the classes"
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
    if len(inside) == 1 and all(f.parent != inside[0] for f in groups[inside[0].name]):
        raise BadInput(
            f"all images of {root} are in folders below {inside[0]}: name the folder "
            f"just above the classes, such as folder:{inside[0]}"
        )
    return groups


def _is_split(root: Path) -> bool:
    """Whether all subfolders are splits, train among them."""
    names = [path.name for path in _visible(root) if path.is_dir()]
    parts = [_NAMES.get(name) for name in names]
    return "train" in parts and None not in parts and len(set(parts)) == len(parts) > 1


def _splits(root: Path, reader: int) -> tuple[dict[str, Groups], str]:
    """{split: its images}, and how they were split, in words."""
    if not root.is_dir():
        raise BadInput(f"there is no folder {root}: give folder:PATH an existing one")
    if reader > 1 and _is_split(root):
        folders = [path for path in _visible(root) if path.is_dir()]
        splits = {_NAMES[path.name]: _groups(path, reader) for path in folders}
        return _alike(root, splits), "by folder"
    groups = _groups(root, reader)
    if reader == 1:
        test = {file for files in groups.values() for file in files[9::10]}
        part = {f: "test" if f in test else "train" for g in groups.values() for f in g}
        words = "(every tenth file of a class, sorted by name, is test)"
    else:
        part = {
            file: part_of(file.relative_to(root).as_posix())
            for files in groups.values()
            for file in files
        }
        words = "by a hash of the path (80 % train, 10 % validation, 10 % test)"
    splits = {
        split: {name: [f for f in files if part[f] == split] for name, files in g}
        for split, g in ((split, groups.items()) for split in PARTS)
    }
    return splits, words


def _alike(root: Path, splits: dict[str, Groups]) -> dict[str, Groups]:
    """The splits, all with the classes of train; BadInput for another class."""
    classes = splits["train"]
    for split, groups in splits.items():
        if strange := sorted(groups.keys() - classes.keys()):
            what = f"the class {strange[0]}" if strange[0] else "images without a class"
            raise BadInput(
                f"the split {split} of {root} has {what}, which train has not: put "
                "the same class folders into both"
            )
    return {
        split: {name: groups.get(name, []) for name in classes}
        for split, groups in splits.items()
    }


def _read_files(
    paths: list[Path],
    labels: np.ndarray | None,
    shape: tuple[int, int, int],
    image_size: int | None,
    tokens: np.ndarray | None,
    indices: np.ndarray,
) -> dict[str, np.ndarray]:
    image, bad = np.empty((len(indices), *shape), np.uint8), {}

    def put(row: int) -> None:
        try:
            image[row] = decode(paths[indices[row]], shape, image_size)
        except ValueError as error:  # a BadInput
            bad[row] = error

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(put, range(len(indices))))
    if bad:
        raise bad_records([bad[row] for row in sorted(bad)])
    more = {"label": labels, KEY: tokens}
    more = {key: rows[indices] for key, rows in more.items() if rows is not None}
    return {"image": image} | more


def _common_size(headers: dict[Path, Header]) -> tuple[int, int]:
    where, first = next(iter(headers.items()))
    for path, other in headers.items():
        if other[:2] != first[:2]:
            raise BadInput(
                f"the images have more than one size, {where} is "
                f"{first.width}x{first.height} and {path} {other.width}x"
                f"{other.height}: --image-size N scales and crops all of them to N x N"
            )
    return first[:2]


def _headers(files: list[Path], skip: bool) -> dict[Path, Header]:
    """The headers of the files; without those of broken ones, if `skip`."""
    from PIL import Image

    def read(path: Path) -> Header | Exception:
        try:
            return header(path)
        except ValueError as error:  # a BadInput
            return error

    with (
        warnings.catch_warnings(),
        concurrent.futures.ThreadPoolExecutor(_THREADS) as pool,
    ):
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        headers = dict(zip(files, pool.map(read, files), strict=True))
    bad = {file: h for file, h in headers.items() if isinstance(h, Exception)}
    if bad and (not skip or len(bad) == len(files)):
        raise bad_records(list(bad.values()))
    return {file: h for file, h in headers.items() if file not in bad}


def _not_read(root: Path, images: set[Path]) -> str:
    """The files that are no images by their names, for a note; "" if there are none."""
    others = [file for file in _files(root, deep=True) if file not in images]
    if not others:
        return ""
    return f"; {named([str(file.relative_to(root)) for file in others], 'not read')}"


def folder(
    name: str,
    split: str,
    image_size: int | None,
    skip: bool = False,
    reader: int = READER,
) -> Dataset:
    """The images under PATH of `name` = "folder:PATH".

    Each subfolder is a class, in sorted order, with all that is below it; images
    directly in PATH make an unlabelled set. One channel where all images are
    grayscale, otherwise RGB. Headers are read now, pixels when fetched. skip: files
    with broken headers are left out, and change the split of no other file; otherwise
    they are refused.
    """
    path = name.removeprefix("folder:")
    if not path:
        raise BadInput(f"{name!r} names no folder: write folder:PATH")
    root = Path(path).expanduser()
    check_split(name, split, PARTS)
    splits, words = _splits(root, reader)
    everything = [f for groups in splits.values() for g in groups.values() for f in g]
    _check_filled(name, split, splits, words, len(everything))
    headers = _headers(everything, skip)
    channels = 1 if all(h.gray for h in headers.values()) else 3
    height = width = image_size
    if image_size is None:
        height, width = _common_size(headers)

    classes = tuple(splits["train"])
    pairs = [(f, k) for k, files in enumerate(splits[split].values()) for f in files]
    chosen = [(file, label) for file, label in pairs if file in headers]
    left_out = tuple(str(file) for file, _ in pairs if file not in headers)
    if not chosen:
        error = BadInput(f"no image of the split {split!r} of {name} can be read")
        error.no_such_split = split != "train"
        raise error
    paths, labels = [file for file, _ in chosen], None
    if classes != ("",):
        labels = np.array([label for _, label in chosen], np.int32)
    shape = (height, width, channels)
    names = () if labels is None else classes
    tokens, own = None, {}
    if reader >= 3:
        train = [f for files in splits["train"].values() for f in files]
        tokens, own = tokens_of(root, everything, train, paths)
    note = (
        f"{name}: {len(chosen)} images of {len(everything)}, {height}x{width}x"
        f"{channels}{rule(image_size)}; split {split} {words}"
        f"{_not_read(root, {*everything, *sources(root, everything)})}"
    )
    contents = "image", root, *_both(pairs, labels is not None)
    return Dataset(
        Spec(name, shape, 256, len(names), names, **own),
        len(chosen),
        functools.partial(_read_files, paths, labels, shape, image_size, tokens),
        note,
        left_out,
        functools.partial(_digest, tokens, *contents),
    )


def _digest(tokens: np.ndarray | None, *contents) -> dict[str, str]:
    """The digest of the files and, where there are captions, of their tokens."""
    return of_files(*contents) | ({} if tokens is None else of_bytes(KEY, tokens.data))


def _both(pairs: list[tuple[Path, int]], labelled: bool):
    files, labels = zip(*pairs, strict=True)
    return files, labels if labelled else None


def _check_filled(
    name: str, split: str, splits: dict[str, Groups], words: str, num: int
) -> None:
    """BadInput for a split without images, which is none where it is not train."""
    there = [s for s in splits if any(splits[s].values())]
    if split in there:
        return
    other = "" if split == "train" else f" or take {' or '.join(there)}"
    error = BadInput(
        f"the split {split!r} of {name} is empty: its {num} images are split {words}; "
        f"add images{other}"
    )
    error.no_such_split = split != "train"
    raise error
