"""What a run draws of itself: a grid of samples, texts, or sorted images."""

from pathlib import Path

import jax
import numpy as np

from gengen.conditions import Nothing, labels_of
from gengen.images import to_unit
from gengen.types import Discriminative

from .outputs import save_texts
from .pictures import save_grid, to_uint8
from .sampler import COLUMNS, Sampler
from .scatter import Scatter, is_plane


def as_data(x: np.ndarray, spec, model) -> np.ndarray:
    """Samples as the data set's own arrays: pixels in its levels, bytes, symbols.

    The model's space says what x is, such as standardised by its own mean; a model
    without one draws in the data set's.
    """
    space = getattr(model, "space", None) or spec.space()
    return np.asarray(space.to_data(x)).astype(spec.dtype)


def class_rows(spec) -> int:
    """How many classes a picture has rows for."""
    return min(spec.num_classes, 20)


class Grid:
    """The sample grid of a run: the same seeds and classes at every step."""

    suffix = ".png"

    def __init__(self, model, spec, seed: int, batch_size: int):
        rows, self.names, self.given = COLUMNS, (), {}
        if labels := labels_of(getattr(model, "condition", Nothing())):
            rows = class_rows(spec)
            each = np.repeat(np.arange(rows, dtype=np.int32), COLUMNS)
            self.names, self.given = spec.class_names[:rows], {labels.key: each}
        self.num = rows * COLUMNS
        self.key = jax.random.key(seed)
        batches = -(-self.num // batch_size)  # of the same size, little is padded
        self._sampler = Sampler(model, -(-self.num // batches), few=True)

    def save(self, path: Path, train_state) -> Path:
        """Draw with the averaged parameters, write the PNG."""
        params = train_state.params if train_state.ema is None else train_state.ema
        x = self._sampler(params, train_state.state, self.key, self.num, self.given)
        return save_grid(path, to_uint8(x), COLUMNS, self.names)


class Texts:
    """The samples of a run on text: the same seeds at every step."""

    suffix = ".txt"

    def __init__(self, model, seed: int, batch_size: int):
        self.key = jax.random.key(seed)
        self._sampler = Sampler(model, min(COLUMNS, batch_size), few=True)

    def save(self, path: Path, train_state) -> Path:
        """Draw with the averaged parameters, write the text."""
        params = train_state.params if train_state.ema is None else train_state.ema
        arguments = params, train_state.state, self.key, COLUMNS
        return save_texts(path, self._sampler.batches(*arguments))


class Sorted:
    """The picture of a classifier: held-out images, a row for each class it says.

    Ten of each, mistakes first.
    """

    suffix = ".png"

    def __init__(self, model, spec, batches: list[dict]):
        self.batches, self.names = batches, spec.class_names[: class_rows(spec)]
        self.spec, self._predict = spec, jax.jit(model.log_prob_labels)

    def save(self, path: Path, train_state) -> Path:
        """Classify with the averaged parameters, write the PNG."""
        params = train_state.params if train_state.ema is None else train_state.ema
        key, rows = jax.random.key(0), class_rows(self.spec)
        picture = np.zeros((rows, COLUMNS, *self.spec.shape), np.uint8)
        said = [
            np.argmax(self._predict(params, train_state.state, batch, key), axis=-1)
            for batch in self.batches
        ]
        said = np.concatenate(said)
        image = np.concatenate([batch["image"] for batch in self.batches])
        right = said == np.concatenate([batch["label"] for batch in self.batches])
        for row in range(rows):
            chosen = np.flatnonzero(said == row)
            chosen = chosen[np.argsort(right[chosen], kind="stable")][:COLUMNS]
            picture[row, : len(chosen)] = image[chosen]
        flat = picture.reshape(-1, *self.spec.shape)
        x = np.asarray(to_unit(flat, self.spec.levels))
        return save_grid(path, to_uint8(x), COLUMNS, self.names)


def picture(model, spec, seed: int, batch_size: int, batches: list[dict]):
    """What a run draws of itself: samples, or what it makes of held-out batches."""
    if isinstance(model, Discriminative):
        return Sorted(model, spec, batches)
    if spec.kind == "text":
        return Texts(model, seed, batch_size)
    if is_plane(spec):
        return Scatter(model, spec, seed, batch_size)
    return Grid(model, spec, seed, batch_size)
