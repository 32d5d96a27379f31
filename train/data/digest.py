"""What a data set holds, in a few bytes: so that a run is not resumed on another one.

A digest is {what: SHA-256}, of which each entry answers for itself: "image" changes
with the pixels, "label" with the classes, "order" where the same examples stand at
other places. Where the files lie is in none.
"""

import concurrent.futures
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

WHOLE = 2**30  # bytes of files that are read through; of more, a sample
_SAMPLES, _SAMPLE = 4096, 4096  # pieces of the sample, and bytes of each
_THREADS = min(8, os.cpu_count() or 1)


def of_fetch(
    fetch: Callable[[np.ndarray], dict], indices: np.ndarray
) -> dict[str, str]:
    """The digest of the examples at `indices`: of each array by itself."""
    hashes: dict = {}
    for start in range(0, len(indices), 4096):
        batch = fetch(indices[start : start + 4096])
        for key, array in batch.items():
            first = hashlib.sha256(f"{array.dtype} {array.shape[1:]}".encode())
            hashes.setdefault(key, first).update(np.ascontiguousarray(array).data)
    return {key: digest.hexdigest() for key, digest in hashes.items()}


def of_bytes(key: str, data) -> dict[str, str]:
    """The digest of one piece of memory."""
    return {key: hashlib.sha256(data).hexdigest()}


def of_files(
    key: str, root: Path, files: Sequence[Path], labels: Sequence | None
) -> dict[str, str]:
    """The digest of files, one an example, each with its label.

    All bytes count where the files have at most `WHOLE` of them; otherwise the names,
    the sizes, and some bytes of some files, the first and the last among them.
    """
    sizes = [_size(file) for file in files]
    whole = sum(sizes) <= WHOLE
    every = 1 if whole else max(1, len(files) // _SAMPLES)
    pieces = 0 if whole else max(3, _SAMPLES // len(files))

    def content(place: int) -> bytes:
        file, size = files[place], sizes[place]
        name = "" if whole else str(file.relative_to(root))
        piece = b"" if place % every else _piece(file, size, pieces)
        known = name.encode(errors="surrogateescape") + b"\0%d\0" % size + piece
        return hashlib.sha256(known).digest()

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        contents = list(pool.map(content, range(len(files))))
    return _joined(key, contents, labels)


def _joined(key: str, contents: list[bytes], labels) -> dict[str, str]:
    result = {key: _of_all(sorted(contents)), "order": _of_all(contents)}
    if labels is not None:
        pairs = zip(contents, labels, strict=True)
        pairs = sorted(content + b"\0%d" % label for content, label in pairs)
        result["label"] = _of_all(pairs)
    return result


def _of_all(pieces: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(pieces)).hexdigest()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1  # what cannot be read is not the same as what can


def _piece(file: Path, size: int, pieces: int) -> bytes:
    """The hash of all bytes of a file, or `pieces` of it, evenly from first to last."""
    try:
        with file.open("rb") as stream:
            if not pieces:
                return hashlib.file_digest(stream, "sha256").digest()
            found = []
            for i in range(pieces):
                stream.seek(max(0, size - _SAMPLE) * i // (pieces - 1))
                found.append(stream.read(_SAMPLE))
            return hashlib.sha256(b"".join(found)).digest()
    except OSError:
        return b"unreadable"


_NOUNS = {"train": "training"}
_LABEL = "(were class folders exchanged or renamed?)"


def change(
    old: dict[str, dict[str, str]], new: dict[str, dict[str, str]], examples: str
) -> str | None:
    """How the data changed between {split: digest} and another, in words, or None.

    A split that either does not know has not changed: older versions knew none.
    """
    for split in sorted(old.keys() & new.keys(), key=["train", *old].index):
        a, b = old[split], new[split]
        changed = {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)}
        whose = f"the {_NOUNS.get(split, split)} {examples}"
        if changed - {"label", "order"}:
            return f"{whose} are no longer those"
        if "label" in changed:
            hint = f" {_LABEL}" if "order" in a else ""  # which folders alone have
            return f"the labels of {whose}{hint} are no longer those"
        if changed:
            return f"the order of {whose} is no longer that"
    return None
