"""Samples of any model, in batches of one compiled program; the picture of a run.

(Of a run on text, the picture is text.)
"""

import inspect
from pathlib import Path

import jax
import numpy as np

from gengen.autoregressive.tempering import PLAIN, Tempering
from gengen.images import to_unit
from gengen.types import BadInput
from train.experiment import write_atomically
from train.experiments.denoising import grids, solvers
from train.pictures import save_grid, to_uint8

COLUMNS = 10

# The sampler's keywords that a program may have as options.
KEYWORDS = ("guidance_scale", "steps", "solver", "grid", "draw")
KEYWORDS += ("interval", "rescale", "threshold")  # of guidance
TEMPERING = ("temperature", "top_k", "top_p")  # of autoregressive models
KEYWORDS += TEMPERING
COMPLETION = ("particles", "method", "repeats")  # of `complete`


def sample_classes(model) -> int:
    """How many classes a sample of this model can be asked for; 0 for none."""
    return getattr(model, "sample_classes", getattr(model, "num_classes", 0))


def class_labels(model, num: int, label: int | None = None) -> np.ndarray | None:
    """int32 [num]: `label` for all, or the classes in turn; None if unconditional."""
    classes = sample_classes(model)
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


def given_keywords(options, names: tuple[str, ...] = KEYWORDS) -> dict:
    """{keyword: value} of the sampler's keywords that the options give."""
    values = {name: getattr(options, name, None) for name in names}
    return {k: v for k, v in values.items() if v is not None and v is not False}


def as_keywords(given: dict) -> dict:
    """Solvers and grids by their names become solvers and grids, tempering a value.

    A classifier's scale is its guide's, not a keyword.
    """
    named = {"solver": solvers, "grid": grids}
    tempering = {k: v for k, v in given.items() if k in TEMPERING}
    left_out = ("classifier_scale", *tempering)
    given = {k: v for k, v in given.items() if k not in left_out}
    given = {k: named[k]()[v] if k in named else v for k, v in given.items()}
    return given | ({"sampler": Tempering(**tempering)} if tempering else {})


def calls_in_words(calls: int | None, samples: int = 1) -> str:
    """ "1,234 network evaluations", of an adaptive solver as many as it takes."""
    if calls is None:
        return "as many network evaluations as the solver decides on"
    return f"{samples * calls:,} network evaluations"


def keywords_of(model) -> set[str]:
    """The keywords of this model's sampler, and the fields of its `sampler`."""
    names = "sample", "from_latent", "plan", "complete"
    methods = (getattr(model, name, None) for name in names)
    takes = [inspect.signature(f).parameters for f in methods if f is not None]
    takes += [vars(p["sampler"].default) for p in takes if "sampler" in p]
    if hasattr(model, "guidance"):
        takes.append(vars(model.guidance))
    return {name for parameters in takes for name in parameters}


def check_options(model, options: dict) -> None:
    """BadInput for an option that this model's sampler does not have."""
    tempering = options.get("sampler")
    if isinstance(tempering, Tempering):
        fields = {k: v for k, v in vars(tempering).items() if v != getattr(PLAIN, k)}
        others = {k: v for k, v in options.items() if k != "sampler"}
        options = others | (fields or {"temperature": tempering.temperature})
    for name, value in options.items():
        if name not in keywords_of(model):
            option = name.replace("_", "-")
            raise BadInput(
                f"--{option} {value}: a {type(model).__name__}'s sampler has no such "
                "option; leave it out"
            )


class Sampler:
    """Samples of one model, `batch_size` at a time, by one compiled program.

    Call it with (params, state, key, num, labels): [num, ...] in data space, labels
    int32 [num] or None. Sample i is number i of the key whatever the batch size; the
    last batch is padded. prompt: the bytes with which every sample begins, if any.
    """

    def __init__(self, model, batch_size: int, prompt: bytes = b"", **options):
        check_options(model, options)
        self.batch_size = batch_size
        given, observed = prompted(prompt, model.shape) if prompt else (None, None)

        def draw(params, state, key, first, label):
            condition = {} if label is None else {"label": label}
            if prompt:
                tokens = jax.numpy.broadcast_to(given, (batch_size, *given.shape))
                batch = {"tokens": tokens}
                return model.complete(
                    params, state, key, batch, observed, start_index=first, **options
                ).x
            return model.sample(
                params,
                state,
                key,
                batch_size,
                start_index=first,
                **condition,
                **options,
            )

        self._draw = jax.jit(draw)

    def __call__(self, params, state, key, num: int, labels=None) -> np.ndarray:
        batches = [
            self.batch(params, state, key, first, labels)
            for first in range(0, num, self.batch_size)
        ]
        return np.concatenate(batches)[:num]

    def batch(self, params, state, key, first: int, labels=None) -> np.ndarray:
        """Samples first … first + batch_size - 1; labels are those of all samples."""
        label = None
        if labels is not None:
            here = labels[first : first + self.batch_size]
            label = np.pad(here, (0, self.batch_size - len(here)), mode="edge")
        return np.asarray(self._draw(params, state, key, first, label))


def prompted(prompt: bytes, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(tokens [L], bool [L]): the prompt, and which bytes are its."""
    if len(prompt) > shape[0]:
        raise BadInput(
            f"--prompt has {len(prompt)} bytes, and a sample of this run has "
            f"{shape[0]}: take a shorter one"
        )
    given = np.frombuffer(prompt.ljust(shape[0], b"\0"), np.uint8)
    return given.astype(np.int32), np.arange(shape[0]) < len(prompt)


def save_texts(path: Path, tokens: np.ndarray) -> Path:
    """Bytes [N, L] as text, each sample below a line with its number."""
    texts = (bytes(each.astype(np.uint8)).decode(errors="replace") for each in tokens)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"──────── {i} ────────\n{text}\n" for i, text in enumerate(texts))
    write_atomically(path, "".join(lines))
    return path


def class_rows(spec) -> int:
    """How many classes a picture has rows for."""
    return min(spec.num_classes, 20)


class Grid:
    """The sample grid of a run: the same seeds and classes at every step."""

    suffix = ".png"

    def __init__(self, model, spec, seed: int, batch_size: int):
        rows, self.names, self.labels = COLUMNS, (), None
        if getattr(model, "num_classes", 0):
            rows = class_rows(spec)
            self.labels = np.repeat(np.arange(rows, dtype=np.int32), COLUMNS)
            self.names = spec.class_names[:rows]
        self.num = rows * COLUMNS
        self.key = jax.random.key(seed)
        self._sampler = Sampler(model, min(self.num, batch_size))

    def save(self, path: Path, train_state) -> Path:
        """Draw with the averaged parameters, write the PNG."""
        params = train_state.params if train_state.ema is None else train_state.ema
        x = self._sampler(params, train_state.state, self.key, self.num, self.labels)
        return save_grid(path, to_uint8(x), COLUMNS, self.names)


class Texts:
    """The samples of a run on text: the same seeds at every step."""

    suffix = ".txt"

    def __init__(self, model, seed: int, batch_size: int):
        self.key = jax.random.key(seed)
        self._sampler = Sampler(model, min(COLUMNS, batch_size))

    def save(self, path: Path, train_state) -> Path:
        """Draw with the averaged parameters, write the text."""
        params = train_state.params if train_state.ema is None else train_state.ema
        return save_texts(
            path, self._sampler(params, train_state.state, self.key, COLUMNS)
        )


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
    if hasattr(model, "log_prob_labels"):
        return Sorted(model, spec, batches)
    if spec.kind == "text":
        return Texts(model, seed, batch_size)
    return Grid(model, spec, seed, batch_size)
