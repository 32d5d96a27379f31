"""Several processes are one run: started here in twos, with two devices each."""

import atexit
import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import socket
import sys
import time

import jax
import numpy as np
import once
import pytest
from kill import SLOW
from program import TINY, call, refused, with_devices

from train.data.feed import Feed
from train.data.load import load
from train.run.checkpoint import Checkpoints
from train.run.devices import Global, make_mesh

STEPS = 16
EVENTS = "--log-every 2 --sample-every 8 --checkpoint-every 2 --steps-per-call 2"
LINE = f"train vae {TINY['vae']} {EVENTS}"


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(list(SLOW))


def life(line, files, before):
    """A process of its own that is `python -m {line}`, once `before` is executed."""
    os.environ |= with_devices(2)
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    once.install()
    exec(before, {})
    try:
        sys.exit(call(line))
    finally:
        atexit._run_exitfuncs()  # as a program does, and a forked process does not


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """`start(*lines)`: as many processes of the program, two devices each, on loopback.

    before: code that the last of them executes first; num: how many they say they are.
    """
    started = []

    def start(*lines, before="", num=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            where = f"--coordinator 127.0.0.1:{free.getsockname()[1]}"
        where = f"{where} --num-processes {num or len(lines)}"
        for i, line in enumerate(lines):
            files = [tmp_path_factory.mktemp("said") / name for name in ("out", "err")]
            own = before if i == len(lines) - 1 else ""
            arguments = (f"{line} {where} --process-id {i}", files, own)
            process = FORKS.Process(target=life, args=arguments)
            process.start()
            process.files = files
            started.append(process)
        return started[-len(lines) :]

    yield start
    for process in started:
        process.kill()
        process.join()


def ends(processes):
    """[(status, stdout, stderr)] of processes, all of which must end by themselves."""
    for process in processes:
        process.join(timeout=120)
    said = [[f.read_text(errors="replace") for f in p.files] for p in processes]
    return [(p.exitcode, *words) for p, words in zip(processes, said, strict=True)]


def until_saved(workdir, step, processes):
    """Wait until a checkpoint of at least that step is there."""
    until = time.monotonic() + 120
    while max([0, *Checkpoints(workdir).steps()]) < step:
        assert time.monotonic() < until
        assert all(process.exitcode is None for process in processes), ends(processes)
        time.sleep(0.005)


@pytest.fixture(scope="module")
def straight(start, tmp_path_factory):
    """The run of two processes that nothing disturbed; what they said."""
    workdir = tmp_path_factory.mktemp("straight") / "vae"
    line = f"{LINE} --steps {STEPS} --workdir {workdir}"
    first, second = ends(start(line, line))
    assert first[0] == second[0] == 0, (first, second)
    return workdir, first, second


def metrics(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    return [{k: v for k, v in row.items() if "/" in k or k == "step"} for row in rows]


def same_curve(one, other):
    for a, b in zip(metrics(one), metrics(other), strict=True):
        both = a.keys() & b.keys()  # a last step has a held-out figure beside
        assert {"step", "vae/loss", "vae/grad_norm"} <= both
        for name in both:  # sums over the batch in another order, by Adam
            np.testing.assert_allclose(b[name], a[name], rtol=1e-4, err_msg=name)


def parameters(workdir):
    tree = Checkpoints(workdir).raw()[1]["params"]
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def test_two_processes_are_one_run(cli, straight, tmp_path):
    workdir, (_, out, _), (_, silence, _) = straight
    assert "4 × cpu (cpu) of 2 processes" in out
    assert "step" not in silence
    line = f"{LINE} --steps {STEPS} --workdir {tmp_path / 'w'}"
    assert cli(line)[0] == 0
    same_curve(tmp_path / "w", workdir)
    # Adam divides by the gradient's own size: where that is rounding, so is the step.
    np.testing.assert_allclose(
        parameters(workdir), parameters(tmp_path / "w"), rtol=1e-4, atol=1e-5
    )
    left = [{p.name for p in w.iterdir()} for w in (workdir, tmp_path / "w")]
    assert left[0] == left[1]


def test_killed_both_or_one_and_the_same_command_goes_on(
    cli, start, straight, tmp_path
):
    workdir = tmp_path / "w"
    line = f"{LINE} --steps {STEPS} --workdir {workdir}"
    both = start(line, line)
    until_saved(workdir, 4, both)
    for process in both:
        process.kill()
        process.join()
    saved = Checkpoints(workdir).latest()
    assert 4 <= saved < STEPS
    both = start(line, line)
    until_saved(workdir, saved + 2, both)
    both[0].kill()
    (killed, *_), (other, *_) = ends(both)  # the other does not wait for ever
    assert killed == -signal.SIGKILL and other != 0
    (status, out, _), (same, *_) = ends(start(line, line))
    assert status == same == 0 and "resumed from the checkpoint at step" in out
    listings = [cli(f"train.inspect --workdir {w}") for w in (workdir, straight[0])]
    assert listings[0] == listings[1] and listings[0][0] == 0


FAILING = """
from train.run.checkpoint import Checkpoints
write, left = Checkpoints._write, [1]
def failing(self, path, tree):
    if left.pop() if left else 0:
        raise OSError(28, "No space left on device")
    write(self, path, tree)
Checkpoints._write = failing
"""


def test_one_process_two_and_one_again(cli, start, tmp_path):
    """Parameters cut over both; a full disk and a SIGTERM for one of them only."""
    workdir = tmp_path / "w"
    assert cli(f"{LINE} --workdir {workdir} --steps 4")[0] == 0
    line = f"{LINE} --workdir {workdir} --mesh data=1,model=4 --steps 4000"
    both = start(line, line, before=FAILING)
    until_saved(workdir, 8, both)
    os.kill(both[1].pid, signal.SIGTERM)
    (status, out, err), (other, _, wrong) = ends(both)
    assert (status, other) == (75, 75), (err, wrong)
    assert "resumed from the checkpoint at step 4" in out
    assert "note: step 6 could not be saved" in out and "No space left" in out
    saved = Checkpoints(workdir).latest()
    assert f"SIGTERM: saved at step {saved}; the same command goes on" in out
    line = f"{LINE} --workdir {workdir} --steps {saved + 2}"
    status, out, err = cli(line)
    assert status == 0 and f"resumed from the checkpoint at step {saved}" in out, err
    assert cli(f"{line} --workdir {tmp_path / 'one'}")[0] == 0
    same_curve(tmp_path / "one", workdir)
    grid = tmp_path / "grid.png"
    assert cli(f"train.sample --workdir {workdir} --num 4 --out {grid}")[0] == 0


UNREADABLE = """
from gengen.errors import BadInput
from train.data.feed import Feed
items = Feed.items
def failing(self, step, num):
    if step >= 4:
        raise BadInput("image 7.png is broken: mend it")
    return items(self, step, num)
Feed.items = failing
"""


def test_what_ends_one_process_ends_both_with_its_sentence(start, tmp_path):
    line = f"{LINE} --workdir {tmp_path / 'w'}"
    others = start(f"{line} --steps 8", f"{line} --steps 8 --latent 3")
    for result in ends(others):
        refused(result, "process 1 was started with --latent 3", "with --latent 2")
    assert not (tmp_path / "w").exists()
    line = f"{line} --steps 8"
    for result in ends(start(line, line, before=UNREADABLE)):
        refused(result, "image 7.png is broken: mend it")
    assert Checkpoints(tmp_path / "w").latest() == 4


def test_who_is_alone_gives_up(start, tmp_path):
    line = f"{LINE} --workdir {tmp_path / 'w'} --patience 1"
    (result,) = ends(start(line, num=2))
    refused(result, "not all processes met", "within 1 seconds", "--patience")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--num-processes 2", ("--num-processes 2 needs --coordinator HOST:PORT",)),
        ("--process-id 0", ("--process-id 0 needs --coordinator HOST:PORT",)),
        ("--coordinator localhost:1234", ("needs --num-processes N",)),
        (
            "--coordinator localhost:1234 --num-processes 2 --process-id 2",
            ("--process-id 2 is none of 2 processes", "0 to 1"),
        ),
        ("--process-id -1", ("--process-id -1", "at least 0")),
        ("--num-processes 0", ("--num-processes 0", "at least 1")),
        ("--coordinator localhost", ("--coordinator localhost", "HOST:PORT")),
        ("--coordinator localhost:99999", ("localhost:99999", "HOST:PORT")),
        ("--coordinator auto --parallel pmap", ("--parallel pmap", "one process")),
    ],
)
def test_processes_that_cannot_be_are_refused(cli, tmp_path, options, words):
    refused(cli(f"{LINE} --workdir {tmp_path / 'w'} {options}"), *words)
    assert not (tmp_path / "w").exists()


def test_a_port_that_is_taken_is_refused(cli, tmp_path):
    with contextlib.closing(socket.create_server(("", 0))) as taken:
        where = f"localhost:{taken.getsockname()[1]}"
        line = f"{LINE} --workdir {tmp_path / 'w'} --num-processes 2 --process-id 0"
        refused(cli(f"{line} --coordinator {where}"), where, "another port")


def test_each_process_reads_its_rows_and_all_have_the_batches():
    dataset = load("digits")
    whole = Feed(dataset, 12, seed=3).items(7, 2)
    three = np.split(np.arange(12), 3)
    parts = [Feed(dataset, 12, seed=3, rows=rows).items(7, 2) for rows in three]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    for rows in three:
        read = []

        def fetch(indices, read=read):
            read.append(indices)
            return dataset.fetch(indices)

        watched = dataclasses.replace(dataset, fetch=fetch)
        feed = Feed(watched, 12, 3, resident_bytes=0, rows=rows)
        with contextlib.closing(feed):
            items = feed.items(7, 2)
        expected = dataset.fetch(whole[:, rows].ravel())["image"]
        np.testing.assert_array_equal(items["image"].reshape(-1, 8, 8, 1), expected)
        np.testing.assert_array_equal(read[:2], whole[:, rows])
        assert all(len(indices) == 4 for indices in read)  # it reads ahead


def test_one_process_has_all_rows():
    np.testing.assert_array_equal(Global(make_mesh()).rows(12), np.arange(12))
