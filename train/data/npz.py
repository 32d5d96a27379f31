"""A file of NumPy's arrays as a data set: `npz:FILE`."""

import functools
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from gengen.errors import BadInput

from .arrays import LoadSplit, from_splits, parted
from .bounds import check_promise
from .dataset import KEYS, Dataset
from .resize import fit_array, rule

_SPLITS = {"train": "train", "test": "test"}
_SPLITS |= dict.fromkeys(("validation", "valid", "val"), "validation")
_ARRAYS = {key: key for key in (*KEYS.values(), "label")}
_ARRAYS |= {"x": "image", "y": "label"}
_ARRAYS |= {f"{key}s": key for key in ("image", "label", "latent")}
_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
_UNREADABLE += (
    NotImplementedError,
    RuntimeError,
    struct.error,
)  # zipfile's, of what it cannot do


def npz(name: str, split: str, image_size: int | None) -> Dataset:
    """The split of the arrays in FILE of `name` = "npz:FILE".

    Arrays are called image, tokens, codes or latent, and label, or the same with a
    split: train_image, validation_image, test_label, also in the plural, and x_train,
    y_train as Keras has it. Without a split in their names, a hash of an example's
    index decides where it belongs: 80 % train, 10 % validation, 10 % test.
    """
    if not (path := name.partition(":")[2]):
        raise BadInput(f"{name!r} names no file: write npz:FILE")
    path = Path(path).expanduser()
    if not path.is_file():
        raise BadInput(f"there is no file {path}: give npz:FILE an existing one")
    stat = path.stat()
    return _load_split(name, path, stat.st_mtime_ns, stat.st_size, image_size)(split)


@functools.lru_cache(maxsize=2)  # the splits of a set are asked for one by one
def _load_split(name, path: Path, _time, _size, image_size: int | None) -> LoadSplit:
    splits, rule_of_split = _splits(path)
    scaled = rule(image_size)
    for arrays in splits.values() if scaled else ():
        image = arrays.get("image")
        if image is None or image.dtype != np.uint8 or image.ndim not in (3, 4):
            raise BadInput(f"--image-size {image_size}: {name} has no uint8 images")
        image = image[..., None] if image.ndim == 3 else image
        arrays["image"] = np.stack([fit_array(one, image_size) for one in image])
    return from_splits(splits, name, note=f"{scaled}; split {{}} {rule_of_split}")


def _splits(path: Path) -> tuple[dict[str, dict[str, np.ndarray]], str]:
    """{split: {"image": …}} of the file, and how it was split, in words."""
    splits: dict[str, dict] = {}
    for member, array in read_npz(path).items():
        words = re.split(r"[_/. -]+", member.lower())
        named = [_SPLITS[word] for word in words if word in _SPLITS] or [""]
        keys = [_ARRAYS[word] for word in words if word in _ARRAYS]
        if len(keys) != 1 or len(named) != 1 or keys[0] in splits.get(named[0], {}):
            raise BadInput(
                f"{path} holds an array {member}, which says nothing here: call arrays "
                f"{', '.join(KEYS.values())} or label, with train_, validation_ or "
                "test_ before it"
            )
        splits.setdefault(named[0], {})[keys[0]] = array
    if set(splits) == {""}:
        _check_lengths(path, splits[""])
        train, others = parted(splits[""])
        how = "by a hash of the index (80 % train, 10 % validation, 10 % test)"
        return {"train": train, **others}, how
    if "" in splits or "train" not in splits:
        found = ", ".join(sorted(split or "none" for split in splits))
        raise BadInput(
            f"{path} holds arrays of the splits {found or '(no arrays)'}: name all "
            "with a split, train among them, or none"
        )
    return splits, "by the arrays' names"


def _check_lengths(path: Path, arrays: dict[str, np.ndarray]) -> None:
    lengths = {key: len(array) if array.ndim else 0 for key, array in arrays.items()}
    if len(set(lengths.values())) != 1 or not all(lengths.values()):
        told = " and ".join(f"{num:,} of {key}" for key, num in lengths.items())
        raise BadInput(f"{path} holds {told}: give as many of each, and at least one")


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file; BadInput for objects, damage, and sizes out of bounds."""
    try:
        with zipfile.ZipFile(path) as file:
            for info in file.infolist():
                _check_member(path, file, info)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except BadInput:
        raise
    except _UNREADABLE as error:
        raise BadInput(
            f"{path} cannot be read as a file of np.savez ({str(error)[:100]}): save "
            "plain arrays with np.savez again"
        ) from error


def _check_member(path: Path, file: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """The header of an array, before its numbers are read."""
    with file.open(info) as member:
        version = np.lib.format.read_magic(member)
        read = {(1, 0): np.lib.format.read_array_header_1_0}
        read = read.get(version, np.lib.format.read_array_header_2_0)
        shape, _, dtype = read(member)
    if dtype.hasobject:
        raise BadInput(
            f"{path} holds Python objects ({info.filename}), which are not read: save "
            "plain arrays"
        )
    where = f"{path} ({info.filename})"
    check_promise(where, dtype.itemsize, shape, info.compress_size)
