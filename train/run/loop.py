"""The only training loop: a record and a workdir in, a trained model out.

1. Refuse what cannot work: another run in the workdir, options, batch size.
2. The data set, the model's first state, or the last checkpoint's.
3. Compile (compile.py), then the steps (steps.py): metrics, pictures, checkpoints.
4. Say where everything is (finish.py).
"""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from gengen.errors import BadInput

from ..cli.options import IDENTITY, OWN, RunOptions
from ..data.dataset import Dataset
from ..data.digest import change
from ..data.feed import Feed
from ..data.load import load
from ..experiments.experiment import Experiment
from . import initial, processes
from . import record as records
from .best import check_metric
from .budget import Budget
from .cache import enable_compilation_cache
from .checkpoint import Checkpoints
from .compile import make_step
from .devices import check_batch, make_mesh, make_view
from .evaluators import Evaluator, own_evaluators
from .finish import summarise
from .first_stage import Stage, prepared, staged
from .job import Job
from .lock import locked
from .record import Record
from .report import Report, Silent
from .same import difference, refuse_other_run
from .signals import Stop
from .state import InitialState
from .steps import run_steps

LoadSplit = Callable[[str], Dataset]
MoreEvaluators = Callable[[Record, Any, LoadSplit], list[Evaluator]]


def train(
    run: RunOptions,
    name: str,
    options: dict,
    more: MoreEvaluators | None = None,
) -> Path:
    """Train experiment `name` until its last step; the workdir, complete.

    Args:
        run: the options of every run.
        name: the experiment's.
        options: its keywords.
        more: `more(record, model, load_split)` are evaluators beside the run's own,
            which are a figure of held-out data and a picture; called late.
    """
    processes.start(run)
    with processes.fail_together():
        asked = {**vars(run), **options, "workdir": str(run.workdir.absolute())}
        asked = {
            f"--{k.replace('_', '-')}": v for k, v in asked.items() if k not in OWN
        }
        processes.same_options({"experiment": name, **asked})
        load_split = splits_of(run)
        record = record_of(run, name, options, load_split("train"))
        stage = staged(run, record, load_split("train"))
        experiment = stage.build()
        return run_experiment(run, stage, experiment, load_split, more)


def splits_of(run: RunOptions) -> LoadSplit:
    """`load_split(split)` of the run's data set; each is loaded once."""
    reader = records.reader_of(run.workdir, run.fresh)

    @functools.cache
    def load_split(split: str) -> Dataset:
        return load(
            run.dataset,
            split=split,
            data_dir=run.data_dir,
            image_size=run.image_size,
            levels=run.levels,
            on_bad_record=run.on_bad_record,
            length=run.length,
            reader=reader,
        )

    return load_split


def record_of(run: RunOptions, name: str, options: dict, dataset) -> Record:
    """What a run of experiment `name` is, as it will stand in its workdir."""
    identity = {key: getattr(run, key) for key in IDENTITY}
    if run.on_bad_record != "refuse":
        identity |= {"on_bad_record": run.on_bad_record, "left_out": dataset.left_out}
    identity["examples"] = dataset.size
    if {"folder", "text"} & set(run.dataset.split(":")[:-1]):
        reader = records.reader_of(run.workdir, run.fresh)
        identity |= {"reader": reader} if reader > 1 else {}
    identity |= identity_of(run)
    return Record(name, options, identity, dataset.spec)


def identity_of(run: RunOptions) -> dict:
    """What makes a run another one although data and model are the same.

    Each part or device has its own noise. What is as by default does not stand in a
    record, so that old records are those of the same runs.
    """
    identity = {"augment": run.augment} if run.augment else {}
    identity |= {"accumulate": run.accumulate} if run.accumulate > 1 else {}
    return identity | ({"parallel": run.parallel} if run.parallel != "jit" else {})


def run_experiment(
    run: RunOptions,
    stage: Stage,
    experiment: Experiment,
    load_split: LoadSplit,
    more: MoreEvaluators | None = None,
) -> Path:
    """Train an experiment in `run.workdir` until its last step; the workdir, complete.

    Args:
        run: the options of every run; what it says of the data set is not read.
        stage: what the run is, as it will stand in its workdir, and its first stage.
        experiment: what is trained.
        load_split: the data set of "train", "validation" or "test"; BadInput with
            `no_such_split` where there is none.
        more: as of `train`.
    """
    workdir, primary = run.workdir, processes.is_primary()
    stage = prepared(stage, experiment, run.seed)
    record = records.with_digests(stage.record, load_split)
    record, arrays = initial.asked(record, run.init_from, workdir, run.fresh)
    if primary:
        refuse_other_run(workdir, record, run.fresh)
    if (note := enable_compilation_cache()) and primary:
        print(f"note: {note}")
    dataset, frozen, mesh = stage.dataset, stage.frozen, make_mesh(run.mesh)
    view = make_view(run.parallel, mesh)
    check_batch(mesh, experiment.batch_size)
    feed = feed_of(run, dataset, experiment.batch_size, view)
    batch = dataset.spec.example(experiment.batch_size)
    start = InitialState(experiment, run.seed, batch, mesh)
    step = make_step(run, experiment, view, dataset.spec)
    # What cannot work fails here, before anything is written.
    if view.axis_name is None:
        jax.eval_shape(step, start.abstract, batch, frozen)
    arrays, said = initial.matched(start.shapes, arrays, run.init_from)
    arrays = arrays or initial.of_teacher(experiment, frozen)
    evaluators = own_evaluators(run, record, experiment, load_split)
    evaluators += more(record, experiment.model, load_split) if more else []
    check_metric(run.keep_best, evaluators)
    processes.all_gather()
    with begun(run, record):
        checkpoints = Checkpoints(workdir, run.keep, record)
        train_state, notes = first_state(start, checkpoints, arrays)
        arguments = (workdir, int(train_state.step), experiment.steps)
        with Report(*arguments) if primary else Silent() as report:
            for note in said + notes:
                report.say(f"note: {note}")
            log_header(report, record, dataset, train_state)
            report.options({**vars(run), **record.options})
            job = Job(run, record, experiment, feed, view, checkpoints, report, frozen)
            resume_or_finish(job, train_state, step, evaluators)
        if primary:
            summarise(report, workdir, checkpoints, experiment.model)
        processes.all_gather()  # so that none waits long for the others' end
    return workdir


def feed_of(run: RunOptions, dataset: Dataset, batch_size: int, view) -> Feed:
    """The batches of every step, of which this process reads its own rows."""
    return Feed(
        dataset,
        batch_size,
        run.seed,
        run.resident_bytes,
        run.workers,
        view.rows(batch_size),
    )


@contextlib.contextmanager
def begun(run: RunOptions, record: Record):
    """The workdir, locked by the first process, with the record in it."""
    workdir = run.workdir
    with contextlib.ExitStack() as held:
        if primary := processes.is_primary():
            if run.fresh:
                records.set_aside(workdir)
            held.enter_context(locked(workdir))
            refuse_other_run(workdir, record)  # begun meanwhile
            records.save(workdir, record)
        processes.all_gather()
        if not primary:
            see_same_run(workdir, record)
        yield


def first_state(
    start: InitialState, checkpoints: Checkpoints, arrays: dict | None
) -> tuple:
    """(the train state to go on from, notes): the last checkpoint's, if any."""
    if processes.all_gather(checkpoints.latest())[0] is None:
        return initial.started(start(), arrays), []
    return checkpoints.restore(start.abstract)


def resume_or_finish(job: Job, train_state, step, evaluators) -> None:
    """Take the steps that are left, or say that there are none."""
    run, report = job.run, job.report
    done, steps = int(train_state.step), job.experiment.steps
    if done > steps:
        report.say(
            f"nothing to do: the run is at step {done}, beyond --steps {steps}, and "
            "stays as it is"
        )
    elif done == steps:
        report.say(
            f"nothing to do: the run is at step {done} of {steps} "
            "(--steps takes it further)"
        )
    elif done > 0 and Budget(run.minutes).is_over(report.seconds):
        report.say(
            f"nothing to do: the run is at step {done} and its {run.minutes:g} "
            "minutes are used up (--minutes takes it further)"
        )
    else:
        with Stop() as stop, contextlib.closing(job.feed):
            run_steps(job, train_state, step, evaluators, stop)


def see_same_run(workdir: Path, record: Record) -> None:
    """BadInput if the first process's record is not in this one's workdir."""
    there = (workdir / records.FILE).exists() and records.load(workdir)
    if (
        not there
        or difference(there, record)
        or change(there.digests, record.digests, record.data.examples)
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
