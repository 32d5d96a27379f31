"""What a run draws: samples, texts, sorted images, or images and what is restored."""

from pathlib import Path

import jax
import numpy as np

from gengen.conditions import Nothing, labels_of
from gengen.images import to_unit
from gengen.types import Discriminative, FirstStage, Matches, Translates

from ..data.captions import KEY as CAPTION
from .asked import held_out, shown
from .outputs import save_texts
from .pictures import save_grid, to_uint8
from .sampler import COLUMNS, Sampler
from .scatter import Scatter, is_plane
from .translations import Translations

CAPTIONS = 8  # rows of a picture of captions


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
    """The sample grid of a run: the same seeds and classes at every step.

    captions: {name: tokens [N, S]}, N rows of which the picture shows.
    """

    suffix = ".png"

    def __init__(self, model, spec, seed: int, batch_size: int, captions=()):
        rows, self.names, self.given = COLUMNS, (), {}
        if labels := labels_of(getattr(model, "condition", Nothing())):
            rows = class_rows(spec)
            each = np.repeat(np.arange(rows, dtype=np.int32), COLUMNS)
            self.names, self.given = spec.class_names[:rows], {labels.key: each}
        for name, tokens in dict(captions).items():
            rows, self.names = len(tokens), shown(captions, spec)
            self.given = {name: np.repeat(tokens, COLUMNS, axis=0)}
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


def mistaken(said, label):
    """Which of the classes that are said [N] are not those that are known.

    label: [N] integers, below 0 where no class is known: then nothing is a mistake.
    """
    return (label >= 0) & (said != label)


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
        label = np.concatenate([batch["label"] for batch in self.batches])
        wrong = mistaken(said, label)
        for row in range(rows):
            chosen = np.flatnonzero(said == row)
            chosen = chosen[np.argsort(~wrong[chosen], kind="stable")][:COLUMNS]
            picture[row, : len(chosen)] = image[chosen]
        flat = picture.reshape(-1, *self.spec.shape)
        x = np.asarray(to_unit(flat, self.spec.levels))
        return save_grid(path, to_uint8(x), COLUMNS, self.names)


class Retrieved:
    """The picture of a CLIP: held-out captions, and the images nearest to each."""

    suffix = ".png"

    def __init__(self, model, spec, batches: list[dict]):
        self.batches, self.spec = batches, spec
        self._embeddings = jax.jit(model.embeddings)
        tokens = np.concatenate([batch[CAPTION] for batch in batches])
        _, first = np.unique(tokens, axis=0, return_index=True)
        self.rows = np.sort(first)[:CAPTIONS]  # of different captions
        self.names = shown({CAPTION: tokens[self.rows]}, spec)

    def save(self, path: Path, train_state) -> Path:
        """Search with the averaged parameters, write the PNG."""
        params = train_state.params if train_state.ema is None else train_state.ema
        found = [self._embeddings(params, {}, batch) for batch in self.batches]
        u, v = (np.concatenate(x) for x in zip(*found, strict=True))
        image = np.concatenate([batch["image"] for batch in self.batches])
        nearest = np.argsort(-v[self.rows] @ u.T, axis=1, kind="stable")
        picked = image[nearest[:, :COLUMNS].ravel()]
        x = np.asarray(to_unit(picked, self.spec.levels))
        return save_grid(path, to_uint8(x), min(COLUMNS, len(image)), self.names)


class Restored:
    """The picture of an autoencoder: rows of held-out images, and of what is restored.

    A row of images, and below it their reconstructions.
    """

    suffix = ".png"
    pairs = 4

    def __init__(self, model, spec, batches: list[dict]):
        num, size = self.pairs * COLUMNS, len(batches[0]["image"])
        parts = [batch["image"] for batch in batches[: -(-num // size)]]
        image = np.concatenate(parts)[:num]
        self.image = image[: len(image) // COLUMNS * COLUMNS or len(image)]
        self.spec, self._reconstruct = spec, jax.jit(model.reconstruct)

    def save(self, path: Path, train_state) -> Path:
        """Reconstruct with the averaged parameters, write the PNG."""
        params = train_state.params if train_state.ema is None else train_state.ema
        batch, key = {"image": self.image}, jax.random.key(0)
        restored = self._reconstruct(params, train_state.state, batch, key)
        image = np.asarray(to_unit(self.image, self.spec.levels))
        columns = min(COLUMNS, len(image))
        rows = np.stack([image, np.asarray(restored)])  # [2, N, H, W, C]
        rows = rows.reshape(2, -1, columns, *image.shape[1:]).swapaxes(0, 1)
        names = ("images", "restored") * (len(image) // columns)
        flat = to_uint8(rows.reshape(-1, *image.shape[1:]))
        return save_grid(path, flat, columns, names)


def picture(model, spec, seed: int, batch_size: int, batches: list[dict], load_split):
    """What a run draws of itself: samples, or what it makes of held-out batches."""
    if isinstance(model, Translates):
        return Translations(model, load_split)
    if isinstance(model, Discriminative):
        return Sorted(model, spec, batches)
    if isinstance(model, Matches):
        return Retrieved(model, spec, batches)
    if isinstance(model, FirstStage):
        return Restored(model, spec, batches)
    if spec.kind == "text":
        return Texts(model, seed, batch_size)
    if is_plane(spec):
        return Scatter(model, spec, seed, batch_size)
    captions = held_out(model, load_split, CAPTIONS)
    return Grid(model, spec, seed, batch_size, captions)
