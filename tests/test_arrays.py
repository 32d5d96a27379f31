"""Laws of `train.data.arrays`: data in memory, files of it, and what is refused."""

import dataclasses
import io
import json
import types
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from test_fuzz import mutated

from gengen.conditions import Labels
from gengen.errors import BadInput
from train.data.arrays import from_arrays, parted
from train.data.dataset import Spec
from train.data.feed import Feed
from train.data.load import load
from train.data.split import part_of
from train.measure.outlier_sets import labelled_subset
from train.run import heldout
from train.run.heldout import HeldOut

draw = np.random.default_rng(0)
IMAGE = draw.integers(0, 256, (20, 4, 6, 3), dtype=np.uint8)
LABEL = np.arange(20) % 3
LATENT = (5 + 3 * draw.standard_normal((20, 2, 2, 4))).astype(np.float32)
CODES = draw.integers(0, 512, (20, 3, 3))
TOKENS = draw.integers(0, 200, (20, 7))


def everything(dataset):
    return dataset.fetch(np.arange(dataset.size))


KINDS = {
    "image": (IMAGE, "images", np.uint8, 256),
    "tokens": (TOKENS, "text", np.uint8, 256),
    "codes": (CODES, "symbols", np.int32, 512),
    "latent": (LATENT, "reals", np.float32, 0),
}


@pytest.mark.parametrize("key", KINDS)
@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_arrays_are_read_back_and_their_space_reads_them(key, convert):
    array, kind, dtype, levels = KINDS[key]
    load_split = from_arrays({key: convert(array), "label": convert(LABEL)}, name="x")
    dataset = load_split("train")
    spec, batch = dataset.spec, everything(dataset)
    assert (spec.name, spec.kind, spec.levels) == ("x", kind, levels)
    assert spec.shape == array.shape[1:] and spec.num_classes == 3
    np.testing.assert_array_equal(batch[key], array)
    np.testing.assert_array_equal(batch["label"], LABEL)
    assert batch[key].dtype == dtype and batch["label"].dtype == np.int32
    assert {k: v.dtype for k, v in spec.example(2).items()} == {
        k: v.dtype for k, v in batch.items()
    }
    x = spec.space().read(batch)
    assert x.shape == array.shape
    if kind == "reals":
        np.testing.assert_allclose(np.mean(x, (0, 1, 2)), 0, atol=1e-5)
        np.testing.assert_allclose(np.std(x, (0, 1, 2)), 1, atol=1e-5)
    fields = json.loads(json.dumps(spec.as_json()))
    assert Spec.from_json(fields) == spec and spec.is_possible()
    assert dataset.bytes == batch[key].nbytes
    Feed(dataset, 4, seed=0).items(0, 1)


def test_a_record_from_before_there_were_kinds_is_read():
    fields = Spec("digits", (8, 8, 1), 17, 0, ()).as_json()
    old = {k: fields[k] for k in fields if k not in ("kind", "mean", "std")}
    assert Spec.from_json(old) == Spec("digits", (8, 8, 1), 17, 0, ())


@pytest.mark.parametrize(
    "labels, names",
    [
        (np.array([7, -1, 30] * 3), ("-1", "7", "30")),
        (["b", "a", "c"] * 3, ("a", "b", "c")),
        (np.array([[7], [1], [3]] * 3), ("1", "3", "7")),
        (np.array(["b", "a", "c"] * 3, object), ("a", "b", "c")),
        (np.array([b"b", b"a", b"c"] * 3), ("a", "b", "c")),
        ([True, False, False] * 3, ("False", "True")),
    ],
)
def test_sorted_labels_are_the_classes(labels, names):
    dataset = from_arrays({"image": IMAGE[:9], "label": labels})("train")
    assert dataset.spec.class_names == names
    of_examples = np.array(names)[everything(dataset)["label"]]
    np.testing.assert_array_equal(of_examples, np.asarray(labels).ravel().astype(str))


def test_splits_are_those_that_are_given():
    train = {"image": IMAGE[:10, ..., 0], "label": LABEL[:10]}
    other = {"image": IMAGE[10:, ..., 0], "label": LABEL[10:]}
    alone, one = from_arrays(train), from_arrays(train, held_out=other)
    two = from_arrays(train, held_out={"validation": other, "test": train}, levels=256)
    assert one("validation").spec == two("test").spec == alone("train").spec
    assert alone("train").spec.shape == (4, 6, 1)
    np.testing.assert_array_equal(everything(one("validation"))["label"], LABEL[10:])
    for load_split, split in ((alone, "validation"), (one, "test"), (two, "dev")):
        with pytest.raises(BadInput, match=f"arrays has no split '{split}'") as error:
            load_split(split)
        assert error.value.no_such_split


def test_held_out_labels_may_be_unknown():
    other = _but(label=np.where(LABEL == 1, -1, LABEL))
    load_split = from_arrays(_but(), held_out=other)
    np.testing.assert_array_equal(
        everything(load_split("validation"))["label"], other["label"]
    )


class Guess:
    """A classifier that always says class 0."""

    density, labels = "none", Labels(3)

    def log_prob_labels(self, params, state, batch, key):
        return jnp.zeros((len(batch["label"]), 3)).at[:, 0].set(1.0)


@pytest.mark.parametrize("num", [20, 9])
def test_no_figure_is_made_of_unknown_labels(num, monkeypatch):
    """`num` of 20 labels are unknown."""
    monkeypatch.setattr(heldout, "Discriminative", Guess)
    label = np.where(np.arange(20) < num, -1, LABEL)
    load_split = from_arrays(_but(), held_out=_but(label=label))
    held_out = HeldOut(1, Guess(), (4, 6, 3), load_split, 0, 8)
    assert f"{num} of 20 validation images have no known label" in held_out.note
    values = held_out(types.SimpleNamespace(params={}, ema=None, state={}))
    right = LABEL[num:] == 0
    wanted = {"validation/accuracy": right.mean()} if num < 20 else {}
    assert values == pytest.approx(wanted)
    dataset = load_split("validation")
    if num == 20:
        with pytest.raises(BadInput, match="no example has a known label"):
            labelled_subset(dataset, 20, 0)
    else:
        assert len(labelled_subset(dataset, 20, 0)["label"]) == 20 - num


def test_parts_are_by_name_and_keep_labels_with_their_images():
    label = np.arange(500)
    train, others = parted({"image": label[:, None, None], "label": label})
    parts = {"train": train, **others}
    assert sorted(np.concatenate([p["label"] for p in parts.values()])) == list(label)
    for split, part in parts.items():
        np.testing.assert_array_equal(part["image"][:, 0, 0], part["label"])
        assert {part_of(str(i)) for i in part["label"]} == {split}
    # Binomial(500, 0.1) has standard deviation 6.7; four of them.
    assert all(abs(len(others[s]["label"]) - 50) < 27 for s in ("validation", "test"))


def _but(**changed):
    return {"image": IMAGE, "label": LABEL} | changed


@pytest.mark.parametrize(
    "arrays, match",
    [
        (_but(image=IMAGE / 255.0), r"x, split train: image is float64 .*astype"),
        (_but(image=IMAGE.astype(int) - 9), "image holds -9 to .* levels 0 to 255"),
        (_but(image=IMAGE > 9), "image is bool where integers are needed"),
        (_but(image=IMAGE[0, 0]), r"image has the shape \[6, 3\] where \[N, height"),
        (_but(image=IMAGE[None]), r"image has the shape \[1, 20, 4, 6, 3\] where"),
        (_but(image=IMAGE[:0]), r"shape \[0, 4, 6, 3\]: give examples"),
        (_but(image=np.moveaxis(IMAGE, -1, 1)), "come last: np.moveaxis"),
        (_but(image=IMAGE[..., [0, 1]]), "so 2 channels, .*give 1 or 3"),
        (_but(label=LABEL[1:]), "label has 19 entries for 20 examples"),
        (_but(label=LABEL / 1), "label is float64 where integers or strings"),
        (_but(label=np.eye(3)[LABEL].astype(int)), r"\[20, 3\] .*label.argmax"),
        (_but(label=LABEL * 0 + 3), "all training labels are 3: leave"),
        (_but(tokens=TOKENS), "has the arrays image, label, tokens: give one of"),
        (_but(mask=LABEL), "has the arrays image, label, mask: give one of"),
        ({"label": LABEL}, "has the arrays label: give one of image, tokens"),
        ({}, "has the arrays nothing: give one of image"),
        ({"latent": LATENT * np.nan}, "latent holds numbers that are not finite"),
        ({"latent": LATENT * [1, 0, 1, 1]}, "channel 1 of latent is constant"),
        ({"latent": CODES}, "latent is int64 where real numbers are needed"),
        ({"codes": CODES - 300}, "codes holds -[0-9]+ to .* symbols from 0 on"),
        ({"codes": LATENT}, "codes is float32 where integers are needed"),
        ({"tokens": CODES}, r"tokens has the shape \[20, 3, 3\] where \[N, length\]"),
    ],
)
def test_arrays_refuse_in_one_sentence(arrays, match):
    with pytest.raises(BadInput, match=match) as error:
        from_arrays(arrays, name="x")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "held_out, levels, match",
    [
        ({"image": IMAGE}, None, "validation are labelled: False, those of train True"),
        ({"tokens": TOKENS}, None, "validation are of kind text, those of train imag"),
        (_but(image=IMAGE[:, :2]), None, r"of shape \[2, 6, 3\], those of train \[4"),
        ({"test": _but(label=LABEL + 1)}, None, "the label 3 of the split test is"),
        (None, 17, "levels=17 do not fit values up to 255: give at least 256"),
        (None, 300, "levels=300 do not fit .* and at most 256"),
    ],
)
def test_splits_that_are_unlike_are_refused(held_out, levels, match):
    with pytest.raises(BadInput, match=match):
        from_arrays(_but(), held_out=held_out, levels=levels)


def test_what_a_damaged_record_says_is_not_possible():
    good = from_arrays({"latent": LATENT})("train").spec
    for change in ({"mean": ()}, {"std": (1.0,)}, {"shape": ()}, {"kind": "images"}):
        assert not dataclasses.replace(good, **change).is_possible()


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_of_arrays_is_split_by_index(tmp_path, save):
    image, label = np.tile(IMAGE, (5, 1, 1, 1)), np.arange(100) % 10
    save(tmp_path / "set.npz", image=image, label=label)
    name = f"npz:{tmp_path / 'set.npz'}"
    for split in ("train", "validation", "test"):
        dataset = load(name, split=split)
        here = [i for i in range(100) if part_of(str(i)) == split]
        np.testing.assert_array_equal(everything(dataset)["image"], image[here])
        np.testing.assert_array_equal(everything(dataset)["label"], label[here])
        assert f"split {split} by a hash of the index (80 % train" in dataset.note
    small = load(name, image_size=2, levels=4)
    assert small.spec.shape == (2, 2, 3) and small.spec.levels == 4
    assert "scaled to 2" in small.note and "\n" not in small.note


@pytest.mark.parametrize(
    "names",
    [
        ("train_image", "train_label", "test_image", "test_label"),
        ("x_train", "y_train", "x_test", "y_test"),  # Keras
        ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST
    ],
)
def test_a_file_of_arrays_may_name_its_splits(tmp_path, names):
    arrays = (IMAGE[:12], LABEL[:12], IMAGE[12:], LABEL[12:])
    np.savez(tmp_path / "set.npz", **dict(zip(names, arrays, strict=True)))
    name = f"npz:{tmp_path / 'set.npz'}"
    np.testing.assert_array_equal(everything(load(name))["image"], IMAGE[:12])
    test = load(name, split="test")
    np.testing.assert_array_equal(everything(test)["label"], LABEL[12:])
    with pytest.raises(BadInput, match="no split 'validation'") as error:
        load(name, split="validation")
    assert error.value.no_such_split


def test_a_file_of_latents(tmp_path):
    np.savez(tmp_path / "set.npz", latent=np.tile(LATENT, (3, 1, 1, 1)))
    name = f"npz:{tmp_path / 'set.npz'}"
    assert load(name).spec.kind == "reals"
    with pytest.raises(BadInput, match="--levels 3 says nothing about npz"):
        load(name, levels=3)
    with pytest.raises(BadInput, match="--image-size 3: .* no uint8 images"):
        load(name, image_size=3)


@pytest.mark.parametrize(
    "arrays, match",
    [
        ({}, r"holds arrays of the splits \(no arrays\)"),
        ({"pictures": IMAGE}, "holds an array pictures, which says nothing here"),
        ({"image": IMAGE, "images": IMAGE}, "holds an array images, which says"),
        ({"image": IMAGE, "label": LABEL[1:]}, "20 of image and 19 of label"),
        ({"image": IMAGE, "label": LABEL[0]}, "20 of image and 0 of label"),
        ({"image": IMAGE, "test_label": LABEL}, "the splits none, test: name all"),
        ({"test_image": IMAGE}, "arrays of the splits test: name all"),
        ({"image": np.array([{}, {}])}, r"Python objects \(image.npy\), which are not"),
    ],
)
def test_files_of_other_arrays_are_refused(tmp_path, arrays, match):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(BadInput, match=match):
        load(f"npz:{tmp_path / 'set.npz'}")


def test_no_file_of_arrays_surprises(tmp_path):
    with pytest.raises(BadInput, match="'npz:' names no file: write npz:FILE"):
        load("npz:")
    with pytest.raises(BadInput, match="there is no file .*: give npz:FILE"):
        load(f"npz:{tmp_path / 'none.npz'}")
    path, draw = tmp_path / "set.npz", np.random.default_rng(0)
    np.savez_compressed(path, train_image=IMAGE, train_label=LABEL)
    whole, good = path.read_bytes(), 0
    assert load(f"npz:{path}").size  # as it is; what is changed has its checksums wrong
    for _ in range(200):
        path.write_bytes(mutated(whole, draw))
        try:
            load(f"npz:{path}")
            good += 1
        except BadInput as error:
            assert "\n" not in str(error)
    assert good < 200


def test_a_file_that_promises_too_much_is_not_read(tmp_path):
    path = tmp_path / "set.npz"
    header = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": (10_000, 1024, 1024)}
    np.lib.format.write_array_header_1_0(header, fields)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("image.npy", header.getvalue() + bytes(10**6))
    with pytest.raises(BadInput, match=r"image.npy\) promises an array of \[10000, 1"):
        load(f"npz:{path}")
