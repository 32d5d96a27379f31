"""What every command that opens a run has in common: steps, labels, files, words."""

import numpy as np
import pytest
from program import refused

from gengen.errors import BadInput
from train.run.labels import label_index

# Commands that open a run: a family that each takes, and options that it needs.
OPENERS = {
    "sample": ("vae", ""),
    "complete": ("transformer", ""),
    "edit": ("flow", ""),
    "restore": ("flow", ""),
    "interpolate": ("vae", ""),
    "traverse": ("vae", ""),
    "evaluate": ("vae", ""),
    "bayes": ("vae", ""),
    "outliers": ("vae", ""),
    "probe": ("vae", ""),
    "sweep": ("flow", "--steps 2"),
    "benchmark": ("vae", ""),
    "inspect": ("vae", ""),
}


@pytest.mark.parametrize("command", OPENERS)
def test_every_command_that_opens_a_run_takes_a_step(cli, runs, command):
    family, options = OPENERS[command]
    line = f"train.{command} --workdir {runs / family} {options} --step 3"
    refused(cli(line), "no checkpoint of step 3", "choose one of 2, 4")


def test_an_earlier_step_is_opened(cli, runs, tmp_path):
    line = f"train.sample --workdir {runs / 'vae'} --num 2 --out {tmp_path}/x.npz"
    assert "2 samples of step 2" in cli(f"{line} --step 2")[1]
    lists = [
        cli(f"train.inspect --workdir {runs / 'vae'} {step}")[1]
        for step in ("--step 2", "--step 4", "")
    ]
    assert "step 2\n" in lists[0] and lists[0] != lists[1] == lists[2]


FASHION = ("T-shirt/top", "Ankle boot", "Sneaker", "10", "2")
LABELS = {"Sneaker": 2, "sneaker": 2, "ANKLE BOOT": 1, 0: 0, "1": 1, "2": 4, 2: 4}


@pytest.mark.parametrize("label", LABELS)
def test_a_label_is_a_name_or_else_a_number(label):
    assert label_index(label, FASHION) == LABELS[label]


@pytest.mark.parametrize(
    ("label", "names", "words"),
    [
        ("snaeker", FASHION, "--label snaeker is no class .*'Sneaker'"),
        ("boot", FASHION, "'Ankle boot'.*the classes are 0 to 4 .T-shirt"),
        ("CAT", ("cat", "Cat"), r"ambiguous: say 'cat' \(0\) or 'Cat' \(1\)"),
        ("-1", FASHION, "-1 is out of range: the classes are 0 to 4"),
        (5, FASHION, "5 is out of range"),
        ("zebra", tuple("0123456789"), "zebra is no class: the classes are 0 to 9$"),
    ],
)
def test_a_label_of_no_or_of_several_classes_is_one_sentence(label, names, words):
    with pytest.raises(BadInput, match=words):
        label_index(label, names)


def test_folders_that_are_numbers_are_asked_for_by_their_names(cli, runs, monkeypatch):
    """Names sort as text: class 2 of folders 0 … 11 is the folder 10."""
    import dataclasses

    from train.run import workdir

    names, opened = ("0", "1", "10", "2", *"3456789"[:6]), workdir.open_workdir

    def renamed(*arguments):
        run = opened(*arguments)
        data = dataclasses.replace(run.record.data, class_names=names)
        record = dataclasses.replace(run.record, data=data)
        return dataclasses.replace(run, record=record)

    monkeypatch.setattr(workdir, "open_workdir", renamed)
    out = runs / "labelled.npz"
    line = f"train.sample --workdir {runs / 'flow'} --num 2 --label 2 --out {out}"
    status, said, err = cli(line)
    assert status == 0, err
    assert 'label 3: class "2"' in said
    with np.load(out) as arrays:
        assert list(arrays["label"]) == [3, 3]
