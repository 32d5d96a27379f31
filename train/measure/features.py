"""Features of many images: moments in one pass, some kept, all resumable.

The Fréchet distance needs the mean and covariance alone, which are merged batch by
batch; the metrics that need the features themselves get the first `kept` of them.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from gengen.errors import BadInput
from gengen.images import to_unit
from gengen.metrics.frechet import Moments, merge, moments

from ..data.feed import order
from ..files import make_folder, write_atomically, written_atomically
from ..run.lock import locked
from .extractors import Extractor

IDENTITY, NUMBERED = "identity.json", "[0-9]" * 9 + ".npz"  # the files of `Parts`


@dataclasses.dataclass(frozen=True)
class Features:
    """moments of all N features; features and probs of the first M; labels of all.

    kept [M, F], probs [M, K] are the extractor's; labels int32 [N], or None.
    """

    moments: Moments
    kept: np.ndarray
    probs: np.ndarray
    labels: np.ndarray | None


def check_finite(features: np.ndarray, first: int) -> None:
    """BadInput that names the first image, numbered from `first`, which is not."""
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise BadInput(
            f"the features of image {first + int(np.argmax(bad))} are not finite: look "
            "at that image, and at the extractor"
        )


def known_labels(labels: np.ndarray | None) -> np.ndarray | None:
    """Those labels that are known: -1 stands for the others."""
    return None if labels is None else labels[labels >= 0]


def collect(stream: Iterable[tuple], kept: int) -> Features:
    """The features of batches (features, probs, labels or None)."""
    total, features, probs, labels, num = None, [], [], [], 0
    for f, p, label in stream:
        check_finite(f, num)
        here = moments(f)
        total = here if total is None else merge(total, here)
        if num < kept:
            features.append(f[: kept - num])
            probs.append(p[: kept - num])
        num += len(f)
        labels.append(label)
    every = None if labels[0] is None else np.concatenate(labels)
    return Features(total, np.concatenate(features), np.concatenate(probs), every)


def of_dataset(extractor: Extractor, dataset, kept: int, advance=None) -> Features:
    """All images of a split, in shuffled order: files are often sorted by class."""

    def stream() -> Iterator[tuple]:
        indices, size = order(0, 0, dataset.size, dataset.size), extractor.batch_size
        for first in range(0, dataset.size, size):
            batch = dataset.fetch(indices[first : first + size])
            x = np.asarray(to_unit(batch["image"], dataset.spec.levels))
            yield (*extractor(x), batch.get("label"))
            if advance is not None:
                advance(min(first + size, dataset.size))

    return collect(stream(), kept)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder of an evaluation; BadInput if another process measures there."""
    try:
        with locked(folder, "measured"):
            yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # where nothing is to be gone on with


def empty(folder: Path) -> None:
    """Delete what `Parts` wrote; nothing where there is none.

    The identity goes last, so that an interruption leaves nobody's files behind.
    """
    if not (folder / IDENTITY).exists():
        return
    for path in (*folder.glob(NUMBERED), *folder.glob("*.part"), folder / IDENTITY):
        path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


class Parts:
    """The features of batches of samples, one file each, of one evaluation.

    A folder that holds those of another one (another checkpoint, seed, extractor, …)
    is emptied first. Damaged files are deleted, which is said: they are made again.
    """

    def __init__(self, folder: Path, identity: dict):
        self.folder = folder
        record = folder / IDENTITY
        text = json.dumps(identity, indent=2, sort_keys=True)
        if not record.exists() or record.read_text() != text:
            make_folder(folder)
            for path in folder.glob(NUMBERED):
                path.unlink()
            write_atomically(record, text)

    def _file(self, first: int) -> Path:
        return self.folder / f"{first:09d}.npz"

    def has(self, first: int) -> bool:
        """Whether the batch from sample `first` on is there, and whole."""
        path = self._file(first)
        if not path.exists():
            return False
        if _arrays(path) is not None:
            return True
        path.unlink()
        print(f"note: {path} is damaged: its samples are drawn again")
        return False

    def save(self, first: int, features, probs, seconds: float) -> None:
        """Write a batch; a reader never sees half a file."""
        path = self._file(first)
        with written_atomically(path) as file:
            np.savez(file, features=features, probs=probs, seconds=seconds)

    def _load(self) -> Iterator[dict]:
        for path in sorted(self.folder.glob(NUMBERED)):
            yield _arrays(path)

    def features(self, kept: int) -> Features:
        """The features of all batches."""
        return collect(((p["features"], p["probs"], None) for p in self._load()), kept)

    def seconds(self) -> list[float]:
        """What each batch took."""
        return [float(part["seconds"]) for part in self._load()]


def _arrays(path: Path) -> dict | None:
    """The arrays of one file of `Parts`; None if it is damaged."""
    try:
        with np.load(path) as part:
            arrays = {name: part[name] for name in ("features", "probs", "seconds")}
        sizes = {len(arrays[name]) for name in ("features", "probs")}
        whole = len(sizes) == 1 and np.isfinite(arrays["features"]).all()
        return arrays if whole else None
    except Exception:  # zip, zlib, the header and the array each have their own
        return None
