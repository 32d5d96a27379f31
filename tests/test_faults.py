"""Faults, injected, and what must hold after each (docs/explanation/faults.md).

"Equal" means that the run which met the fault ends with every bit of every array that
the undisturbed run has.
"""

import contextlib
import errno
import gc
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from program import EVENTS, TINY, call, refused

from train.run.checkpoint import Checkpoints, Damaged
from train.run.digests import digest, leaf_names, sums
from train.run.signals import leave_at_once

ROOT = Path(__file__).parents[1]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def line(workdir, family="vae", steps=4):
    return f"train {family} --workdir {workdir} {TINY[family]} {EVENTS} --steps {steps}"


def listing(cli, workdir):
    status, out, err = cli(f"train.inspect --workdir {workdir}")
    assert status == 0, err
    return out


def leaves(workdir):
    step, tree = Checkpoints(workdir).raw()
    return step, {name: digest(leaf) for name, leaf in leaf_names(tree).items()}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The VAE's run that nothing disturbed: four steps, checkpoints of 2 and 4."""
    workdir = tmp_path_factory.mktemp("straight") / "vae"
    assert call(line(workdir)) == 0
    return workdir


@pytest.fixture
def workdir(straight, tmp_path):
    """A copy of it, to be disturbed."""
    return shutil.copytree(straight, tmp_path / "w")


# ------------------------------------------------------------------ kill -9


def test_a_run_killed_at_any_moment_goes_on_as_if_nothing_had_been():
    """At random, at work, in the midst of a write; all families: tests/kill.py."""
    kinds = ["vae"]
    options = ["--kills", "2", "--steps", "6", "--kinds", *kinds]
    done = subprocess.run(
        [sys.executable, "-m", "tests.kill", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = [json.loads(row) for row in done.stdout.splitlines()]
    assert [row["kind"] for row in told] == kinds
    assert all(row["same"] == row["runs"] > 0 for row in told)


def test_half_a_checkpoint_is_no_checkpoint_and_is_cleared_away(cli, straight, workdir):
    folder = workdir / "checkpoints"
    files = folder / "4/default"
    shutil.copytree(files, folder / "6.part/default")
    (folder / "6.part/default/_METADATA").unlink()
    (folder / "4").rename(folder / "4.part")  # killed while it was removed
    assert Checkpoints(workdir).steps() == [2]
    status, out, err = cli(line(workdir))
    assert status == 0 and "resumed from the checkpoint at step 2" in out, err
    assert sorted(p.name for p in folder.iterdir()) == ["2", "4"]
    assert listing(cli, workdir) == listing(cli, straight)


# ------------------------------------------------------------------ two at once


HOLD = """
import sys, time
from pathlib import Path
from train.run.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def another_process(workdir):
    """A process that holds the workdir: its id. It ends by kill -9."""
    command = [sys.executable, "-c", HOLD, workdir]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout.readline() == b"held\n"
            yield child.pid
        finally:
            child.kill()


def stamps(folder):
    return {p: p.stat().st_mtime_ns for p in [folder, *folder.rglob("*")]}


@pytest.mark.parametrize("fresh", ["", " --fresh"])
def test_a_second_process_is_refused_and_touches_nothing(cli, straight, workdir, fresh):
    with another_process(workdir) as number:
        before = stamps(workdir.parent)
        result = cli(line(workdir, steps=6) + fresh)
        refused(result, f"{workdir} is being trained by process {number} on ", "since")
        assert stamps(workdir.parent) == before
        assert listing(cli, workdir) == listing(cli, straight)  # to read is free
    assert (workdir / "lock").exists()  # as a killed process leaves it
    assert cli(line(workdir, steps=6) + fresh)[0] == 0
    assert not [*workdir.parent.rglob("lock")]


def test_a_new_run_is_begun_by_one_process_only(cli, tmp_path):
    with another_process(tmp_path / "w"):
        refused(cli(line(tmp_path / "w")), "is being trained by process")
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["lock"]
    assert cli(line(tmp_path / "w"))[0] == 0


def test_of_many_processes_one_at_a_time_holds_a_workdir(tmp_path):
    """Through every gap between opening, locking, removing and moving away."""
    code = """
import os, sys, time
from pathlib import Path
from train.run.lock import locked
workdir, inside = Path(sys.argv[1]) / "w", Path(sys.argv[1]) / "inside"
held, until = 0, time.monotonic() + 2
while time.monotonic() < until:
    try:
        with locked(workdir):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            held += 1
            inside.unlink()
            if held % 3 == 0:
                workdir.rename(workdir.with_name(f"old-{os.getpid()}-{held}"))
    except (ValueError, OSError) as error:  # refused; moved away under our hands
        if getattr(error, "filename", None) == str(inside):
            raise
print(held)
"""
    command = [sys.executable, "-c", code, tmp_path]
    children = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(3)
    ]
    held = [int(child.communicate()[0] or 0) for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert sum(held) > 20


def test_a_file_system_that_cannot_lock_is_a_note(cli, workdir, monkeypatch):
    def unable(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", unable)
    status, out, err = cli(line(workdir, steps=6))
    assert status == 0 and "cannot be locked (No locks available)" in out, err


# ------------------------------------------------------------------ asked to stop


def ask_at(monkeypatch, step, *signals):
    """Send this process signals while it reads the batch of a step."""
    from train.data.feed import Feed

    items = Feed.items

    def asked(self, done, length):
        if done == step:
            for number in signals:
                os.kill(os.getpid(), number)
        return items(self, done, length)

    monkeypatch.setattr(Feed, "items", asked)


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)],
)
def test_asked_to_stop_it_saves_and_the_same_command_goes_on(
    cli, straight, tmp_path, monkeypatch, number, status
):
    workdir = tmp_path / "w"
    command = line(workdir).replace("--checkpoint-every 2", "--checkpoint-every 100")
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        ask_at(patch, 3, number)
        code, out, err = cli(
            command.replace("--steps-per-call 2", "--steps-per-call 1")
        )
    name = signal.Signals(number).name
    assert code == status, err
    assert f"{name}: saved at step 3; the same command goes on" in out
    assert signal.getsignal(number) is before
    assert Checkpoints(workdir).steps() == [3]
    code, out, _ = cli(command)
    assert code == 0 and "resumed from the checkpoint at step 3" in out
    assert Checkpoints(workdir).latest() == 4


def test_a_stop_between_calls_of_the_same_length_is_the_straight_run(
    cli, straight, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        ask_at(patch, 2, signal.SIGTERM)
        code, out, _ = cli(line(tmp_path / "w"))
    assert code == 75 and "saved at step 2" in out
    assert cli(line(tmp_path / "w"))[0] == 0
    assert listing(cli, tmp_path / "w") == listing(cli, straight)


def test_a_second_ctrl_c_stops_at_once(cli, workdir, monkeypatch):
    ask_at(monkeypatch, 4, signal.SIGINT, signal.SIGINT)
    code, out, err = cli(line(workdir, steps=8))
    assert (code, err) == (130, "interrupted\n") and "SIGINT: saved" not in out
    assert Checkpoints(workdir).latest() == 4


def test_what_comes_after_the_end_of_the_program_does_not_change_its_status():
    numbers = signal.SIGTERM, signal.SIGHUP, signal.SIGINT
    before = [signal.getsignal(number) for number in numbers]
    try:
        with leave_at_once(last=True):
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, *before)
        for number in numbers:
            os.kill(os.getpid(), number)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    with leave_at_once():  # within a process that goes on
        pass
    assert [signal.getsignal(number) for number in numbers] == before


# ------------------------------------------------------------------ a full disk


def fail(monkeypatch, where, times):
    """`where` raises "no space left" so many times, then works again."""
    owner, name = where
    working, left = getattr(owner, name), [times]

    def failing(*arguments, **keywords):
        if left[0] > 0:
            left[0] -= 1
            raise FULL
        return working(*arguments, **keywords)

    monkeypatch.setattr(owner, name, failing)


def half_written(monkeypatch, times):
    """Saving leaves half of the files behind before the disk is full."""
    write, left = Checkpoints._write, [times]

    def failing(self, path, tree):
        write(self, path, tree)
        if left[0] > 0:
            left[0] -= 1
            (path / "_METADATA").unlink()
            raise FULL

    monkeypatch.setattr(Checkpoints, "_write", failing)


def test_a_disk_full_for_a_while_costs_a_checkpoint_not_the_run(
    cli, straight, tmp_path, monkeypatch
):
    half_written(monkeypatch, 1)
    status, out, err = cli(line(tmp_path / "w"))
    assert status == 0, err
    assert "note: step 2 could not be saved" in out and "No space left" in out
    assert "nothing is saved yet, training goes on" in out
    assert [p.name for p in (tmp_path / "w/checkpoints").iterdir()] == ["4"]
    assert listing(cli, tmp_path / "w") == listing(cli, straight)


def test_a_disk_full_at_the_end_is_an_error_and_the_older_checkpoint_stays(
    cli, tmp_path, workdir, monkeypatch
):
    before = leaves(workdir)
    with monkeypatch.context() as patch:
        half_written(patch, 99)
        result = cli(line(workdir, steps=8))
        refused(result, "step 8 could not be saved", "free space", "step 4 stays saved")
        assert "note: step 6 could not be saved" in result[1]
    assert leaves(workdir) == before
    assert cli(line(workdir, steps=8))[0] == 0
    assert cli(line(tmp_path / "straight", steps=8))[0] == 0
    assert listing(cli, workdir) == listing(cli, tmp_path / "straight")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["no space", "file too large"])
def test_a_disk_that_takes_nothing_is_a_reason_and_no_traceback(
    workdir, tmp_path, monkeypatch, capfd, kind
):
    """The second as the kernel says it to tensorstore's own threads."""
    from train.run.workdir import open_workdir

    train_state = open_workdir(workdir).train_state
    shutil.rmtree(workdir / "checkpoints")
    checkpoints = Checkpoints(workdir, keep=2)
    size, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    capfd.readouterr()
    if kind == "no space":
        full = shutil.disk_usage(tmp_path)._replace(free=2**14)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    try:
        reason = checkpoints.save(train_state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    gc.collect(0)  # what it left behind is young
    assert "No space left" in reason or "File too large" in reason
    assert capfd.readouterr() == ("", "")
    assert not checkpoints.steps()
    assert checkpoints.save(train_state) is None or kind == "no space"


def test_pictures_metrics_and_curves_that_cannot_be_written_are_notes(
    cli, straight, tmp_path, monkeypatch
):
    from tensorboardX.event_file_writer import EventsWriter

    from train.run import finish, pictures

    fail(monkeypatch, (pictures, "sample_grid"), 1)
    fail(monkeypatch, (EventsWriter, "flush"), 2)
    fail(monkeypatch, (finish, "curves"), 1)
    status, out, err = cli(line(tmp_path / "w"))
    assert (status, err) == (0, "")
    for name in ("w/tensorboard", "metrics.jsonl", "w/samples", "curves.png"):
        assert f"{name} could not be written (No space left" in out.replace("\n", "")
    assert listing(cli, tmp_path / "w") == listing(cli, straight)


def test_a_picture_of_samples_that_are_not_finite_is_a_note(
    cli, straight, tmp_path, monkeypatch
):
    from train.run.sampler import Sampler

    batch = Sampler.batch
    monkeypatch.setattr(Sampler, "batch", lambda *args: np.nan * batch(*args))
    status, out, err = cli(line(tmp_path / "w"))
    assert (status, err) == (0, "")
    assert "w/samples: sample 0 is not finite" in out.replace("\n", "")
    assert listing(cli, tmp_path / "w") == listing(cli, straight)


def test_a_disk_full_at_the_start_is_one_sentence(cli, workdir, monkeypatch):
    fail(monkeypatch, (os, "replace"), 1)
    refused(cli(line(workdir, steps=8)), "No space left", "free space")
    assert Checkpoints(workdir).latest() == 4


def test_no_number_of_events_fills_a_queue(tmp_path, monkeypatch):
    """tensorboardX's own writer hangs at the eleventh event after a failed write."""
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event

    from train.run.events import Events

    events = Events(tmp_path, 1)
    fail(monkeypatch, (EventsWriter, "flush"), 30)
    for step in range(30):
        with pytest.raises(OSError, match="No space"):
            events.scalars(step, {"loss": 1.0})
    events.scalars(30, {"loss": 0.5})
    events.close()
    newest = max(tmp_path.iterdir(), key=lambda path: path.name)
    rest, seen = newest.read_bytes(), []
    while rest:  # length, its checksum, the event, its checksum
        length = int.from_bytes(rest[:8], "little")
        seen.append(Event.FromString(rest[12 : 12 + length]))
        rest = rest[16 + length :]
    assert seen[-1].step == 30 and seen[-1].summary.value[0].simple_value == 0.5


def test_a_cut_line_of_metrics_costs_that_line(cli, workdir):
    with (workdir / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 5, "vae/lo\xff{"step": 6}\n[1]\n{"step": "7"}\n')
        file.write(b'{"step": 1, "seconds": null}\n{"step": 1, "seconds": NaN}\n')
        file.write(b'{"step": 1, "vae/loss": [2]}\n{"step": true}\n')
    status, _, err = cli(line(workdir, steps=6))
    assert status == 0, err
    rows = [json.loads(x) for x in (workdir / "metrics.jsonl").open()]
    assert [row["step"] for row in rows] == [2, 4, 6]


# ------------------------------------------------------------------ damaged on the disk


def largest(folder):
    return max(files_of(folder), key=lambda p: (p.stat().st_size, p.name))


def files_of(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


def zeroed(folder):
    for path in files_of(folder):
        path.write_bytes(bytes(path.stat().st_size))


def one_bit_flipped(folder):
    data = bytearray(largest(folder).read_bytes())
    data[len(data) // 2] ^= 1
    largest(folder).write_bytes(data)


def emptied(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize("damage", [zeroed, one_bit_flipped, emptied])
def test_a_damaged_newest_checkpoint_costs_its_steps_which_come_again(
    cli, straight, workdir, damage
):
    damage(workdir / "checkpoints/4")
    refused(cli(f"train.inspect --workdir {workdir}"), "checkpoints/4 is damaged")
    status, out, err = cli(line(workdir))
    assert (status, err) == (0, "")
    assert "checkpoints/4 is damaged" in out and f"moved to {workdir}/damaged/4" in out
    assert "resumed from the checkpoint at step 2" in out
    assert listing(cli, workdir) == listing(cli, straight)


def test_the_sums_are_those_of_sha256sum(straight):
    tool = shutil.which("sha256sum")
    if tool is None:
        pytest.skip("sha256sum is not installed")
    check = [tool, "--check", "--quiet", "SHA256SUMS"]
    subprocess.run(check, cwd=straight / "checkpoints/4", check=True)


def test_a_checkpoint_without_sums_is_read_unchecked(workdir):
    """As versions wrote them that had none."""
    before = leaves(workdir)
    (workdir / "checkpoints/4/SHA256SUMS").unlink()
    assert leaves(workdir) == before


def resealed(folder, **run):
    """The checkpoint with another record, as another run would have saved it."""
    record = json.loads((folder / "experiment.json").read_text())
    record["run"] |= run
    (folder / "experiment.json").write_text(json.dumps(record))
    (folder / "SHA256SUMS").write_text(sums(folder))


@pytest.mark.parametrize(
    ("disturb", "newest", "why"),
    [
        (lambda f: (f / "4").rename(f / "100"), 100, "is that of step 4, renamed"),
        (lambda f: resealed(f / "4", seed=1), 4, "another run, with --seed 1, not 0"),
    ],
)
def test_a_checkpoint_that_is_not_this_runs_is_set_aside(
    cli, straight, workdir, disturb, newest, why
):
    disturb(workdir / "checkpoints")
    refused(cli(f"train.inspect --workdir {workdir}"), f"checkpoints/{newest}", why)
    status, out, err = cli(line(workdir))
    assert (status, err) == (0, "")
    assert why in out and f"moved to {workdir}/damaged/{newest}" in out
    assert listing(cli, workdir) == listing(cli, straight)


def edit(file, old, new):
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"levels": 17', '"levels": 5', "levels 17, not 5"),
        ('"beta": 1.0', '"beta": 2.0', "--beta 1.0, not 2.0"),
        ('"seed": 0', '"seed": 3', "--seed 0, not 3"),
    ],
)
def test_a_record_that_was_edited_is_refused_by_name(cli, workdir, old, new, said):
    edit(workdir / "experiment.json", old, new)
    before = {p: p.read_bytes() for p in files_of(workdir)}
    refused(cli(f"train.sample --workdir {workdir} --out {workdir}/x.png"), said)
    assert cli(line(workdir))[0] == 2
    assert before == {p: p.read_bytes() for p in files_of(workdir)}


def test_what_a_version_without_copies_of_the_record_saved_is_read(cli, workdir):
    before = leaves(workdir)
    edit(workdir / "experiment.json", '"saved": true', '"unknown": 1')
    for folder in (workdir / "checkpoints").iterdir():
        (folder / "experiment.json").unlink()
        (folder / "SHA256SUMS").write_text(sums(folder))
    assert leaves(workdir) == before
    assert cli(line(workdir, steps=6))[0] == 0
    assert "saved" in json.loads((workdir / "experiment.json").read_text())


def test_a_run_whose_checkpoints_are_gone_does_not_start_afresh(cli, workdir):
    for folder in (workdir / "checkpoints").iterdir():
        shutil.rmtree(folder)
    before = stamps(workdir)
    refused(cli(line(workdir, steps=6)), "none of its checkpoints", "--fresh")
    assert stamps(workdir) == before
    assert cli(line(workdir) + " --fresh")[0] == 0


def test_a_workdir_whose_name_is_not_utf8_is_refused(cli, tmp_path):
    workdir = tmp_path / os.fsdecode(b"w\xff")
    refused(cli(line(workdir)), "not UTF-8", "take another name")
    assert not workdir.exists()


def test_nothing_is_written_through_a_link(cli, straight, workdir, tmp_path):
    """Every file that a run writes, and each of its parts."""
    ours = "*.json", "*.jsonl", "*.png", "samples/*.png"
    there = [path for pattern in ours for path in workdir.glob(pattern)]
    there += [workdir / "samples/step_00000008.png"]
    victims = {}
    for path in [*there, *(p.with_name(f"{p.name}.part") for p in there)]:
        victim = tmp_path / f"victim-{len(victims)}"
        victim.write_bytes(path.read_bytes() if path.exists() else b"precious")
        path.unlink(missing_ok=True)
        path.symlink_to(victim)
        victims[victim] = victim.read_bytes()
    folder = tmp_path / "folder"
    folder.mkdir()
    (workdir / "checkpoints/6.part").symlink_to(folder)
    (workdir / "checkpoints/8.part").symlink_to(folder)
    status, out, err = cli(line(workdir, steps=8))
    assert status == 0, out + err
    assert {v: v.read_bytes() for v in victims} == victims
    assert not [*folder.iterdir()]


@pytest.mark.parametrize("name", ["lock", "tensorboard", "samples", "checkpoints"])
def test_a_link_in_the_place_of_the_lock_or_a_folder_is_refused(
    cli, tmp_path, workdir, name
):
    path, victim = workdir / name, tmp_path / "victim"
    path.rename(victim) if path.exists() else victim.write_text("precious")
    path.symlink_to(victim)
    before = stamps(victim), victim.is_file() and victim.read_text()
    status, out, err = cli(line(workdir, steps=8))
    assert status == 0 if name == "samples" else status == 2
    assert f"{path} is a link" in (out + err).replace("\n", "")
    assert before == (stamps(victim), victim.is_file() and victim.read_text())


def test_a_truncated_record_is_refused_and_nothing_is_touched(cli, workdir):
    record = workdir / "experiment.json"
    whole = record.read_bytes()
    record.write_bytes(whole[: len(whole) // 2])
    before = {p: p.stat().st_mtime_ns for p in files_of(workdir)}
    refused(cli(line(workdir, steps=6)), "experiment.json", "restore the file")
    assert before == {p: p.stat().st_mtime_ns for p in files_of(workdir)}
    record.write_bytes(whole)
    assert cli(line(workdir, steps=6))[0] == 0


# ------------------------------------------------------------------ kept programs


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """The folder of kept programs of a user who names none."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    least = "jax_persistent_cache_min_compile_time_secs"
    changes = {"jax_compilation_cache_dir": None, least: 0}
    before = {name: getattr(jax.config, name) for name in changes}
    for values in (changes, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if values is changes:
            yield tmp_path / "cache/gengen/xla"


def test_programs_are_kept_in_a_folder_of_the_users_own(programs, cli, tmp_path):
    import jax

    status, out, err = cli(line(tmp_path / "w") + " --seed 3")
    assert (status, err) == (0, "") and "note: compiled" not in out
    assert [*programs.glob("*-cache")] and programs.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in tmp_path.iterdir() if path.name[0] == "."] == []
    assert jax.config.jax_compilation_cache_dir == str(programs)


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
def test_a_folder_in_which_others_can_write_keeps_no_programs(programs, mode):
    import jax

    from train.run.cache import enable_compilation_cache

    programs.mkdir(parents=True)
    programs.chmod(mode)
    assert f"others can write in {programs}" in enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None


def test_a_kept_program_that_cannot_be_read_is_replaced(programs):
    import jax
    import jax.numpy as jnp

    from train.run.cache import cache_hits, enable_compilation_cache

    def compiled():
        with cache_hits() as hits:
            assert jax.jit(lambda x: jnp.tan(x) ** 3)(jnp.ones(3)).shape == (3,)
        return len(hits)

    enable_compilation_cache()
    compiled()
    assert compiled() > 0
    for entry in programs.glob("*-cache"):
        entry.write_bytes(entry.read_bytes()[:50])
    assert compiled() == 0 and not [*programs.glob("*-cache")]
    compiled()
    assert compiled() > 0


# ------------------------------------------------------------------ not finite


def test_a_bad_step_is_as_if_its_update_had_never_been(cli, tmp_path, monkeypatch):
    """A NaN at step 5 of 6: parameters, moments and state are those of step 5."""
    import jax.numpy as jnp

    from gengen.models.vae import VAE

    loss = VAE.loss

    def bad(self, params, state, batch, key):
        value, rest = loss(self, params, state, batch, key)
        return jnp.where(state["step"] == 5, jnp.nan, value), rest

    def arrays(workdir):
        step, all_of_it = leaves(workdir)
        groups = ("params/", "opt_state/", "state/")
        return step, {k: v for k, v in all_of_it.items() if k.startswith(groups)}

    monkeypatch.setattr(VAE, "loss", bad)
    single = EVENTS.replace("--steps-per-call 2", "--steps-per-call 1")
    base = f"train vae --workdir {tmp_path}/w {TINY['vae']} {single}"
    assert cli(f"{base} --steps 5")[0] == 0
    before = arrays(tmp_path / "w")
    refused(cli(f"{base} --steps 6"), "vae/loss was not finite", "step 5 stays")
    status, out, err = cli(f"{base} --steps 7".replace("w ", "long ", 1))
    assert status == 0, err
    assert "note: 1 turns up to step 6 were skipped: vae/loss was not finite" in out
    assert before[0] == 5 and Checkpoints(tmp_path / "long").steps()[0] == 7
    rows = [json.loads(x) for x in (tmp_path / "long/metrics.jsonl").open()]
    assert [row.get("vae/skipped", 0) for row in rows] == [0, 0, 0.5, 0]
    assert all(np.isfinite(v) for row in rows for v in row.values())


# ------------------------------------------------------------------ mutated checkpoints


def mutate(path, draw):
    """Change a file: flip bits, write noise, cut, extend, empty or remove it."""
    data = bytearray(path.read_bytes())
    how = draw.integers(6)
    if how == 0 or not data:
        return path.unlink()
    if how == 1:
        data = data[: draw.integers(len(data))]
    elif how == 2:
        data += draw.bytes(9)
    elif how == 3:
        start = draw.integers(len(data))
        data[start : start + 16] = draw.bytes(len(data[start : start + 16]))
    else:
        for place in draw.integers(len(data), size=how - 3):
            data[place] ^= 1 << draw.integers(8)
    return path.write_bytes(data)


def test_no_mutation_of_a_checkpoint_passes_for_it(straight, tmp_path, capfd):
    draw, whole = np.random.default_rng(0), leaves(straight)
    names = [
        p.relative_to(straight / "checkpoints/4")
        for p in files_of(straight / "checkpoints/4")
    ]
    workdir = shutil.copytree(straight, tmp_path / "w")
    folder, spare = workdir / "checkpoints/4", straight / "checkpoints/4"
    outcomes = {"same": 0, "damaged": 0}
    for _ in range(400):
        name = names[draw.integers(len(names))]
        mutate(folder / name, draw)
        try:
            assert leaves(workdir) == whole
            outcomes["same"] += 1
        except Damaged as error:
            assert "checkpoints/4 is damaged" in str(error)
            outcomes["damaged"] += 1
        shutil.copy(spare / name, folder / name)
    assert outcomes["damaged"] > 350, outcomes  # the same: only the sums were removed
    assert "Traceback" not in "".join(capfd.readouterr())
