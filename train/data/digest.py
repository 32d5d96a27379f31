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
_SAMPLES, _SAMPLE = 4096, 4096  # files of the sample, and bytes of each piece
_THREADS = min(8, os.cpu_count() or 1)


def of_fetch(fetch: Callable[[np.ndarray], dict], size: int) -> dict[str, str]:
    """The digest of all examples: of each array, one after the other."""
    hashes: dict = {}
    for start in range(0, size, 4096):
        batch = fetch(np.arange(start, min(start + 4096, size)))
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
    the sizes, and the first, the middle and the last bytes of some files.
    """
    sizes = [_size(file) for file in files]
    if sum(sizes) <= WHOLE:
        sampled = range(len(files))
    else:
        sampled = range(0, len(files), max(1, len(files) // _SAMPLES))

    def content(place: int) -> bytes:
        name = str(files[place].relative_to(root)).encode(errors="surrogateescape")
        known = b"" if sum(sizes) <= WHOLE else name
        known += b"\0%d" % sizes[place]
        if place in sampled:
            known += _piece(files[place], sizes[place], sum(sizes) <= WHOLE)
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


def _piece(file: Path, size: int, whole: bool) -> bytes:
    """All bytes of the file, or some of its beginning, middle and end."""
    try:
        with file.open("rb") as stream:
            if whole:
                return hashlib.file_digest(stream, "sha256").digest()
            pieces = []
            for start in (0, size // 2, max(0, size - _SAMPLE)):
                stream.seek(start)
                pieces.append(stream.read(_SAMPLE))
            return b"".join(pieces)
    except OSError:
        return b"unreadable"


NOUNS = {"train": "training", "validation": "validation", "test": "test"}


def change(
    old: dict[str, dict[str, str]], new: dict[str, dict[str, str]], examples: str
) -> str | None:
    """What changed between two runs' data, {split: digest}, in words; None if nothing.

    A split that either does not know is none that changed: runs begun with an older
    version know none.
    """
    for split in old.keys() & new.keys():
        a, b = old[split], new[split]
        changed = [key for key in ("label", "order") if a.get(key) != b.get(key)]
        others = [key for key in a.keys() | b.keys() if key not in ("label", "order")]
        changed = [k for k in others if a.get(k) != b.get(k)] + changed
        if changed:
            whose = f"the {NOUNS.get(split, split)} {examples}"
            what = {"label": f"the labels of {whose}", "order": f"the order of {whose}"}
            return what.get(changed[0], whose)
    return None
