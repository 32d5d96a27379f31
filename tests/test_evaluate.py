"""The measuring programs as a user drives them: evaluate, compare; the budget."""

import dataclasses
import json
import math
import shutil
import sys
import types
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from program import EVENTS, GENERATIVE, TINY, refused

import train.measure.quality
import train.run.workdir
from gengen.conditions import Labels, Nothing
from gengen.errors import BadInput
from gengen.metrics.frechet import frechet_distance
from gengen.metrics.neighbours import precision_recall
from gengen.spaces import Reals
from train.data.dataset import Dataset, Spec, take
from train.files import to_json, write_json
from train.measure.comparison import rank_of, row_of
from train.measure.comparison_table import quality_cells
from train.measure.extractors import open_extractor
from train.measure.features import alone, of_dataset
from train.measure.mixture import KIND, mixture_over_classes
from train.measure.per_example import example_metrics
from train.measure.quality import PART
from train.measure.series import budget_used
from train.progress import print_table
from train.run.heldout import batches, subset
from train.run.report import read_rows
from train.run.samples import mistaken
from train.run.workdir import open_workdir


def evaluated(cli, workdir, *options):
    line = f"train.evaluate --workdir {workdir} --num 40 {' '.join(map(str, options))}"
    status, out, err = cli(line)
    assert status == 0, err
    return json.loads((workdir / "evaluation.json").read_text()), out


@pytest.fixture
def copy(runs, tmp_path):
    """A copy of a tiny run, beside the tiny classifier as its default extractor."""

    def make(name):
        shutil.copytree(runs / "classifier", tmp_path / "classifier-digits")
        return shutil.copytree(runs / name, tmp_path / name)

    return make


@pytest.mark.parametrize("family", GENERATIVE)
def test_an_evaluation_states_what_its_figures_depend_on(cli, copy, tmp_path, family):
    some = {"flow": ["--likelihood-num", 20], "transformer": ["--likelihood-num", 0]}
    some = some.get(family, [])
    result, out = evaluated(cli, copy(family), *some)
    assert "averaged (EMA) parameters" in out and "classifier of digits" in out
    means = "means E(x|z)" if family == "vae" else "samples"
    assert f"cost: 40 {means}" in out.split("features:")[0]
    assert result["samples"] == means
    assert result["parameters"] == "averaged (EMA)" and result["step"] == 4
    for columns, num in ((result["sample_quality"], 40), (result["test_images"], 447)):
        for name, figure in columns.items():
            assert figure["extractor"] == result["extractor"]
            assert math.isfinite(figure["value"]), name
        assert columns["frechet_distance"]["n_fake"] == num
        assert columns["frechet_distance"]["n_real"] == 1000
    assert result["seconds_per_sample"] > 0 and result["parameter_count"] > 100
    value = f"{result['sample_quality']['precision']['value']:.4g}"
    card = (tmp_path / family / "README.md").read_text()
    assert f"| precision | samples | 4 | {value} |" in card
    assert result["network_evaluations"] == (4 if family == "flow" else 1)
    kinds = {"vae": "ELBO"}
    kinds["flow"] = f"VLB, {KIND}"
    if family in kinds:
        bits = result["bits_per_dim"]
        assert {f["kind"] for f in bits.values()} == {kinds[family]}
        nums = [20] * 3 if family == "flow" else [1000, 350, 447]
        assert [bits[s]["num"] for s in bits] == nums
        assert all(0 < bits[s]["value"] < 20 for s in bits)
    else:
        assert "bits_per_dim" not in result
    if family in ("gan", "flow"):
        assert 0 <= result["class_accuracy"] <= 1


def test_two_evaluations_of_one_run_do_not_mix(cli, copy):
    workdir = copy("vae")
    with alone(workdir / PART):
        status, _, err = cli(f"train.evaluate --workdir {workdir} --num 40")
    assert status == 2 and "is being measured by process" in err
    assert not (workdir / PART).exists()


def test_test_images_and_halves_of_training_images_are_measured_too(cli, copy):
    workdir = copy("vae")
    result, _ = evaluated(cli, workdir)
    trained = open_workdir(workdir)
    extractor = open_extractor(None, workdir, trained.record)
    sets = [of_dataset(extractor, trained.dataset(s), 9999) for s in ("train", "test")]
    test = result["test_images"]
    got = test["frechet_distance"]["value"]
    assert got == pytest.approx(frechet_distance(*(s.moments for s in sets)), rel=1e-6)
    precision, _ = precision_recall(sets[0].kept, sets[1].kept)
    assert test["precision"]["value"] == precision
    floor, halves = result["noise_floor"], (sets[0].kept[0::2], sets[0].kept[1::2])
    assert floor["precision"]["value"] == precision_recall(*halves)[0]
    assert {floor[name]["n_fake"] for name in ("precision", "recall")} == {500}
    assert result["against_test"]["precision"]["n_real"] == 447


def test_samples_that_are_not_finite_are_no_black_images_to_measure(
    cli, copy, monkeypatch
):
    workdir, sampler = copy("gan"), train.measure.quality.Sampler
    batch = sampler.batch
    monkeypatch.setattr(sampler, "batch", lambda *given: batch(*given) * np.nan)
    line = f"train.evaluate --workdir {workdir} --num 10 --likelihood-num 0"
    refused(cli(line), "sample 0 is not finite", "guidance scale")
    assert not (workdir / "evaluation.json").exists()


def test_the_bound_tightens_with_importance_samples(cli, runs, copy):
    workdir = copy("vae")
    elbo, _ = evaluated(cli, workdir)
    iwae, _ = evaluated(cli, workdir, "--importance-samples 16")
    assert iwae["bits_per_dim"]["test"]["kind"] == "IWAE-16"
    for split in ("train", "test"):
        a, b = (r["bits_per_dim"][split]["value"] for r in (iwae, elbo))
        assert a < b
    line = f"train.evaluate --workdir {runs / 'gan'} --importance-samples 2"
    refused(cli(line), "--importance-samples 2", "leave it out")


def test_a_conditional_model_is_measured_as_the_mixture_over_classes(cli, copy):
    parent = copy("vae").parent
    line = f"train vae --conditional --workdir {parent / 'c'} {TINY['vae']} {EVENTS}"
    assert cli(f"{line} --steps 2")[0] == 0
    result, _ = evaluated(cli, parent / "c")
    assert result["bits_per_dim"]["test"]["kind"] == f"ELBO, {KIND}"
    assert 0 <= result["class_accuracy"] <= 1


def test_an_interrupted_evaluation_goes_on(cli, copy, monkeypatch):
    workdir, drawn, stops = copy("gan"), [], [32]
    batch = train.measure.quality.Sampler.batch

    def interrupted(self, params, state, key, first, labels):
        drawn.append(first)
        if first in stops:
            stops.clear()
            raise KeyboardInterrupt
        return batch(self, params, state, key, first, labels)

    monkeypatch.setattr(train.measure.quality.Sampler, "batch", interrupted)
    line = f"train.evaluate --workdir {workdir} --num 40 --batch-size 16"
    assert cli(line)[0] == 130
    assert not (workdir / "evaluation.json").exists()
    del drawn[:]
    resumed, out = evaluated(cli, workdir, "--batch-size 16")
    # The first again, for the picture with their neighbours.
    assert "going on: 32 samples" in out and set(drawn) == {32, 0}
    assert (workdir / "neighbours.png").exists()
    assert resumed["memory"]["samples"] > 0 and resumed["memory"]["test_images"] > 0
    assert not (workdir / "evaluation.part").exists()
    whole, _ = evaluated(cli, workdir, "--batch-size 16")
    for name, figure in whole["sample_quality"].items():
        assert figure == resumed["sample_quality"][name]


def test_the_default_extractor_is_trained_where_there_is_none(cli, copy, monkeypatch):
    workdir = copy("vae")
    shutil.rmtree(workdir.parent / "classifier-digits")
    module = sys.modules["train.experiments.classifier"]
    recipe = module.recipe

    def quick(data):
        return {**recipe(data), "channels": 8, "multipliers": (1,), "steps": 2}

    monkeypatch.setattr(module, "recipe", quick)
    result, out = evaluated(cli, workdir)
    assert "training one first" in out
    assert "8 features, step 2" in result["extractor"]
    assert (workdir.parent / "classifier-digits" / "experiment.json").exists()


def test_a_classifier_is_measured_by_accuracy(cli, copy):
    result, _ = evaluated(cli, copy("classifier"))
    for split, num in (("train", 1000), ("validation", 350), ("test", 447)):
        share = result["accuracy"][split]
        assert share["num"] == num
        # Of 0 and 1 alone: the spread follows from the mean.
        p = share["value"]
        assert share["standard_error"] == pytest.approx(
            math.sqrt(p * (1 - p) / (num - 1)), rel=1e-6
        )
    assert result["cross_entropy"]["test"]["value"] == pytest.approx(2.3, abs=0.5)
    assert "sample_quality" not in result


def test_wrong_input_is_refused_before_work(cli, runs, tmp_path):
    line = f"train.evaluate --workdir {runs / 'gan'}"
    refused(cli(f"{line} --num 3"), "--num 3", "at least 10")
    refused(cli(f"{line} --extractor {runs / 'vae'}"), "not a classifier", "train one")
    refused(cli(f"{line} --extractor {tmp_path}/none"), f"{tmp_path}/none")
    (tmp_path / "weights.pth").write_bytes(b"not weights")
    refused(cli(f"{line} --extractor {tmp_path}/weights.pth"), "weights.pth")
    refused(cli(f"{line} --solver heun"), "--solver", "leave it out")
    classifier = f"--workdir {runs / 'classifier'}"
    out = f"--out {tmp_path}/x.png"
    refused(cli(f"train.sample {classifier} {out}"), "draws no samples", "conditional")
    refused(cli(f"train.benchmark {classifier}"), "draws no samples")
    refused(cli(f"train.evaluate {classifier} --steps 7"), "--steps 7", "leave it out")
    refused(cli(f"train.evaluate --workdir {runs / 'flow'} --steps 0"), "--steps 0")
    refused(cli(f"{line} --draw"), "--draw", "leave it out")


def images(folder, labelled, num=40, side=8):
    """A folder of random grey images, in classes or not."""
    rng = np.random.default_rng(0)
    for i in range(num):
        inside = folder / f"class{i % 2}" if labelled else folder
        inside.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (side, side)).astype(np.uint8)
        Image.fromarray(pixels).save(inside / f"{i:03d}.png")
    return f"folder:{folder}"


def test_unlabelled_images_are_measured_without_a_classifier(cli, tmp_path):
    name = images(tmp_path / "images", labelled=False)
    options = f"--dataset {name} --hidden 8 --latent 2 --batch-size 8 --steps 2"
    assert cli(f"train vae --workdir {tmp_path / 'w'} {options}")[0] == 0
    result, out = evaluated(cli, tmp_path / "w")
    assert "no sample quality" in out and "sample_quality" not in result
    assert result["bits_per_dim"]["test"]["num"] == 4
    assert result["seconds_per_sample"] > 0
    row = row_of(types.SimpleNamespace(name="vae", reads=()), result)
    assert row["quality"] is None and quality_cells(row["quality"]) == ["–"] * 3


def test_few_images_are_measured_as_far_as_they_go(cli, copy):
    workdir = copy("gan")
    status, _, err = cli(f"train.evaluate --workdir {workdir} --num 10")
    assert status == 0, err


def strict(text):
    """JSON without NaN and Infinity, which are none of it."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def smaller(monkeypatch, **sizes):
    """Splits of digits have so many images; with 0 there is no such split."""
    load = train.run.workdir.load

    def loaded(name, *, split, **options):
        dataset = load(name, split=split, **options)
        size = sizes.get(split, dataset.size)
        if not size:
            error = BadInput(f"{name} has no split {split!r}")
            error.no_such_split = True
            raise error
        return dataclasses.replace(dataset, size=size)

    monkeypatch.setattr(train.run.workdir, "load", loaded)


@pytest.mark.parametrize("num_test", [0, 1, 9])
def test_metrics_of_too_few_test_images_are_left_out_and_told_before(
    cli, copy, monkeypatch, num_test
):
    workdir = copy("vae")
    smaller(monkeypatch, validation=0, test=num_test)
    result, out = evaluated(cli, workdir, "--likelihood-num 20")
    assert result == strict((workdir / "evaluation.json").read_text())
    before = out.partition("training one first")[0].partition("about ")[0]
    assert "digits has no validation split" in before
    assert len(result["sample_quality"]) == 8  # against training: all of them
    bits = result["bits_per_dim"]
    if not num_test:
        assert "digits has no test split" in before and "test" not in bits
        assert "against_test" not in result and "test_images" not in result
        return
    few = {1: "samples against test: 40 images against 1 are too few for frechet"}
    few[9] = "test against training: 9 images against 1,000 are too few for inception"
    assert few[num_test] in before
    assert ("precision" in result["against_test"]) == (num_test == 9)
    assert "inception_score" not in result["test_images"]
    assert bits["test"]["num"] == num_test and bits["test"]["value"] > 0
    assert (bits["test"]["standard_error"] is None) == (num_test == 1)
    assert "nan" not in out


@pytest.mark.parametrize("unknown", [200, 447])
def test_no_accuracy_is_made_of_labels_that_are_unknown(
    cli, copy, monkeypatch, unknown
):
    load = train.run.workdir.load

    def loaded(name, *, split, **options):
        dataset = load(name, split=split, **options)

        def fetch(indices):
            batch = dataset.fetch(indices)
            hidden = np.where(indices < unknown, -1, batch["label"])
            return {**batch, "label": hidden} if split == "test" else batch

        return dataclasses.replace(dataset, fetch=fetch)

    monkeypatch.setattr(train.run.workdir, "load", loaded)
    result, out = evaluated(cli, copy("classifier"))
    for name in ("accuracy", "cross_entropy"):
        nums = {split: each["num"] for split, each in result[name].items()}
        rest = {"test": 247} if unknown < 447 else {}
        assert nums == {"train": 1000, "validation": 350, **rest}
    assert f"{unknown} of 447 test labels are unknown" in out


@dataclasses.dataclass(frozen=True)
class Perfect:
    """p(x|y) of one pixel of four levels, exactly."""

    table: tuple = ((0.5, 0.5, 0.0, 0.0), (0.0, 0.25, 0.25, 0.5))
    density: str = "exact"
    likelihood_kind: str = "exact"
    condition = Labels(2)

    def log_likelihood(self, params, state, batch, key):
        log_p = np.log(np.maximum(self.table, 1e-30)).astype(np.float32)
        return jax.numpy.asarray(log_p)[batch["label"], batch["image"].ravel()]


def test_bits_of_a_perfect_conditional_model_are_those_of_the_mixture():
    """Classes 90:10: -log2 p(x), whose mean is the entropy of x, label and all."""
    label = np.arange(100) % 10 == 0
    image = np.zeros((100, 1, 1, 1), np.uint8)
    spec = Spec("pixels", (1, 1, 1), 4, 2, ("a", "b"))
    arrays = {"image": image, "label": np.where(label, 1, 0).astype(np.int32)}
    training = Dataset(spec, 100, partial(take, arrays), "")
    options = types.SimpleNamespace(importance_samples=None, likelihood_num=10)
    record = types.SimpleNamespace(data=spec)

    def bits_of(model):
        trained = types.SimpleNamespace(model=model, record=record)
        (metric,) = example_metrics(trained, training, options)
        assert metric.kind == f"exact, {KIND}" and metric.likelihoods == 2
        assert "2 likelihoods each" in metric.cost(4, "images")
        every = {"image": np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)}
        return np.asarray(metric.function({}, {}, every, jax.random.key(0)))

    p = 0.9 * np.array(Perfect.table[0]) + 0.1 * np.array(Perfect.table[1])
    np.testing.assert_allclose(bits_of(Perfect()), -np.log2(p), rtol=1e-5)
    # The label is all there is to x: H(y) and not log2 K.
    told = bits_of(Perfect(((1.0, 0, 0, 0), (0, 1.0, 0, 0))))
    entropy = -0.9 * np.log2(0.9) - 0.1 * np.log2(0.1)
    np.testing.assert_allclose(told[:2] @ [0.9, 0.1], entropy, rtol=1e-5)


def test_a_class_that_does_not_occur_has_no_part_in_the_mixture():
    one = np.ones(3, np.int32)
    arrays = {"image": np.zeros((3, 1, 1, 1), np.uint8), "label": one * [1, -1, 1]}
    spec = Spec("pixels", (1, 1, 1), 4, 2, ("a", "b"))
    training = Dataset(spec, 3, partial(take, arrays), "")
    mixture = mixture_over_classes(Perfect(), training)
    every = {"image": np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)}
    arguments = ({}, {}, every, jax.random.key(0))
    log_p = np.asarray(mixture.log_likelihood(*arguments))
    np.testing.assert_allclose(np.exp(log_p), Perfect.table[1], atol=1e-6)
    assert set(np.asarray(mixture.classify(*arguments)).tolist()) == {1}


def test_the_budget_that_was_used_is_told_beside_the_one_asked_for():
    results = {"vae": {"training_seconds": 118.0}, "gan": {"training_seconds": 780.0}}
    (sentence,) = budget_used(results, 2.0)
    assert "of 2 at most" in sentence and "vae 1.97, gan 13" in sentence
    assert sentence.endswith("beyond them: gan.")
    assert budget_used({"old": {"training_seconds": None}}, 2.0) == []
    assert budget_used(results, None) == []  # none was asked for


@pytest.mark.parametrize("columns", [2, 12])
def test_a_table_in_a_pipe_wraps_and_breaks_no_word(capsys, columns):
    headings = ["", *(f"heading of column{i}" for i in range(1, columns))]
    row = ["means E[x|z] of " + "many words " * 20, *["0.123456789"] * (columns - 1)]
    print_table([headings, row], "a [bold] title")
    lines = capsys.readouterr().out.splitlines()
    words = " ".join(lines).split()
    assert words.count("0.123456789") == columns - 1 and words.count("many") == 20
    assert "E[x|z]" in words and "[bold]" in words
    least = 17 * columns  # of words and the space between columns
    assert max(map(len, lines)) <= max(80, least)


def test_one_module_writes_the_json_of_files():
    """So that NaN is null in all of them; the others: a key, a copy, a message."""
    modules = (Path(__file__).parents[1] / "train").rglob("*.py")
    writers = {path.name for path in modules if "json.dump" in path.read_text()}
    others = {"features.py", "record.py", "processes.py", "card.py", "tensors.py"}
    assert writers == {"files.py", *others}
    assert to_json({"loss": math.nan}) == '{"loss": null}\n'


def test_a_line_of_metrics_keeps_its_place_where_a_number_is_not_finite(tmp_path):
    rows = [{"step": 1, "loss": math.nan}, {"step": 2, "loss": 0.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(map(to_json, rows)))
    first, second = read_rows(tmp_path / "metrics.jsonl")
    assert math.isnan(first.pop("loss")) and first == {"step": 1} and second == rows[1]


def test_bits_have_the_unit_of_the_space():
    class Points:
        density = likelihood_kind = "exact"
        condition, space = Nothing(), Reals((256,))

    data = types.SimpleNamespace(shape=(256,))  # as long as a text
    record = types.SimpleNamespace(data=data)
    trained = types.SimpleNamespace(model=Points(), record=record)
    options = types.SimpleNamespace(importance_samples=None, likelihood_num=5)
    (metric,) = example_metrics(trained, None, options)
    assert metric.name == "density_bits_per_dim"


def test_where_no_label_is_known_a_classifier_makes_no_mistake():
    said, label = np.array([0, 1, 1, 2]), np.array([0, 0, -1, 2])
    assert mistaken(said, label).tolist() == [False, True, False, False]


def test_json_has_null_where_a_number_is_not_finite(tmp_path):
    value = {"a": [math.nan, 1.0], "b": (math.inf, np.float64("nan")), "c": "nan"}
    write_json(tmp_path / "x.json", value)
    known = strict((tmp_path / "x.json").read_text())
    assert known == {"a": [None, 1.0], "b": [None, None], "c": "nan"}


def test_a_data_set_that_is_gone_is_told(cli, tmp_path):
    name = images(tmp_path / "images", labelled=True)
    options = f"--dataset {name} --hidden 8 --latent 2 --batch-size 8 --steps 2"
    assert cli(f"train vae --workdir {tmp_path / 'w'} {options}")[0] == 0
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    refused(cli(f"train.evaluate --workdir {tmp_path / 'w'}"), str(tmp_path / "images"))


def test_images_that_count_are_not_the_first_in_file_order():
    class Sorted:
        size = 1000

        def fetch(self, indices):
            return indices

    places = subset(Sorted(), 100)
    assert len(set(places)) == 100 and places.max() > 900
    seen = np.concatenate([*batches(Sorted(), places, 64)])
    np.testing.assert_array_equal(seen, [*places, *places[:28]])
    assert set(subset(Sorted(), 1000)) == set(range(1000))


# ---------------------------------------------------------------- compare


def test_compare_writes_one_table_and_one_picture(cli, runs, tmp_path, monkeypatch):
    import train.experiments as experiments
    from train.experiments.gan import gan
    from train.experiments.vae import vae

    small = {"latent": 2, "batch_size": 16}

    def small_gan(data, *, steps: int = 3):
        return gan(data, channels=4, steps=steps, **small)

    def small_vae(data, *, steps: int = 3):
        return vae(data, hidden=(8,), steps=steps, **small)

    def diverging(data, *, steps: int = 3):
        return vae(data, hidden=(8,), steps=200, learning_rate=1e30, **small)

    made = {"gan": small_gan, "diverging": diverging, "vae": small_vae}
    small_gan.options = gan.options
    diverging.options = small_vae.options = vae.options
    made["classifier"] = experiments.EXPERIMENTS["classifier"]
    for module in (experiments, __import__("train.experiments", fromlist=["x"])):
        monkeypatch.setattr(module, "EXPERIMENTS", made)
    extractor = f"--extractor {runs / 'classifier'}"
    line = f"train.compare --workdir {tmp_path / 'c'} --num 30 {extractor}"
    line += " --likelihood-num 20"
    status, out, err = cli(line)
    assert status == 0, err
    result = json.loads((tmp_path / "c/comparison.json").read_text())
    assert [row["family"] for row in result["rows"]] == ["vae", "gan"]
    assert "diverged" in result["failed"]["diverging"]
    text = (tmp_path / "c/comparison.md").read_text()
    assert "lower bound" in text and "*test images*" in text
    notes = text.partition("\n\n")[2]
    assert notes in out and "lower" in out
    # What was asked for, and what was used.
    assert "Minutes of training that were used, of 2 at most" in notes
    table = [x for x in text.splitlines() if x.startswith("|")]
    assert len({len(x) for x in table}) == 1 and len(table) == 6
    with Image.open(tmp_path / "c/comparison.png") as picture:
        assert picture.size[0] > 10 * 64 and 3 * 64 < picture.size[1] < 4 * 70
    status, again, _ = cli(line)
    assert again.count("already evaluated") == 2 and notes in again
    # Nothing is trained, and no table lost, for what can be refused at once.
    refused(cli(f"{line} --seed 1"), "holds another run", "another --workdir")
    refused(cli(f"{line.replace('--num 30', '--num 5')}"), "--num 5", "at least 10")
    refused(cli(f"{line} --steps 2"), "beyond this budget", "another folder")
    refused(cli(line.replace(extractor, f"--extractor {tmp_path}/none")), "none")
    assert (tmp_path / "c/comparison.md").read_text() == text
    # Another extractor is another table: nothing of the old one is used.
    shutil.copytree(runs / "classifier", tmp_path / "other")
    more = f"train classifier --workdir {tmp_path / 'other'} {TINY['classifier']}"
    assert cli(f"{more} {EVENTS} --steps 6")[0] == 0
    status, other, err = cli(
        f"{line.replace(extractor, '')} --extractor {tmp_path / 'other'} --families vae"
    )
    assert status == 0 and "already evaluated" not in other, err
    assert "step 6" in (tmp_path / "c/comparison.md").read_text()
    refused(cli(f"{line} --families classifier"), "draws no samples")
    refused(cli(f"{line} --families vea"), "vea", "did you mean vae?")
    refused(cli(f"{line} --minutes 0"), "--minutes 0", "above 0")


def test_rows_are_ordered_by_the_taxonomy():
    def row(density, bits, distance):
        quality = {"frechet_distance": distance}
        return {"density": density, "test_bits_per_dim": bits, "quality": quality}

    ordered = [
        row("exact", 2.0, 9.0),
        row("exact", 2.1, 1.0),
        row("bound", 1.0, 5.0),
        row("bound", None, 0.5),
        row("none", None, 0.1),
        row("none", None, 0.2),
    ]
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(len(ordered))
        assert sorted((ordered[i] for i in shuffled), key=rank_of) == ordered


def test_no_table_is_written_where_every_family_fails(cli, runs, tmp_path, monkeypatch):
    import train.experiments as experiments
    from train.experiments.vae import vae

    def diverging(data, *, steps: int = 50):
        return vae(data, hidden=(8,), latent=2, steps=steps, learning_rate=1e30)

    made = {"diverging": diverging, "classifier": experiments.EXPERIMENTS["classifier"]}
    monkeypatch.setattr(experiments, "EXPERIMENTS", made)
    line = f"train.compare --workdir {tmp_path / 'c'} --extractor {runs / 'classifier'}"
    refused(cli(line), "every run failed", "diverged")
    assert not (tmp_path / "c/comparison.md").exists()


# ---------------------------------------------------------------- the budget


def test_minutes_end_a_run_over_all_its_starts(cli, tmp_path):
    workdir = tmp_path / "w"
    line = f"train vae --workdir {workdir} {TINY['vae']} {EVENTS} --steps 100000"
    status, out, _ = cli(f"{line} --minutes 0.002")
    assert status == 0 and "the time is over: " in out and "of 0.002 min" in out
    rows = [json.loads(x) for x in (workdir / "metrics.jsonl").open()]
    # The clock is asked at every dispatch, of which a row has one or two.
    assert rows[-1]["seconds"] >= 0.12 > rows[-3]["seconds"]
    assert (workdir / "samples.png").exists()
    last = rows[-1]["step"]
    assert (workdir / "checkpoints" / str(last)).exists()
    status, out, _ = cli(f"{line} --minutes 0.002")
    assert status == 0 and f"nothing to do: the run is at step {last}" in out
    status, out, _ = cli(f"{line} --minutes 0.004")
    assert f"resumed from the checkpoint at step {last}" in out
    more = [json.loads(x) for x in (workdir / "metrics.jsonl").open()]
    assert more[: len(rows)] == rows
    assert more[-1]["seconds"] >= 0.24 > more[-3]["seconds"]
