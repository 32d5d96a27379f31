"""Files that somebody or something changed: a good load, or a sentence. Never else.

Every input is drawn from a fixed seed; checkpoints are in `test_faults.py`.
"""

import contextlib
import copy
import gzip
import hashlib
import io
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image
from program import TINY
from safetensors.numpy import save

from gengen.errors import BadInput
from train.data.dataset import Spec
from train.data.load import load
from train.experiments import EXPERIMENTS
from train.run import exported, published
from train.run import record as experiment

DIGITS = Spec("digits", (8, 8, 1), 17, 10, tuple("0123456789"))
FOREIGN = [None, True, -1, 0, 1.5, 10**400, 10**9, float("nan"), "", "\x00", [], {}]
FOREIGN += [[[[1]]], ["a"], {"a": {}}, "linear", [1, None], -0.0, 1e308, "9" * 5000]


def mutated(data: bytes, draw) -> bytes:
    """Flip bits, write noise, cut, repeat a piece, or nothing but noise."""
    data, how = bytearray(data), draw.integers(6)
    start = int(draw.integers(max(1, len(data))))
    if how == 0:
        data = data[:start]
    elif how == 1:
        data[start : start + 8] = draw.bytes(8)
    elif how == 2:
        data[start:start] = data[start : start + 30]
    elif how == 3:
        del data[start : start + int(draw.integers(1, 20))]
    else:
        for place in draw.integers(max(1, len(data)), size=how):
            data[place] ^= 1 << int(draw.integers(8))
    return bytes(data)


# ------------------------------------------------------------------ experiment.json


def places(tree, path=()):
    """Every (container, key) of a JSON document."""
    pairs = enumerate(tree) if isinstance(tree, list) else tree.items()
    for key, value in pairs:
        yield tree, key
        if isinstance(value, list | dict):
            yield from places(value)


def restructured(document: dict, draw) -> str:
    """One to three values replaced, removed, added, or moved elsewhere."""
    document = copy.deepcopy(document)
    for _ in range(draw.integers(1, 4)):
        spots = list(places(document))
        if not spots:
            break
        tree, key = spots[draw.integers(len(spots))]
        how = draw.integers(5)
        foreign = copy.deepcopy(FOREIGN[draw.integers(len(FOREIGN))])
        if how == 0:
            del tree[key]
        elif how == 1 and isinstance(tree, dict):
            tree["unknown"] = foreign
        elif how == 2:
            other, there = spots[draw.integers(len(spots))]
            tree[key] = copy.deepcopy(other[there])
        else:
            tree[key] = foreign
    return json.dumps(document)


def opened(workdir, data: bytes) -> bool:
    """Whether the record is read and its experiment built; else BadInput."""
    path = workdir / experiment.FILE
    path.write_bytes(data)
    try:
        experiment.load(workdir).build()
    except BadInput as error:
        assert "\n" not in str(error)[:200]
        return False
    finally:
        assert [p.name for p in workdir.iterdir()] == [experiment.FILE]
        assert path.read_bytes() == data
    return True


@pytest.mark.parametrize("family", TINY)
def test_no_record_surprises(tmp_path, family):
    import inspect

    parameters = list(inspect.signature(EXPERIMENTS[family]).parameters.values())[1:]
    options = {p.name: p.default for p in parameters}
    run = {"dataset": "digits", "image_size": None, "levels": None, "seed": 0}
    run |= {"examples": 1000, "augment": ["flip"], "reader": 2}
    known = {"train": {"image": "0" * 64, "label": "1" * 64}, "test": {"image": "2"}}
    document = experiment.Record(family, options, run, DIGITS, digests=known).as_json()
    whole = json.dumps(document, indent=2).encode()
    assert opened(tmp_path, whole)
    draw = np.random.default_rng(len(family))
    good = [opened(tmp_path, mutated(whole, draw)) for _ in range(150)]
    good += [
        opened(tmp_path, restructured(document, draw).encode()) for _ in range(200)
    ]
    assert 0 < sum(good) < len(good)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 50_000, "1" * 10_000, "\ufeff{}", "null", "NaN"]
)
def test_no_text_surprises(tmp_path, text):
    assert not opened(tmp_path, text.encode())


# ------------------------------------------------------------------ images


def encoded(kind: str, draw) -> bytes:
    pixels = draw.integers(0, 256, (12, 10, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def read(folder) -> bool:
    """Whether every image is read; else BadInput, which names a file or folder."""
    try:
        dataset = load(f"folder:{folder}", image_size=8)
        image = dataset.fetch(np.arange(dataset.size))["image"]
    except BadInput as error:
        assert str(folder) in str(error)
        return False
    assert image.shape[1:3] == (8, 8) and image.dtype == np.uint8
    return True


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp", "bmp"])
@pytest.mark.filterwarnings("ignore")
def test_no_image_surprises(tmp_path, kind):
    draw = np.random.default_rng(0)
    (tmp_path / "a.png").write_bytes(encoded("png", draw))
    good = []
    for i in range(100):
        # The name's ending need not tell the truth.
        suffix = ("png", "jpg", kind)[i % 3]
        path = tmp_path / f"b.{suffix}"
        path.write_bytes(mutated(encoded(kind, draw), draw))
        good.append(read(tmp_path))
        path.unlink()
    assert 0 < sum(good) < len(good)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be large."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "size", [(2**31 - 1, 2**31 - 1), (20_000, 20_000), (10_000, 10_000), (0, 5)]
)
@pytest.mark.filterwarnings("default")
def test_a_picture_that_claims_to_be_huge_is_refused_by_its_name(
    tmp_path, size, recwarn
):
    (tmp_path / "bomb.png").write_bytes(bomb(*size))
    with pytest.raises(BadInput, match="bomb.png cannot be read"):
        load(f"folder:{tmp_path}")
    assert not recwarn


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b"BM", bytes(99)]
)
def test_an_empty_picture_is_refused_by_its_name(tmp_path, data):
    (tmp_path / "empty.png").write_bytes(data)
    with pytest.raises(BadInput, match="empty.png cannot be read"):
        load(f"folder:{tmp_path}")


def test_names_are_only_names(tmp_path):
    draw, names = (
        np.random.default_rng(0),
        ["a b.png", "-rf.png", "ü\n★.PNG", "%s{0}.gif"],
    )
    names += ["x" * 200 + ".png", "'\"$(x).png"]
    for name in names:
        (tmp_path / "klass\n;").mkdir(exist_ok=True)
        (tmp_path / "klass\n;" / name).write_bytes(encoded("png", draw))
    # A name that is not UTF-8 is one that no console and no JSON takes.
    with contextlib.suppress(OSError):
        (
            tmp_path / "klass\n;" / b"\xff\xfe.png".decode(errors="surrogateescape")
        ).write_bytes(encoded("png", draw))
    assert read(tmp_path)
    assert json.dumps(load(f"folder:{tmp_path}", image_size=8).spec.as_json())


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_no_idx_file_surprises(tmp_path, pack):
    draw, good = np.random.default_rng(0), []
    image = struct.pack(">4B3I", 0, 0, 8, 3, 6, 4, 5) + draw.bytes(120)
    label = struct.pack(">4BI", 0, 0, 8, 1, 6) + bytes(range(6))
    files = {"train-images-idx3-ubyte": image, "train-labels-idx1-ubyte": label}
    for i in range(200):
        for k, (name, data) in enumerate(files.items()):
            changed = mutated(data, draw) if i % 2 else data  # before or after packing
            data = pack(changed if k == i % 4 // 2 else data)
            broken = k == i % 4 // 2 and i % 2 == 0
            (tmp_path / name).write_bytes(mutated(data, draw) if broken else data)
        try:
            good.append(load("mnist", data_dir=tmp_path).size)
        except BadInput as error:
            assert str(tmp_path) in str(error) and "\n" not in str(error)
    assert 0 < len(good) < 200


def test_no_description_of_a_tfds_set_surprises(tmp_path):
    """No record is read: there is none, so that each of them ends in a sentence."""
    inside = "tensorflow_datasets.core.features."
    features = {
        "pythonClassName": f"{inside}features_dict.FeaturesDict",
        "featuresDict": {
            "features": {
                "image": {
                    "pythonClassName": f"{inside}image_feature.Image",
                    "image": {"shape": {"dimensions": ["4", "4", "1"]}},
                },
                "label": {
                    "pythonClassName": f"{inside}class_label_feature.ClassLabel",
                    "classLabel": {"numClasses": "3"},
                },
            }
        },
    }
    shards = {"name": "train", "numBytes": "9", "shardLengths": ["5"]}
    shards["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    info = {"name": "toy", "version": "1.0.0", "fileFormat": "array_record"}
    documents = {
        "features.json": features,
        "dataset_info.json": {**info, "splits": [shards]},
    }
    folder, draw = tmp_path / "toy" / "1.0.0", np.random.default_rng(0)
    folder.mkdir(parents=True)
    told = set()
    for i in range(100):
        for k, (name, document) in enumerate(documents.items()):
            change = restructured if i % 4 < 2 else lambda x, draw: json.dumps(x)
            text = change(document, draw) if k == i % 2 else json.dumps(document)
            data = text.encode()
            if i % 4 >= 2 and k == i % 2:
                data = mutated(data, draw)
            (folder / name).write_bytes(data)
        with pytest.raises(BadInput) as error:
            load("toy", data_dir=tmp_path)
        assert "\n" not in str(error.value)
        told.add(str(error.value)[:200].partition(str(tmp_path))[2][:40])
    assert len(told) > 2


def test_links_that_lead_nowhere_or_in_circles(tmp_path):
    draw = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(encoded("png", draw))
    (tmp_path / "a" / "loop.png").symlink_to(tmp_path / "a" / "loop.png")
    (tmp_path / "a" / "none.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert read(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "b")
    assert read(tmp_path)
    assert not read(tmp_path / "b")


# ------------------------------------------------------------------ files handed on


def small_export(path):
    """A file as `train.export` writes it, of no program."""
    said = {"jax": "0.10.2", "sha256": hashlib.sha256(b"abc" * 50).hexdigest()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(exported.ABOUT, json.dumps(said))
        file.writestr(exported.PROGRAM, b"abc" * 50)


def test_no_exported_file_surprises(tmp_path, monkeypatch):
    monkeypatch.setattr(exported.export, "deserialize", lambda data: data)
    small_export(path := tmp_path / "x")
    whole, draw, good = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(200):
        path.write_bytes(mutated(whole, draw))
        with contextlib.suppress(BadInput):
            good += exported.load(path)[1] == b"abc" * 50
    assert 0 < good < 200
    path.write_bytes(whole.replace(b"\0\0\x08\0", b"\0\0\x0c\0"))  # now it is bzip2
    with pytest.raises(BadInput, match="OSError"):
        exported.load(path)


def test_no_published_file_surprises(tmp_path):
    arrays = {"params/x": np.ones((3, 2), np.float32), "state/y": np.ones(3)}
    whole = save(arrays, {"averaged": "true"})
    draw, path, good = np.random.default_rng(0), tmp_path / "x", 0
    for _ in range(200):
        path.write_bytes(mutated(whole, draw))
        with contextlib.suppress(published.Malformed):
            published.read(path).tree(1)
            good += 1
    assert 0 < good < 200
    path.write_bytes(save({"a": np.ones(1), "a/b": np.ones(1)}, {"averaged": "true"}))
    with pytest.raises(published.Malformed):
        published.read(path)
