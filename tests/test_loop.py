"""The training loop: what it asks, hears, keeps and says, and what must not end it."""

import dataclasses
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from program import EVENTS, TINY, call, refused
from rich.console import Console

from train.cli.options import RunOptions
from train.run import report as reports
from train.run.checkpoint import Checkpoints
from train.run.devices import Global
from train.run.loop import train
from train.run.report import Report, read_rows
from train.run.signals import leave_at_once
from train.run.state import InitialState
from train.run.workdir import open_workdir

ROOT = Path(__file__).parents[1]
SMALL = {"hidden": (8,), "latent": 2, "batch_size": 16}


def options(workdir, **more):
    every = {"log_every": 2, "sample_every": 4, "checkpoint_every": 2}
    return RunOptions(workdir=workdir, **{**every, "steps_per_call": 2, **more})


# ------------------------------------------------------------------ evaluators


@dataclasses.dataclass(frozen=True)
class Down:
    """A figure that falls until step 4 and rises again."""

    every: int = 2
    name: str = "down"
    figures: tuple = ("quality/down",)

    def __call__(self, train_state):
        return {"quality/down": float(abs(int(train_state.step) - 4))}


@dataclasses.dataclass(frozen=True)
class Broken:
    """What raises whatever it likes."""

    every: int = 2
    name: str = "what is broken"

    def __call__(self, train_state):
        raise KeyError("of all things")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """(workdir, what was said): a run of eight steps with evaluators of its own."""
    workdir, said = tmp_path_factory.mktemp("evaluated") / "w", io.StringIO()
    asked = options(workdir, keep=1, keep_best="quality/down", profile=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", said)
        train(asked, "vae", {**SMALL, "steps": 8}, lambda *_: [Down(), Broken()])
    return workdir, said.getvalue()


def test_an_evaluator_is_asked_every_so_many_steps_and_at_the_last(evaluated):
    rows = read_rows(evaluated[0] / "metrics.jsonl")
    figures = {row["step"]: row["quality/down"] for row in rows}
    assert figures == {2: 2.0, 4: 0.0, 6: 2.0, 8: 4.0}


def test_an_evaluator_that_raises_is_a_note(evaluated):
    note = "note: what is broken could not be made (KeyError: 'of all things')"
    assert evaluated[1].count(note) == 4


def test_the_best_checkpoint_is_kept_beside_the_last_and_opens(cli, evaluated):
    workdir = evaluated[0]
    assert sorted(Checkpoints(workdir).steps()) == [4, 8]
    assert open_workdir(workdir, "best").step == 4
    status, out, err = cli(f"train.inspect --workdir {workdir} --step best")
    assert status == 0 and "step 4\n" in out, err
    refused(cli(f"train.inspect --workdir {workdir} --step 6"), "choose one of 4, 8")


def test_there_is_no_best_checkpoint_without_keep_best(cli, runs):
    with pytest.raises(ValueError, match="no best checkpoint: train with --keep-best"):
        open_workdir(runs / "vae", "best")


def test_a_better_step_that_was_never_saved_does_not_lose_the_best(tmp_path):
    """Killed, or out of space, between the note and the checkpoint."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step, value in ((2, 0.5), (4, 0.4)):
        assert checkpoints.best.note("validation/bits", step, value)
        if step == 2:
            (checkpoints.folder / "2").mkdir()
    assert checkpoints.best.step() == 2
    assert checkpoints.best.note("validation/bits", 4, 0.4)
    assert not checkpoints.best.note("validation/bits", 6, 0.6)
    assert not checkpoints.best.note("validation/bits", 6, float("nan"))
    assert checkpoints.best.note("validation/accuracy", 6, 0.6)


def test_keep_best_of_an_unknown_figure_names_those_that_there_are(cli, tmp_path):
    line = f"train vae --workdir {tmp_path / 'w'} {TINY['vae']} --keep-best loss"
    refused(cli(line), "--keep-best loss", "validation/bits_per_dim_ELBO")
    assert not (tmp_path / "w").exists()


def test_a_profile_is_of_some_steps_after_the_first(evaluated):
    workdir, said = evaluated
    assert f"profile of steps 7 to 8: open the newest {workdir}/profile" in said
    assert [*workdir.glob("profile/**/*.trace.json.gz")]


def test_tensorboard_has_the_options_and_the_losses(evaluated):
    from tensorboardX.proto.event_pb2 import Event

    (file,) = (evaluated[0] / "tensorboard").iterdir()
    rest, tags = file.read_bytes(), {}
    while rest:  # length, its checksum, the event, its checksum
        length = int.from_bytes(rest[:8], "little")
        event = Event.FromString(rest[12 : 12 + length])
        tags |= {value.tag: value for value in event.summary.value}
        rest = rest[16 + length :]
    told = tags["options/text_summary"].tensor.string_val[0].decode()
    assert "| latent | `2` |" in told and "| seed | `0` |" in told
    assert {"vae/loss", "quality/down", "samples", "learning_rate"} <= tags.keys()


def test_sample_quality_is_measured_while_training_and_picks_the_best(
    cli, runs, tmp_path
):
    shutil.copytree(runs / "classifier", tmp_path / "classifier-digits")
    best = "--evaluate-every 1 --keep-best quality/frechet_distance"
    line = f"train vae --workdir {tmp_path / 'w'} {TINY['vae']} {EVENTS} --steps 2"
    status, out, err = cli(f"{line} {best}")
    assert status == 0 and "quality/frechet_distance" in out, err
    rows = read_rows(tmp_path / "w/metrics.jsonl")
    figures = {row["step"]: row["quality/frechet_distance"] for row in rows}
    assert Checkpoints(tmp_path / "w").best.step() == min(figures, key=figures.get)


# ------------------------------------------------------------------ data


def test_a_set_without_held_out_images_is_trained(cli, tmp_path):
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(5):
            pixels = np.full((8, 8), 25 * i, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / label / f"{i}.png")
    small = "--channels 8 --multipliers 1 --batch-size 4 --steps 2 --sample-every 1"
    line = f"train classifier --workdir {tmp_path / 'w'} {small}"
    status, out, err = cli(f"{line} --dataset folder:{tmp_path / 'set'}")
    assert (status, err) == (0, "") and "note" not in out
    assert Checkpoints(tmp_path / "w").latest() == 2


def test_batch_norm_of_one_value_is_refused_before_anything_is_written(cli, tmp_path):
    small = "--conv-levels 3 --channels 4 --latent 2 --steps 2"
    line = f"train gan --workdir {tmp_path / 'w'} {small}"
    refused(cli(f"{line} --batch-size 1"), "one value", "batch of 2 or more")
    refused(cli(f"{line} --batch-size 2 --accumulate 2"), "one value")
    assert not (tmp_path / "w").exists()


# ------------------------------------------------------------------ transfers


def test_a_transfer_in_the_loop_that_nobody_means_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(Global, "items", lambda self, items: items)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train(options(tmp_path / "w"), "vae", {**SMALL, "steps": 2})


def test_a_run_is_opened_and_resumed_without_its_initial_state(
    cli, runs, tmp_path, monkeypatch
):
    def never(self):
        raise AssertionError("its numbers are not needed")

    monkeypatch.setattr(InitialState, "__call__", never)
    assert open_workdir(runs / "vae").step == 4
    shutil.copytree(runs / "vae", tmp_path / "w")
    line = f"train vae --workdir {tmp_path / 'w'} {TINY['vae']} {EVENTS} --steps"
    assert cli(f"{line} 6")[0] == 0
    status, out, _ = cli(f"{line} 5")
    assert status == 0 and "at step 6, beyond --steps 5" in out


# ------------------------------------------------------------------ time


def test_the_clock_is_asked_at_every_call(cli, tmp_path):
    never = "--log-every 9999 --sample-every 9999 --checkpoint-every 9999"
    line = f"train vae --workdir {tmp_path / 'w'} {TINY['vae']} {never}"
    status, out, err = cli(f"{line} --steps-per-call 1 --minutes 1e-3 --steps 9999")
    assert status == 0, err
    (row,) = read_rows(tmp_path / "w/metrics.jsonl")
    assert row["step"] < 9999 and row["seconds"] < 1.0
    assert f"the time is over: {row['seconds'] / 60:.2f} of 0.001 minutes" in out
    assert Checkpoints(tmp_path / "w").latest() == row["step"]


def test_a_log_file_is_never_silent_for_long(tmp_path, monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(reports, "HEARTBEAT", 0.02)
    with Report(tmp_path, 0, 100) as report:
        report.console.file = said
        with report.doing("compiling the steps"):
            time.sleep(0.2)
        report.advance(3, 0.5)
        time.sleep(0.2)
    lines = said.getvalue().splitlines()
    assert lines.count("compiling the steps …") > 1
    assert lines.count("step 3/100  0.5 steps/s") > 1


def test_a_terminal_shows_that_it_compiles_and_no_rate(tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    report = Report(tmp_path, 0, 100)
    report.console = report.progress.live.console = console
    with report.doing("compiling"):
        assert report.progress.tasks[0].fields["rate"] == "compiling"
    report.advance(1, 2.0)
    assert report.progress.tasks[0].fields["rate"] == "2.0 steps/s"


# ------------------------------------------------------------------ streams, signals


class Failing(io.StringIO):
    """A stream that takes some lines, then fails for ever."""

    def __init__(self, number, lines):
        super().__init__()
        self.number, self.lines = number, lines

    def write(self, text):
        if self.lines < 0:
            raise OSError(self.number, os.strerror(self.number))
        self.lines -= text.count("\n")
        return super().write(text)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
def test_a_stream_that_takes_nothing_more_does_not_end_a_run(
    tmp_path, monkeypatch, number
):
    monkeypatch.setattr(sys, "stdout", Failing(number, 1))
    line = f"train vae --workdir {tmp_path / 'w'} {TINY['vae']} {EVENTS} --steps 2"
    assert call(line) == 0
    assert Checkpoints(tmp_path / "w").latest() == 2
    assert sys.stdout.getvalue().startswith("data: ")


SIGNALLED = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "jax":
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Finder())
sys.argv = ["train", "vae", "--workdir", {workdir!r}]
from train.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)],
)
def test_a_signal_during_the_imports_ends_the_process(tmp_path, number, status):
    code = SIGNALLED.format(number=int(number), workdir=str(tmp_path / "w"))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert done.stderr == f"{number.name}: nothing to save; the same command goes on\n"


def test_a_signal_during_data_and_compilation_ends_the_process(monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(os, "write", lambda *_: None)
    before = signal.getsignal(signal.SIGTERM)
    with leave_at_once():
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            os.kill(os.getpid(), number)
    assert ended == [75, 75, 130] and signal.getsignal(signal.SIGTERM) is before


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with leave_at_once():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_metrics_jsonl_is_json(evaluated):
    for line in (evaluated[0] / "metrics.jsonl").open():
        json.loads(line)
