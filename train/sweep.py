"""python -m train.sweep --workdir DIR --solver ddim heun --evaluations 5 10 20 50.

The figures of a run's samples as a function of its sampler's options: every point is
what `train.evaluate` says of the samples under those options, from the same seed at
each (common random numbers: what differs between points is the option, not the luck).
"""

import dataclasses
from pathlib import Path
from typing import Any

from .cli.bounds import Count, Figures, Seed, Steps, check_numbers
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen
from .cli.sampler import GuideOptions, SweptOptions
from .measure.sweep_table import AXES, in_words, show, words


@group()
class Sweep(RunToOpen, SweptOptions, GuideOptions):
    """Measure samples under every combination of the listed options; table and plot.

    Run again after an interruption, or with longer lists: a point that is there is not
    drawn twice.
    """

    evaluations: tuple[Steps, ...] = ()
    """Network evaluations per sample: as many whole steps as they allow. Guidance takes
    two at a time, Heun's steps two each."""
    num: Figures = 10_000
    """Samples of each point."""
    seed: Seed = 0
    """Seed of the samples: the same at all points."""
    extractor: Path | None = None
    """As in python -m train.evaluate."""
    out: Path | None = None
    """The figures (.json), beside which the plot (.png) and the table (.md) go; by
    default sweep.json in the run's folder."""
    batch_size: Count = 256
    """Samples at a time."""
    data_dir: Path | None = None
    """Where the data set's files are."""


def sweep(options: Sweep) -> dict[str, Any]:
    """Measure, print, and write all figures, which are returned."""
    from .measure.features import alone, empty
    from .measure.quality import Quality, find_extractor
    from .run.guides import guided
    from .run.workdir import open_workdir

    base, out = evaluation(options), options.out or options.workdir / "sweep.json"
    check(options, base, out)
    trained = open_workdir(options.workdir, options.step)
    scales = options.classifier_scale[:1] or (None,)  # refused without a classifier
    trained = guided(trained, dataclasses.replace(base, classifier_scale=scales[0]))
    refuse_unmeasurable(trained, options)
    asked = points(trained.model, lists(options))
    splits = {"train": trained.dataset("train", options.data_dir)}
    part = out.with_suffix(".part")
    qualities = [
        Quality(trained, splits, dataclasses.replace(base, **point), part)
        for point in asked
    ]
    calls = [quality.calls for quality in qualities]
    known = [n for n in calls if n is not None]
    many = f"{min(known)} to {max(known)}" if len(known) == len(calls) else "unknown"
    print(
        f"cost: {len(asked)} points of {options.num:,} samples, of {many} network "
        f"evaluations each: {options.num * sum(known):,} in all that are known"
    )
    out.parent.mkdir(parents=True, exist_ok=True)  # before the work
    extractor = find_extractor(trained, base)
    result = there(out, identity(trained, extractor, options))
    with alone(part):
        measure(result, asked, qualities, extractor, out)
    empty(part)
    result["points"] = [found(result, point) for point in asked]
    show(result, lists(options), out)
    return result


def measure(result: dict, asked: list[dict], qualities: list, extractor, out: Path):
    """Add the points that are missing, each of which is saved at once."""
    from .measure.quality import Reference

    missing = [i for i, point in enumerate(asked) if not found(result, point)]
    if len(missing) < len(asked):
        print(f"{len(asked) - len(missing)} of {len(asked)} points are there: {out}")
    if missing:
        first = qualities[missing[0]]
        reference = Reference(extractor, first.splits["train"], first.options.seed)
        result["noise_floor"] = reference.noise_floor()
    for i in missing:
        quality, of = qualities[i], f"point {i + 1} of {len(asked)}"
        print(f"{of}: {words(asked[i])}; {quality.calls} network evaluations a sample")
        measured, _ = quality.against(reference, tell=i == missing[0])
        point = {
            "options": asked[i],
            "network_evaluations": quality.calls,
            "batch_size": quality.sampler.batch_size,
            **measured,
        }
        result["points"].append(point)
        save(out, result)
        print(f"  {in_words(point)}")


def evaluation(options: Sweep):
    """How every point is evaluated, its own options aside."""
    from .measure.evaluation import Evaluate

    names = ("workdir", "step", "num", "seed", "extractor", "batch_size", "data_dir")
    names += ("guide", "classifier")
    return Evaluate(**{name: getattr(options, name) for name in names})


def lists(options: Sweep) -> dict[str, tuple]:
    """{option: its values} of what is swept."""
    return {name: getattr(options, name) for name in AXES if getattr(options, name)}


def identity(trained, extractor, options: Sweep) -> dict[str, Any]:
    """What all points of a file have in common."""
    from .run.digests import digest_of
    from .run.guides import identity as guides_identity

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


def check(options: Sweep, base, out: Path) -> None:
    """BadInput for what no sweep can have."""
    from gengen.errors import BadInput

    from .measure.evaluation import check as check_evaluation

    check_evaluation(base)
    check_numbers(options)
    if not lists(options):
        raise BadInput("nothing to sweep: list values, as in --evaluations 5 10 20 50")
    if options.steps and options.evaluations:
        raise BadInput("--steps and --evaluations both say how many: leave one out")
    if out.suffix != ".json":
        raise BadInput(f"--out {out}: end it in .json")


def refuse_unmeasurable(trained, options: Sweep) -> None:
    """BadInput for a run without samples to measure, or without steps to sweep."""
    from gengen.errors import BadInput
    from gengen.types import Discriminative

    from .measure.quality import NO_LABELS
    from .run.sampler import keywords_of

    data, model = trained.record.data, trained.model
    data.images_only("train.sweep")
    if isinstance(model, Discriminative):
        raise BadInput(
            f"--workdir {options.workdir}: a classifier draws no samples; take the run "
            "of a generative model"
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
    import itertools

    from .run.sampler import check_options

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
    from gengen.errors import BadInput

    from .run.sampler import as_keywords, calls_of

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


def there(out: Path, identity: dict) -> dict[str, Any]:
    """The sweep that the file holds, or an empty one; BadInput if it is another."""
    import json

    from gengen.errors import BadInput

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


def save(out: Path, result: dict) -> None:
    """Write the file; a reader never sees half of it."""
    import json

    from .files import write_atomically

    write_atomically(out, json.dumps(result, indent=2) + "\n")


def found(result: dict, point: dict) -> dict | None:
    """The figures under a point's options, if they are there."""
    same = (each for each in result["points"] if each["options"] == point)
    return next(same, None)


def main() -> None:
    """The command line."""
    run_command(lambda: sweep(parse(Sweep, "python -m train.sweep")))


if __name__ == "__main__":
    main()
