"""The only training loop: a record and a workdir in, a trained model out.

1. Refuse what cannot work: other run in the workdir, options, batch size.
2. The data set, the model's first state, or the last checkpoint's.
3. Compile, then: steps, metrics, pictures, checkpoints.
"""

import dataclasses
import math
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gengen.step import make_train_step, scan_steps, train_state
from gengen.types import BadInput
from train import data as datasets
from train import experiment as experiments
from train.checkpoint import Checkpoints
from train.devices import batch_split, convolves, data_mesh, jit_steps, replicated
from train.experiment import Experiment, Record
from train.heldout import HeldOut
from train.options import IDENTITY, Run
from train.pictures import curves
from train.report import Report
from train.sampling import picture


def initial_state(experiment: Experiment, seed: int, batch, mesh):
    """The compiled `start(frozen)`: the train state before step 0, on the mesh.

    A function of the seed and the experiment's frozen arrays; `batch` gives shapes.
    """

    def start(frozen):
        key_init, key_run = jax.random.split(jax.random.key(seed))
        params, state = experiment.model.init(key_init, batch)
        averaged = experiment.ema_decay is not None
        return train_state(
            key_run, params, {**state, **frozen}, experiment.optimizers, averaged
        )

    return jax.jit(start, out_shardings=replicated(mesh))


def refuse_other_run(workdir: Path, record: Record) -> None:
    """BadInput if the workdir holds another run, or files that are not a run."""
    if (workdir / experiments.FILE).exists():
        if changed := experiments.difference(experiments.load(workdir), record):
            raise BadInput(
                f"{workdir} holds another run, with {changed}: take another "
                "--workdir, or the same options to resume"
            )
    elif workdir.exists() and not (workdir.is_dir() and not any(workdir.iterdir())):
        raise BadInput(
            f"{workdir} is no run of gengen's and not an empty folder: "
            "take another --workdir"
        )


def compiled_steps(run: Run, step, feed, ts, mesh):
    """(compiled `many`, its length, why): the program that all of the run executes."""
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
            length = min(50, run.log_every)
            traced = trace(length)
    return traced.lower().compile(), length, why


def next_event(step: int, run: Run, steps: int) -> int:
    """The next step at which something is logged, drawn or saved."""
    every = (run.log_every, run.sample_every, run.checkpoint_every)
    return min([steps, *((step // n + 1) * n for n in every)])


def train(run: Run, name: str, options: dict) -> Path:
    """Train experiment `name` until its last step; the workdir, complete."""
    workdir = run.workdir
    dataset = datasets.load(
        run.dataset,
        data_dir=run.data_dir,
        image_size=run.image_size,
        levels=run.levels,
    )
    identity = {key: getattr(run, key) for key in IDENTITY}
    identity["examples"] = dataset.size
    record = Record(name, options, identity, dataset.spec)
    refuse_other_run(workdir, record)
    experiment = record.build()
    mesh = data_mesh(experiment.batch_size)
    feed = datasets.Feed(dataset, experiment.batch_size, run.seed)
    batch = dataset.spec.example(experiment.batch_size)
    start, frozen = initial_state(experiment, run.seed, batch, mesh), experiment.frozen
    step = jax.jit(  # traced once, wherever it is called from
        make_train_step(
            experiment.model.losses(),
            experiment.optimizers,
            experiment.order,
            experiment.ema_decay,
        )
    )
    # What cannot work fails here, before anything is written.
    jax.eval_shape(step, jax.eval_shape(start, frozen), batch)
    experiments.save(workdir, record)
    checkpoints = Checkpoints(workdir, run.keep)
    ts = start(frozen)
    if checkpoints.latest() is not None:
        ts = checkpoints.restore(ts)
    done, steps = int(ts.step), experiment.steps
    with Report(workdir, done, steps) as report:
        introduce(report, record, dataset, ts)
        if done < steps and done > 0 and out_of_time(run, report.seconds):
            report.say(
                f"nothing to do: the run is at step {done} and its {run.minutes:g} "
                "minutes are used up (--minutes takes it further)"
            )
        elif done < steps:
            job = Job(run, record, experiment, feed, mesh, checkpoints, report)
            run_steps(job, ts, step)
        else:
            report.say(
                f"nothing to do: the run is at step {done} of {steps} "
                "(--steps takes it further)"
            )
    summarise(report, workdir, checkpoints)
    return workdir


def introduce(report: Report, record: Record, dataset, ts) -> None:
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


@dataclasses.dataclass(frozen=True)
class Job:
    """What the loop works with."""

    run: Run
    record: Record
    experiment: Experiment
    feed: datasets.Feed
    mesh: jax.sharding.Mesh
    checkpoints: Checkpoints
    report: Report


def run_steps(job: Job, ts, step) -> None:
    """Steps from the train state's to the experiment's last."""
    run, report, steps = job.run, job.report, job.experiment.steps
    batch_size, model = job.experiment.batch_size, job.experiment.model
    data = jax.device_put(job.feed.data, replicated(job.mesh))
    began = time.perf_counter()
    many, length, why = compiled_steps(run, step, job.feed, ts, job.mesh)
    report.say(
        f"compiled in {time.perf_counter() - began:.1f} s; "
        f"{length} step{'s' * (length > 1)} a call{why}"
    )
    spec = job.record.data
    held_out = HeldOut(run, model, spec, batch_size)
    grid = picture(model, spec, run.seed, batch_size, held_out.batches)
    done = int(ts.step)
    seen, clock = [], time.perf_counter()
    while done < steps:
        num = min(length, next_event(done, run, steps) - done)
        items = read(job, ts, done, length)
        ts, metrics = many(ts, data, items, num)
        seen.append((num, metrics))
        done += num
        if next_event(done - 1, run, steps) == done:
            values = mean_metrics(seen)
            refuse_non_finite(job, ts, values)
            seconds = time.perf_counter() - clock
            if out_of_time(run, report.seconds + seconds) and done < steps:
                report.say(f"{run.minutes:g} minutes of training are over")
                steps = done
        draws = done % run.sample_every == 0 or done == steps
        saves = done % run.checkpoint_every == 0 or done == steps
        if done % run.log_every == 0 or draws:
            values |= held_out(ts) if draws else {}
            report.metrics(done, values, sum(num for num, _ in seen), seconds)
            seen, clock = [], time.perf_counter()
        else:
            report.advance(done)
        pause = time.perf_counter()
        if saves:
            refuse_non_finite(job, ts, {})
            job.checkpoints.save(ts)
        if draws:
            path = run.workdir / "samples" / f"step_{done:08d}.png"
            report.picture(done, grid.save(path, ts))
        clock += time.perf_counter() - pause
    grid.save(run.workdir / "samples.png", ts)


def out_of_time(run: Run, seconds: float) -> bool:
    """Whether `--minutes` are used up."""
    return run.minutes is not None and seconds >= 60 * run.minutes


def read(job: Job, ts, done: int, length: int):
    """The next items on the devices; on unreadable data what was learnt is saved."""
    try:
        items = job.feed.items(done, length)
    except BadInput:
        refuse_non_finite(job, ts, {})
        job.checkpoints.save(ts)
        raise
    return jax.device_put(items, batch_split(job.mesh))


def mean_metrics(seen: list) -> dict[str, float]:
    """The mean over steps of metrics that are means over `num` steps each."""
    nums = np.array([num for num, _ in seen])
    rows = jax.device_get([metrics for _, metrics in seen])
    return {
        name: float(np.average([row[name] for row in rows], weights=nums))
        for name in rows[0]
    }


@jax.jit
def all_finite(tree):
    """Whether every floating leaf is finite."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in floats]))


def refuse_non_finite(job: Job, ts, values: dict[str, float]) -> None:
    """BadInput once a metric or a parameter is not finite: it is never saved."""
    bad = [f"{name} is {x}" for name, x in values.items() if not math.isfinite(x)]
    if not bad and not all_finite((ts.params, ts.state)):
        bad = ["a parameter is not finite"]
    if bad:
        last = job.checkpoints.latest()
        kept = "" if last is None else f" (the checkpoint of step {last} stays)"
        raise BadInput(
            f"{bad[0]} at step {int(ts.step)}, so training diverged: try a smaller "
            f"--learning-rate in another --workdir{kept}"
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
