"""The only training loop: a record and a workdir in, a trained model out.

1. Refuse what cannot work: other run in the workdir, options, batch size.
2. The data set, the model's first state, or the last checkpoint's.
3. Compile, then: steps, metrics, pictures, checkpoints.
"""

import contextlib
import dataclasses
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np

from gengen.errors import BadInput
from gengen.guard import first_nonfinite
from gengen.multi_step import multi_step
from gengen.step import make_train_step
from gengen.types import Variables

from ..cli.options import IDENTITY, OWN, RunOptions
from ..data.dataset import named
from ..data.feed import Feed
from ..data.load import load
from ..experiments.experiment import Experiment
from . import processes, references
from . import record as records
from .checkpoint import Checkpoints
from .devices import (
    Global,
    cache_hits,
    check_batch,
    convolves,
    enable_compilation_cache,
    make_mesh,
    make_view,
    with_axis_name,
)
from .heldout import HeldOut
from .lock import locked
from .pictures import curves
from .record import Record
from .report import Report, Silent, read_rows
from .samples import picture
from .signals import Stop
from .state import initial_state
from .workdir import open_workdir


def compiled_steps(run: RunOptions, step, feed, train_state, data, view, frozen):
    """(compiled `many`, its length, why): the program that all of the run executes."""
    length = 1 if run.steps_per_call is None else run.steps_per_call
    why = ""

    def program(length):
        many = view.mapped(multi_step(step, feed.fetch, length), train_state)
        # As shapes, so that the loss is not traced again for arrays on a mesh.
        feeds = jax.eval_shape(lambda x: x, (data, view.items(feed.example(length))))
        return many, (train_state, *feeds, length, frozen)

    many, arguments = program(length)
    if run.steps_per_call is None:
        on_cpu = jax.default_backend() == "cpu"
        if on_cpu and convolves(jax.make_jaxpr(many)(*arguments)):
            why = " (convolutions on CPU are slow inside a loop)"
        else:
            length = min(50, run.log_every)
            many, arguments = program(length)
    return many.lower(*arguments).compile(), length, why


def next_event(step: int, run: RunOptions, steps: int) -> int:
    """The next step at which something is logged, drawn or saved."""
    every = (run.log_every, run.sample_every, run.checkpoint_every)
    return min([steps, *((step // n + 1) * n for n in every)])


def record_of(run: RunOptions, name: str, options: dict, dataset) -> Record:
    """What a run of experiment `name` is, as it will stand in its workdir."""
    identity = {key: getattr(run, key) for key in IDENTITY}
    if run.on_bad_record != "refuse":
        identity |= {"on_bad_record": run.on_bad_record, "left_out": dataset.left_out}
    identity["examples"] = dataset.size
    # Where each part or device has its own noise, the run is another one.
    identity |= {"accumulate": run.accumulate} if run.accumulate > 1 else {}
    identity |= {"parallel": run.parallel} if run.parallel != "jit" else {}
    return Record(name, options, identity, dataset.spec)


@dataclasses.dataclass(frozen=True)
class Job:
    """What the loop works with."""

    run: RunOptions
    record: Record
    experiment: Experiment
    feed: Feed
    view: Global
    checkpoints: Checkpoints
    report: Report
    frozen: dict[str, Variables]


def train(run: RunOptions, name: str, options: dict) -> Path:
    """Train experiment `name` until its last step; the workdir, complete."""
    processes.start(run)
    with processes.fail_together():
        return _train(run, name, options)


def _train(run: RunOptions, name: str, options: dict) -> Path:
    workdir, first = run.workdir, processes.is_primary()
    asked = {**vars(run), **options, "workdir": str(workdir.absolute())}
    asked = {f"--{k.replace('_', '-')}": v for k, v in asked.items() if k not in OWN}
    processes.same_options({"experiment": name, **asked})
    dataset = load(
        run.dataset,
        data_dir=run.data_dir,
        image_size=run.image_size,
        levels=run.levels,
        on_bad_record=run.on_bad_record,
        length=run.length,
    )
    record = record_of(run, name, options, dataset)
    if first:
        records.refuse_other_run(workdir, record, run.fresh)
    enable_compilation_cache(workdir.parent / ".compiled")
    record = references.asked(record, workdir, run.fresh)
    record, frozen = references.load(record, workdir, open_workdir)
    experiment = record.build()
    mesh = make_mesh(run.mesh)
    view = make_view(run.parallel, mesh)
    check_batch(mesh, experiment.batch_size)
    feed = Feed(
        dataset,
        experiment.batch_size,
        run.seed,
        run.resident_bytes,
        run.workers,
        view.rows(experiment.batch_size),
    )
    batch = dataset.spec.example(experiment.batch_size)
    start = initial_state(experiment, run.seed, batch, mesh)
    step = jax.jit(  # traced once, wherever it is called from
        make_train_step(
            with_axis_name(experiment.model, view.axis_name).losses(),
            experiment.optimizers,
            experiment.order,
            experiment.ema_decay,
            view.axis_name,
            accumulate=run.accumulate,
        )
    )
    # What cannot work fails here, before anything is written.
    if view.axis_name is None:
        jax.eval_shape(step, jax.eval_shape(start), batch, frozen)
    processes.all_gather()
    with contextlib.ExitStack() as held:
        if first:
            if run.fresh:
                records.set_aside(workdir)
            held.enter_context(locked(workdir))
            records.refuse_other_run(workdir, record)  # begun meanwhile
            records.save(workdir, record)
        processes.all_gather()
        if not first:
            see_same_run(workdir, record)
        checkpoints = Checkpoints(workdir, run.keep)
        train_state, notes = start(), []
        if processes.all_gather(checkpoints.latest())[0] is not None:
            train_state, notes = checkpoints.restore(train_state)
        spoken = (
            Report(workdir, int(train_state.step), experiment.steps)
            if first
            else Silent()
        )
        with spoken as report:
            for note in notes:
                report.say(f"note: {note}")
            log_header(report, record, dataset, train_state)
            job = Job(run, record, experiment, feed, view, checkpoints, report, frozen)
            resume_or_finish(job, train_state, step)
        if first:
            summarise(report, workdir, checkpoints)
        processes.all_gather()  # so that none waits long for the others' end
    return workdir


def resume_or_finish(job: Job, train_state, step) -> None:
    """Take the steps that are left, or say that there are none."""
    run, report = job.run, job.report
    done, steps = int(train_state.step), job.experiment.steps
    if done >= steps:
        report.say(
            f"nothing to do: the run is at step {done} of {steps} "
            "(--steps takes it further)"
        )
    elif done > 0 and out_of_time(run, report.seconds):
        report.say(
            f"nothing to do: the run is at step {done} and its {run.minutes:g} "
            "minutes are used up (--minutes takes it further)"
        )
    else:
        with Stop() as stop, contextlib.closing(job.feed):
            run_steps(job, train_state, step, stop)


def see_same_run(workdir: Path, record: Record) -> None:
    """BadInput if the first process's record is not in this one's workdir."""
    if not (workdir / records.FILE).exists() or records.difference(
        records.load(workdir), record
    ):
        raise BadInput(
            f"the run that process 0 has begun is not in {workdir} here: --workdir "
            "must be a folder that all processes share"
        )


def log_header(report: Report, record: Record, dataset, train_state) -> None:
    """What is about to happen."""
    sizes = [f"{k} {_count(v):,}" for k, v in train_state.params.items()]
    device = jax.devices()[0]
    report.say(f"data: {dataset.note}")
    report.say(
        f"model: {record.experiment}; parameters: {', '.join(sizes)}; "
        f"{jax.device_count()} × {device.platform} ({device.device_kind})"
        + (
            f" of {jax.process_count()} processes"
            if processes.is_multiprocess()
            else ""
        )
    )
    if int(train_state.step) > 0:
        report.say(f"resumed from the checkpoint at step {int(train_state.step)}")


def _count(tree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def run_steps(job: Job, train_state, step, stop: Stop) -> None:
    """Steps from the train state's to the experiment's last."""
    run, report, steps = job.run, job.report, job.experiment.steps
    batch_size, model = job.experiment.batch_size, job.experiment.model
    view, data = job.view, job.view.data(job.feed.data)
    frozen = view.frozen(job.frozen)
    done, skipped = int(train_state.step), int(train_state.nonfinite.total_notfinite)
    train_state = job.view.to_program(train_state)
    began = time.perf_counter()
    with cache_hits() as hits:
        many, length, why = compiled_steps(
            run, step, job.feed, train_state, data, view, frozen
        )
    kept = f" (kept in {jax.config.jax_compilation_cache_dir})" if hits else ""
    report.say(
        f"compiled in {time.perf_counter() - began:.1f} s{kept}; "
        f"{length} step{'s' * (length > 1)} a call{why}"
    )
    spec, first = job.record.data, processes.is_primary()
    if first:
        held_out = HeldOut(run, model, spec, batch_size)
        if held_out.left_out:
            report.say(f"note: held-out images: {named(held_out.left_out)}")
        grid = picture(model, spec, run.seed, batch_size, held_out.batches)
    seen, clock, waits = [], time.perf_counter(), Waits()
    while done < steps:
        num = min(length, next_event(done, run, steps) - done)
        with waits.until_computed(train_state):
            items = next_items(job, train_state, done, length, stop)
        train_state, metrics = many(train_state, data, items, num, frozen)
        seen.append((num, view.metrics(metrics)))
        done += num
        if next_event(done - 1, run, steps) == done:
            now = view.from_program(train_state)
            values = mean_metrics(seen)
            skipped = check_finite(job, now, skipped)
            seconds = time.perf_counter() - clock
            if out_of_time(run, report.seconds + seconds) and done < steps:
                report.say(f"{run.minutes:g} minutes of training are over")
                steps = done
        draws = done % run.sample_every == 0 or done == steps
        saves = done % run.checkpoint_every == 0 or done == steps
        if done % run.log_every == 0 or draws:
            shown = view.to_host(now) if draws else None
            if draws:  # what the train state does not hold
                state = {**shown.state, "frozen": job.frozen}
                shown = shown.replace(state=state)
            values |= held_out(shown) if draws and first else {}
            taken = sum(num for num, _ in seen)
            report.metrics(done, values, taken, seconds, waits.share(taken, seconds))
            seen, clock = [], time.perf_counter()
        else:
            report.advance(done)
        pause = time.perf_counter()
        if draws and first:
            path = run.workdir / "samples" / f"step_{done:08d}{grid.suffix}"
            with report.surviving(path):
                report.picture(done, grid.save(path, shown))
        if done == steps and first:
            last = run.workdir / f"samples{grid.suffix}"
            with report.surviving(last):
                grid.save(last, shown)
        if saves:  # at last: what comes before a saved step never comes again
            save(job, now, last=done == steps)
        clock += time.perf_counter() - pause
    if not job.feed.resident and (sentence := waits.told(batch_size, run.workers)):
        report.say(f"note: {sentence}")


class Waits:
    """How long the steps waited for data.

    Waiting counts if the devices had nothing left to compute when it ended: what is
    read while they compute costs nothing.
    """

    def __init__(self):
        self._seconds, self._shares = 0.0, []  # since the last share; all of them

    @contextlib.contextmanager
    def until_computed(self, train_state):
        began = time.perf_counter()
        yield
        if train_state.step.is_ready():
            self._seconds += time.perf_counter() - began

    def share(self, num: int, seconds: float) -> float:
        """The share of the `seconds` of the last `num` steps; begins the next."""
        waited, self._seconds = min(self._seconds, seconds), 0.0
        self._shares.append((num, seconds, waited))
        return waited / seconds

    def told(self, batch_size: int, workers: int) -> str:
        """A sentence if more than a tenth of the time went into waiting; else ""."""
        # Before the first interval's end there is nothing to read ahead behind.
        num, seconds, waited = np.sum(self._shares[1:] or self._shares, axis=0)
        if waited <= 0.1 * seconds:
            return ""
        return (
            f"{waited / seconds:.0%} of the time went into waiting for data, "
            f"{batch_size * num / seconds:,.0f} images/s: --workers "
            f"{2 * workers or 1} reads in {'more' if workers else 'other'} processes"
        )


def save_and_exit(job: Job, train_state, asked: signal.Signals) -> None:
    """Save and exit as asked; the same command goes on."""
    save(job, train_state)
    kept = job.checkpoints.latest()
    where = "nothing was saved yet" if kept is None else f"saved at step {kept}"
    job.report.say(f"{asked.name}: {where}; the same command goes on")
    sys.exit(Stop.STATUS[asked])


def save(job: Job, train_state, last: bool = False) -> None:
    """Save a good state; a disk that cannot take it ends the run at its end only."""
    if int(train_state.nonfinite.consecutive_notfinite):
        return  # it may be what made the last steps fail
    if reason := job.checkpoints.save(train_state):
        kept = job.checkpoints.latest()
        stays = "nothing is saved yet" if kept is None else f"step {kept} stays saved"
        sentence = (
            f"step {int(train_state.step)} could not be saved in "
            f"{job.checkpoints.folder} ({reason}): free space there; {stays}"
        )
        if last:
            raise BadInput(f"{sentence}, and the same command goes on from it")
        job.report.say(f"note: {sentence}, training goes on")


def out_of_time(run: RunOptions, seconds: float) -> bool:
    """Whether `--minutes` are used up, by the first process's clock."""
    if run.minutes is None:
        return False
    return processes.all_gather(seconds >= 60 * run.minutes)[0]


def next_items(job: Job, train_state, done: int, length: int, stop: Stop):
    """The next items on the devices.

    If one process is asked to stop, all leave; on unreadable data, what was learnt is
    saved first.
    """
    items, unreadable = None, None
    try:
        items = job.feed.items(done, length)
    except BadInput as error:
        unreadable = str(error)
    asked, unreadable = zip(
        *processes.all_gather([stop.asked and int(stop.asked), unreadable]), strict=True
    )
    if sentences := list(filter(None, unreadable)):
        save(job, job.view.from_program(train_state))
        raise BadInput(sentences[0])
    if signals := list(filter(None, asked)):
        save_and_exit(
            job, job.view.from_program(train_state), signal.Signals(signals[0])
        )
    return job.view.items(items)


def mean_metrics(seen: list) -> dict[str, float]:
    """The mean over steps of metrics that are means over `num` steps each.

    A player's own are means over its turns that were not skipped; without any, none.
    """
    nums = np.array([num for num, _ in seen])
    rows = jax.device_get([metrics for _, metrics in seen])
    means = {
        name: float(np.average([row[name] for row in rows], weights=nums))
        for name in rows[0]
    }
    values = {}
    for name, mean in means.items():
        player, _, metric = name.partition("/")
        played = 1.0 - means[f"{player}/skipped"]
        if metric == "skipped":
            values |= {name: mean} if mean else {}
        elif played:
            values[name] = mean / played
    return values


def check_finite(job: Job, train_state, before: int) -> int:
    """Turns skipped so far, told if there are new ones; BadInput if too many in a row.

    A skipped turn changed nothing, so what was saved before stays good.
    """
    turns, in_a_row = (
        int(train_state.nonfinite.total_notfinite),
        int(train_state.nonfinite.consecutive_notfinite),
    )
    if turns == before:
        return turns
    name = first_nonfinite(train_state, job.record.data.example(1))
    last = int(train_state.step) == job.experiment.steps
    if in_a_row < (1 if last else job.run.max_skipped):
        job.report.say(
            f"note: {turns - before} turns up to step {int(train_state.step)} were "
            f"skipped: {name} was not finite"
        )
        return turns
    last = job.checkpoints.latest()
    kept = "" if last is None else f" (the checkpoint of step {last} stays)"
    raise BadInput(
        f"{name} was not finite in {in_a_row} steps in a row up to step "
        f"{int(train_state.step)}, so training diverged: try a smaller "
        f"--learning-rate in another --workdir{kept}"
    )


def summarise(report: Report, workdir: Path, checkpoints) -> None:
    """Where everything is."""
    written = workdir / "samples.txt"
    rows = [("samples", written if written.exists() else workdir / "samples.png")]
    if seen := read_rows(report.file):
        with report.surviving(workdir / "curves.png"):
            rows.append(("curves", curves(seen, workdir / "curves.png")))
    rows.append(("metrics", report.file))
    step = checkpoints.latest()
    rows.append(("checkpoint", checkpoints.folder / str(step)))
    rows.append(("tensorboard", workdir / "tensorboard"))
    for what, where in rows:
        report.say(f"{what:>11}  {where}")
