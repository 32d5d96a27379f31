"""Samples in a file, written as they are drawn: memory holds one batch of them."""

import codecs
import itertools
import math
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from gengen.errors import BadInput

from ..files import written_atomically

PIXELS = 89_478_485  # of a picture, at most: Pillow warns of larger ones


def save_arrays(
    path: Path, num: int, name: str, batches: Iterable[np.ndarray], **others: np.ndarray
) -> None:
    """An .npz, as `np.savez_compressed` writes it; nothing if a batch raises.

    Args:
        path: of the file.
        num: how many rows all batches have together.
        name: what the array is called of which the batches are rows.
        batches: the rows, in order.
        **others: further arrays.
    """
    with (
        written_atomically(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        _add(archive, name, num, iter(batches))
        for other, array in others.items():
            _add(archive, other, len(array), iter([array]))


def _add(archive: zipfile.ZipFile, name: str, num: int, batches: Iterator) -> None:
    """One array of so many rows, its header first."""
    first = np.asarray(next(batches))
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": (num, *first.shape[1:]),
    }
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for batch in itertools.chain([first], batches):
            member.write(np.asarray(batch, first.dtype).tobytes())


def save_texts(path: Path, batches: Iterable[np.ndarray]) -> Path:
    """Bytes [N, L] as text, each sample below a line with its number."""
    tokens = itertools.chain.from_iterable(batches)
    with written_atomically(path) as file:
        for i, each in enumerate(tokens):
            file.write(f"──────── {i} ────────\n{whole_characters(each)}\n".encode())
    return path


def whole_characters(tokens: np.ndarray) -> str:
    """Bytes as UTF-8; a character that the end cuts off is left out.

    What is no UTF-8 elsewhere is U+FFFD.

    >>> whole_characters(np.frombuffer("ab·".encode()[:-1], np.uint8))
    'ab'
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return decoder.decode(np.asarray(tokens).astype(np.uint8).tobytes())


def check_picture(num: int, shape: tuple[int, ...], cell: int) -> None:
    """BadInput for more images than one picture holds.

    Args:
        num: how many.
        shape: of an image, [H, W, C].
        cell: the least side of a tile.
    """
    height, width = (max(side, cell) for side in shape[:2])
    most = PIXELS // (height * width)
    if num > most:
        raise BadInput(
            f"--num {num}: a picture holds {most:,} images of {shape[0]}×{shape[1]}; "
            "write arrays (--out FILE.npz)"
        )


def columns_of(num: int, classes: int) -> int:
    """A column for each class where these are few, else about as many as rows."""
    return classes if 0 < classes <= 20 else math.ceil(math.sqrt(num))
