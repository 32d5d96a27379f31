"""python -m tests.scaling: what loop, guard and data cost a step; weak scaling.

Devices are eight parts of one CPU, so that time says nothing of accelerators: N devices
with b images each are compared with one device that takes N b, the same work.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import random
import statistics
import sys
import tempfile
import time
import unittest.mock
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from program import call

MOST = 8
PARTS = ("loop", "guard", "devices")
VAES = (128,), (112, 112), (128, 128), (160, 160), (96, 96, 96)


def prepared(experiment, dataset, view, length, batch_size, given=False):
    """`run(calls)`: seconds a step of the compiled `many`, data and feed in place.

    given: the batches are the program's arguments, and not gathered within it.
    """
    import jax

    from gengen.multi_step import identity, multi_step
    from gengen.step import make_train_step
    from train.data.feed import Feed
    from train.run.devices import with_axis_name
    from train.run.state import InitialState

    feed, batch = Feed(dataset, batch_size, 0), dataset.spec.example(batch_size)
    train_state = InitialState(experiment, 0, batch, view.mesh)()
    losses = with_axis_name(experiment.model, view.axis_name).losses()
    options = experiment.order, experiment.ema_decay, view.axis_name
    step = make_train_step(losses, experiment.optimizers, *options)
    fetch = identity if given else feed.fetch
    many = view.mapped(multi_step(step, fetch, length), train_state)
    held = [view.to_program(train_state)]
    data, items = view.data(feed.data), view.items(feed.items(0, length))
    if given:
        items = jax.jit(jax.vmap(feed.fetch, (None, 0)))(data, items)

    def run(calls):
        began = time.perf_counter()
        for _ in range(calls):
            held[0], metrics = many(held[0], data, items, length, {})
        jax.block_until_ready((held, metrics))
        return (time.perf_counter() - began) / (calls * length)

    run(2)
    return run


def overhead(folder: str, length: int, rounds: int, steps: int) -> dict:
    """Milliseconds a step of `python -m train vae` and of its bare program.

    In turns: the other's comes at each line of metrics, where the loop's clock stands.
    """
    from train.data.load import load
    from train.experiments import EXPERIMENTS
    from train.run.devices import make_mesh, make_view
    from train.run.report import Report

    dataset = load("digits")
    experiment = EXPERIMENTS["vae"](dataset.spec)
    view = make_view("jit", make_mesh())
    bare = prepared(experiment, dataset, view, length, experiment.batch_size)
    told, pairs = Report.metrics, []

    def metrics(self, done, values, num, seconds, *others):
        told(self, done, values, num, seconds, *others)
        pairs.append((seconds / num, bare(num // length)))

    line = f"train vae --workdir {folder}/{length} --steps-per-call {length}"
    line += f" --log-every {steps} --sample-every 1000000 --steps {rounds * steps}"
    with (
        unittest.mock.patch.object(Report, "metrics", metrics),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        assert call(line) == 0
    loop, alone = (statistics.median(x) for x in zip(*pairs, strict=True))
    return {
        "steps_per_call": length,
        "loop_ms": round(1e3 * loop, 4),
        "bare_ms": round(1e3 * alone, 4),
        "loop_over_bare": round(loop / alone, 3),
    }


def of_a_step(name: str, length: int, rounds: int, **options) -> dict:
    """A step over that step without its guard, and over that given its batches.

    Timed in turns, in an order drawn anew: a ratio is the median of those of one round,
    [with] the bounds that hold the true median nineteen times in twenty.
    """
    import numpy as np

    import gengen.guard
    from train.data.load import load
    from train.experiments import EXPERIMENTS
    from train.run.devices import make_mesh, make_view

    dataset = load("text:README.md" if name == "text" else "digits")
    experiment = EXPERIMENTS[name](dataset.spec, **options)
    view = make_view("jit", make_mesh())
    make = functools.partial(prepared, experiment, dataset, view, length)
    runs = {"step": make(experiment.batch_size)}
    new = unittest.mock.patch.object(gengen.guard, "select", lambda finite, new, _: new)
    with new:  # as it is traced
        runs["no guard"] = make(experiment.batch_size)
    runs["given"] = make(experiment.batch_size, given=True)
    runs["again"] = make(experiment.batch_size)  # what is noise
    calls = max(1, round(0.02 / (length * runs["step"](3))))
    seconds = {key: [] for key in runs}
    for turn in range(rounds):
        for key in random.Random(turn).sample(list(runs), len(runs)):
            seconds[key].append(runs[key](calls))
    ms = round(1e3 * statistics.median(seconds["step"]), 3)
    row = {"experiment": name, **options, "steps_per_call": length, "ms": ms}
    for key in list(runs)[1:]:
        ratios = np.sort(np.divide(seconds["step"], seconds[key]))
        low, high = rounds / 2 - rounds**0.5, rounds / 2 + rounds**0.5
        places = np.clip([low, (rounds - 1) / 2, high], 0, rounds - 1).round()
        low, median, high = ratios[places.astype(int)].round(4).tolist()
        row[f"over_{key.replace(' ', '_')}"] = [median, [low, high]]
    return row


def weak(name: str, num: int, each: int, rounds: int) -> dict:
    """Seconds a step of `num` devices with `each` images, and of one with them all."""
    import jax

    from train.data.load import load
    from train.experiments import EXPERIMENTS
    from train.run.devices import AXES, make_view

    dataset = load("digits")
    experiment = EXPERIMENTS["vae"](dataset.spec, hidden=(512, 512))
    types = (jax.sharding.AxisType.Auto,) * 2
    runs = {}
    for count in {num, 1}:
        devices = jax.devices()[:count]
        mesh = jax.make_mesh((count, 1), AXES, axis_types=types, devices=devices)
        view = make_view(name, mesh)
        runs[count] = prepared(experiment, dataset, view, 1, num * each)
    seconds = {count: [] for count in runs}
    for _ in range(rounds):
        for count, run in runs.items():
            seconds[count].append(run(3))
    many, one = (statistics.median(seconds[count]) for count in (num, 1))
    return {
        "view": name,
        "devices": num,
        "batch": num * each,
        "ms": round(1e3 * many, 2),
        "one_device_ms": round(1e3 * one, 2),
        "ratio": round(many / one, 3),
    }


def main() -> None:
    """A line of JSON a measurement; medians of programs timed in turns."""
    parser = argparse.ArgumentParser(prog="python -m tests.scaling")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pairs", type=int, default=201, help="rounds for the guard")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--each", type=int, default=64, help="images a device")
    parser.add_argument("--steps", type=int, default=500, help="of the loop, a round")
    options = parser.parse_args()
    flags = os.environ.get("XLA_FLAGS", "")
    if "host_platform_device_count" not in flags:  # a process for each kind
        if "loop" in options.only:
            with tempfile.TemporaryDirectory() as folder:
                for length in (1, 50):
                    row = overhead(folder, length, options.rounds, options.steps)
                    print(json.dumps(row), flush=True)
        if "guard" in options.only:
            from train.experiments import EXPERIMENTS

            # Where a step is short, how XLA lays it out weighs as much: several nets.
            for hidden in VAES:
                row = of_a_step("vae", 50, options.pairs, hidden=hidden)
                print(json.dumps(row), flush=True)
            for name in EXPERIMENTS:
                row = of_a_step(name, 1, options.pairs)
                print(json.dumps(row), flush=True)
        if "devices" not in options.only:
            return
        flags = f"{flags} --xla_force_host_platform_device_count={MOST}"
        os.environ["XLA_FLAGS"] = flags
        os.execv(sys.executable, [sys.executable, "-m", "tests.scaling", *sys.argv[1:]])
    for name in ("jit", "pmap"):
        for num in (1, 2, 4, MOST):
            row = weak(name, num, options.each, options.rounds)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
