"""A run under every combination of options of its training: each is another run."""

import contextlib
import io
import itertools
from pathlib import Path
from typing import Any, get_type_hints

import tyro

from gengen.errors import BadInput
from gengen.types import draws

from .. import experiments
from ..cli.bounds import check_numbers, check_values
from ..cli.command import options_class
from ..cli.doors import command
from ..cli.near import did_you_mean
from ..cli.options import IDENTITY, RunOptions
from ..files import write_json
from ..run import record as records
from ..run.loop import splits_of
from ..run.record import Record
from ..run.references import places_of
from .extractors import default_name, extractor_if_any
from .options import Evaluate
from .sampler_sweep import check_out, lists
from .series import Member, budget_used, measure_all
from .sweep_table import number, show


def sweep_training(options) -> dict[str, Any]:
    """Train, measure, print, and write all metrics, which are returned."""
    folder = options.workdir.with_name(f"{options.workdir.name}-sweep")
    out = options.out or folder / "sweep.json"
    check_out(out)
    if others := lists(options):
        raise BadInput(
            f"--train and --{next(iter(others)).replace('_', '-')}: sweep over "
            "training first, and then over the sampler of the best run"
        )
    check_numbers(options)
    record = records.load(options.workdir)
    values = training_values(options.train, record)
    points = product(values)
    members = [member_of(point, record, out.parent, options) for point in points]
    dataset = splits_of(members[0].run)("train")
    models = [member.check(dataset) for member in members]
    most = "" if options.minutes is None else f", or {options.minutes:g} minutes each"
    steps = sorted({member.keywords["steps"] for member in members})
    print(f"data: {dataset.note}")
    print(
        f"cost: {len(members)} runs of {record.experiment}, each trained for at most "
        f"{' or '.join(f'{n:,}' for n in steps)} steps{most}, then measured; into "
        f"{out.parent}"
    )
    extractor = None
    if draws(models[0]):
        where = (options.extractor, options.workdir, record, options.data_dir)
        extractor = extractor_if_any(*where)
    results, failed = measure_all(members, extractor)
    settings = {m.name: point for m, point in zip(members, points, strict=True)}
    result = {
        "experiment": record.experiment,
        "dataset": record.data_options["dataset"],
        "num": options.num,
        "seed": options.seed,
        "extractor": extractor and extractor.name,
        "points": [point_of(settings[name], each) for name, each in results.items()],
        "failed": failed,
        "used": budget_used(results, options.minutes),
    }
    if floor := next(iter(results.values())).get("noise_floor"):
        result["noise_floor"] = floor
    write_json(out, result)
    show(result, values, out)
    return result


def point_of(settings: dict[str, Any], evaluation: dict[str, Any]) -> dict[str, Any]:
    """A point of the sweep, from the evaluation of its run."""
    kept = ("sample_quality", "class_accuracy", "seconds_per_sample", "step")
    kept += ("network_evaluations", "training_seconds")
    point = {name: evaluation[name] for name in kept if name in evaluation}
    point |= {f"modes_{k}": v for k, v in evaluation.get("modes", {}).items()}
    for name in ("bits_per_dim", "bits_per_byte", "rate", "distortion", "accuracy"):
        of_split = evaluation.get(name, {})
        for split in ("test", "validation", "train"):
            if split in of_split:
                point[name] = of_split[split]["value"]
                point["split"] = split
                break
    for name in ("mig", "sap"):
        if gap := evaluation.get("disentanglement", {}).get(name):
            point[name] = gap["value"]
    return {"options": settings, **point}


def product(values: dict[str, tuple]) -> list[dict[str, Any]]:
    """Every combination of the values."""
    combinations = itertools.product(*values.values())
    return [dict(zip(values, each, strict=True)) for each in combinations]


def member_of(point: dict, record: Record, folder: Path, options) -> Member:
    """The run with these options of its training, and how it is evaluated."""
    name = ",".join(f"{k}={number(v)}".replace("/", "-") for k, v in point.items())
    same = (*IDENTITY, "on_bad_record", "accumulate", "augment", "parallel")
    shared = {k: record.data_options[k] for k in same if k in record.data_options}
    shared |= {k: v for k, v in point.items() if k == "seed"}
    run = RunOptions(
        workdir=folder / name,
        **places_of(record, options.workdir),
        data_dir=options.data_dir,
        minutes=options.minutes,
        **shared,
    )
    keywords = record.options | {k: v for k, v in point.items() if k != "seed"}
    extractor = options.extractor
    if extractor is None and record.data.num_classes:
        # One for all, beside the run that is varied.
        extractor = options.workdir.absolute().parent / default_name(record)
    evaluation = Evaluate(
        workdir=run.workdir,
        num=options.num,
        likelihood_num=options.likelihood_num,
        seed=options.seed,
        extractor=extractor,
        batch_size=options.batch_size,
        data_dir=options.data_dir,
    )
    return Member(name, run, record.experiment, keywords, evaluation)


# ------------------------------------------------------------- what is asked


def training_values(settings: tuple[str, ...], record: Record) -> dict[str, tuple]:
    """{option: its values} of ("learning_rate=1e-3,3e-4", …), of their types.

    The options are the experiment's, and the seed.
    """
    values, known = {}, (*record.options, "seed")
    made = options_class(experiments.EXPERIMENTS[record.experiment])
    bounds = get_type_hints(made, include_extras=True)
    for setting in settings:
        given, equals, texts = setting.partition("=")
        name = given.strip().lstrip("-").replace("-", "_")
        if not equals or not texts:
            raise BadInput(
                f"--train {setting}: write NAME=VALUE,VALUE, as in "
                "learning_rate=1e-3,3e-4"
            )
        if name not in known:
            raise BadInput(
                f"--train {setting}: {record.experiment} has no option {given}"
                f"{did_you_mean(name, known)}; {command(record.experiment)} "
                "--help lists all"
            )
        if name in values:
            raise BadInput(f"--train {setting}: {name} is listed twice")
        parsed = (parse_value(name, text, record) for text in texts.split(","))
        values[name] = tuple(dict.fromkeys(parsed))
        for value in values[name]:
            check_values({name: value}, bounds)
    return values


def parse_value(name: str, text: str, record: Record):
    """A value as the experiment's own command line reads it."""
    function = experiments.EXPERIMENTS[record.experiment]
    made = options_class(function, experiments.DATASETS.get(record.experiment))
    option, words = f"--{name.replace('_', '-')}", text.split()
    if words in (["True"], ["False"], ["true"], ["false"]):
        flag = option if words[0].lower() == "true" else f"--no-{option[2:]}"
        option, words = flag, []
    try:
        arguments = ["--workdir", "unused", option, *words]
        with contextlib.redirect_stderr(io.StringIO()):  # tyro's own sentences
            parsed = tyro.cli(made, args=arguments, console_outputs=False)
    except SystemExit:
        raise BadInput(
            f"--train {name}={text}: {text!r} is no value of it; "
            f"{command(record.experiment)} --help says which are"
        ) from None
    return getattr(parsed, name)
