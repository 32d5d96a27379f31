"""Data sets as arrays, and batches as a pure function of (seed, step).

`load` turns a name into a `Dataset`. `order` says which example stands at which
place of the endless stream of shuffled epochs. `Feed` cuts that stream into batches:
where the whole set fits on the device it goes there once and a batch is a gather by
index, inside the compiled step; otherwise batches are read ahead by one thread.
Nothing is remembered between batches, so a resumed run sees the batches that an
uninterrupted one would have seen.
"""

import concurrent.futures
import dataclasses
import functools
import math
from pathlib import Path

import numpy as np

from train import sources
from train.folder import folder
from train.idx import idx
from train.sources import Dataset, Spec, bad_input
from train.text import text

__all__ = ["Dataset", "Feed", "Spec", "gather", "load", "order"]


def load(
    name: str,
    *,
    split: str = "train",
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    levels: int | None = None,
    length: int | None = None,
) -> Dataset:
    """One split of a data set.

    name: "digits" (scikit-learn), "mnist" or "fashion_mnist" (IDX files),
        "folder:PATH" (images), "text:PATH" (bytes of a file), else a set that TFDS has
        prepared as array_record.
    data_dir: where the IDX files or the prepared TFDS sets are.
    image_size: scale the shorter side to this and crop the centre; None keeps the
        size there is, which must then be one for all images.
    levels: requantise the natural 0..n-1 (n = 17 for digits, else 256) to
        floor(v · levels / n), 2 <= levels <= n; None keeps them.
    length: bytes of a window of text; None is 256.
    Raises BadInput for whatever the user can get wrong, before training.
    """
    if image_size is not None and image_size < 1:
        raise bad_input(f"image size {image_size} is no size: --image-size takes 1 up")
    if name.partition(":")[0] == "text":
        _refuse(name, image_size=image_size, levels=levels)
        return text(name, split, length)
    _refuse(name, length=length)
    if name == "digits":
        dataset = sources.digits(name, split, image_size)
    elif name in ("mnist", "fashion_mnist"):
        dataset = idx(name, split, data_dir, image_size)
    elif name.startswith("folder:"):
        dataset = folder(name, split, image_size)
    else:
        dataset = sources.prepared(name, split, data_dir, image_size)
    return dataset if levels is None else _requantise(dataset, levels)


def _refuse(name: str, **options) -> None:
    """BadInput for an option that says nothing about this data set."""
    for option, value in options.items():
        if value is not None:
            raise bad_input(
                f"--{option.replace('_', '-')} {value} says nothing about {name}: "
                "leave it out"
            )


def _requantise(dataset: Dataset, levels: int) -> Dataset:
    natural = dataset.spec.levels
    if not 2 <= levels <= natural:
        raise bad_input(
            f"levels {levels} do not fit {dataset.spec.name}, whose pixels have "
            f"{natural} levels: --levels takes 2 to {natural}"
        )
    table = (np.arange(natural) * levels // natural).astype(np.uint8)
    return dataclasses.replace(
        dataset,
        spec=dataclasses.replace(dataset.spec, levels=levels),
        fetch=functools.partial(_fetch_through, dataset.fetch, table),
        note=f"{dataset.note}; {natural} levels requantised to {levels}",
    )


def _fetch_through(fetch, table: np.ndarray, indices: np.ndarray) -> dict:
    batch = fetch(indices)
    return {**batch, "image": table[batch["image"]]}


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    # The raw stream of Philox is the same in every version of NumPy, which does not
    # promise that of `Generator.permutation`.
    sequence = np.random.SeedSequence(seed % 2**64, spawn_key=(epoch,))
    bits = np.random.Philox(sequence).random_raw(size)
    permutation = np.argsort(bits, kind="stable").astype(np.int32)
    permutation.flags.writeable = False  # it is shared
    return permutation


def order(seed: int, start: int, num: int, size: int) -> np.ndarray:
    """int32 [num]: the examples at places start..start+num-1 of the endless stream.

    Place g belongs to epoch g // size and is element g % size of that epoch's
    permutation of 0..size-1, drawn from (seed, epoch) alone.
    """
    epochs, elements = np.divmod(np.arange(start, start + num), size)
    examples = np.empty(num, np.int32)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        examples[here] = _permutation(seed, int(epoch), size)[elements[here]]
    return examples


def gather(data: dict, item):
    """The batch of the examples `item`, int32 [B], of the resident arrays `data`."""
    import jax.numpy as jnp

    return {key: jnp.take(array, item, axis=0) for key, array in data.items()}


class Feed:
    """The batches of steps 0, 1, 2, …: `fetch(data, items(step, num)[i])`.

    data: the whole set, {"image", "label"}, to be put on the device once, if it
        takes at most `resident_bytes`; else {}.
    resident: whether `data` holds the set.
    fetch: `gather` or `as_given`, pure and traceable, to be called inside the step.

    Batches cross the borders of epochs, so that all have `batch_size` examples.
    Raises BadInput if `batch_size` is not in 1..size.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int, seed: int, resident_bytes: int = 2**30
    ):
        if not 1 <= batch_size <= dataset.size:
            raise bad_input(
                f"batch size {batch_size} does not fit the {dataset.size} examples of "
                f"{dataset.spec.name}: --batch-size takes 1 to {dataset.size}"
            )
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        size = dataset.size
        self.resident = size * math.prod(dataset.spec.shape) <= resident_bytes
        self.data = dataset.fetch(np.arange(size)) if self.resident else {}
        from gengen.step import as_given

        self.fetch = gather if self.resident else as_given
        # One thread does all the reading: sources need not be thread-safe.
        self._reader = concurrent.futures.ThreadPoolExecutor(1, "feed")
        self._ahead: tuple | None = None  # ((step, num), future)

    def items(self, step: int, num: int):
        """Stacked items of steps step..step+num-1, a pure function of (step, num).

        int32 indices [num, B] where the set is resident; otherwise arrays
        [num, B, ...], while the items of the `num` steps after these are being read.
        """
        if self.resident:
            return self._indices(step, num)
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == (step, num):
            items = ahead[1].result()
        else:
            if ahead is not None:
                ahead[1].cancel()
            items = self._reader.submit(self._read, step, num).result()
        after = (step + num, num)
        self._ahead = (after, self._reader.submit(self._read, *after))
        return items

    def _indices(self, step: int, num: int) -> np.ndarray:
        size = self.batch_size
        flat = order(self.seed, step * size, num * size, self.dataset.size)
        return flat.reshape(num, size)

    def _read(self, step: int, num: int) -> dict[str, np.ndarray]:
        indices = self._indices(step, num)
        batch = self.dataset.fetch(indices.reshape(-1))
        return {
            key: array.reshape(*indices.shape, *array.shape[1:])
            for key, array in batch.items()
        }
