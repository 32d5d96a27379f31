"""The measuring programs as a user drives them: evaluate, compare; the budget."""

import json
import math
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from program import EVENTS, GENERATIVE, TINY, refused

import train.quality
from gengen import metrics
from train.compare import markdown, place
from train.extractors import open_extractor
from train.features import of_dataset
from train.workdir import open_workdir


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
    result, out = evaluated(cli, copy(family))
    assert "averaged (EMA) parameters" in out and "classifier of digits" in out
    assert "cost: 40 samples" in out.split("┏")[0]
    assert result["parameters"] == "averaged (EMA)" and result["step"] == 4
    for columns, num in ((result["sample_quality"], 40), (result["noise_floor"], 447)):
        for name, figure in columns.items():
            assert figure["extractor"] == result["extractor"]
            assert math.isfinite(figure["value"]), name
        assert columns["frechet_distance"]["n_fake"] == num
        assert columns["frechet_distance"]["n_real"] == 1000
    assert result["seconds_per_sample"] > 0 and result["parameter_count"] > 100
    assert result["network_evaluations"] == (4 if family == "flow" else 1)
    if family == "vae":
        bits = result["bits_per_dim"]
        assert {f["kind"] for f in bits.values()} == {"ELBO"}
        assert [bits[s]["num"] for s in bits] == [1000, 350, 447]
        assert all(0 < bits[s]["value"] < 20 for s in bits)
    else:
        assert "bits_per_dim" not in result
        assert 0 <= result["class_accuracy"] <= 1


def test_the_noise_floor_is_that_of_the_test_images(cli, copy):
    workdir = copy("vae")
    result, _ = evaluated(cli, workdir)
    trained = open_workdir(workdir)
    extractor = open_extractor(None, workdir, trained.record)
    sets = [of_dataset(extractor, trained.dataset(s), 9999) for s in ("train", "test")]
    moments = [x for s in sets for x in (s.moments.mean, s.moments.cov)]
    floor = result["noise_floor"]
    got = floor["frechet_distance"]["value"]
    assert got == pytest.approx(metrics.frechet_distance(*moments), rel=1e-6)
    precision, _ = metrics.precision_recall(sets[0].kept, sets[1].kept)
    assert floor["precision"]["value"] == precision


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
    assert result["bits_per_dim"]["test"]["kind"] == "ELBO, mixture over classes"
    assert 0 <= result["class_accuracy"] <= 1


def test_an_interrupted_evaluation_goes_on(cli, copy, monkeypatch):
    workdir, drawn, stops = copy("gan"), [], [32]
    batch = train.quality.Sampler.batch

    def interrupted(self, params, state, key, first, labels):
        drawn.append(first)
        if first in stops:
            stops.clear()
            raise KeyboardInterrupt
        return batch(self, params, state, key, first, labels)

    monkeypatch.setattr(train.quality.Sampler, "batch", interrupted)
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
    status, out, err = cli(line)
    assert status == 0, err
    result = json.loads((tmp_path / "c/comparison.json").read_text())
    assert [row["family"] for row in result["rows"]] == ["vae", "flow"]
    assert "diverged" in result["failed"]["diverging"]
    text = (tmp_path / "c/comparison.md").read_text()
    assert text in out and "lower bound" in text and "*test images*" in text
    table = [x for x in text.splitlines() if x.startswith("|")]
    assert len({len(x) for x in table}) == 1 and len(table) == 5
    with Image.open(tmp_path / "c/comparison.png") as picture:
        assert picture.size[0] > 10 * 64 and 3 * 64 < picture.size[1] < 4 * 70
    status, again, _ = cli(line)
    assert again.count("already evaluated") == 2 and text in again
    refused(cli(f"{line} --families classifier"), "discriminative")
    refused(cli(f"{line} --families vea"), "vea", "did you mean vae?")
    refused(cli(f"{line} --minutes 0"), "--minutes 0", "above 0")


def test_rows_are_ordered_by_the_taxonomy():
    def row(density, bits, distance):
        return {
            "density": density,
            "test_bits_per_dim": bits,
            "frechet_distance": distance,
        }

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
        assert sorted((ordered[i] for i in shuffled), key=place) == ordered


def test_an_empty_table_says_what_failed():
    result = {"dataset": "d", "budget": "1", "rows": [], "failed": {"vae": "why"}}
    assert "vae failed: why" in markdown(result)


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
