"""The only training loop: a record and a workdir in, a trained model out.

1. Refuse what cannot work: other run in the workdir, options, batch size.
2. The data set, the model's first state, or the last checkpoint's.
3. Compile, then: steps, metrics, pictures, checkpoints.
"""

import math
import time
from pathlib import Path

import jax
import numpy as np

from gengen.step import make_train_step, scan_steps, train_state
from gengen.types import BadInput
from train import data as datasets
from train import experiment as experiments
from train.checkpoint import Checkpoints
from train.devices import batch_split, convolves, data_mesh, jit_steps, replicated
from train.experiment import Experiment, Record
from train.heldout import HeldOut
from train.options import Run
from train.pictures import curves, save_grid, to_uint8
from train.report import Report
from train.sampling import make_sampler

COLUMNS = 10


def initial_state(experiment: Experiment, seed: int, batch):
    """The train state before step 0, a function of the seed. `batch` gives shapes."""
    key_init, key_run = jax.random.split(jax.random.key(seed))
    params, state = experiment.model.init(key_init, batch)
    averaged = experiment.ema_decay is not None
    return train_state(key_run, params, state, experiment.optimizers, averaged)


def example_batch(spec) -> dict[str, np.ndarray]:
    """One black image (and label), for shapes."""
    batch = {"image": np.zeros((1, *spec.shape), np.uint8)}
    return batch if spec.num_classes == 0 else {**batch, "label": np.zeros(1, np.int32)}


def refuse_other_run(workdir: Path, record: Record) -> None:
    """BadInput if the workdir holds another run, or files that are not a run."""
    if (workdir / experiments.FILE).exists():
        if changed := experiments.difference(experiments.load(workdir), record):
            raise BadInput(
                f"{workdir} holds another run, with {changed}: take another "
                "--workdir, or the same options to resume"
            )
    elif workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise BadInput(
            f"{workdir} is no run of gengen's and not an empty folder: "
            "take another --workdir"
        )


class Grid:
    """The sample grid of a run: the same seeds and classes at every step."""

    def __init__(self, model, spec, seed: int):
        classes = getattr(model, "num_classes", 0)
        rows = min(classes, 20) if classes else COLUMNS
        self.num, self.names = rows * COLUMNS, ()
        self.labels = None
        if classes:
            self.labels = np.repeat(np.arange(rows, dtype=np.int32), COLUMNS)
            self.names = spec.class_names[:rows]
        self.key = jax.random.key(seed)
        self._sampler = make_sampler(model, self.num)

    def save(self, path: Path, ts) -> Path:
        params = ts.params if ts.ema is None else ts.ema
        x = self._sampler(params, ts.state, self.key, 0, self.labels)
        return save_grid(path, to_uint8(x), COLUMNS, self.names)


def compiled_steps(run: Run, experiment: Experiment, feed, ts, mesh):
    """(compiled `many`, its length, why): the program that all of the run executes."""
    step = make_train_step(
        experiment.model.losses(),
        experiment.optimizers,
        experiment.order,
        experiment.ema_decay,
    )
    length = 1 if run.steps_per_call is None else run.steps_per_call
    why = ""

    def trace(length):
        many = jit_steps(scan_steps(step, feed.fetch, length), mesh)
        return many.trace(ts, feed.data, feed.items(int(ts.step), length), length)

    traced = trace(length)
    if run.steps_per_call is None:
        if jax.default_backend() == "cpu" and convolves(traced.jaxpr):
            why = " (convolutions on CPU are slow inside a loop)"
        else:
            length = math.gcd(50, run.log_every) if run.log_every < 50 else 50
            traced = trace(length)
    return traced.lower().compile(), length, why


def next_event(step: int, run: Run, steps: int) -> int:
    """The next step at which something is logged, drawn or saved."""
    every = (run.log_every, run.sample_every, run.checkpoint_every)
    return min([steps, *((step // n + 1) * n for n in every)])


def restore_or_start(run: Run, record: Record, experiment: Experiment, mesh):
    """(train state, checkpoints): the last checkpoint's, else the initial one."""
    batch = example_batch(record.data)
    make = jax.jit(
        lambda: initial_state(experiment, run.seed, batch),
        out_shardings=replicated(mesh),
    )
    checkpoints = Checkpoints(run.workdir, run.keep)
    ts = make()
    if checkpoints.latest() is not None:
        ts = checkpoints.restore(ts)
    return ts, checkpoints


def train(run: Run, name: str, options: dict) -> Path:
    """Train experiment `name` until its last step; the workdir, complete."""
    workdir = run.workdir
    identity = {k: getattr(run, k) for k in ("dataset", "image_size", "levels", "seed")}
    dataset = datasets.load(
        run.dataset,
        data_dir=run.data_dir,
        image_size=run.image_size,
        levels=run.levels,
    )
    record = Record(name, options, identity, dataset.spec)
    refuse_other_run(workdir, record)
    experiment = record.build()
    mesh = data_mesh(experiment.batch_size)
    feed = datasets.Feed(dataset, experiment.batch_size, run.seed)
    jax.eval_shape(
        lambda: initial_state(experiment, run.seed, example_batch(dataset.spec))
    )
    ts, checkpoints = restore_or_start(run, record, experiment, mesh)
    experiments.save(workdir, record)
    start = int(ts.step)
    with Report(workdir, start, experiment.steps) as report:
        introduce(report, record, experiment, dataset, ts)
        if start >= experiment.steps:
            report.say(
                f"nothing to do: the run is at step {start} of {experiment.steps} "
                "(--steps takes it further)"
            )
        else:
            ts = run_steps(run, record, experiment, feed, ts, mesh, checkpoints, report)
    summarise(report, workdir, checkpoints)
    return workdir


def introduce(report: Report, record: Record, experiment, dataset, ts) -> None:
    """What is about to happen."""
    sizes = [f"{k} {_count(v):,}" for k, v in ts.params.items()]
    device = jax.devices()[0]
    report.say(f"data: {dataset.note}")
    report.say(
        f"model: {record.experiment}; parameters: {', '.join(sizes)}; "
        f"{jax.device_count()} × {device.platform} ({device.device_kind})"
    )
    if int(ts.step) > 0:
        report.say(f"resumed from the checkpoint at step {int(ts.step)}")


def _count(tree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def run_steps(run, record, experiment, feed, ts, mesh, checkpoints, report):
    """Steps from the train state's to the experiment's last; the final state."""
    workdir, steps = run.workdir, experiment.steps
    data = jax.device_put(feed.data, replicated(mesh))
    began = time.perf_counter()
    many, length, why = compiled_steps(run, experiment, feed, ts, mesh)
    report.say(
        f"compiled in {time.perf_counter() - began:.1f} s; "
        f"{length} step{'s' * (length > 1)} a call{why}"
    )
    grid = Grid(experiment.model, record.data, run.seed)
    held_out = HeldOut(run, experiment.model)
    step = int(ts.step)
    seen, count, clock = [], 0, time.perf_counter()
    while step < steps:
        num = min(length, next_event(step, run, steps) - step)
        items = jax.device_put(feed.items(step, length), batch_split(mesh))
        ts, metrics = many(ts, data, items, num)
        seen.append((num, metrics))
        step, count = step + num, count + num
        draws = step % run.sample_every == 0 or step == steps
        if step % run.log_every == 0 or draws:
            values = mean_metrics(seen)
            refuse_non_finite(values, step, checkpoints)
            rate = count / (time.perf_counter() - clock)
            values |= held_out(ts) if draws else {}
            report.metrics(step, values, rate)
            seen, count, clock = [], 0, time.perf_counter()
        else:
            report.advance(step)
        pause = time.perf_counter()
        if step % run.checkpoint_every == 0 or step == steps:
            checkpoints.save(ts)
        if draws:
            path = workdir / "samples" / f"step_{step:08d}.png"
            report.picture(step, grid.save(path, ts))
        clock += time.perf_counter() - pause
    grid.save(workdir / "samples.png", ts)
    return ts


def mean_metrics(seen: list) -> dict[str, float]:
    """The mean over steps of metrics that are means over `num` steps each."""
    nums = np.array([num for num, _ in seen])
    rows = jax.device_get([metrics for _, metrics in seen])
    return {
        name: float(np.average([row[name] for row in rows], weights=nums))
        for name in rows[0]
    }


def refuse_non_finite(values: dict[str, float], step: int, checkpoints) -> None:
    """BadInput once a loss is not finite: what is saved stays as it is."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise BadInput(
                f"{name} is {value} at step {step}: training diverged; try a smaller "
                f"--learning-rate (the checkpoint at step {checkpoints.latest()} stays)"
            )


def summarise(report: Report, workdir: Path, checkpoints) -> None:
    """Where everything is."""
    rows = [("samples", workdir / "samples.png")]
    if report.file.exists() and report.file.stat().st_size:
        rows.append(("curves", curves(report.file, workdir / "curves.png")))
    rows.append(("metrics", report.file))
    step = checkpoints.latest()
    rows.append(("checkpoint", checkpoints.folder / str(step)))
    rows.append(("tensorboard", workdir / "tensorboard"))
    for what, where in rows:
        report.say(f"{what:>11}  {where}")
