"""Batches as a pure function of (seed, step).

`order` says which example stands at which place of the endless stream of shuffled
epochs. `Feed` cuts that stream into batches: where the whole set fits on the device it
goes there once and a batch is a gather by index, inside the compiled step; otherwise
Grain reads batches ahead, in a thread or in worker processes. Nothing is remembered
between batches, so a resumed run sees the batches that an uninterrupted one would have
seen.
"""

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator

import numpy as np

from gengen.errors import BadInput

from .dataset import Dataset


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
    rows: which rows of each batch this process reads (all by default). The order is
        that of the whole batches.
    resident: whether `data` holds the set.
    workers: processes that read ahead if it does not; 0 for a thread of this process.
    fetch: `gather` or `identity`, pure and traceable, to be called inside the step.

    Batches cross the borders of epochs, so that all have `batch_size` examples.
    Raises BadInput if `batch_size` is not in 1..size.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int,
        resident_bytes: int = 2**30,
        workers: int = 0,
        rows: np.ndarray | slice = slice(None),
    ):
        if not 1 <= batch_size <= dataset.size:
            raise BadInput(
                f"batch size {batch_size} does not fit the {dataset.size} examples of "
                f"{dataset.spec.name}: --batch-size takes 1 to {dataset.size}"
            )
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.rows, self.workers = rows, workers
        self.resident = dataset.bytes <= resident_bytes
        self._fetch = dataset.feed or dataset.fetch
        self.data = self._fetch(np.arange(dataset.size)) if self.resident else {}
        self._batches: dict[int, dict] = {}  # of the last call's steps
        self._ahead: Iterator | None = None  # the batches from step `_next` on
        self._next = 0

    def __getstate__(self) -> dict:  # what a worker needs to read
        return {**vars(self), "_ahead": None, "_batches": {}}

    @property
    def fetch(self):
        from gengen.multi_step import identity

        return gather if self.resident else identity

    def example(self, num: int):
        """Items of `num` steps as zeros, for shapes; nothing is read."""
        indices = self._indices(0, num)
        if self.resident:
            return indices
        zeros = self.dataset.spec.example(indices.size)
        return {k: v.reshape(*indices.shape, *v.shape[1:]) for k, v in zeros.items()}

    def items(self, step: int, num: int):
        """Stacked items of steps step..step+num-1, a pure function of (step, num).

        int32 indices [num, rows] where the set is resident; otherwise arrays
        [num, rows, ...], while as many batches after these are being read.
        """
        if self.resident:
            return self._indices(step, num)
        known = self._batches
        self._batches = batches = {}
        for s in range(step, step + num):
            batches[s] = known[s] if s in known else self._read_on(s, num)
        first = batches[step]
        return {key: np.stack([b[key] for b in batches.values()]) for key in first}

    def close(self) -> None:
        """Stop reading ahead."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.close()

    def _indices(self, step: int, num: int) -> np.ndarray:
        size = self.batch_size
        flat = order(self.seed, step * size, num * size, self.dataset.size)
        return flat.reshape(num, size)[:, self.rows]

    def _read(self, step: int) -> dict[str, np.ndarray]:
        return self._fetch(self._indices(step, 1)[0])

    def _read_on(self, step: int, ahead: int) -> dict[str, np.ndarray]:
        """The batch of `step`; the `ahead` next ones are read from now on."""
        if self._ahead is None or self._next != step:
            self.close()
            self._ahead, self._next = self._from(step, ahead), step
        try:
            batch = next(self._ahead)
        except Exception:
            self.close()
            raise
        self._next += 1
        return batch

    def _from(self, step: int, ahead: int) -> Iterator[dict[str, np.ndarray]]:
        import grain
        from absl import flags

        # One element a batch: one a record would cost more than reading it. One thread:
        # two wait for each other's hold of the interpreter where images are small.
        each = max(2, -(-ahead // max(1, self.workers)))
        batches = grain.MapDataset.range(step, 2**62).map(self._read)
        batches = batches.to_iter_dataset(grain.ReadOptions(1, each))
        if self.workers:
            # Through pipes: a stopped run would leave shared memory to complain of.
            options = grain.experimental.DatasetOptions(min_shm_size=2**62)
            batches = grain.experimental.WithOptionsIterDataset(batches, options)
            processes = grain.MultiprocessingOptions(self.workers, each)
            batches = batches.mp_prefetch(processes, worker_init_fn=_become_worker)
            if not flags.FLAGS.is_parsed():  # Grain asks for flags of its own
                flags.FLAGS.mark_as_parsed()
        return iter(batches)


def _become_worker(index: int, count: int) -> None:
    """Leave signals to the parent process, and end when it does, however it does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end():
        parent.join()
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()
