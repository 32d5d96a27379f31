"""A run goes on with the data that it began with, wherever they lie, or not at all."""

import dataclasses
import inspect
import json
import re

import numpy as np
import pytest
from PIL import Image
from program import EVENTS, TINY, refused

import train.data.digest as digests
from gengen.errors import BadInput
from train.cli.options import RunOptions
from train.data.arrays import from_arrays
from train.data.dataset import READER
from train.data.digest import change
from train.data.load import load
from train.experiments import EXPERIMENTS
from train.run import loop
from train.run import record as records
from train.run.same import refuse_other_run
from train.run.workdir import open_workdir

NOISE = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)


def folder(root, num=40):
    for k in range(num):
        path = root / "ab"[k % 2] / f"{k:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(NOISE[k]).save(path)
    return f"folder:{root}"


def split_folder(root):
    """Splits by folder, so that each can be changed by itself."""
    for k, split in enumerate(("train", "validation")):
        for i in range(10):
            path = root / split / "ab"[i % 2] / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(NOISE[10 * k + i]).save(path)
    return f"folder:{root}"


def known(name):
    return {
        split: load(name, split=split).digest() for split in ("train", "validation")
    }


def exchange(one, two):
    beside = one.with_name("beside")
    one.rename(beside)
    two.rename(one)
    beside.rename(two)


def one_byte(path):
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(bytes(data))


def black(root):
    for path in root.rglob("*.png"):
        Image.new("L", (8, 8)).save(path)


CHANGES = {
    "exchanged classes": (
        lambda root: exchange(root / "train" / "a", root / "train" / "b"),
        r"the labels of the training images \(were class folders exchanged",
    ),
    "black images": (black, "the training images are no longer those"),
    "one byte": (
        lambda root: one_byte(root / "train" / "a" / "04.png"),
        "the training images are no longer those",
    ),
    "validation": (
        lambda root: one_byte(root / "validation" / "b" / "03.png"),
        "the validation images are no longer those",
    ),
    "order": (
        lambda root: exchange(root / "train/a/04.png", root / "train/a/06.png"),
        "the order of the training images is no longer that",
    ),
    "nothing": (lambda root: root.touch(), None),
}


@pytest.mark.parametrize("how", CHANGES)
def test_what_changed_in_a_folder_is_told(tmp_path, how, monkeypatch):
    name, (make, sentence) = split_folder(tmp_path), CHANGES[how]
    before = known(name)
    monkeypatch.setattr(digests, "WHOLE", 100)  # bytes, so that a sample is taken
    sample = known(name)
    make(tmp_path)
    changed = change(sample, known(name), "images")
    assert (changed is None) == (sentence is None)
    monkeypatch.undo()
    changed = change(before, known(name), "images")
    assert re.match(sentence, changed) if sentence else changed is None


def test_a_split_that_one_does_not_know_has_not_changed():
    one, two = {"train": {"image": "1"}}, {"train": {"image": "1"}, "test": {"x": "2"}}
    assert change({}, two, "images") is change(one, two, "images") is None


def test_arrays_say_whether_pixels_or_labels_changed():
    arrays = {"image": NOISE, "label": np.arange(40) % 2}

    def digest(**changed):
        return {"train": from_arrays(arrays | changed)("train").digest()}

    assert change(digest(), digest(), "images") is None
    swapped = change(digest(), digest(label=1 - arrays["label"]), "images")
    assert swapped.startswith("the labels of the training images")
    assert change(digest(), digest(image=255 - NOISE), "images").startswith(
        "the training images"
    )


def test_a_gibibyte_is_sampled_not_read(monkeypatch):
    monkeypatch.setattr("train.data.dataset.WHOLE", 64)
    dataset, read = from_arrays({"image": NOISE})("train"), []

    def fetch(indices):
        read.extend(indices)
        return dataset.fetch(indices)

    dataclasses.replace(dataset, fetch=fetch).digest()
    assert read == [0]


def test_a_run_goes_on_with_its_own_data_alone(cli, tmp_path, capsys):
    root = tmp_path / "data"
    line = f"train vae {TINY['vae']} {EVENTS} --batch-size 8"
    line += f" --workdir {tmp_path / 'w'} --dataset"
    name = folder(root)
    assert cli(f"{line} {name} --steps 1")[0] == 0
    record = json.loads((tmp_path / "w" / "experiment.json").read_text())
    assert record["run"]["reader"] == READER
    assert set(record["digests"]) == {"train", "validation", "test"}
    with_old = {k: record[k] for k in record if k != "digests"}
    exchange(root / "a", root / "b")
    refused(cli(f"{line} {name} --steps 2"), "training images", "restore them")
    exchange(root / "a", root / "b")
    root.rename(tmp_path / "elsewhere")
    name = f"folder:{tmp_path / 'elsewhere'}"
    (tmp_path / "w" / "experiment.json").write_text(json.dumps(with_old))
    refused(cli(f"{line} {name} --steps 2"), "--dataset folder:")
    (tmp_path / "w" / "experiment.json").write_text(json.dumps(record))
    status, out, err = cli(f"{line} {name} --steps 2")
    assert status == 0 and "resumed" in out, err
    kept = json.loads((tmp_path / "w" / "experiment.json").read_text())
    assert kept["run"]["dataset"] == kept["data"]["name"] == name
    assert kept["digests"] == record["digests"]
    black(tmp_path / "elsewhere")
    run = open_workdir(tmp_path / "w")
    for _ in range(2):
        run.dataset("test")
    told = capsys.readouterr().err
    assert told.count("note: the test images are no longer those that the run") == 1


@pytest.mark.parametrize("kind", ["folder", "text"])
def test_a_run_reads_by_the_rules_that_it_began_with(tmp_path, monkeypatch, kind):
    name = folder(tmp_path / "data")
    (tmp_path / "x.txt").write_text("aé語🙂" * 4000)
    if kind == "text":
        name = f"text:{tmp_path / 'x.txt'}"
    run = RunOptions(workdir=tmp_path / "w", dataset=name)
    parameters = inspect.signature(EXPERIMENTS["vae"]).parameters.values()
    options = {p.name: p.default for p in parameters if p.default is not p.empty}

    def begun():
        load_split = loop.splits_of(run)
        record = loop.record_of(run, "vae", options, load_split("train"))
        return records.with_digests(record, load_split), load_split("train")

    new, new_set = begun()
    assert new.data_options["reader"] == READER
    monkeypatch.setattr(records, "READER", 1)
    old, old_set = begun()
    monkeypatch.undo()
    records.save(run.workdir, dataclasses.replace(old, digests={}))
    again, again_set = begun()
    assert "reader" not in old.data_options and again == old != new
    refuse_other_run(run.workdir, again)
    assert again_set.digest() == old_set.digest()
    batches = [x.fetch(np.arange(x.size)) for x in (old_set, again_set, new_set)]
    key = "image" if kind == "folder" else "tokens"
    np.testing.assert_array_equal(batches[0][key], batches[1][key])
    assert not np.array_equal(batches[0][key], batches[2][key])
    records.save(run.workdir, again)
    with pytest.raises(BadInput, match="another run|are no longer those"):
        refuse_other_run(run.workdir, new)
