"""Samples of any model, in batches of one compiled program."""

import inspect
from pathlib import Path

import jax
import numpy as np

from gengen.types import BadInput
from train.pictures import save_grid, to_uint8

COLUMNS = 10


def class_labels(model, num: int, label: int | None = None) -> np.ndarray | None:
    """int32 [num]: `label` for all, or the classes in turn; None if unconditional."""
    classes = getattr(model, "num_classes", 0)
    if label is None:
        return np.arange(num, dtype=np.int32) % classes if classes else None
    if not classes:
        raise BadInput(
            f"--label {label}: this model is unconditional; leave the option out, or "
            "train a model on a labelled data set"
        )
    if not 0 <= label < classes:
        raise BadInput(
            f"--label {label} is out of range: the classes are 0 to {classes - 1}"
        )
    return np.full(num, label, np.int32)


def check_options(model, options: dict) -> None:
    """BadInput for an option that this model's sampler does not have."""
    known = inspect.signature(model.sample).parameters
    for name, value in options.items():
        if name not in known:
            option = name.replace("_", "-")
            raise BadInput(
                f"--{option} {value}: a {type(model).__name__}'s sampler has no such "
                "option; leave it out"
            )


class Sampler:
    """Samples of one model, `batch_size` at a time, by one compiled program.

    Call it with (params, state, key, num, labels): float32 [num, ...] in data space,
    labels int32 [num] or None. Sample i is number i of the key whatever the batch
    size; the last batch is padded.
    """

    def __init__(self, model, batch_size: int, **options):
        check_options(model, options)
        self.batch_size = batch_size

        def draw(params, state, key, first, label):
            condition = {} if label is None else {"label": label}
            return model.sample(
                params, state, key, batch_size, first=first, **condition, **options
            )

        self._draw = jax.jit(draw)

    def __call__(self, params, state, key, num: int, labels=None) -> np.ndarray:
        batches = []
        for first in range(0, num, self.batch_size):
            label = None
            if labels is not None:
                here = labels[first : first + self.batch_size]
                label = np.pad(here, (0, self.batch_size - len(here)), mode="edge")
            batches.append(np.asarray(self._draw(params, state, key, first, label)))
        return np.concatenate(batches)[:num]


class Grid:
    """The sample grid of a run: the same seeds and classes at every step."""

    def __init__(self, model, spec, seed: int, batch_size: int):
        classes = getattr(model, "num_classes", 0)
        rows = min(classes, 20) if classes else COLUMNS
        self.num, self.names, self.labels = rows * COLUMNS, (), None
        if classes:
            self.labels = np.repeat(np.arange(rows, dtype=np.int32), COLUMNS)
            self.names = spec.class_names[:rows]
        self.key = jax.random.key(seed)
        self._sampler = Sampler(model, min(self.num, batch_size))

    def save(self, path: Path, ts) -> Path:
        """Draw with the averaged parameters, write the PNG."""
        params = ts.params if ts.ema is None else ts.ema
        x = self._sampler(params, ts.state, self.key, self.num, self.labels)
        return save_grid(path, to_uint8(x), COLUMNS, self.names)
