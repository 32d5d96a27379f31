"""A run's samples under every combination of its sampler's options."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

from gengen.errors import BadInput
from gengen.types import draws

from ..cli.bounds import check_numbers
from ..files import finite_or_null, write_json
from ..run.digests import digest_of
from ..run.guides import guided
from ..run.guides import identity as guides_identity
from ..run.sampler import as_keywords, calls_of, check_options, keywords_of
from ..run.workdir import open_workdir
from .evaluation import check as check_evaluation
from .features import alone, empty
from .options import Evaluate
from .quality import NO_LABELS, Quality, Reference, find_extractor
from .sweep_table import AXES, metrics_in_words, show, words


def sweep_sampler(options) -> dict[str, Any]:
    """Measure, print, and write all metrics, which are returned."""
    base, out = evaluation(options), options.out or options.workdir / "sweep.json"
    check(options, base, out)
    trained = open_workdir(options.workdir, options.step)
    scales = options.classifier_scale[:1] or (None,)  # refused without a classifier
    trained = guided(trained, dataclasses.replace(base, classifier_scale=scales[0]))
    refuse_unmeasurable(trained, options)
    selected = points(trained.model, lists(options))
    splits = {"train": trained.dataset("train", options.data_dir)}
    part = out.with_suffix(".part")
    qualities = [
        Quality(trained, splits, dataclasses.replace(base, **point), part)
        for point in selected
    ]
    print(cost([quality.calls for quality in qualities], options.num))
    out.parent.mkdir(parents=True, exist_ok=True)  # before the work
    extractor = find_extractor(trained, base)
    result = read_sweep(out, identity(trained, extractor, options))
    with alone(part):
        measure(result, selected, qualities, extractor, out)
    empty(part)
    result["points"] = [measured_point(result, point) for point in selected]
    show(result, lists(options), out)
    return result


def cost(calls: list[int | None], num: int) -> str:
    """What will be done, in words."""
    known = [n for n in calls if n is not None]
    each = f"{min(known)} to {max(known)}" if len(known) == len(calls) else "unknown"
    return (
        f"cost: {len(calls)} points of {num:,} samples, of {each} network evaluations "
        f"each: {num * sum(known):,} in all that are known"
    )


def measure(
    result: dict, selected: list[dict], qualities: list, extractor, out: Path
) -> None:
    """Add the points that are missing, each of which is saved at once."""
    num = len(selected)
    missing = [i for i in range(num) if not measured_point(result, selected[i])]
    if len(missing) < num:
        print(f"{num - len(missing)} of {num} points are there: {out}")
    if missing:
        first = qualities[missing[0]]
        reference = Reference(extractor, first.splits["train"], first.options.seed)
        result["noise_floor"] = reference.noise_floor()
    for i in missing:
        quality, of = qualities[i], f"point {i + 1} of {num}"
        calls = f"{quality.calls} network evaluations per sample"
        print(f"{of}: {words(selected[i])}; {calls}")
        measured, _ = quality.against(reference, tell=i == missing[0])
        point = {
            "options": selected[i],
            "network_evaluations": quality.calls,
            "batch_size": quality.sampler.batch_size,
            **measured,
        }
        result["points"].append(point)
        write_json(out, result)
        print(f"  {metrics_in_words(point)}")


def evaluation(options) -> Evaluate:
    """How every point is evaluated, its own options aside."""
    names = ("workdir", "step", "num", "seed", "extractor", "batch_size", "data_dir")
    names += ("guide", "classifier")
    return Evaluate(**{name: getattr(options, name) for name in names})


def lists(options) -> dict[str, tuple]:
    """{option: its values} of what is swept."""
    return {name: getattr(options, name) for name in AXES if getattr(options, name)}


def identity(trained, extractor, options) -> dict[str, Any]:
    """What all points of a file have in common."""
    return {
        "experiment": trained.record.experiment,
        "dataset": trained.record.data_options["dataset"],
        "step": trained.step,
        "weights": digest_of(trained.params),
        "extractor": extractor.name,
        "num": options.num,
        "seed": options.seed,
        "guides": guides_identity(trained),
    }


# ------------------------------------------------------------- what is asked


def check(options, base: Evaluate, out: Path) -> None:
    """BadInput for what no sweep can have."""
    check_evaluation(base)
    check_numbers(options)
    if not lists(options):
        raise BadInput(
            "nothing to sweep: list values, as in --evaluations 5 10 20 50, or in "
            "--train learning_rate=1e-3,3e-4"
        )
    if options.steps and options.evaluations:
        raise BadInput("--steps and --evaluations both say how many: leave one out")
    if options.minutes is not None:
        raise BadInput(
            f"--minutes {options.minutes:g}: nothing is trained without --train; "
            "leave it out"
        )
    check_out(out)


def check_out(out: Path) -> None:
    """BadInput for another kind of file."""
    if out.suffix != ".json":
        raise BadInput(f"--out {out}: end it in .json")


def refuse_unmeasurable(trained, options) -> None:
    """BadInput for a run without samples to measure, or without steps to sweep."""
    data, model = trained.record.data, trained.model
    data.images_only("train.sweep")
    if not draws(model):
        raise BadInput(
            f"--workdir {options.workdir}: this {type(model).__name__} draws no "
            "samples; take the run of a generative model"
        )
    if options.extractor is None and not data.num_classes:
        raise BadInput(NO_LABELS.format(data.name))
    for name in ("evaluations", "steps"):
        if getattr(options, name) and "steps" not in keywords_of(model):
            raise BadInput(
                f"--{name}: a {type(model).__name__}'s sampler has no steps to sweep; "
                "leave it out"
            )


def points(model, values: dict[str, tuple]) -> list[dict]:
    """The product of the lists, each point once; evaluations become steps."""
    result = []
    for combination in itertools.product(*reversed(values.values())):
        point = dict(zip(reversed(values), combination, strict=True))
        evaluations = point.pop("evaluations", None)
        check_options(
            model, {k: v for k, v in point.items() if k != "classifier_scale"}
        )
        if evaluations is not None:
            point["steps"] = steps_within(model, evaluations, point)
        if point not in result:
            result.append(point)
    return result


def steps_within(model, evaluations: int, point: dict) -> int:
    """How many steps these network evaluations are, a last jump to data aside."""
    one, two = (
        calls_of(model, as_keywords(model, {**point, "steps": n})) for n in (1, 2)
    )
    if one is None:
        raise BadInput(
            f"--evaluations {evaluations}: an adaptive solver decides on them itself; "
            "leave it out, or sweep steps"
        )
    if evaluations < (least := two - one):
        under = f" under {words(point)}" if point else ""
        raise BadInput(
            f"--evaluations {evaluations}: one step{under} takes {least}; take at "
            f"least {least}"
        )
    return evaluations // least


# ------------------------------------------------------------- the file


def read_sweep(out: Path, identity: dict) -> dict[str, Any]:
    """The sweep that the file holds, or an empty one; BadInput if it is another."""
    if not out.exists():
        return {**identity, "points": []}
    try:
        result = json.loads(out.read_text())
        changed = [name for name in identity if result.get(name) != identity[name]]
        _ = [(point["options"], point["sample_quality"]) for point in result["points"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{out} is not a sweep's: take another --out") from error
    for name in changed:
        raise BadInput(
            f"{out} holds a sweep of {name.replace('_', ' ')} {result.get(name)}, not "
            f"{identity[name]}: take another --out, or remove it"
        )
    return result


def measured_point(result: dict, point: dict) -> dict | None:
    """The metrics under a point's options, if they are there."""
    options = finite_or_null(point)  # with lists for tuples, as the file has them
    same = (p for p in result["points"] if finite_or_null(p["options"]) == options)
    return next(same, None)
