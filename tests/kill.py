"""python -m tests.kill --kills 200: kill -9 at random moments; is anything lost?

A run that goes on after every kill must end where the run that nobody killed ended, in
every bit of every array. A life is the command itself in a process of its own, forked
from this one once the slow imports are done (before JAX starts its threads).
"""

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from program import TINY, call

EVENTS = "--log-every 1 --sample-every 10 --checkpoint-every 1 --steps-per-call 1"
SLOW = ("train.loop", "train.inspect", "train.pictures", "orbax.checkpoint")
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


def at_work(seconds: float, workdir: Path):
    """Death so long after something new stands in `checkpoints`: while it trains."""

    def there():
        with contextlib.suppress(OSError):
            return {path.name for path in (workdir / "checkpoints").iterdir()}
        return set()

    before, until = there(), None

    def now():
        nonlocal until
        if until is None and there() - before:
            until = time.monotonic() + seconds
        return until is not None and time.monotonic() >= until

    return now


def at_write(seconds: float, workdir: Path):
    """Death so long after the files of a checkpoint begin to be written."""
    until = None

    def now():
        nonlocal until
        if until is None and next(workdir.glob("checkpoints/*.part"), None):
            until = time.monotonic() + seconds
        return until is not None and time.monotonic() >= until

    return now


# How a life may end, and how many seconds after its moment has come, at most.
DEATHS = {"any time": (at_time, 4.0), "at work": (at_work, 0.3)}
DEATHS["writing"] = (at_write, 0.06)


def kill(line: str, workdir: Path, death: str, draw: random.Random) -> bool:
    """One life that is killed; False if it had ended by itself before."""
    moment, most = DEATHS[death]
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


def same_end(family: str, folder: Path, kills: int, steps: int, seed: int) -> dict:
    """Runs of a family, killed `kills` times in all, against the straight run."""

    def command(workdir):
        options = f"{TINY[family]} {EVENTS} --steps {steps}"
        return f"train {family} --workdir {workdir} {options}"

    def left(workdir):
        """All that must be the same: arrays, pictures, steps of the metrics."""
        arrays = whole(f"train.inspect --workdir {workdir}", folder / "listing.log")
        files = [*sorted(workdir.rglob("samples/*")), workdir / "samples.png"]
        pictures = {str(f.relative_to(workdir)): f.read_bytes() for f in files}
        rows = [json.loads(x)["step"] for x in (workdir / "metrics.jsonl").open()]
        others = sorted(path.name for path in workdir.glob("checkpoints/*"))
        return arrays, pictures, rows, others, (workdir / "damaged").exists()

    straight = folder / f"{family}-straight"
    whole(command(straight), folder / "straight.log")
    expected, draw = left(straight), random.Random(f"{family} {seed}")
    told = {"family": family, "steps": steps, "runs": 0, "same": 0, "litter": 0}
    told |= dict.fromkeys(DEATHS, 0)
    while (more := kills - sum(told[death] for death in DEATHS)) > 0:
        workdir = folder / f"{family}-{told['runs']}"
        for _ in range(more):
            death = draw.choice(list(DEATHS))
            if not kill(command(workdir), workdir, death, draw):
                break
            told[death] += 1
            told["litter"] += any(workdir.glob("checkpoints/*.part"))
        whole(command(workdir), folder / "last.log")
        told["runs"] += 1
        told["same"] += left(workdir) == expected
        shutil.rmtree(workdir)
    return told


def main() -> None:
    """A line of JSON a family; status 1 if a run did not end as the straight one."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="in all")
    parser.add_argument("--families", nargs="+", default=list(TINY), choices=TINY)
    parser.add_argument("--steps", type=int, default=40, help="of each run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    cache = {"JAX_COMPILATION_CACHE_DIR": None, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    cache |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    cache |= {"JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    with tempfile.TemporaryDirectory() as name:
        cache["JAX_COMPILATION_CACHE_DIR"] = f"{name}/xla"
        for variable, value in cache.items():
            os.environ.setdefault(variable, value)
        for module in SLOW:
            importlib.import_module(module)
        good = True
        for i, family in enumerate(options.families):
            share = options.kills * (i + 1) // len(options.families)
            share -= options.kills * i // len(options.families)
            told = same_end(family, Path(name), share, options.steps, options.seed)
            print(json.dumps(told), flush=True)
            good &= told["runs"] == told["same"]
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
