"""Sets that TFDS has prepared as array_record files; nothing is downloaded."""

import dataclasses
import functools
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gengen.errors import BadInput

from .dataset import Dataset, Spec, bad_record, check_split, unknown
from .digest import of_files
from .resize import fit, fit_array, rule

_AT_ONCE = 1024
_TFDS = re.compile(r"tensorflow_datasets(\.\w+)+")


def _open(name: str, data_dir: str | Path | None):
    """(tfds, builder) of a set on disk.

    Only its files are read and none of its code is run, which needs neither TensorFlow
    nor the network.
    """
    import tensorflow_datasets as tfds

    where = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    base = re.split("[:/]", name)[0]
    base = base if re.fullmatch(r"\w+", base) else ""
    infos = check_files(where / base) if base else []
    try:
        return tfds, tfds.core.read_only_builder.builder_from_files(
            name, data_dir=where
        )
    except Exception as error:  # TFDS has one of its own for every file
        not_found = isinstance(error, tfds.core.registered.DatasetNotFoundError)
        if infos and not not_found:
            why = " ".join(str(error).split())[:100]
            raise BadInput(
                f"{name} in {where} cannot be opened ({why}): prepare it again with "
                "`tfds build`"
            ) from error
        known = tfds.list_builders(with_community_datasets=False)
        if not base or not (base in known or (where / base).is_dir()):
            raise unknown(name, known) from error
        raise BadInput(
            f"{name!r} is not prepared in {where}, and nothing is downloaded here: "
            "pip install '.[tfds]', run `tfds build "
            f"{name} --file_format=array_record --data_dir DIR`, "
            "then pass --data-dir DIR"
        ) from error


def check_files(folder: Path) -> list[Path]:
    """The files that describe a prepared set; BadInput if one is broken or names code.

    TFDS imports the classes that `features.json` names, so that a set could execute a
    module which lies beside it.
    """
    names = ("features.json", "dataset_info.json")
    paths = sorted(path for name in names for path in folder.rglob(name))
    for path in paths:
        try:
            document = json.loads(path.read_text())
            foreign = [x for x in _classes(document) if not _TFDS.fullmatch(x)]
        except (OSError, ValueError, RecursionError) as error:
            raise BadInput(
                f"{path} cannot be read ({str(error)[:100]}): prepare the set again "
                "with `tfds build`"
            ) from error
        if foreign and path.name == "features.json":
            raise BadInput(
                f"{path} names the class {foreign[0][:100]!r}, which is not of "
                "tensorflow_datasets and is not imported: prepare the set with "
                "features of TFDS's own, or export its images to a folder:PATH"
            )
    return paths


def _classes(document) -> Iterator[str]:
    """The names of classes in a JSON document, whatever the version that wrote it."""
    if isinstance(document, list):
        for value in document:
            yield from _classes(value)
    if isinstance(document, dict):
        legacy = ("type", "proto_cls") if "content" in document else ()
        for key, value in document.items():
            if key in ("pythonClassName", "python_class_name", *legacy):
                yield str(value)
            yield from _classes(value)


@functools.lru_cache
def _features(folder: str):
    """TFDS's decoder of a set's examples; it cannot be pickled, its folder can."""
    import tensorflow_datasets as tfds

    return tfds.features.FeatureConnector.from_config(folder)


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """The `fetch` of a prepared split.

    TFDS decodes all features of an example by general code; only image and label are
    needed. An encoded image is therefore taken out of its record and decoded here, in
    half the time for 28 x 28 pixels; TFDS decodes the others.

    source: the records' bytes by index; files: (name, first record, number) of each.
    folder: of the set; encoded: whether "image" is the bytes of an image file.
    trains: whether a label of -1, unknown, makes a record a bad one.
    """

    source: Any
    files: tuple[tuple[str, int, int], ...]
    folder: str
    encoded: bool
    labelled: bool
    shape: tuple[int, int, int]
    image_size: int | None
    trains: bool = False

    def __call__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        image = np.empty((len(indices), *self.shape), np.uint8)
        label = np.empty(len(indices), np.int32)
        decode = self._encoded if self.encoded else self._general
        for start in range(0, len(indices), _AT_ONCE):
            block = [int(i) for i in indices[start : start + _AT_ONCE]]
            for row, raw in enumerate(self._raw(block), start):
                try:
                    pixels, label[row] = decode(raw)
                    if pixels.shape != self.shape:
                        raise ValueError(f"{pixels.shape} pixels, not {self.shape}")
                    if self.trains and label[row] < 0:
                        raise ValueError("its label is -1, which means unknown")
                except Exception as error:  # each format's parser has its own
                    raise bad_record(self._name(int(indices[row])), error) from error
                image[row] = pixels
        return {"image": image, "label": label} if self.labelled else {"image": image}

    def _raw(self, block: list[int]) -> Sequence[bytes]:
        try:
            return self.source.__getitems__(block)
        except Exception:  # array_record does not say in which
            return [self._raw_one(i) for i in block]

    def _raw_one(self, i: int) -> bytes:
        try:
            return self.source[i]
        except Exception as error:
            raise bad_record(self._name(i), str(error).partition(";")[0]) from error

    def _name(self, i: int) -> str:
        for file, first, num in self.files:
            if i < num:
                return f"record {first + i} of {file}"
            i -= num
        raise IndexError(i)

    def _encoded(self, raw: bytes) -> tuple[np.ndarray, int]:
        from PIL import Image
        from tensorflow_datasets.proto import tf_example_pb2

        feature = tf_example_pb2.Example.FromString(raw).features.feature
        mode = "L" if self.shape[2] == 1 else "RGB"
        with Image.open(io.BytesIO(feature["image"].bytes_list.value[0])) as picture:
            if picture.mode[0] in "IF":
                raise ValueError(f"mode {picture.mode} has more than 8 bits a channel")
            if picture.mode != mode:
                picture = picture.convert(mode)
            if self.image_size is not None:
                picture = fit(picture, self.image_size)
            pixels = np.asarray(picture)
        label = feature["label"].int64_list.value[0] if self.labelled else 0
        return pixels.reshape(*pixels.shape[:2], self.shape[2]), label

    def _general(self, raw: bytes) -> tuple[np.ndarray, int]:
        example = _features(self.folder).deserialize_example_np(raw)
        pixels = example["image"]
        if self.image_size is not None:
            pixels = fit_array(pixels, self.image_size)
        return pixels, example["label"] if self.labelled else 0


def prepared(
    name: str, split: str, data_dir: str | Path | None, image_size: int | None
) -> Dataset:
    """A set that TFDS has prepared as array_record files.

    It needs the feature "image", uint8 of 1 or 3 channels; "label" is read where it
    is a ClassLabel.
    """
    tfds, builder = _open(name, data_dir)
    features = dict(builder.info.features.items())
    image = features.get("image")
    shape = getattr(image, "shape", None) or ()
    if len(shape) != 3 or shape[2] not in (1, 3) or image.np_dtype != np.uint8:
        raise BadInput(
            f"{name} has no feature 'image' of uint8 [H, W, 1 or 3] but "
            f"{image or ', '.join(sorted(features))}: take a set of images, "
            "or export this one and read it as folder:PATH"
        )
    if image_size is not None:
        shape = (image_size, image_size, shape[2])
    if None in shape:
        raise BadInput(
            f"the images of {name} have no one size, their shape is {shape}: "
            "--image-size N scales and crops all of them to N x N"
        )
    check_split(name, split, sorted(builder.info.splits))
    try:
        source = builder.as_data_source(split=split).data_source
    except NotImplementedError as error:
        raise BadInput(
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
    files = tuple(
        (file.filename, file.skip, file.take)
        for file in builder.info.splits[split].file_instructions
    )
    encoded = isinstance(image, tfds.features.Image)
    shape = tuple(shape)
    where, trains = str(builder.data_path), split.partition("[")[0] == "train"
    fetch = Records(source, files, where, encoded, labelled, shape, image_size, trains)
    paths = [Path(where, Path(name).name) for name, _, _ in files]
    contents = functools.partial(of_files, "records", Path(where), paths, None)
    return Dataset(spec, len(source), fetch, note, contents=contents)
