"""What every command that opens a run has in common: steps, labels, files, words."""

import dataclasses
import io
import re
import time
import weakref
import zipfile

import jax
import numpy as np
import pytest
from program import refused
from rich.console import Console

from gengen.errors import BadInput
from train import progress
from train.run import workdir
from train.run.checkpoint import Checkpoints
from train.run.labels import label_index
from train.run.outputs import save_arrays, whole_characters
from train.run.pictures import STRIP, sample_grid
from train.run.sampler import Sampler

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
    "export": ("vae", "--out x"),
    "publish": ("vae", "--out x"),
    "export_weights": ("vae", "--out x"),
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


# ------------------------------------------------------------------ progress


def test_long_work_is_not_silent_in_a_file(capsys, monkeypatch):
    monkeypatch.setattr(progress, "HEARTBEAT", 0.02)
    with progress.progress("samples", 1000) as advance:
        time.sleep(0.05)
        advance(256)
        time.sleep(0.05)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "samples: compiling (0 s)"
    assert last.startswith("samples: 256 of 1,000 (0 s, about 0 s left)")


def test_short_work_is_silent_in_a_file(capsys):
    with progress.progress("samples", 2) as advance:
        advance(2)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_says_compiling_until_the_first_is_there(monkeypatch):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr(progress, "Console", lambda **_: terminal)
    with progress.progress("samples", 4) as advance:
        time.sleep(0.15)
        assert "samples: compiling" in screen.getvalue()
        advance(4)
    assert "compiling" not in screen.getvalue().splitlines()[-1]


# ------------------------------------------------------------------ not finite


@pytest.fixture
def spoilt(monkeypatch):
    """Every run but the classifier is opened with parameters that are not a number."""
    restore = Checkpoints.restore

    def restored(self, *arguments):
        train_state, notes = restore(self, *arguments)
        if self.folder.parent.name == "classifier":
            return train_state, notes
        nan = jax.tree.map(lambda x: np.full_like(x, np.nan), train_state.ema)
        return train_state.replace(ema=nan), notes

    monkeypatch.setattr(Checkpoints, "restore", restored)


DRAWING = {
    "sample": ("flow", "--num 3 --steps 1"),
    "complete": ("flow", "--rows 1 --num 2 --steps 1 --repeats 1"),
    "edit": ("flow", "--rows 1 --steps 1 --strength 1"),
    "restore": ("flow", "--rows 1 --num 2 --steps 1"),
    "interpolate": ("vae", "--rows 1 --num 2"),
    "traverse": ("vae", "--rows 1 --num 2"),
    "bayes": ("vae", "--per-class 1 --candidates 2"),
    "evaluate": ("vae", "--num 10"),
    "sweep": ("flow", "--num 10 --steps 1"),
}


@pytest.mark.parametrize("command", DRAWING)
def test_what_is_not_finite_is_named_and_nothing_is_written(
    cli, runs, spoilt, monkeypatch, command
):
    monkeypatch.setattr(workdir, "refuse_nonfinite", lambda *_: None)
    family, options = DRAWING[command]
    if command in ("bayes", "evaluate", "sweep"):
        options += f" --extractor {runs / 'classifier'}"
    before = sorted((runs / family).rglob("*"))
    result = cli(f"train.{command} --workdir {runs / family} {options}")
    refused(result, " 0 is not finite")
    after = sorted((runs / family).rglob("*"))
    assert [path for path in after if ".part" not in str(path)] == before


def test_parameters_that_are_not_finite_are_named_before_symbols_are_drawn(
    cli, runs, spoilt
):
    """A transformer makes of NaN a symbol, and of it an image like others."""
    result = cli(f"train.sample --workdir {runs / 'transformer'} --num 2")
    refused(result, "step 4: parameter autoregressive/", "is not finite", "--step")


# ------------------------------------------------------------------ files


def test_arrays_are_written_as_they_are_drawn(cli, runs, tmp_path, monkeypatch):
    drawn, alive = [], []

    def batch(self, params, state, key, first, given=None):
        alive.append(sum(each() is not None for each in drawn))
        assert not (tmp_path / "x.npz").exists()
        x = np.full((100, 8, 8, 1), first / 5_000 - 1, np.float32)
        drawn.append(weakref.ref(x))
        return x

    monkeypatch.setattr(Sampler, "batch", batch)
    line = f"train.sample --workdir {runs / 'flow'} --num 9999 --batch-size 100"
    assert cli(f"{line} --out {tmp_path}/x.npz")[0] == 0
    assert len(drawn) == 100 and max(alive) <= 3
    with np.load(tmp_path / "x.npz") as arrays:
        image, label = arrays["image"], arrays["label"]
    assert image.shape == (9_999, 8, 8, 1) and image.dtype == np.uint8
    assert list(image[::100, 0, 0, 0]) == [round(i * 0.16) for i in range(100)]
    np.testing.assert_array_equal(label, np.arange(9_999) % 10)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_arrays_are_those_that_numpy_would_write_at_once(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (7, 2, 3), np.uint8), np.arange(7, dtype=np.int32)
    save_arrays(tmp_path / "a.npz", 7, "x", iter([x[:3], x[3:6], x[6:]]), y=y)
    np.savez_compressed(tmp_path / "b.npz", x=x, y=y)
    with (
        zipfile.ZipFile(tmp_path / "a.npz") as a,
        zipfile.ZipFile(tmp_path / "b.npz") as b,
    ):
        assert a.namelist() == b.namelist() == ["x.npy", "y.npy"]
        assert all(a.read(name) == b.read(name) for name in a.namelist())


def test_more_than_a_picture_holds_is_refused_before_it_is_drawn(cli, runs, tmp_path):
    line = f"train.sample --workdir {runs / 'vae'} --num 1000000 --out {tmp_path}/x.png"
    refused(cli(line), "--num 1000000", "a picture holds 21,845 images", ".npz")


@pytest.mark.parametrize("name", ["drawn.png", "drawn.png.part"])
def test_nothing_is_written_through_a_link_in_the_workdir(
    cli, runs, tmp_path, monkeypatch, name
):
    black = np.zeros((2, 8, 8, 1), np.float32)
    monkeypatch.setattr(Sampler, "batch", lambda *_: black)
    (tmp_path / "victim").write_text("precious")
    link = runs / "vae" / name
    link.symlink_to(tmp_path / "victim")
    assert cli(f"train.sample --workdir {runs / 'vae'} --num 2")[0] == 0
    assert (tmp_path / "victim").read_text() == "precious"
    written = runs / "vae" / "drawn.png"
    assert written.is_file() and not written.is_symlink()
    assert not (runs / "vae" / "drawn.png.part").exists()
    written.unlink()


WHERE = {"sample": "drawn.png", "complete": "completion.png", "restore": "restored.png"}
WHERE |= {"interpolate": "interpolation.png", "traverse": "traversal.png"}


@pytest.mark.parametrize("command", ["edit", *WHERE])
def test_pictures_go_into_the_run_by_default_and_help_says_so(cli, command):
    name = WHERE.get(command, f"{command}.png")
    _, said, _ = cli(f"train.{command} --help")
    words = " ".join(said.replace("│", " ").split())
    assert re.search(f"[Bb]y default {name} (or drawn.txt )?in the run's folder", words)


def test_words_of_a_picture_are_beside_above_and_below_its_tiles():
    x = np.full((4, 8, 8, 1), 255, np.uint8)
    plain = np.asarray(sample_grid(x, 2))
    words = {"row_names": ["a", "b"], "column_names": ["image", "drawn"]}
    words["caption"] = "What is in the rows, in words that need several lines."
    told = np.asarray(sample_grid(x, 2, **words))
    left, below = (told.shape[i] - plain.shape[i] for i in (1, 0))
    assert left > 0 and below % STRIP == 0 and below > 3 * STRIP
    tiles = told[STRIP : STRIP + plain.shape[0], left:]
    np.testing.assert_array_equal(tiles, plain)
    for part in (told[:STRIP], told[:, :left], told[-STRIP:]):
        assert part.max() > 200  # words are there


# ------------------------------------------------------------------ text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("añ".encode(), "añ"),
        ("añ".encode()[:-1], "a"),
        ("a😀".encode()[:-1], "a"),
        (b"\xb1b", "\ufffdb"),
        (b"a\xffb", "a\ufffdb"),
    ],
)
def test_a_sample_of_text_ends_with_a_whole_character(data, text):
    assert whole_characters(np.frombuffer(data, np.uint8)) == text


def test_parts_count_when_they_are_used():
    told, used = [], []
    for part in progress.counted("abc", told.append, 2):
        used.append((part, list(told)))
    assert used == [("a", []), ("b", [2]), ("c", [2, 4])] and told == [2, 4, 6]
