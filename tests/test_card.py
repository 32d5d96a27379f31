"""The card of a run: its head is YAML, its command is the run's, its figures theirs."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from train.cli.command import options_class, parse, split_options
from train.data.load import load
from train.experiments import DATASETS, EXPERIMENTS
from train.experiments.experiment import Reference
from train.run import card
from train.run import record as records
from train.run.loop import record_of
from train.run.report import read_rows
from train.run.same import difference


def head_of(text: str) -> dict:
    _, head, body = text.split("---\n", 2)
    assert body.startswith("\n# ")
    return yaml.safe_load(head)


def test_a_run_ends_with_its_card(runs):
    text = (runs / "flow/README.md").read_text()
    assert head_of(text) == {
        "library_name": "gengen",
        "datasets": ["digits"],
        "metrics": ["bits_per_dim_VLB-given-label"],
        "tags": ["jax", "generative-model", "flow"],
    }
    *_, last = read_rows(runs / "flow/metrics.jsonl")
    value = f"{last['validation/bits_per_dim_VLB-given-label']:.4g}"
    row = f"| bits_per_dim_VLB-given-label | validation | 4 | {value} |"
    assert row in text.splitlines() and text.endswith(f"{card.MADE}\n")
    assert "python -m train.sample --workdir flow\n" in text
    other = (runs / "classifier/README.md").read_text()
    assert "python -m train.evaluate --workdir classifier\n" in other
    assert not [*runs.rglob("README.md.part")]


LINES = [
    "flow",
    "flow --multipliers 1 4 --no-conditional --attention 4 8 --seed 7 --likelihood vlb",
    "vae --hidden 8 4 --clip 0.5 --levels 2 --augment flip --accumulate 2",
    "cyclegan --blocks 1",
    "transformer --ema-half-life 500 --dataset shapes",
]


@pytest.mark.parametrize("line", LINES)
def test_the_command_of_a_card_is_that_of_the_run(line):
    """Parsed, it gives the record back; what is as by default does not stand there."""
    name, *words = line.split()
    options = options_class(EXPERIMENTS[name], DATASETS.get(name))
    dataset = load(DATASETS.get(name, "digits"))

    def recorded(words):
        run, keywords = split_options(parse(options, name, words))
        return record_of(run, name, keywords, dataset)

    record = recorded(["--workdir", "a b", *words])
    said = shlex.split(card.command_of(record, Path("/x/a b")))
    assert said[:6] == ["python", "-m", "train", name, "--workdir", "a b"]
    assert difference(record, again := recorded(said[4:])) is None
    assert again.options == record.options
    assert len(said) == 6 + len(words)


def test_the_command_names_the_runs_that_a_run_reads_and_starts_from(runs):
    record = records.load(runs / "vae")
    frozen = {"autoencoder": Reference("../first", 4, "abc")}
    record = records.Record(
        **{**vars(record), "frozen": frozen, "initial": Reference("../b", 2, "abc")}
    )
    said = card.command_of(record, Path("runs/vae"))
    assert said.endswith("--first-stage runs/first@4 --init-from runs/b@2")


def test_the_last_figure_of_each_kind_stands_in_the_card():
    rows = [
        {"step": step, "validation/x": 0.5 * step, "a/loss": 1.0} for step in (2, 4)
    ]
    rows += [{"step": 6, "validation/x": float("nan")}]
    assert card.held_out(rows) == [("x", "validation", 4, "2")]


def test_an_evaluation_stands_in_the_card_with_its_errors(runs, tmp_path):
    quality = {"precision": {"value": 0.9389, "standard_error": None}}
    bits = {"value": 2.02853, "standard_error": 0.0156, "kind": "VLB", "num": 447}
    result = {"step": 4, "sample_quality": quality, "against_test": quality}
    result["bits_per_dim"] = {"test": bits}
    (tmp_path / "evaluation.json").write_text(json.dumps(result))
    assert card.evaluated(tmp_path) == [
        ("precision", "samples", 4, "0.9389"),
        ("bits per dim (VLB)", "test", 4, "2.029 ± 0.016"),
    ]
    (tmp_path / "evaluation.json").write_text("[1")
    assert card.evaluated(tmp_path) == []


def test_a_licence_stays_when_the_card_is_written_again(runs, tmp_path):
    shutil.copytree(runs / "vae", tmp_path / "w")
    for license in ('a "b"', None):
        text = card.write(tmp_path / "w", None, license).read_text()
        assert head_of(text)["license"] == 'a "b"'


def test_a_readme_of_ones_own_stays(runs, tmp_path):
    shutil.copytree(runs / "vae", tmp_path / "w")
    (tmp_path / "w/README.md").write_text("mine\n")
    assert card.write(tmp_path / "w", None) is None
    assert (tmp_path / "w/README.md").read_text() == "mine\n"
