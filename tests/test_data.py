"""Laws of `train.data`: order, feeds, readers, and every mistake a user can make."""

import contextlib
import dataclasses
import gzip
import io
import itertools
import json
import logging
import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from gengen.errors import BadInput
from gengen.multi_step import identity
from train.data import idx as idx_files
from train.data.dataset import Dataset, Spec
from train.data.feed import Feed, gather, order
from train.data.load import load


def run_python(code):
    """(exit status, stdout, stderr) of `code` in a fresh interpreter."""
    root = Path(__file__).parents[1]  # `-c` puts the working folder on the path
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


# ---------------------------------------------------------------- order


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_every_epoch_is_a_permutation(size):
    examples = order(seed=3, start=0, num=5 * size, size=size)
    assert examples.dtype == np.int32
    for epoch in examples.reshape(5, size):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(size))


def test_order_is_a_function_of_seed_and_place_only():
    whole = order(5, 0, 200, 17)
    cuts = [0, 1, 17, 18, 80, 113, 200]
    for start, end in reversed(list(itertools.pairwise(cuts))):
        order(6, start, 40, 17)  # other calls in between leave no trace
        np.testing.assert_array_equal(
            order(5, start, end - start, 17), whole[start:end]
        )


def test_epochs_and_seeds_differ():
    epochs = order(0, 0, 3 * 50, 50).reshape(3, 50)
    others = [order(seed, 0, 50, 50) for seed in (1, -1, 2**32, 2**64 - 2)]
    distinct = {tuple(row) for row in [*epochs, *others]}
    assert len(distinct) == 7


def test_every_element_comes_first_equally_often():
    size, epochs = 4, 4000
    first = order(0, 0, size * epochs, size)[::size]
    counts = np.bincount(first, minlength=size)
    # Binomial(4000, 1/4) has standard deviation 27.4; four of them.
    assert np.all(np.abs(counts - epochs / size) < 4 * 27.4)


# ---------------------------------------------------------------- feed


def numbered(size, fetch=None):
    """Examples whose pixels and label say their index."""

    def read(indices):
        pixels = np.asarray(indices, np.uint8)[:, None, None, None]
        image = np.broadcast_to(pixels, (len(indices), 2, 3, 1)).copy()
        return {"image": image, "label": np.asarray(indices, np.int32)}

    spec = Spec("numbered", (2, 3, 1), 256, size, tuple(map(str, range(size))))
    return Dataset(spec, size, fetch or read, "a note")


def batches(feed, calls):
    for step, num in calls:
        items = feed.items(step, num)
        for i in range(num):
            item = jax.tree.map(lambda a, i=i: a[i], items)
            yield jax.tree.map(np.asarray, feed.fetch(feed.data, item))


def test_resident_and_read_batches_are_identical_however_they_are_cut():
    dataset, B = numbered(10), 4
    resident = Feed(dataset, B, seed=1, resident_bytes=60)
    read = Feed(dataset, B, seed=1, resident_bytes=59)
    assert resident.resident and resident.data["image"].shape == (10, 2, 3, 1)
    assert not read.resident and read.data == {}
    one = list(batches(resident, [(0, 8)]))
    two = list(batches(read, [(0, 3), (3, 3), (6, 2)]))
    for step in range(8):
        jax.tree.map(np.testing.assert_array_equal, one[step], two[step])
        np.testing.assert_array_equal(one[step]["label"], order(1, step * B, B, 10))
        np.testing.assert_array_equal(
            one[step]["image"][:, 1, 2, 0], one[step]["label"]
        )


def test_items_are_a_pure_function_of_step_and_num():
    feed = Feed(numbered(10), 4, seed=1, resident_bytes=0)
    calls = [(4, 2), (0, 2), (2, 2), (2, 2), (4, 1), (4, 2)]
    answers = [feed.items(*call)["label"] for call in calls]
    for (step, num), label in zip(calls, answers, strict=True):
        assert label.shape == (num, 4)
        np.testing.assert_array_equal(
            label.reshape(-1), order(1, step * 4, num * 4, 10)
        )


def test_fetch_is_one_pure_traceable_function():
    feeds = [Feed(numbered(10), B, seed=0) for B in (2, 5)]
    assert feeds[0].fetch is feeds[1].fetch is gather
    assert Feed(numbered(10), 2, 0, resident_bytes=0).fetch is identity
    assert feeds[0].items(0, 3).dtype == np.int32
    jitted = jax.jit(gather)(feeds[0].data, feeds[0].items(0, 1)[0])
    np.testing.assert_array_equal(jitted["label"], order(0, 0, 2, 10))
    assert jitted["image"].dtype == np.uint8


def test_the_next_items_are_read_ahead():
    ahead = threading.Event()
    plain = numbered(10).fetch

    def fetch(indices):
        if np.array_equal(indices, order(0, 6, 2, 10)):  # of step 3
            ahead.set()
        return plain(indices)

    feed = Feed(numbered(10, fetch), 2, seed=0, resident_bytes=0)
    feed.items(0, 2)
    assert ahead.wait(10)


def test_an_error_of_the_reading_thread_reaches_the_caller():
    plain = numbered(10).fetch
    broken = order(0, 4, 1, 10)

    def fetch(indices):
        if broken in indices:
            raise BadInput("this example is broken: repair it")
        return plain(indices)

    feed = Feed(numbered(10, fetch), 1, seed=0, resident_bytes=0)
    for step in range(4):
        feed.items(step, 1)
    for _ in range(2):  # read ahead, then read again
        with pytest.raises(BadInput, match="this example is broken"):
            feed.items(4, 1)
    assert feed.items(5, 1)["label"] == order(0, 5, 1, 10)


@pytest.mark.parametrize("batch_size", [0, 11])
def test_a_batch_larger_than_the_set_is_refused(batch_size):
    match = f"batch size {batch_size} .* 10 examples of numbered: --batch-size .* 10"
    with pytest.raises(BadInput, match=match):
        Feed(numbered(10), batch_size, seed=0)


# ---------------------------------------------------------------- spec, digits, levels


def test_spec_survives_json():
    spec = load("digits").spec
    fields = json.loads(json.dumps(spec.as_json()))
    assert fields == spec.as_json()
    assert Spec.from_json(fields) == spec
    assert hash(Spec.from_json(fields)) == hash(spec)


def test_digits_are_split_in_file_order():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    parts = [load("digits", split=s) for s in ("train", "validation", "test")]
    assert [part.size for part in parts] == [1000, 350, 447]
    joint = [part.fetch(np.arange(part.size)) for part in parts]
    everything = load("digits", split="all")
    read = everything.fetch(np.arange(1797))
    assert read["image"].dtype == np.uint8 and read["label"].dtype == np.int32
    for key, truth in {"image": bunch.images[..., None], "label": bunch.target}.items():
        np.testing.assert_array_equal(np.concatenate([b[key] for b in joint]), truth)
        np.testing.assert_array_equal(read[key], truth)
    assert (read["image"].min(), read["image"].max()) == (0, 16)
    spec = Spec("digits", (8, 8, 1), 17, 10, tuple("0123456789"))
    assert everything.spec == spec and load("digits", image_size=8).spec == spec
    assert "1000 of" in parts[0].note and "\n" not in parts[0].note


@pytest.mark.parametrize("levels", [2, 5, 16, 17])
def test_levels_are_requantised_by_the_formula(levels):
    fine, coarse = load("digits"), load("digits", levels=levels)
    rows = np.array([5, 0, 999])
    v = fine.fetch(rows)["image"].astype(int)
    got = coarse.fetch(rows)["image"]
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, v * levels // 17)
    assert coarse.spec == dataclasses.replace(fine.spec, levels=levels)
    np.testing.assert_array_equal(
        coarse.fetch(rows)["label"], fine.fetch(rows)["label"]
    )


@pytest.mark.parametrize(
    "keywords, match",
    [
        ({"levels": 18}, "levels 18 do not fit digits.* 17 levels: --levels takes 2"),
        ({"levels": 1}, "levels 1 do not fit digits"),
        ({"image_size": 16}, "image size 16 .* 8x8 only.* leave --image-size out"),
        ({"image_size": 0}, "image size 0 .*--image-size takes 1 up"),
        (
            {"split": "dev"},
            "digits has no split 'dev': .* train, validation, test, all",
        ),
    ],
)
def test_digits_refuse(keywords, match):
    with pytest.raises(BadInput, match=match):
        load("digits", **keywords)


# ---------------------------------------------------------------- IDX


def idx_bytes(array, code=8):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape) + (
        array.tobytes()
    )


IMAGES = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 10


def write_idx(folder, *, separator="-", end="", images=IMAGES, labels=LABELS):
    pack = gzip.compress if end == ".gz" else bytes
    for prefix, first in (("train", 0), ("t10k", 2)):
        for kind, rank, array in (("images", 3, images), ("labels", 1, labels)):
            path = folder / f"{prefix}-{kind}{separator}idx{rank}-ubyte{end}"
            path.write_bytes(pack(idx_bytes(array[first:])))
    return folder


@pytest.mark.parametrize("separator", ["-", "."])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_round_trip(tmp_path, separator, end):
    write_idx(tmp_path, separator=separator, end=end)
    for split, first in (("train", 0), ("test", 2)):
        dataset = load("mnist", split=split, data_dir=tmp_path)
        batch = dataset.fetch(np.arange(dataset.size))
        np.testing.assert_array_equal(batch["image"], IMAGES[first:, :, :, None])
        np.testing.assert_array_equal(batch["label"], LABELS[first:])
        assert batch["label"].dtype == np.int32
    assert dataset.spec == Spec("mnist", (28, 28, 1), 256, 10, tuple("0123456789"))


@pytest.mark.parametrize(
    "code, dtype", [(9, ">i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")]
)
def test_idx_reads_every_type_code(tmp_path, code, dtype):
    array = np.arange(-6, 6).reshape(2, 3, 2).astype(dtype)
    (tmp_path / "file").write_bytes(idx_bytes(array, code))
    read = idx_files.read_idx(tmp_path / "file")
    np.testing.assert_array_equal(read, array)
    assert read.dtype == np.dtype(dtype)


def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path, monkeypatch):
    monkeypatch.setattr(idx_files, "DEBIAN_FASHION_MNIST", write_idx(tmp_path))
    dataset = load("fashion_mnist")
    assert dataset.size == 12 and str(tmp_path) in dataset.note
    assert dataset.spec.class_names[0] == "T-shirt/top"
    assert dataset.spec.class_names[9] == "Ankle boot"


def test_idx_images_are_resized_by_the_rule(tmp_path):
    dataset = load("mnist", data_dir=write_idx(tmp_path), image_size=14, levels=4)
    assert dataset.spec.shape == (14, 14, 1) and dataset.spec.levels == 4
    got = dataset.fetch(np.array([3]))["image"][0, :, :, 0]
    picture = Image.fromarray(IMAGES[3]).resize((14, 14), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(got, np.asarray(picture) // 64)
    assert "scaled to 14" in dataset.note and "\n" not in dataset.note


GOOD = idx_bytes(IMAGES)
# Ten gibibytes in few bytes; a header that promises little stops the reading, too.
BOMB = struct.pack(">BBBB3I", 0, 0, 8, 3, 10_000, 1024, 1024) + bytes(10**5)


@pytest.mark.parametrize(
    "file, content, match",
    [
        (
            "images-idx3",
            GOOD[:-1],
            "train-images.* holds 9,407 .*promises 9,408.* again",
        ),
        (
            "images-idx3",
            GOOD + b"0",
            "holds more than 9,408 bytes .* damaged, fetch the file again",
        ),
        ("images-idx3", GOOD[:9], "train-images.*truncated"),
        ("images-idx3", b"\0\0\x08\x64" + bytes(400), "not an IDX file"),
        ("images-idx3", BOMB, r"promises an array of \[10000, 1024, 1024\], 10,485"),
        ("images-idx3", gzip.compress(BOMB), "promises an array of .* out of [0-9]+:"),
        ("labels-idx1", gzip.compress(BOMB), "promises an array of .*: it is damaged"),
        ("images-idx3", b"", "train-images.* not an IDX file.* again"),
        ("images-idx3", b"PK\3\4" + GOOD, "not an IDX file.*'50 4b 03 04'.* again"),
        ("images-idx3", b"\0\0\7\3" + GOOD[4:], "not an IDX file.*'00 00 07 03'"),
        ("images-idx3", gzip.compress(GOOD)[:-20], "cannot be read .* again"),
        ("images-idx3", b"\x1f\x8b" + GOOD, "cannot be read .* again"),
        ("images-idx3", idx_bytes(LABELS), "uint8 of rank 1 where images .* exchanged"),
        (
            "images-idx3",
            idx_bytes(IMAGES[:0]),
            "train-images.* no pixel: fetch the file again",
        ),
        (
            "labels-idx1",
            idx_bytes(LABELS.astype(">i4"), 12),
            "int32 of rank 1 where labels are uint8",
        ),
        (
            "labels-idx1",
            idx_bytes(LABELS[1:]),
            "images-idx3-ubyte holds 12 images but .*labels-idx1-ubyte 11 labels: take",
        ),
        (
            "labels-idx1",
            idx_bytes(LABELS + 1),
            "labels-idx1-ubyte holds the label 10 where mnist has 0 to 9: fetch",
        ),
    ],
)
def test_bad_idx_files_are_named(tmp_path, file, content, match):
    write_idx(tmp_path)
    (tmp_path / f"train-{file}-ubyte").write_bytes(content)
    with pytest.raises(BadInput, match=match):
        load("mnist", data_dir=tmp_path)


def test_no_more_is_unpacked_than_a_header_promises(tmp_path):
    import tracemalloc

    write_idx(tmp_path)
    packed = gzip.compress(GOOD + bytes(2**26))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(packed)
    tracemalloc.start()
    with pytest.raises(BadInput, match="holds more than 9,408 bytes"):
        load("mnist", data_dir=tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_missing_idx_files(tmp_path, monkeypatch):
    with pytest.raises(
        BadInput, match=r"mnist needs .*\[.gz\].* no folder.*--data-dir"
    ):
        load("mnist")
    with pytest.raises(BadInput, match=f"train-images.* in {tmp_path}: .*--data-dir"):
        load("mnist", data_dir=tmp_path)
    monkeypatch.setattr(idx_files, "DEBIAN_FASHION_MNIST", tmp_path)
    match = f"{tmp_path}: apt-get install dataset-fashion-mnist, or .*--data-dir"
    with pytest.raises(BadInput, match=match):
        load("fashion_mnist")
    with pytest.raises(BadInput, match=r"no split 'validation': .* train, test"):
        load("mnist", split="validation", data_dir=tmp_path)


# ---------------------------------------------------------------- folders


def solid(value, size=(6, 4), mode="RGB"):
    """A PIL image of one colour; `size` is PIL's (width, height)."""
    return Image.new(mode, size, value)


def save(picture, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


def everything(dataset):
    return dataset.fetch(np.arange(dataset.size))


def folder_of_classes(root):
    for k in range(23):
        save(solid((k, 0, 0)), root / "b cats" / f"{k:02}.png")
    for k in range(9):
        save(solid((0, k, 9)), root / "a dogs" / f"{k}.BMP")
    save(solid((9, 9, 9), size=(1, 1)), root / "b cats" / ".hidden.png")
    save(solid((9, 9, 9), size=(1, 1)), root / ".cache" / "thumb.png")
    (root / "b cats" / "notes.txt").write_text("not an image")
    return f"folder:{root}"


def test_a_folder_that_an_older_version_split_stays_split_so(tmp_path):
    name = folder_of_classes(tmp_path)
    save(solid((0, 0, 0)), tmp_path / "b cats" / "deep" / "x.png")
    save(solid((0, 0, 0)), tmp_path / "b cats" / "x.tif")
    train, test = (load(name, split=s, reader=1) for s in ("train", "test"))
    spec = Spec(name, (4, 6, 3), 256, 2, ("a dogs", "b cats"))
    assert train.spec == test.spec == spec
    assert (train.size, test.size) == (30, 2)
    image, label = everything(train)["image"], everything(train)["label"]
    np.testing.assert_array_equal(label, [0] * 9 + [1] * 21)
    assert label.dtype == np.int32 and image.dtype == np.uint8
    np.testing.assert_array_equal(image[:9, 3, 5, 1], range(9))
    cats = [k for k in range(23) if k not in (9, 19)]
    np.testing.assert_array_equal(image[9:, 0, 0, 0], cats)
    np.testing.assert_array_equal(everything(test)["image"][:, 0, 0, 0], [9, 19])
    np.testing.assert_array_equal(everything(test)["label"], [1, 1])
    backwards = train.fetch(np.array([29, 0]))
    np.testing.assert_array_equal(backwards["image"], image[[29, 0]])
    assert "30 images of 32" in train.note and "every tenth" in train.note
    with pytest.raises(BadInput, match="'validation' of .* is empty") as error:
        load(name, split="validation", reader=1)
    assert error.value.no_such_split


def splits_of(name):
    """{split: {(label, first pixel)}} of the splits that there are."""
    found = {}
    for split in ("train", "validation", "test"):
        try:
            batch = everything(load(name, split=split))
        except BadInput as error:
            assert error.no_such_split
            continue
        pixels = map(tuple, batch["image"][:, 0, 0])
        found[split] = set(zip(batch["label"].tolist(), pixels, strict=True))
    return found


def test_images_that_are_added_move_no_other_to_another_split(tmp_path):
    name = folder_of_classes(tmp_path)
    before = splits_of(name)
    assert set(before) == {"train", "validation", "test"}
    assert sum(map(len, before.values())) == 32 == len(set().union(*before.values()))
    note = load(name).note
    assert "split train by a hash of the path (80 % train, 10 % validation" in note
    assert "1 not read: b cats/notes.txt" in note and "\n" not in note
    for k in range(23, 40):
        save(solid((k, 0, 0)), tmp_path / "b cats" / "a" / "deep" / f"{k:02}.png")
    after = splits_of(name)
    assert sum(map(len, after.values())) == 49
    assert all(before[split] <= after[split] for split in before)


def test_a_folder_that_is_split_stays_split_so(tmp_path):
    for k, split in enumerate(("train", "val", "test")):
        for label, name in enumerate("ab"):
            save(solid((k, label, 0)), tmp_path / split / name / f"{k}.png")
    name = f"folder:{tmp_path}"
    found = splits_of(name)
    truth = {
        split: {(label, (k, label, 0)) for label in (0, 1)}
        for k, split in enumerate(("train", "validation", "test"))
    }
    assert found == truth
    assert "split test by folder" in load(name, split="test").note
    (tmp_path / "val" / "b").rename(tmp_path / "val" / "c")
    with pytest.raises(BadInput, match="validation of .* has the class c, which train"):
        load(name)


@pytest.mark.parametrize(
    "end, kind", [("tif", "TIFF"), ("ppm", "PPM"), ("jfif", "JPEG"), ("tga", "TGA")]
)
def test_what_pillow_reads_is_read_whatever_its_name(tmp_path, end, kind):
    save(solid((255, 0, 0)), tmp_path / f"c.{end.upper()}", format=kind)
    image = everything(load(f"folder:{tmp_path}"))["image"]
    np.testing.assert_allclose(image[0, 1, 1], (255, 0, 0), atol=2)


@pytest.mark.parametrize("end", ["png", "tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, end):
    levels = np.array([[0, 255, 256, 40_000, 65_535]], np.uint16)
    save(Image.fromarray(levels), tmp_path / f"a.{end}")
    dataset = load(f"folder:{tmp_path}")
    got = everything(dataset)["image"][0, 0, :, 0]
    assert dataset.spec.shape == (1, 5, 1)
    np.testing.assert_array_equal(got, levels[0] >> 8)


def test_numbers_without_a_range_are_refused(tmp_path):
    save(Image.fromarray(np.ones((4, 4), np.float32)), tmp_path / "deep.tif")
    with pytest.raises(BadInput, match=r"deep.tif cannot .*mode F has 32 bits and no"):
        load(f"folder:{tmp_path}")


@pytest.mark.parametrize("whole_header", [True, False])
def test_all_bad_files_are_named_at_once(tmp_path, whole_header):
    for k in range(6):
        noise = np.random.default_rng(k).integers(0, 256, (32, 32), dtype=np.uint8)
        path = save(Image.fromarray(noise), tmp_path / f"{'abcdef'[k]}.png")
        if k:
            path.write_bytes(path.read_bytes()[: 500 if whole_header else 5])
    match = (
        r"5 files cannot be read as images: .*b.png \(.*c.png .*d.png .*; and 2 more"
    )
    with pytest.raises(BadInput, match=match):
        everything(load(f"folder:{tmp_path}", reader=1))


def test_folder_without_classes_and_in_gray(tmp_path):
    save(solid(7, mode="L"), tmp_path / "a.png")
    save(solid(1, mode="1"), tmp_path / "b.png")
    dataset = load(f"folder:{tmp_path}")
    assert dataset.spec.shape == (4, 6, 1) and dataset.spec.num_classes == 0
    batch = everything(dataset)
    assert set(batch) == {"image"}
    np.testing.assert_array_equal(batch["image"][:, 2, 3, 0], [7, 255])


def test_one_colour_image_makes_all_rgb_and_transparency_is_white(tmp_path):
    save(solid(7, mode="L"), tmp_path / "a.png")
    save(solid((255, 0, 0, 0), mode="RGBA"), tmp_path / "b.png")
    save(solid((0, 0, 0, 51), mode="RGBA"), tmp_path / "c.png")
    save(solid(3, mode="L"), tmp_path / "d.png", transparency=3)
    frames = [solid((0, 0, 200)), solid((0, 200, 0))]
    save(frames[0], tmp_path / "e.gif", save_all=True, append_images=frames[1:])
    dataset = load(f"folder:{tmp_path}", reader=1)
    got = everything(dataset)["image"][:, 1, 1]
    truth = [[7] * 3, [255] * 3, [204] * 3, [255] * 3, [0, 0, 200]]
    np.testing.assert_array_equal(got, truth)


def lanczos3(row, size):
    """`row` resampled to `size` by the textbook's sum, kernel widened to antialias."""
    scale = len(row) / size
    centre = (np.arange(size)[:, None] + 0.5) * scale
    x = (np.arange(len(row)) + 0.5 - centre) / scale
    weight = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
    return np.clip(weight @ row / weight.sum(1), 0, 255)


def test_the_rule_of_scale_and_crop(tmp_path):
    halves = np.zeros((20, 60), np.uint8)
    halves[:, 30:] = 255
    save(Image.fromarray(halves), tmp_path / "halves.png")
    save(solid(77, size=(30, 50), mode="L"), tmp_path / "solid.png")
    save(solid(5, size=(3, 4), mode="L"), tmp_path / "tiny.png")
    dataset = load(f"folder:{tmp_path}", image_size=10, reader=1)
    assert dataset.spec.shape == (10, 10, 1)
    assert "shorter side scaled to 10 (Lanczos), centre-cropped" in dataset.note
    image = everything(dataset)["image"][..., 0]
    # 60 x 20 becomes 30 x 10; the middle 10 columns are 10..19, halved by the edge.
    truth = lanczos3(halves[0], 30)[10:20]
    np.testing.assert_allclose(image[0], np.tile(truth, (10, 1)), atol=1)
    assert (image[0][:, :2] == 0).all() and (image[0][:, 8:] == 255).all()
    assert (image[1] == 77).all() and (image[2] == 5).all()


def test_crop_of_a_box_is_scale_then_crop(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 20, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    save(picture, tmp_path / "tall.png")
    got = everything(load(f"folder:{tmp_path}", image_size=10))["image"][0]
    scaled = np.asarray(picture.resize((10, 30), Image.Resampling.LANCZOS))
    np.testing.assert_allclose(got.astype(int), scaled[10:20], atol=1)


@pytest.mark.parametrize("suffix, tolerance", [("png", 0), ("jpg", 12), ("webp", 12)])
def test_exif_orientation_is_honoured(tmp_path, suffix, tolerance):
    upright = np.zeros((16, 32), np.uint8)
    upright[:, 16:] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    save(Image.fromarray(upright), tmp_path / f"a.{suffix}", exif=exif)
    image = everything(load(f"folder:{tmp_path}"))["image"][0, ..., 0]
    truth = np.rot90(upright, -1)  # [32, 16]: the right half comes below
    assert image.shape == truth.shape
    inner = (np.abs(np.arange(32) - 15.5) > 8)[:, None]
    error = np.abs(image.astype(int) - truth)
    assert (error * inner).max() <= tolerance


def test_mixed_sizes_are_refused_from_the_headers(tmp_path):
    save(solid((1, 2, 3)), tmp_path / "a.png")
    save(solid((1, 2, 3)), tmp_path / "b.png")
    save(solid((1, 2, 3), size=(7, 4)), tmp_path / "c.png")
    match = "a.png is 6x4 and .*c.png 7x4: --image-size N"
    with pytest.raises(BadInput, match=match):
        load(f"folder:{tmp_path}")
    assert load(f"folder:{tmp_path}", image_size=2).spec.shape == (2, 2, 3)


def test_a_truncated_image_is_named_before_training(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    save(Image.fromarray(noise), tmp_path / "a.png")
    broken = save(Image.fromarray(noise), tmp_path / "b.png")
    broken.write_bytes(broken.read_bytes()[:1000])
    dataset = load(f"folder:{tmp_path}")
    match = "b.png cannot be read as an image .*: repair, convert or remove it"
    with pytest.raises(BadInput, match=match):
        Feed(dataset, 1, seed=0)
    late = Feed(dataset, 2, seed=0, resident_bytes=0)
    with pytest.raises(BadInput, match=match):
        late.items(0, 1)
    broken.write_bytes(b"not even a header")
    with pytest.raises(BadInput, match=match):
        load(f"folder:{tmp_path}")


def test_a_folder_changed_under_way_is_noticed(tmp_path):
    path = save(solid(3, mode="L"), tmp_path / "a.png")
    dataset = load(f"folder:{tmp_path}")
    save(solid(3, size=(1, 1), mode="L"), path)
    with pytest.raises(BadInput, match=r"a.png .*\(1, 1\) pixels, \(4, 6\) in its"):
        everything(dataset)


def test_folder_mistakes(tmp_path):
    with pytest.raises(BadInput, match=f"no folder {tmp_path}/nowhere: give"):
        load(f"folder:{tmp_path}/nowhere")
    with pytest.raises(BadInput, match="'folder:' names no folder: write folder:PATH"):
        load("folder:")
    (tmp_path / "dogs").mkdir()
    with pytest.raises(BadInput, match=f"{tmp_path} holds no image .*: put images"):
        load(f"folder:{tmp_path}")
    save(solid((1, 2, 3)), tmp_path / "cats" / "a.png")
    with pytest.raises(BadInput, match=r"class folder .*dogs holds no image: fill it"):
        load(f"folder:{tmp_path}")
    save(solid((1, 2, 3)), tmp_path / "dogs" / "a.png")
    name = f"folder:{tmp_path}"
    assert load(name).size == 2
    match = (
        "'test' of folder:.* empty: its 2 images are split by .*; add images or take"
    )
    with pytest.raises(BadInput, match=match):
        load(name, split="test")
    with pytest.raises(BadInput, match="no split 'all': choose one of train, valid"):
        load(name, split="all")
    for number in range(20):  # by its name, the only image is in one split or another
        only = tmp_path.with_name(f"{tmp_path.name}-only-{number}")
        save(solid((1, 2, 3)), only / f"{number}.png")
        with contextlib.suppress(BadInput):
            load(f"folder:{only}")
            continue
        with pytest.raises(BadInput, match="'train' of .* empty: .*; add images$"):
            load(f"folder:{only}")
    save(solid((1, 2, 3)), tmp_path / "loose.png")
    with pytest.raises(BadInput, match=r"directly \(loose.png\) and in .*: move all"):
        load(name)
    for path in (tmp_path / "loose.png", tmp_path / "dogs" / "a.png"):
        path.unlink()
    (tmp_path / "dogs").rmdir()
    (tmp_path / "cats").rename(tmp_path / "all")
    save(solid((1, 2, 3)), tmp_path / "all" / "cats" / "a.png")
    (tmp_path / "all" / "a.png").unlink()
    with pytest.raises(BadInput, match=f"below .*all: name .* folder:{tmp_path}/all"):
        load(name)


# ---------------------------------------------------------------- TFDS

PIXELS = np.random.default_rng(1).integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """Two prepared array_record sets: tensors of one size, PNGs of several."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")

    def png(array):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "png")
        buffer.seek(0)
        return buffer

    class ToyTensors(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        IMAGE = tfds.features.Tensor(shape=(6, 5, 3), dtype=np.uint8)

        def _info(self):
            label = tfds.features.ClassLabel(names=["even", "odd", "none"])
            features = {"image": self.IMAGE, "label": label}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self.examples(0, 15), "test": self.examples(15, 20)}

        def _generate_examples(self):
            raise NotImplementedError

        def examples(self, start, end):
            for k in range(start, end):
                yield k, {"image": self.image(k), "label": k % 2}

        def image(self, k):
            return PIXELS[k]

    class ToyUnknown(ToyTensors):
        def examples(self, start, end):
            for k in range(start, end):
                label = -1 if k == 3 or k > 15 else k % 2
                yield k, {"image": self.image(k), "label": label}

    class ToyPngs(ToyTensors):
        IMAGE = tfds.features.Image()

        def image(self, k):
            return png(PIXELS[k, : 4 + k % 3])

    tfds.disable_progress_bar()
    for builder in (ToyTensors, ToyPngs, ToyUnknown):
        builder(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.mark.parametrize(
    "split, truth", [("train", PIXELS[:15]), ("test", PIXELS[15:])]
)
def test_prepared_tfds_set_is_read_back(tfds_dir, split, truth, caplog, capfd):
    dataset = load("toy_tensors", split=split, data_dir=tfds_dir)
    assert dataset.spec == Spec(
        "toy_tensors", (6, 5, 3), 256, 3, ("even", "odd", "none")
    )
    batch = everything(dataset)
    # TFDS shuffles when it prepares: compare as sets, the label with its image.
    first = {"train": 0, "test": 15}[split]
    want = {(t.tobytes(), (first + k) % 2) for k, t in enumerate(truth)}
    got = {
        (image.tobytes(), int(label))
        for image, label in zip(batch["image"], batch["label"], strict=True)
    }
    assert got == want and dataset.size == len(truth)
    assert batch["image"].dtype == np.uint8 and batch["label"].dtype == np.int32
    again = dataset.fetch(np.array([3, 0, 3]))
    np.testing.assert_array_equal(again["image"], batch["image"][[3, 0, 3]])
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert capfd.readouterr() == ("", "")


def test_unknown_labels_are_for_no_training(tfds_dir):
    dataset = load("toy_unknown", data_dir=tfds_dir)
    with pytest.raises(
        BadInput, match=r"record \d+ of .* label is -1.*bad-record skip"
    ):
        Feed(dataset, 4, seed=0)
    known = load("toy_unknown", data_dir=tfds_dir, on_bad_record="skip")
    assert known.size == 14 and everything(known)["label"].min() == 0
    test = load("toy_unknown", split="test", data_dir=tfds_dir)
    assert sorted(everything(test)["label"]) == [-1, -1, -1, -1, 1]


def test_tfds_images_of_several_sizes_need_a_size(tfds_dir, caplog):
    with pytest.raises(BadInput, match=r"toy_pngs have no one size.*: --image-size N"):
        load("toy_pngs", data_dir=tfds_dir)
    dataset = load("toy_pngs", data_dir=tfds_dir, image_size=3, levels=16)
    assert dataset.spec.shape == (3, 3, 3) and dataset.spec.levels == 16
    image = everything(dataset)["image"]
    assert image.shape == (15, 3, 3, 3) and image.max() < 16
    assert not caplog.records


def test_tfds_sets_are_read_without_network(tfds_dir):
    names = ["cifar10", "cifarr10", "huggingface:mnist"]
    code = f"""if True:
        import socket
        import numpy as np
        from gengen.errors import BadInput
        from train.data.load import load

        def refuse(*_, **__):
            raise AssertionError("the network was asked")

        socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
        dataset = load("toy_pngs", data_dir={str(tfds_dir)!r}, image_size=4)
        assert dataset.fetch(np.arange(15))["image"].shape == (15, 4, 4, 3)
        for name in {names}:
            try:
                load(name, data_dir={str(tfds_dir)!r})
            except BadInput:
                print(name)
    """
    status, out, err = run_python(code)
    assert (status, out.split()) == (0, names), err


def copy_with(tfds_dir, folder, file, change):
    shutil.copytree(tfds_dir / "toy_tensors", folder / "toy_tensors")
    path = folder / "toy_tensors" / "1.0.0" / file
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))


@pytest.mark.parametrize(
    "change, found",
    [(('"image"', '"sound"'), "label, sound"), (("uint8", "int32"), "Tensor.*int32")],
)
def test_tfds_set_without_images_is_refused(tfds_dir, tmp_path, change, found):
    copy_with(tfds_dir, tmp_path, "features.json", change)
    match = f"toy_tensors has no feature 'image'.* but {found}.*: take a set of images"
    with pytest.raises(BadInput, match=match):
        load("toy_tensors", data_dir=tmp_path)


@pytest.mark.parametrize(
    "file, change, match",
    [
        ("dataset_info.json", ("{", ""), "dataset_info.json cannot be read .*prepare"),
        ("dataset_info.json", ("name", "nmae"), "toy_tensors in .* cannot be opened"),
        ("features.json", ("{", "[" * 99_999), "features.json cannot be read"),
        (
            "features.json",
            ("tensorflow_datasets.core.features.tensor_feature", "evilmod"),
            "features.json names the class 'evilmod.Tensor', which is not of",
        ),
        (
            "features.json",
            ('"pythonClassName": "', '"python_class_name": "evilmod; '),
            "names the class 'evilmod; tensorflow",
        ),
    ],
)
def test_broken_tfds_files_are_named_and_execute_nothing(
    tfds_dir, tmp_path, monkeypatch, file, change, match
):
    copy_with(tfds_dir, tmp_path, file, change)
    (tmp_path / "evilmod.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadInput, match=match) as error:
        load("toy_tensors", data_dir=tmp_path)
    assert "\n" not in str(error.value)


def test_a_digest_of_tfds_files_is_that_of_their_bytes(tfds_dir, tmp_path):
    shutil.copytree(tfds_dir / "toy_tensors", tmp_path / "toy_tensors")
    here, there = (load("toy_tensors", data_dir=x) for x in (tmp_path, tfds_dir))
    assert here.digest() == there.digest()
    (path,) = tmp_path.rglob("*train.array_record*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert here.digest() != there.digest()
    test = load("toy_tensors", split="test", data_dir=tmp_path)
    assert test.digest() not in (here.digest(), there.digest())


def test_tfds_set_in_another_format_is_refused(tfds_dir, tmp_path):
    change = ("array_record", "tfrecord")
    copy_with(tfds_dir, tmp_path, "dataset_info.json", change)
    for path in list((tmp_path / "toy_tensors" / "1.0.0").glob("*array_record*")):
        path.rename(path.with_name(path.name.replace(*change)))
    match = "prepared as tfrecord.*--file_format=array_record.*another DIR"
    with pytest.raises(BadInput, match=match):
        load("toy_tensors", data_dir=tmp_path)


@pytest.mark.parametrize(
    "name, match",
    [
        ("cifar10", "'cifar10' is not prepared .*tfds build cifar10 --file_format=arr"),
        ("cifar10", r"\[tfds\].*then pass --data-dir DIR"),
        ("cifar100/9:1.2.3", "'cifar100/9:1.2.3' is not prepared"),
        ("digit", "called 'digit' .did you mean 'digits'.*digits, .*mnist, fashion_mn"),
        ("Fashion-MNIST", "did you mean 'fashion_mnist'"),
        ("cifarr10", "did you mean 'cifar10'.*npz:FILE, .*or any prepared TFDS name"),
        ("huggingface:mnist", "no data set is called 'huggingface:mnist'"),
        ("no such thing!", "no data set is called 'no such thing!': take one of"),
        ("", "no data set is called '': take one of digits"),
    ],
)
def test_unknown_and_unprepared_names(tmp_path, name, match):
    with pytest.raises(BadInput, match=match):
        load(name, data_dir=tmp_path)


def test_a_path_for_a_name_is_understood(tmp_path):
    with pytest.raises(BadInput, match=f"did you mean 'folder:{tmp_path}'"):
        load(str(tmp_path), data_dir=tmp_path)


def test_unknown_tfds_split(tfds_dir):
    with pytest.raises(BadInput, match="no split 'dev': choose one of test, train"):
        load("toy_tensors", split="dev", data_dir=tfds_dir)


# ---------------------------------------------------------------- imports


def test_importing_the_module_is_cheap():
    heavy = ["jax", "sklearn", "tensorflow_datasets", "grain", "PIL"]
    code = (
        "import sys, train.data.load\n"
        f"heavy = [name for name in {heavy} if name in sys.modules]\n"
        "assert not heavy, heavy"
    )
    assert run_python(code) == (0, "", "")
