"""MNIST and its drop-in relatives, from the four IDX files that they come in."""

import functools
import gzip
import zlib
from pathlib import Path

import numpy as np

from gengen.errors import BadInput

from .bounds import check_promise
from .dataset import Dataset, Spec, check_split, take
from .digest import of_fetch
from .resize import fit_array, rule

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

# The third byte of an IDX file names the type of its numbers, big-endian.
_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_PREFIX = {"train": "train", "test": "t10k"}
_CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file, plain or gzip: two zero bytes, a type code, the
    rank, the sizes (big-endian uint32), then the numbers."""
    again = "fetch the file again"
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with gzip.open(file) if packed else file as stream:
                return _read_idx(path, stream, path.stat().st_size, again)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path} cannot be read ({error}): {again}") from error


def _read_idx(path: Path, stream, stored: int, again: str) -> np.ndarray:
    """The array of a stream, of which no more is read than its header promises."""
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES or head[3] > 8:
        raise BadInput(
            f"{path} is not an IDX file, for it begins with the bytes "
            f"'{head.hex(' ')}', not with '00 00', a type code and a rank: {again}"
        )
    dtype, rank = np.dtype(_TYPES[head[2]]), head[3]
    if len(sizes := stream.read(4 * rank)) < 4 * rank:
        raise BadInput(f"{path} ends within its header: it is truncated, {again}")
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    promised = check_promise(str(path), dtype.itemsize, shape, stored)
    raw = stream.read(promised + 1)
    if len(raw) != promised:
        found = f"more than {promised:,}" if len(raw) > promised else f"{len(raw):,}"
        raise BadInput(
            f"{path} holds {found} bytes of numbers where its header, sizes {shape}, "
            f"promises {promised:,}: it is truncated or damaged, {again}"
        )
    return np.frombuffer(raw, dtype).reshape(shape)


def _idx_bytes(name: str, split: str, kind: str, rank: int, folder: Path | None):
    """(path, array) of the IDX file of bytes that `kind` ("images", "labels") names."""
    stem = f"{_PREFIX[split]}-{kind}"
    stems = (f"{stem}-idx{rank}-ubyte", f"{stem}.idx{rank}-ubyte")
    files = [folder / (s + end) for s in stems for end in ("", ".gz")] if folder else []
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        debian = "apt-get install dataset-fashion-mnist, or "
        raise BadInput(
            f"{name} needs the file {stems[0]}[.gz], looked for in "
            f"{folder or 'no folder, for none was named'}: "
            f"{debian if name == 'fashion_mnist' else ''}"
            "name the folder that holds its four IDX files with --data-dir"
        )
    array = read_idx(path)
    if array.ndim != rank or array.dtype != np.uint8:
        raise BadInput(
            f"{path} holds {array.dtype.name} of rank {array.ndim} where {kind} are "
            f"uint8 of rank {rank}: put the right file there (are images and labels "
            "exchanged?)"
        )
    return path, array


def idx(
    name: str, split: str, data_dir: str | Path | None, image_size: int | None
) -> Dataset:
    """MNIST or Fashion-MNIST from IDX files: in `data_dir`, or, where that is None,
    Fashion-MNIST where Debian's package dataset-fashion-mnist puts it."""
    check_split(name, split, _PREFIX)
    folder = DEBIAN_FASHION_MNIST if name == "fashion_mnist" else None
    if data_dir is not None:
        folder = Path(data_dir).expanduser()
    path, image = _idx_bytes(name, split, "images", 3, folder)
    label_path, label = _idx_bytes(name, split, "labels", 1, folder)
    if image.size == 0:
        raise BadInput(f"{path} holds no pixel: fetch the file again")
    if len(image) != len(label):
        raise BadInput(
            f"{path} holds {len(image)} images but {label_path} {len(label)} labels: "
            "take both files from one source"
        )
    if label.max() > 9:
        raise BadInput(
            f"{label_path} holds the label {label.max()} where {name} has 0 to 9: "
            "fetch the file again, or read the set as a folder:PATH of images"
        )
    image = image[..., None]  # [N, H, W, 1]
    raw = functools.partial(take, {"image": image, "label": label})
    contents = functools.partial(of_fetch, raw, np.arange(len(image)))
    if image_size is not None:
        image = np.stack([fit_array(one, image_size) for one in image])
    arrays = {"image": image, "label": label.astype(np.int32)}
    height, width = image.shape[1:3]
    note = (
        f"{name}: {len(image)} images from {path}, {height}x{width}x1"
        f"{rule(image_size)}; split {split} by file"
    )
    spec = Spec(name, (height, width, 1), 256, 10, _CLASSES[name])
    fetch = functools.partial(take, arrays)
    return Dataset(spec, len(image), fetch, note, contents=contents)
