"""A comparison: which families it has, and what is trained before what."""

import dataclasses
from types import SimpleNamespace

import pytest

from gengen.errors import BadInput
from train.cli.options import RunOptions
from train.compare import Compare
from train.data.load import load
from train.experiments import EXPERIMENTS
from train.measure import comparison, series

SPEC = load("digits").spec


def selected(*families, spec=SPEC):
    return comparison.select_families(SimpleNamespace(families=families), spec)


def test_families_that_read_a_run_are_compared_too():
    families = selected()
    assert families["prior"] == ("prior", {"first_stage": "vqvae"})
    assert families["latent_dit"] == ("dit", {"first_stage": "autoencoder_kl"})
    assert families["distill"] == ("distill", {"teacher": "dit"})
    assert families["vae"] == ("vae", {})
    assert not {"classifier", "autoencoder", "vqvae"} & {*families}
    options = {field.name for field in dataclasses.fields(RunOptions)}
    for experiment, reads in families.values():
        assert {experiment, *reads.values()} <= {*EXPERIMENTS} and {*reads} <= options


def test_a_family_of_other_data_is_left_out_or_refused():
    unlabelled = dataclasses.replace(SPEC, num_classes=None)
    assert "m2" in selected() and "m2" not in selected(spec=unlabelled)
    with pytest.raises(BadInput, match="label"):
        selected("m2", spec=unlabelled)
    with pytest.raises(BadInput, match=r"vqvae: it draws no samples; leave it out"):
        selected("vqvae")
    with pytest.raises(BadInput, match=r"latent_did.*did you mean latent_dit\?"):
        selected("latent_did")


def test_the_run_that_is_read_is_trained_first_and_its_seconds_count(
    tmp_path, monkeypatch
):
    trained, seconds = [], {"vqvae": 3.0, "prior": 0.5}
    monkeypatch.setattr(series, "train", lambda run, *_: trained.append(run))
    monkeypatch.setattr(comparison, "training_seconds", lambda w: seconds[w.name])
    options = Compare(families=("prior",), steps=7)
    family = selected("prior")["prior"]
    member = comparison.member_of("prior", *family, tmp_path, options)
    member.trained()
    first, second = trained
    assert first.workdir == tmp_path / "vqvae" and first.first_stage is None
    assert second.first_stage == str(first.workdir)
    assert member.keywords["steps"] == member.reads[0].keywords["steps"] == 7
    assert member.check(load("digits")) is None  # the model, once vqvae is there
    assert comparison.total([seconds["prior"], seconds["vqvae"]]) == 3.5
    assert comparison.total([0.5, None]) is None
