"""The measuring programs as a user drives them: evaluate, compare; the budget."""

import json
import math
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from program import EVENTS, GENERATIVE, TINY, refused

import train.measure.quality
from gengen.metrics.frechet import frechet_distance
from gengen.metrics.neighbours import precision_recall
from train.measure.comparison import rank_of, row_of
from train.measure.comparison_table import quality_cells
from train.measure.extractors import open_extractor
from train.measure.features import alone, of_dataset
from train.measure.mixture import KIND
from train.measure.quality import PART
from train.run.heldout import batches, subset
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
def test_an_evaluation_states_what_its_figures_depend_on(cli, copy, family):
    some = ["--likelihood-num", 20] if family == "flow" else []
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
    assert result["network_evaluations"] == (4 if family == "flow" else 1)
    kinds = {"vae": "ELBO", "transformer": "exact"}
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


def test_samples_that_are_not_finite_are_no_black_images_to_measure(cli, copy):
    workdir = copy("flow")
    line = f"train.evaluate --workdir {workdir} --num 10 --likelihood-num 10"
    result = cli(f"{line} --guidance-scale 1e38")
    refused(result, "sample 0 is not finite", "guidance scale")
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
    assert "going on: 32 samples" in out and set(drawn) == {32}
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
    row = row_of(result)
    assert row["quality"] is None and quality_cells(row["quality"]) == ["–"] * 3


def test_few_images_are_measured_as_far_as_they_go(cli, copy):
    workdir = copy("gan")
    status, _, err = cli(f"train.evaluate --workdir {workdir} --num 10")
    assert status == 0, err


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
    from train.experiments.flow import flow
    from train.experiments.vae import vae

    def small_flow(data, *, steps: int = 3):
        return flow(data, channels=8, multipliers=(1,), sampling_steps=2, steps=steps)

    def small_vae(data, *, steps: int = 3):
        return vae(data, hidden=(8,), latent=2, steps=steps)

    def diverging(data, *, steps: int = 3):
        return vae(data, hidden=(8,), latent=2, steps=200, learning_rate=1e30)

    made = {"flow": small_flow, "diverging": diverging, "vae": small_vae}
    made["classifier"] = experiments.EXPERIMENTS["classifier"]
    for module in (experiments, __import__("train.experiments", fromlist=["x"])):
        monkeypatch.setattr(module, "EXPERIMENTS", made)
    extractor = f"--extractor {runs / 'classifier'}"
    line = f"train.compare --workdir {tmp_path / 'c'} --num 30 {extractor}"
    line += " --likelihood-num 20"
    status, out, err = cli(line)
    assert status == 0, err
    result = json.loads((tmp_path / "c/comparison.json").read_text())
    assert [row["family"] for row in result["rows"]] == ["vae", "flow"]
    assert "diverged" in result["failed"]["diverging"]
    text = (tmp_path / "c/comparison.md").read_text()
    assert "lower bound" in text and "*test images*" in text
    notes = text.partition("\n\n")[2]
    assert notes in out and "lower bound" in out
    # What was asked for, and what was used.
    assert "Minutes of training that were used, of 2 at most" in notes
    assert all(len(line) <= 80 for line in out.splitlines() if line[:1] in "┃│├")
    table = [x for x in text.splitlines() if x.startswith("|")]
    assert len({len(x) for x in table}) == 1 and len(table) == 6
    with Image.open(tmp_path / "c/comparison.png") as picture:
        assert picture.size[0] > 10 * 64 and 3 * 64 < picture.size[1] < 4 * 70
    status, again, _ = cli(line)
    assert again.count("already evaluated") == 2 and notes in again
    # Nothing is trained, and no table lost, for what can be refused at once.
    refused(cli(f"{line} --seed 1"), "holds another run", "another --workdir")
    refused(cli(f"{line.replace('--num 30', '--num 5')}"), "--num 5", "at least 10")
    refused(cli(f"{line} --steps 2"), "beyond this budget", "another --workdir")
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
    refused(cli(f"{line} --families classifier"), "discriminative")
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
    assert status == 0 and "0.002 minutes of training are over" in out
    rows = [json.loads(x) for x in (workdir / "metrics.jsonl").open()]
    assert rows[-1]["seconds"] >= 0.12 > rows[-2]["seconds"]
    assert (workdir / "samples.png").exists()
    last = rows[-1]["step"]
    assert (workdir / "checkpoints" / str(last)).exists()
    status, out, _ = cli(f"{line} --minutes 0.002")
    assert status == 0 and f"nothing to do: the run is at step {last}" in out
    status, out, _ = cli(f"{line} --minutes 0.004")
    assert f"resumed from the checkpoint at step {last}" in out
    more = [json.loads(x) for x in (workdir / "metrics.jsonl").open()]
    assert more[: len(rows)] == rows
    assert more[-1]["seconds"] >= 0.24 > more[-2]["seconds"]
