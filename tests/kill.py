"""python -m tests.kill --kills 200: kill -9 at random moments; is anything lost?

A command that goes on after every kill must end where the one that nobody killed did,
in every bit of every array and in every figure. A life is the command itself in a
process of its own, forked from this one once the slow imports are done (before JAX
starts its threads).
"""

import argparse
import contextlib
import dataclasses
import functools
import gc
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from program import OTHERS, RARELY, TINY, call

EVENTS = "--log-every 1 --sample-every 10 --checkpoint-every 1 --steps-per-call 1"
SLOW = ("train.run.loop", "train.inspect", "train.run.pictures", "orbax.checkpoint")
SLOW += ("train.measure.quality", "train.compare", "rich.table", "scipy.linalg")
SLOW += ("tensorboardX.event_file_writer", "sklearn.datasets", "matplotlib.pyplot")


def life(line: str, log: Path, before=None) -> int:
    """Fork a process that is `python -m {line}`, its output in `log`; its id."""
    if (child := os.fork()) > 0:
        return child
    status = 70
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1), os.dup2(descriptor, 2)
        if before is not None:
            before()
        status = call(line)
        sys.stdout.flush()
    finally:
        os._exit(status)


def ended(child: int) -> int | None:
    """The exit status of a life, minus the signal that ended it; None: it goes on."""
    same, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if same else None


def at_time(seconds: float, workdir: Path):
    """Death at a moment of the whole life, its start included."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() >= until


def seen(workdir: Path, *patterns: str) -> set[Path]:
    """What the patterns find in the workdir, or in the runs that it holds."""
    with contextlib.suppress(OSError):  # it goes while we look
        return {p for x in patterns for y in (x, f"*/{x}") for p in workdir.glob(y)}
    return set()


def at_work(seconds: float, workdir: Path):
    """Death so long after the first new checkpoint, or batch of an evaluation."""
    work = "checkpoints/*", "evaluation.part/*"
    before, until = seen(workdir, *work), None

    def now():
        nonlocal until
        if until is None and seen(workdir, *work) - before:
            until = time.monotonic() + seconds
        return until is not None and time.monotonic() >= until

    return now


def at_write(seconds: float, workdir: Path):
    """Death so long after the files of a checkpoint or result begin to be written."""
    writes = "checkpoints/*.part", "evaluation.part/*.part", "*.json.part"
    until = None

    def now():
        nonlocal until
        if until is None and seen(workdir, *writes):
            until = time.monotonic() + seconds
        return until is not None and time.monotonic() >= until

    return now


# How a life may end, and how many seconds after its moment has come, at most.
DEATHS = {"any time": (at_time, 4.0), "at work": (at_work, 0.3)}
DEATHS["writing"] = (at_write, 0.06)


def kill(line: str, workdir: Path, death: str, draw: random.Random, last=4.0) -> bool:
    """One life that is killed; False if it had ended by itself before.

    last: what a life lasts, about, in seconds.
    """
    moment, most = DEATHS[death]
    most = last if death == "any time" else most
    log = workdir.with_suffix(".log")
    now = moment(draw.uniform(0, most), workdir)
    child = life(line, log)
    while (status := ended(child)) is None:
        if now():
            os.kill(child, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            break
        time.sleep(0.0005)
    if status not in (0, -signal.SIGKILL):
        sys.exit(f"error: {line}\nended with {status}:\n{log.read_text()}")
    return status == -signal.SIGKILL


def whole(line: str, log: Path) -> str:
    """The output of a command that must succeed."""
    child = life(line, log)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        sys.exit(f"error: {line}\nended with {status}:\n{log.read_text()}")
    return log.read_text()


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is killed: a command in a workdir, and what it must leave there.

    left: all that must be the same in the end. whole: whether nothing is half there or
    lost, after any kill. begin: makes the workdir. seconds: what a life lasts, about.
    """

    command: Callable[[Path], str]
    left: Callable[[Path], Any]
    whole: Callable[[Path, Any], bool] = lambda workdir, expected: True
    begin: Callable[[Path], Any] = lambda workdir: None
    seconds: float = 4.0


def arrays(workdir: Path) -> str:
    """The digest of every array of a run."""
    return whole(f"train.inspect --workdir {workdir}", workdir.with_suffix(".list"))


def training(family: str, steps: int) -> Kind:
    """A run of a family."""

    def command(workdir):
        options = f"{(TINY | OTHERS)[family]} {EVENTS} --steps {steps}"
        return f"train {family} --workdir {workdir} {options}"

    def left(workdir):
        """Arrays, pictures (or texts), steps of the metrics."""
        files = sorted([*workdir.rglob("samples/*"), *workdir.glob("samples.*")])
        pictures = {str(f.relative_to(workdir)): f.read_bytes() for f in files}
        rows = [json.loads(x)["step"] for x in (workdir / "metrics.jsonl").open()]
        others = sorted(path.name for path in workdir.glob("checkpoints/*"))
        return arrays(workdir), pictures, rows, others, (workdir / "damaged").exists()

    return Kind(command, left)


def figures(path: Path) -> Any:
    """A result's figures, all but the seconds; None if it is not there."""

    def timeless(value):
        if isinstance(value, list):
            return [timeless(one) for one in value]
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if "seconds" not in k}
            return {k: timeless(v) for k, v in kept.items()}
        return value

    return timeless(json.loads(path.read_text())) if path.exists() else None


def trained(folder: Path) -> dict[Path, bytes]:
    """Every byte that training wrote."""
    own = "experiment.json", "metrics.jsonl", "samples.png", "checkpoints/**/*"
    files = (path for name in own for path in folder.glob(name) if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


def evaluation(folder: Path) -> Kind:
    """The evaluation of a run that has an older one, whose figures stay until then."""
    run, judge = folder / "evaluated", folder / "judge"
    for workdir, family in ((run, "vae"), (judge, "classifier")):
        if not workdir.exists():
            whole(training(family, 4).command(workdir), folder / "prepared.log")

    def command(workdir, seed=0):
        small = f"--num 400 --batch-size 10 --likelihood-num 50 --seed {seed}"
        return f"train.evaluate --workdir {workdir} --extractor {judge} {small}"

    whole(command(run, seed=1), folder / "prepared.log")
    before, bytes_of_run = figures(run / "evaluation.json"), trained(run)

    def left(workdir):
        litter = (workdir / "evaluation.part").exists()
        return figures(workdir / "evaluation.json"), litter, trained(workdir)

    def all_there(workdir, expected):
        now = figures(workdir / "evaluation.json")
        return now in (before, expected[0]) and trained(workdir) == bytes_of_run

    copy = functools.partial(shutil.copytree, run)
    return Kind(command, left, all_there, copy, seconds=2.5)


def comparison(folder: Path) -> Kind:
    """A comparison of two families: training, evaluation, the table."""
    judge = folder / "judge"
    if not judge.exists():
        whole(training("classifier", 4).command(judge), folder / "prepared.log")
    families = "vae", "gan"

    def command(workdir):
        options = f"--families {' '.join(families)} --steps 3 --num 20 --minutes 60"
        return f"train.compare --workdir {workdir} --extractor {judge} {options}"

    def results(workdir):
        names = (*(f"{name}/evaluation" for name in families), "comparison")
        return [figures(workdir / f"{name}.json") for name in names]

    def left(workdir):
        table = (workdir / "comparison.md").read_text().count("\n")
        picture = (workdir / "comparison.png").read_bytes()
        runs = [arrays(workdir / name) for name in families]
        return results(workdir), table, picture, runs

    def all_there(workdir, expected):
        pairs = zip(results(workdir), expected[0], strict=True)
        return all(now in (None, then) for now, then in pairs)

    return Kind(command, left, all_there, seconds=18.0)


def same_end(name: str, kind: Kind, folder: Path, kills: int, seed: int) -> dict:
    """Commands of a kind, killed `kills` times in all, against the straight one."""
    straight = folder / f"{name}-straight"
    kind.begin(straight)
    whole(kind.command(straight), folder / "straight.log")
    expected, draw = kind.left(straight), random.Random(f"{name} {seed}")
    told = {"kind": name, "runs": 0, "same": 0, "half": 0, "litter": 0}
    told |= dict.fromkeys(DEATHS, 0)
    while (more := kills - sum(told[death] for death in DEATHS)) > 0:
        workdir = folder / f"{name}-{told['runs']}"
        kind.begin(workdir)
        for _ in range(more):
            death = draw.choice(list(DEATHS))
            if not kill(kind.command(workdir), workdir, death, draw, kind.seconds):
                break
            told[death] += 1
            told["litter"] += bool(seen(workdir, "checkpoints/*.part", "*.json.part"))
            told["half"] += not kind.whole(workdir, expected)
        whole(kind.command(workdir), folder / "last.log")
        told["runs"] += 1
        told["same"] += kind.left(workdir) == expected
        shutil.rmtree(workdir)
    return told


MORE = {"evaluate": evaluation, "compare": comparison}
KINDS = [*TINY, *OTHERS, *MORE]


def main() -> None:
    """A line of JSON a kind; status 1 if one did not end as the straight one."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="in all")
    parser.add_argument("--kinds", nargs="+", default=list(TINY), choices=KINDS)
    parser.add_argument("--steps", type=int, default=40, help="of each run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    gc.set_threshold(*RARELY)
    cache = {"JAX_COMPILATION_CACHE_DIR": None, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    cache |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    cache |= {"JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/xla"
        for variable, value in cache.items():
            os.environ.setdefault(variable, value)
        for module in SLOW:
            importlib.import_module(module)
        good = True
        for i, name in enumerate(options.kinds):
            share = options.kills * (i + 1) // len(options.kinds)
            share -= options.kills * i // len(options.kinds)
            kind = MORE[name](folder) if name in MORE else training(name, options.steps)
            told = same_end(name, kind, folder, share, options.seed)
            print(json.dumps(told), flush=True)
            good &= told["runs"] == told["same"] and not told["half"]
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
