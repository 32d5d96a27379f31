"""Features of images on disk and off: one pass, any batches, resumed, told apart.

The extractors are a linear map where only the plumbing matters, and the tiny trained
classifier of `runs` where it is a workdir's.
"""

import contextlib
import dataclasses
import json
import shutil
import types

import jax
import numpy as np
import pytest

from gengen.conditions import Labels, Nothing
from gengen.errors import BadInput
from gengen.images import to_unit
from train.cli.groups import defaults_of
from train.data.dataset import Dataset, Spec
from train.data.feed import order
from train.data.load import load
from train.experiments.classifier import classifier, recipe
from train.measure import features as features_of
from train.measure.extractors import Extractor, default_name, open_extractor
from train.measure.features import Parts, collect, empty, of_dataset
from train.measure.while_training import SampleQuality
from train.run.digests import digest_of
from train.run.record import Record
from train.run.workdir import open_workdir

WIDTH, CLASSES = 3, 2


def linear(batch_size, seen=None):
    """Features are W x, their log-probabilities are of two classes; notes shapes."""
    weights = np.random.default_rng(0).normal(size=(4, WIDTH))

    def apply(weights, x):
        if seen is not None:
            seen.append(x.shape)
        features = x.reshape(len(x), -1) @ weights
        return features, jax.nn.log_softmax(features[:, :CLASSES])

    return Extractor("linear", "a test", True, batch_size, weights, apply)


def dataset(num):
    """Images of 2 × 2 random levels, sorted by class as files are."""
    rng = np.random.default_rng(1)
    image = rng.integers(0, 17, (num, 2, 2, 1)).astype(np.uint8)
    label = np.sort(rng.integers(0, CLASSES, num)).astype(np.int32)
    spec = Spec("test", (2, 2, 1), 17, CLASSES, ("a", "b"))

    def fetch(indices):
        return {"image": image[indices], "label": label[indices]}

    return Dataset(spec, num, fetch, "")


def close(actual, desired, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=atol)


# ----------------------------------------------------------------- an extractor


@pytest.mark.parametrize("num", [1, 4, 6, 9])
def test_the_padding_of_the_last_batch_changes_nothing(num):
    x = np.random.default_rng(2).normal(size=(num, 2, 2, 1))
    seen = []
    features, probs = linear(4, seen)(x)
    assert set(seen) == {(4, 2, 2, 1)}  # so that one program is compiled
    assert features.shape == (num, WIDTH) and probs.shape == (num, CLASSES)
    alone = [linear(1)(x[i : i + 1]) for i in range(num)]
    close(features, np.concatenate([f for f, _ in alone]))
    close(probs, np.concatenate([p for _, p in alone]))
    assert probs.dtype == np.float64
    close(probs.sum(axis=1), np.ones(num))


# ------------------------------------------------------------------ of a data set


@pytest.mark.parametrize("batch_size", [1, 4, 7, 50])
def test_of_dataset_sees_all_images_once_in_shuffled_order(batch_size):
    data, done = dataset(30), []
    got = of_dataset(linear(batch_size), data, kept=10, advance=done.append)
    places = order(0, 0, 30, 30)
    batch = data.fetch(places)
    every, probs = linear(30)(np.asarray(to_unit(batch["image"], 17)))
    assert got.moments.n == 30
    close(got.moments.mean, every.mean(axis=0))
    close(got.moments.cov, np.cov(every, rowvar=False))
    close(got.kept, every[:10])
    close(got.probs, probs[:10])
    np.testing.assert_array_equal(got.labels, batch["label"])
    assert done == [min(n, 30) for n in range(batch_size, 30 + batch_size, batch_size)]


def test_those_kept_are_of_all_classes_though_the_files_are_sorted():
    data = dataset(30)
    assert len(set(data.fetch(np.arange(10))["label"])) == 1
    assert len(set(of_dataset(linear(4), data, kept=10).labels[:10])) == 2


def test_the_first_image_whose_features_are_not_finite_is_named_by_its_number():
    features = np.zeros((10, 3))
    features[7, 1] = np.nan
    stream = [(part, part, None) for part in (features[:5], features[5:])]
    with pytest.raises(BadInput, match="image 7 are not finite"):
        collect(iter(stream), kept=100)


def test_collect_keeps_what_there_is_and_labels_where_there_are_some():
    x = np.random.default_rng(3).normal(size=(7, WIDTH))
    for labels in (np.arange(7), None):
        stream = [
            (x[i : i + 3], x[i : i + 3], None if labels is None else labels[i : i + 3])
            for i in (0, 3, 6)
        ]
        got = collect(iter(stream), kept=100)
        np.testing.assert_array_equal(got.kept, x)
        assert got.moments.n == 7
        if labels is None:
            assert got.labels is None
        else:
            np.testing.assert_array_equal(got.labels, labels)


# -------------------------------------------------------------------------- parts

IDENTITY = {"step": 4, "seed": 0, "solver": None}


def rows(first, num):
    """Features that say which samples they are of."""
    return np.arange(first, first + num, dtype=float)[:, None] * np.ones(WIDTH)


def saved(folder, firsts=(0, 4, 8), identity=IDENTITY):
    parts = Parts(folder, identity)
    for first in firsts:
        parts.save(first, rows(first, 4), rows(first, 4)[:, :1], 0.5 + first)
    return parts


def test_parts_are_in_the_order_of_the_samples_whenever_they_were_saved(tmp_path):
    parts = saved(tmp_path / "p", firsts=(12, 4, 1_000_000, 0, 8))
    got = parts.features(kept=18)
    everything = np.concatenate([rows(f, 4) for f in (0, 4, 8, 12, 1_000_000)])
    np.testing.assert_array_equal(got.kept, everything[:18])
    np.testing.assert_array_equal(got.probs, everything[:18, :1])
    assert got.labels is None and got.moments.n == 20
    close(got.moments.mean, everything.mean(axis=0))
    close(got.moments.cov, np.cov(everything, rowvar=False))
    assert parts.seconds() == [0.5, 4.5, 8.5, 12.5, 1_000_000.5]


def test_the_same_evaluation_goes_on_where_it_stopped(tmp_path):
    saved(tmp_path / "p", firsts=(0, 8))
    again = Parts(tmp_path / "p", dict(reversed(IDENTITY.items())))
    assert [again.has(first) for first in (0, 4, 8)] == [True, False, True]
    again.save(4, rows(4, 4), rows(4, 4)[:, :1], 1.0)
    np.testing.assert_array_equal(again.features(100).kept, rows(0, 12))


@pytest.mark.parametrize("change", [{"step": 6}, {"seed": 1}, {"solver": "heun"}])
def test_another_evaluation_starts_from_nothing(tmp_path, change):
    saved(tmp_path / "p")
    other = Parts(tmp_path / "p", {**IDENTITY, **change})
    assert not any(other.has(first) for first in (0, 4, 8))
    assert [p.name for p in (tmp_path / "p").iterdir()] == ["identity.json"]
    back = Parts(tmp_path / "p", IDENTITY)
    assert not back.has(0)


def test_half_a_part_is_none(tmp_path, monkeypatch):
    parts = saved(tmp_path / "p", firsts=(0,))

    def interrupted(file, **arrays):
        file.write(b"PK")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(features_of.np, "savez", interrupted)
        parts.save(4, rows(4, 4), rows(4, 4), 1.0)
    assert len(list((tmp_path / "p").iterdir())) == 2  # identity and a part
    again = Parts(tmp_path / "p", IDENTITY)
    assert again.has(0) and not again.has(4)
    np.testing.assert_array_equal(again.features(100).kept, rows(0, 4))
    again.save(4, rows(4, 4), rows(4, 4)[:, :1], 1.0)
    np.testing.assert_array_equal(again.features(100).kept, rows(0, 8))


def without_features(path):
    np.savez(path, probs=rows(4, 4)[:, :1], seconds=0.5)


def not_finite(path):
    np.savez(path, features=rows(4, 4) * np.nan, probs=rows(4, 4)[:, :1], seconds=0.5)


@pytest.mark.parametrize("damage", [without_features, not_finite])
def test_a_damaged_part_is_made_again(tmp_path, capsys, damage):
    saved(tmp_path / "p")
    damage(tmp_path / "p" / "000000004.npz")
    again = Parts(tmp_path / "p", IDENTITY)
    assert [again.has(first) for first in (0, 4, 8)] == [True, False, True]
    assert "000000004.npz is damaged" in capsys.readouterr().out
    np.testing.assert_array_equal(
        again.features(100).kept[:, 0], [*range(4), *range(8, 12)]
    )


def test_a_damaged_part_is_dropped_and_measured_again(tmp_path):
    parts = saved(tmp_path / "p", firsts=(0, 4))
    path, draw = tmp_path / "p/000000004.npz", np.random.default_rng(0)
    whole, dropped = path.read_bytes(), 0
    for size in (0, 1, len(whole) // 2, len(whole) - 1, *[len(whole)] * 200):
        data = bytearray(whole[:size])
        if size == len(whole):
            data[draw.integers(size)] ^= 1 << draw.integers(8)
        path.write_bytes(data)
        if parts.has(4):
            np.testing.assert_array_equal(parts.features(100).kept, rows(0, 8))
        else:
            dropped += 1
            assert not path.exists()
    assert dropped > 100


def test_empty_deletes_what_parts_made_and_nothing_else(tmp_path):
    saved(tmp_path / "p")
    empty(tmp_path / "p")
    assert not (tmp_path / "p").exists()
    empty(tmp_path / "p")  # nothing there
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "000000000.npz").write_text("precious")
    empty(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "000000000.npz").read_text() == "precious"


def test_a_damaged_identity_is_another_evaluation(tmp_path):
    saved(tmp_path / "p")
    (tmp_path / "p" / "identity.json").write_text('{"step": ')
    assert not Parts(tmp_path / "p", IDENTITY).has(0)
    assert json.loads((tmp_path / "p" / "identity.json").read_text()) == IDENTITY


def test_parts_without_an_identity_are_of_another_evaluation(tmp_path):
    """What is left where `empty` was interrupted after it deleted the identity."""
    saved(tmp_path / "p")
    (tmp_path / "p" / "identity.json").unlink()
    assert not Parts(tmp_path / "p", {**IDENTITY, "step": 6}).has(0)


# ------------------------------------------------------------------ names of weights


def test_a_digest_changes_with_one_weight_and_with_nothing_else():
    def tree(change=0.0, name="kernel", dtype=np.float32):
        kernel = np.arange(6, dtype=dtype).reshape(2, 3)
        kernel[1, 2] += change
        return {"dense": {"bias": np.zeros(3, np.float32), name: kernel}}

    same = digest_of(tree())
    assert len(same) == 8 and int(same, 16) >= 0
    turned = {"dense": dict(reversed(tree()["dense"].items()))}
    assert same == digest_of(tree()) == digest_of(turned)
    assert same == digest_of(jax.tree.map(jax.numpy.asarray, tree()))
    reshaped = jax.tree.map(np.ravel, tree())
    others = [tree(change=1e-6), tree(name="scale"), tree(dtype=np.float16), reshaped]
    assert tree(change=1e-6)["dense"]["kernel"][1, 2] != 5  # the smallest change seen
    assert len({same, *map(digest_of, others)}) == 5


# ------------------------------------------------------------------ while training


class Memory:
    """A model that draws the training images of the class it is asked for."""

    space = types.SimpleNamespace(shape=(2, 2, 1))
    sampler = None

    def __init__(self, data, conditional):
        batch = data.fetch(np.arange(data.size))
        self.x, self.label = np.asarray(to_unit(batch["image"], 17)), batch["label"]
        self.condition = Labels(CLASSES) if conditional else Nothing()

    def sample(self, params, state, key, num, *, start_index=0, label=None):
        places = jax.numpy.arange(num) + start_index
        if label is not None:
            of_class = np.stack(
                [np.resize(np.flatnonzero(self.label == k), 30) for k in range(CLASSES)]
            )
            places = jax.numpy.asarray(of_class)[label, places % 30]
        return params * jax.numpy.asarray(self.x)[places % len(self.x)]


def test_quality_while_training_is_that_of_the_averaged_parameters():
    data = dataset(30)
    quality = SampleQuality(5, Memory(data, False), data, linear(7), 3, num=30)
    state = types.SimpleNamespace(params=0.5, ema=1.0, state={})
    assert quality(state)["quality/frechet_distance"] < 1e-3
    assert quality(state) == quality(state)
    state.ema = None
    assert list(quality(state)) == ["quality/frechet_distance"]
    assert quality(state)["quality/frechet_distance"] > 0.1


def test_quality_while_training_asks_for_known_classes_alone():
    data, right = dataset(30), Extractor("exact", "", True, 10, {}, None)
    model = Memory(data, True)
    asked = {bytes(x): y for x, y in zip(model.x, model.label, strict=True)}

    def exact(weights, x):
        label = [asked[bytes(each)] for each in np.asarray(x)]
        return np.asarray(x).reshape(len(x), -1), np.log(np.eye(CLASSES)[label] + 1e-9)

    def fetch(indices):
        batch = data.fetch(indices)
        return {**batch, "label": np.where(indices < 9, -1, batch["label"])}

    right = dataclasses.replace(right, apply=exact)
    unknown = dataclasses.replace(data, fetch=fetch)
    quality = SampleQuality(1, model, unknown, right, num=20)
    state = types.SimpleNamespace(params=np.float32(1), ema=None, state={})
    assert quality(state)["quality/class_accuracy"] == 1.0


# ---------------------------------------------------------- a classifier as extractor


def record_of(workdir, **changes):
    """The record of a run, its data set's spec changed."""
    record = open_workdir(workdir).record
    return dataclasses.replace(record, data=dataclasses.replace(record.data, **changes))


@pytest.fixture(scope="module")
def extractor(runs):
    return open_extractor(runs / "classifier", runs / "vae", record_of(runs / "vae"))


def test_a_classifier_gives_its_own_features_and_probabilities(runs, extractor):
    trained = open_workdir(runs / "classifier")
    batch = load("digits", split="test").fetch(np.arange(5))
    got, probs = extractor(np.asarray(to_unit(batch["image"], 17)))
    arguments = (trained.params, trained.state, batch, None)
    close(got, jax.jit(trained.model.features)(*arguments))
    log_p = jax.jit(trained.model.log_prob_labels)(*arguments)
    close(probs, np.exp(log_p), rtol=1e-4)
    assert got.shape == (5, 8) and probs.shape == (5, 10)


def test_samples_between_two_levels_are_seen_at_the_nearest(extractor):
    """Real images are levels; samples must not be told from them by their decimals."""
    level = np.random.default_rng(4).integers(0, 17, (3, 8, 8, 1))
    x = np.asarray(to_unit(level, 17))
    jitter = np.random.default_rng(5).uniform(-0.06, 0.06, x.shape)  # half a bin: 1/16
    np.testing.assert_array_equal(extractor(x)[0], extractor(x + jitter)[0])


def test_the_name_tells_the_extractor_apart(runs, extractor):
    digest = digest_of(open_workdir(runs / "classifier").params)
    assert extractor.name == (
        f"classifier of digits, 8 features, step 4, weights {digest}"
    )
    assert str(runs / "classifier") in extractor.note
    assert extractor.labels


def test_labels_of_another_data_set_are_not_compared(runs):
    for changes in ({"name": "other"}, {"class_names": tuple("abcdefghij")}):
        record = record_of(runs / "vae", **changes)
        assert not open_extractor(runs / "classifier", runs / "vae", record).labels


def refused(path, record, *words):
    with pytest.raises(BadInput) as said:
        open_extractor(path, path, record)
    sentence = str(said.value)
    assert "\n" not in sentence
    for word in (str(path), *words):
        assert word in sentence, sentence


def test_a_classifier_of_other_images_is_refused(runs):
    path = runs / "classifier"
    for changes in ({"shape": (16, 16, 1)}, {"shape": (8, 8, 3)}, {"levels": 2}):
        record = record_of(runs / "vae", **changes)
        value = str(next(iter(changes.values())))
        refused(path, record, "(8, 8, 1)", "17", value, "on the run's data set")


@pytest.mark.parametrize("family", ["vae", "gan"])
def test_a_run_that_is_no_classifier_is_refused(runs, family):
    record = record_of(runs / "vae")
    words = (f"holds a {family}, not a classifier", "python -m train classifier")
    refused(runs / family, record, *words)


def test_a_folder_without_a_run_is_refused(runs, tmp_path):
    refused(tmp_path, record_of(runs / "vae"), "holds no run", "train one")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("fid.pth", b"not a pickle", "fid.pth"),
        ("fid.pth", b"", "fid.pth"),
        ("fid.pt", b"PK\3\4 and no more", "fetch the file again"),
        ("fid.safetensors", b"\xff" * 20, "truncated or damaged"),
        ("fid.safetensors", b"\2\0\0\0\0\0\0\0{}", "lack"),
        ("fid.onnx", b"whatever", ".safetensors, .pth, .pt"),
    ],
)
def test_an_unreadable_file_of_weights_is_refused(runs, tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInput, match=says.replace(".", r"\.")) as said:
        open_extractor(path, tmp_path, record_of(runs / "vae"))
    assert "\n" not in str(said.value)


# --------------------------------------------------------- the default classifier


@pytest.mark.parametrize(
    ("run", "name"),
    [
        ({"dataset": "digits"}, "classifier-digits"),
        ({"dataset": "mnist", "image_size": 16}, "classifier-mnist-size16"),
        ({"dataset": "mnist", "levels": 2}, "classifier-mnist-levels2"),
        (
            {"dataset": "folder:/home/me/cats/", "image_size": 32, "levels": 8},
            "classifier-home-me-cats-size32-levels8",
        ),
    ],
)
def test_the_default_classifier_is_named_by_what_it_was_trained_on(run, name):
    run = {"image_size": None, "levels": None, "seed": 5, **run}
    spec = Spec(run["dataset"], (8, 8, 1), 17, 10, tuple("0123456789"))
    assert default_name(Record("vae", {}, run, spec)) == name


def test_the_default_classifier_is_found_beside_the_run(runs, tmp_path, monkeypatch):
    def never(*arguments):
        raise AssertionError("there is a classifier already")

    shutil.copytree(runs / "classifier", tmp_path / "classifier-digits")
    monkeypatch.setattr("train.run.loop.train", never)
    got = open_extractor(None, tmp_path / "vae", record_of(runs / "vae"))
    assert got.note == f"from {tmp_path / 'classifier-digits'}"


def test_the_default_classifier_is_trained_where_there_is_none(
    runs, tmp_path, monkeypatch, capsys
):
    """With the recipe's keywords, on the run's data; the training itself is copied."""
    from train.run import loop

    asked = []

    def train(run, name, options):
        asked.append((run, name, options))
        shutil.copytree(runs / "classifier", run.workdir)

    monkeypatch.setattr(loop, "train", train)
    record = record_of(runs / "vae")
    open_extractor(None, tmp_path / "vae", record)
    ((run, name, options),) = asked
    assert run.workdir == tmp_path / "classifier-digits"
    assert (run.dataset, run.image_size, run.levels) == ("digits", None, None)
    assert name == "classifier" and options == recipe(record.data)
    assert "--extractor" in capsys.readouterr().out


def without_checkpoint(workdir):
    shutil.rmtree(workdir / "checkpoints")
    (workdir / "checkpoints").mkdir()


def without_its_last_steps(workdir):
    record = json.loads((workdir / "experiment.json").read_text())
    assert record["options"]["steps"] == 4
    record["options"]["steps"] = 8
    (workdir / "experiment.json").write_text(json.dumps(record))


@pytest.mark.parametrize("interrupted", [without_checkpoint, without_its_last_steps])
def test_an_interrupted_default_classifier_is_trained_to_its_end(
    runs, tmp_path, monkeypatch, interrupted
):
    from train.run import loop

    asked = []
    monkeypatch.setattr(loop, "train", lambda *arguments: asked.append(arguments))
    shutil.copytree(runs / "classifier", tmp_path / "classifier-digits")
    interrupted(tmp_path / "classifier-digits")
    with contextlib.suppress(BadInput):  # nothing was trained, so there may be nothing
        open_extractor(None, tmp_path / "vae", record_of(runs / "vae"))
    assert len(asked) == 1


def test_data_without_labels_have_no_default_classifier(runs, tmp_path):
    record = record_of(runs / "vae", num_classes=0, class_names=())
    with pytest.raises(BadInput, match="no labels, which a classifier needs"):
        open_extractor(None, tmp_path / "vae", record)
    assert not list(tmp_path.iterdir())


def spec(name, *shape):
    return Spec(name, shape, 256, 10, tuple("0123456789"))


def test_the_recipe_for_digits_is_the_defaults():
    keywords = recipe(Spec("digits", (8, 8, 1), 17, 10, tuple("0123456789")))
    for name, value in defaults_of(classifier.options).items():
        assert keywords.pop(name) == value
    assert not keywords


@pytest.mark.parametrize(
    ("name", "shape", "multipliers", "flip"),
    [
        ("fashion_mnist", (28, 28, 1), (1, 2, 4), True),
        ("mnist", (28, 28, 1), (1, 2, 4), False),
        ("cifar10", (32, 32, 3), (1, 2, 4), False),
        ("faces", (30, 28, 3), (1, 2), False),
        ("odd", (45, 28, 3), (1,), False),
    ],
)
def test_every_recipe_halves_as_often_as_the_image_allows(
    name, shape, multipliers, flip
):
    data = spec(name, *shape)
    keywords = recipe(data)
    assert keywords["multipliers"] == multipliers and keywords["flip"] is flip
    model = classifier(data, **keywords).model
    jax.eval_shape(model.init, jax.random.key(0), data.example(2))


@pytest.mark.parametrize("shape", [(7, 7, 1), (8, 9, 1)])
def test_small_odd_images_have_a_recipe(shape):
    data = spec("odd", *shape)
    model = classifier(data, **recipe(data)).model
    jax.eval_shape(model.init, jax.random.key(0), data.example(2))
