"""Where pixels come from: scikit-learn's digits and prepared TFDS sets.

(IDX files and folders of images have their own rooms, `idx.py` and `folder.py`.)
Every reader answers with a `Dataset`: what a model must know (`Spec`), how many
examples there are, and `fetch`, which reads any of them by index. What a user can
get wrong is found here, before any training, and told as a `BadInput`. The heavy
imports stand inside the functions that need them, so that asking for one source
does not load the libraries of the others.
"""

import dataclasses
import difflib
import functools
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np

BUILT_IN = ("digits", "mnist", "fashion_mnist", "folder:PATH", "text:PATH")

_RECORDS_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class Spec:
    """All a model needs to know of a data set.

    `shape` is (H, W, C), or (L,) of text; pixels or bytes are integers 0..levels-1;
    `num_classes` is 0 for an unlabelled set. `name` is the name as the user gave it.
    """

    name: str
    shape: tuple[int, ...]
    levels: int
    num_classes: int
    class_names: tuple[str, ...]
    kind: Literal["images", "text"] = "images"

    @property
    def examples(self) -> str:
        """What the examples are called."""
        return "windows" if self.kind == "text" else "images"

    def images_only(self, who: str) -> None:
        """Refuse text where only images make sense."""
        if self.kind == "text":
            raise bad_input(
                f"{who} works on images, and {self.name} is text: take a run or a data "
                "set of images"
            )

    def as_json(self) -> dict:
        """The fields as JSON's own types: what `from_json` reads."""
        lists = {"shape": list(self.shape), "class_names": list(self.class_names)}
        return {**dataclasses.asdict(self), **lists}

    @classmethod
    def from_json(cls, fields: dict) -> "Spec":
        """The Spec whose `as_json` is `fields`."""
        tuples = {key: tuple(fields[key]) for key in ("shape", "class_names")}
        return cls(**{**fields, **tuples})

    def example(self, num: int) -> dict[str, np.ndarray]:
        """A batch of `num` examples of zeros (and labels 0), for shapes."""
        name = "tokens" if self.kind == "text" else "image"
        batch = {name: np.zeros((num, *self.shape), np.uint8)}
        if self.num_classes:
            batch["label"] = np.zeros(num, np.int32)
        return batch


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One split of a data set, readable at any index.

    `fetch(indices [B])` gives {"image": uint8 [B, H, W, C], "label": int32 [B]},
    without "label" where `spec.num_classes` is 0; of text {"tokens": uint8 [B, L]}.
    `note` is one line to print.
    """

    spec: Spec
    size: int
    fetch: Callable[[np.ndarray], dict[str, np.ndarray]]
    note: str


def bad_input(sentence: str) -> Exception:
    """A BadInput to raise; its module imports JAX, so it is imported this late."""
    from gengen.types import BadInput

    return BadInput(sentence)


def check_split(name: str, split: str, splits: Iterable[str]) -> None:
    """Refuse a split that is not one of `splits`."""
    if split not in splits:
        there_are = ", ".join(splits)
        error = bad_input(f"{name} has no split {split!r}: choose one of {there_are}")
        error.no_such_split = True
        raise error


def take(arrays: dict[str, np.ndarray], indices: np.ndarray) -> dict:
    """The `fetch` of a set in memory."""
    return {key: array[indices] for key, array in arrays.items()}


def fit(picture, size: int):
    """A size x size PIL image: shorter side scaled to `size`, then centre-cropped.

    Lanczos with the kernel widened when reducing, so that it is antialiased. The
    crop is done first, as a box in fractions of a pixel: it commutes with scaling.
    """
    from PIL import Image

    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return picture.resize((size, size), Image.Resampling.LANCZOS, box=box)


def fit_array(image: np.ndarray, size: int) -> np.ndarray:
    """`fit` of uint8 [H, W, C], C = 1 or 3."""
    from PIL import Image

    channels = image.shape[-1]
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    return np.asarray(fit(picture, size)).reshape(size, size, channels)


def rule(size: int | None) -> str:
    """How `fit` made the pictures, in words for a note; empty where it did not."""
    if size is None:
        return ""
    return f"; shorter side scaled to {size} (Lanczos), centre-cropped"


def digits(name: str, split: str, image_size: int | None) -> Dataset:
    """scikit-learn's 1,797 digits, 8x8, 17 levels, split in file order."""
    bounds = {"train": (0, 1000), "validation": (1000, 1350), "test": (1350, 1797)}
    bounds["all"] = (0, 1797)
    check_split(name, split, bounds)
    if image_size not in (None, 8):
        raise bad_input(
            f"image size {image_size} does not fit digits: they exist as 8x8 only, "
            "so leave --image-size out or take another data set"
        )
    from sklearn.datasets import load_digits

    first, end = bounds[split]
    bunch = load_digits()
    image = bunch.images[first:end, :, :, None].astype(np.uint8)
    label = bunch.target[first:end].astype(np.int32)
    spec = Spec(name, (8, 8, 1), 17, 10, tuple("0123456789"))
    note = (
        f"{name}: {end - first} of scikit-learn's 1797 images, 8x8x1; split {split} "
        "in file order (train: first 1000, validation: next 350, test: last 447)"
    )
    fetch = functools.partial(take, {"image": image, "label": label})
    return Dataset(spec, len(image), fetch, note)


def _unknown(name: str, others: Iterable[str]) -> Exception:
    """The BadInput for a name that no source knows, with the nearest one that is."""
    plain = name.lower().replace("-", "_")
    near = difflib.get_close_matches(plain, [*BUILT_IN, *others], 1)
    if name and Path(name).is_dir():
        near = [f"folder:{name}"]
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return bad_input(
        f"no data set is called {name!r}{hint}: take one of "
        f"{', '.join(BUILT_IN)}, or any prepared TFDS name"
    )


def _open_prepared(name: str, data_dir: str | Path | None):
    """(tfds, builder) of a set on disk. Its files alone are asked, never its code:
    that needs neither TensorFlow nor the network."""
    import tensorflow_datasets as tfds

    where = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    try:
        return tfds, tfds.core.read_only_builder.builder_from_files(
            name, data_dir=where
        )
    except ValueError as error:  # not found, or not a name at all
        known = tfds.list_builders(with_community_datasets=False)
        base = name.replace(":", "/").partition("/")[0]
        if not base or not (base in known or (where / base).is_dir()):
            raise _unknown(name, known) from error
        raise bad_input(
            f"{name!r} is not prepared in {where}, and nothing is downloaded here: "
            "pip install '.[tfds]', run `tfds build "
            f"{name} --file_format=array_record --data_dir DIR`, "
            "then pass --data-dir DIR"
        ) from error


def _quiet(record: logging.LogRecord) -> bool:
    return "OpenCV" not in record.getMessage()  # TFDS's advice to install it


def _read_records(source, shape, labelled, image_size, indices) -> dict:
    image = np.empty((len(indices), *shape), np.uint8)
    label = np.empty(len(indices), np.int32)
    for start in range(0, len(indices), _RECORDS_AT_ONCE):
        block = [int(i) for i in indices[start : start + _RECORDS_AT_ONCE]]
        for row, example in enumerate(source.__getitems__(block), start):
            picture = example["image"]
            image[row] = fit_array(picture, image_size) if image_size else picture
            label[row] = example["label"] if labelled else 0
    return {"image": image, "label": label} if labelled else {"image": image}


def prepared(
    name: str, split: str, data_dir: str | Path | None, image_size: int | None
) -> Dataset:
    """A set that TFDS has prepared as array_record files; nothing is downloaded.

    It needs the feature "image", uint8 of 1 or 3 channels; "label" is read where it
    is a ClassLabel.
    """
    tfds, builder = _open_prepared(name, data_dir)
    features = dict(builder.info.features.items())
    image = features.get("image")
    shape = getattr(image, "shape", None) or ()
    if len(shape) != 3 or shape[2] not in (1, 3) or image.np_dtype != np.uint8:
        raise bad_input(
            f"{name} has no feature 'image' of uint8 [H, W, 1 or 3] but "
            f"{image or ', '.join(sorted(features))}: take a set of images, "
            "or export this one and read it as folder:PATH"
        )
    if image_size is not None:
        shape = (image_size, image_size, shape[2])
    if None in shape:
        raise bad_input(
            f"the images of {name} have no one size, their shape is {shape}: "
            "--image-size N scales and crops all of them to N x N"
        )
    check_split(name, split, sorted(builder.info.splits))
    logging.getLogger("absl").addFilter(_quiet)
    try:
        source = builder.as_data_source(split=split)
    except NotImplementedError as error:
        raise bad_input(
            f"{name} in {builder.data_path} is prepared as "
            f"{builder.info.file_format.value}, which cannot be read by index: run "
            f"`tfds build {name} --file_format=array_record --data_dir DIR` with "
            "another DIR, then pass --data-dir DIR"
        ) from error
    label = features.get("label")
    labelled = isinstance(label, tfds.features.ClassLabel)
    classes = tuple(label.names) if labelled else ()
    spec = Spec(name, tuple(shape), 256, len(classes), classes)
    note = (
        f"{name}: {len(source)} images from {builder.data_path}, "
        f"{'x'.join(map(str, shape))}{rule(image_size)}; split {split} by TFDS"
    )
    fetch = functools.partial(_read_records, source, shape, labelled, image_size)
    return Dataset(spec, len(source), fetch, note)
