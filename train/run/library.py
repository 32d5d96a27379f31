"""Training and trained runs as Python: `fit` on arrays, `open_run` on a folder.

    run = open_run("runs/flow-digits")
    run.sample(16, label=3)                       # uint8 [16, 8, 8, 1]

    run = fit(model, {"image": images, "label": labels}, workdir="runs/mine", steps=500)
    run = open_run("runs/mine", model=model)

A model is any value with `init` and `losses` (`gengen.types.Model`), of gengen or of
one's own; with `sample` it is drawn while it trains.
"""

import dataclasses
import inspect
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_type_hints

import jax
import numpy as np

from gengen.errors import BadInput
from gengen.step import TrainState, check_by_player

from ..cli.bounds import check_numbers
from ..cli.near import did_you_mean
from ..cli.options import RunOptions
from ..data.arrays import Arrays, from_arrays
from ..data.dataset import Dataset
from ..experiments.experiment import Experiment
from ..experiments.training import OptimizerOptions, TrainingOptions
from . import processes
from . import record as records
from .checkpoint import Checkpoints
from .description import describe, describe_optimizers
from .digests import leaf_names, with_leaves
from .first_stage import Stage
from .loop import identity_of, run_experiment
from .record import FIT, Record, fits
from .workdir import OpenRun, open_workdir

# The options that say where data are, and the figure that the program alone makes.
_NO_OPTIONS = {"dataset", "data_dir", "image_size", "length", "on_bad_record"}
_NO_OPTIONS |= {"evaluate_every", "first_stage", "perceptual", "teacher"}


def fit(
    model: Any,
    arrays: Arrays,
    *,
    workdir: str | Path,
    steps: int = 1_000,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    optimizers: Mapping[str, Any] | None = None,
    order: tuple[str, ...] | None = None,
    ema_decay: float | None = 0.999,
    held_out: Arrays | Mapping[str, Arrays] | None = None,
    levels: int | None = None,
    seed: int = 0,
    **options,
) -> OpenRun:
    """Train a model on arrays: the loop and the files of `python -m train`.

    The same call resumes a run that was interrupted, bit for bit, and opens one that is
    finished; with a larger `steps` it goes on. Another model, other arrays or another
    optimiser are refused by name.

    Args:
        model: a value with `init(key, batch) -> (params, state)` and `losses() ->
            {player: loss}`, and to be drawn `sample(params, state, key, num,
            start_index=0, **condition)`: of gengen, or of your own.
        arrays: what it is trained on, {"image": uint8 [N, H, W, C], "label": [N]}, or
            tokens, codes or latent (`train.data.arrays`).
        workdir: the folder for checkpoints, metrics and pictures.
        steps: training steps in all.
        batch_size: examples per step.
        learning_rate: of Adam with clipping and warm-up, where no optimisers are given.
            Its other options are keywords too: optimizer, rate_schedule, warmup, ….
        optimizers: one of optax per player, such as {"vae": optax.adam(1e-3)}.
        order: the turns of one step; by default each player once.
        ema_decay: of the averaged parameters; None for no average.
        held_out: arrays that are not trained on, for the figure while it trains; also
            {"validation": …, "test": …}.
        levels: of the pixels or symbols.
        seed: of the initial parameters, the order of the data and all noise.
        options: an option of `python -m train` by its name, such as log_every=50; not
            those of data sets, and none of evaluate_every, first_stage, perceptual and
            teacher.

    Returns:
        The run, open, at its last step.
    """
    check_model(model)
    workdir, own = folder(workdir), set(options)
    options |= {"steps": steps, "batch_size": batch_size, "ema_decay": ema_decay}
    options |= {"learning_rate": learning_rate, "seed": seed, "workdir": workdir}
    run, training = split_keywords(options)
    if optimizers is not None:
        refuse_optimizer_options(own, learning_rate)
    load_split = from_arrays(arrays, held_out=held_out, levels=levels)
    experiment = training.experiment(model, *model.losses())
    if optimizers is not None:
        check_by_player(optimizers)
        changes = {"optimizers": optimizers, "learning_rate": None}
        experiment = dataclasses.replace(experiment, **changes)
    experiment = dataclasses.replace(experiment, order=order)
    record = record_of(run, experiment, load_split("train"))
    processes.start(run)
    with processes.fail_together():
        try:
            stage = Stage(record, {}, {}, load_split("train"))
            run_experiment(run, stage, experiment, load_split)
        except SystemExit as stop:
            if stop.code != 128 + signal.SIGINT:
                raise
            raise KeyboardInterrupt("saved; the same call goes on") from stop
    opened = open_run(run.workdir, model)
    return dataclasses.replace(opened, experiment=experiment, load_split=load_split)


def folder(workdir: Any) -> Path:
    """The path of a run's folder; BadInput for what is none."""
    if not isinstance(workdir, str | os.PathLike):
        raise BadInput(
            f"workdir={workdir!r} is of type {type(workdir).__name__}: give a folder's "
            "path"
        )
    return Path(workdir)


def refuse_optimizer_options(options: set[str], learning_rate: float) -> None:
    """BadInput for an option of the optimiser beside optimisers that were given."""
    usual = inspect.signature(fit).parameters["learning_rate"].default
    known = {f.name for f in dataclasses.fields(OptimizerOptions)}
    given = sorted(known & options)
    given += ["learning_rate"] if learning_rate != usual else []
    if given:
        raise BadInput(
            f"{given[0]} beside optimizers: it would do nothing, so build it into the "
            "optimisers, or leave them out"
        )


def split_keywords(options: dict[str, Any]) -> tuple[RunOptions, TrainingOptions]:
    """The options of the run and of training; BadInput for an unknown one."""
    kinds = (RunOptions, TrainingOptions)
    known = [{f.name for f in dataclasses.fields(kind)} - _NO_OPTIONS for kind in kinds]
    for name in options:
        if name not in known[0] | known[1]:
            every = sorted(known[0] | known[1])
            raise BadInput(
                f"fit has no keyword {name}{did_you_mean(name, every)}: it takes "
                f"{', '.join(every)}"
            )
    hints = get_type_hints(RunOptions) | get_type_hints(TrainingOptions)
    hints["ema_decay"] = float | None
    options = {name: plain(value) for name, value in options.items()}
    for name, value in options.items():
        if not fits(value, hints[name]) and not isinstance(value, Path):
            hint = hints[name]
            kind = hint.__name__ if isinstance(hint, type) else str(hint)
            kind = kind.replace("typing.Literal", "one of ")
            raise BadInput(f"{name}={value!r}: it must be {kind}")
    chosen = [{k: v for k, v in options.items() if k in names} for names in known]
    values = RunOptions(dataset="arrays", **chosen[0]), TrainingOptions(**chosen[1])
    for value in values:
        check_numbers(value)
    return values


def plain(value: Any) -> Any:
    """A number of NumPy's as Python's, a list as a tuple."""
    if isinstance(value, np.generic):
        return value.item()
    return tuple(value) if isinstance(value, list) else value


def check_model(model: Any) -> None:
    """BadInput for a value that is no model."""
    if isinstance(model, type):
        raise BadInput(
            f"{model.__name__} is a class: give a model, {model.__name__}(…)"
        )
    for name in ("init", "losses"):
        if not callable(getattr(model, name, None)):
            raise BadInput(
                f"a {type(model).__name__} has no method {name}: a model has init and "
                "losses (gengen.types.Model)"
            )
    if hasattr(model, "sample"):
        takes = inspect.signature(model.sample).parameters
        if "start_index" not in takes and not any(
            p.kind is p.VAR_KEYWORD for p in takes.values()
        ):
            raise BadInput(
                f"the method sample of {type(model).__name__} takes no start_index: "
                "add start_index=0, the number of the first sample, so that sample i "
                "depends on (key, i) only"
            )


def record_of(run: RunOptions, experiment: Experiment, dataset: Dataset) -> Record:
    """What a run of `fit` is, as it will stand in its workdir."""
    batch = dataset.spec.example(experiment.batch_size)
    params, _ = jax.eval_shape(experiment.model.init, jax.random.key(0), batch)
    if missing := params.keys() ^ experiment.optimizers.keys():
        raise BadInput(f"players {sorted(missing)} lack parameters or an optimiser")
    said = describe(experiment.model)
    said |= describe_optimizers(experiment.optimizers, params)
    names = ("order", "ema_decay", "batch_size", "steps")
    keywords = {name: getattr(experiment, name) for name in names}
    identity = {"dataset": run.dataset, "seed": run.seed, "examples": dataset.size}
    identity |= identity_of(run)
    return Record(FIT, keywords, identity, dataset.spec, description=said)


def open_run(
    workdir: str | Path,
    model: Any = None,
    *,
    step: int | Literal["best"] | None = None,
) -> OpenRun:
    """The run in a folder, with its model and a checkpoint's arrays.

    Args:
        workdir: the run's folder.
        model: of a run that `fit` trained, the same model; else None.
        step: the step of the checkpoint; None for the last one, "best" for the best.

    Raises:
        BadInput: if there is no run, it cannot be read, or the model is another.
    """
    workdir = folder(workdir)
    record = records.load(workdir)
    if record.experiment != FIT:
        if model is not None:
            raise BadInput(
                f"{workdir} holds a {record.experiment}, whose record says its model: "
                "leave model out"
            )
        return open_workdir(workdir, step)
    if model is None:
        record.build()  # says how
    check_same_model(workdir, record, model)
    return _open_fit(workdir, record, model, step)


def check_same_model(workdir: Path, record: Record, model: Any) -> None:
    """BadInput that names the first field in which the model is another one."""
    said, old = describe(model), record.description
    old = {k: v for k, v in old.items() if k.partition(".")[0] == "model"}
    for name in old | said:
        if old.get(name) != said.get(name):
            raise BadInput(
                f"{workdir} was trained with {name} {old.get(name)}, not "
                f"{said.get(name)}: give the model that it was trained with"
            )


def _open_fit(workdir: Path, record: Record, model: Any, step) -> OpenRun:
    step, tree = Checkpoints(workdir).raw(step)
    batch_size = record.options["batch_size"]
    batch = record.data.example(batch_size)
    params, state = jax.eval_shape(model.init, jax.random.key(0), batch)

    def like(template, saved):
        return with_leaves(template, leaf_names(saved))

    averaged = like(params, tree["ema"]) if tree["ema"] is not None else None
    live, state = like(params, tree["params"]), like(state, tree["state"])
    key = jax.random.key(record.data_options["seed"])
    train_state = TrainState(
        step, key, live, state, tree["opt_state"], averaged, tree["nonfinite"]
    )
    steps, decay = record.options["steps"], record.options["ema_decay"]
    return OpenRun(
        workdir,
        record,
        Experiment(model, {}, batch_size, steps, decay),
        step,
        live if averaged is None else averaged,
        {**state, "frozen": {}},
        train_state,
    )
