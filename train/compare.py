"""python -m train.compare --dataset digits --minutes 2: one table across families.

Every family's default experiment is trained under the same budget, evaluated by the
same command and put into one table, ordered by the taxonomy of generative models:
exact density, bounded density, no density. A new family appears by being listed in
`train.experiments.EXPERIMENTS`.
"""

import dataclasses
from pathlib import Path
from typing import Any

from .cli.command import did_you_mean, parse, run_command
from .measure.tables import aligned

TAXONOMY = {"exact": "exact", "bound": "lower bound", "none": "none: samples only"}


@dataclasses.dataclass(frozen=True)
class Compare:
    """Train every family under one budget, evaluate all, write one table and picture.

    Run again after an interruption: what is there is not done twice.
    """

    dataset: str = "digits"
    """digits, mnist, fashion_mnist, folder:PATH, or any prepared TFDS name."""
    minutes: float = 2.0
    """Training minutes of each family, at most: a default experiment may end earlier,
    at its own last step."""
    steps: int | None = None
    """Training steps of each family instead of its default's."""
    families: tuple[str, ...] = ()
    """Experiments to compare; by default all that draw samples."""
    workdir: Path | None = None
    """Folder of the runs, the table and the picture; default runs/compare-DATASET."""
    num: int = 2_000
    """Samples of each family that are measured."""
    likelihood_num: int = 2_000
    """Images of each split whose likelihood is taken, where a family has one."""
    extractor: Path | None = None
    """As in python -m train.evaluate."""
    seed: int = 0
    """Seed of everything."""
    data_dir: Path | None = None
    """Where the data set's files are."""
    image_size: int | None = None
    """Scale the shorter side to this and crop the centre; by default nothing is."""
    levels: int | None = None
    """Requantise pixels to this many levels; by default the data set's own."""


def experiments(options: Compare, spec) -> dict[str, dict]:
    """{family: all its keywords} of what is compared; BadInput for unknown names."""
    import inspect

    from gengen.errors import BadInput
    from gengen.types import Discriminative

    from .experiments import EXPERIMENTS

    chosen = {}
    for name in options.families or EXPERIMENTS:
        if name not in EXPERIMENTS:
            raise BadInput(
                f"--families {name}: no experiment is called so"
                f"{did_you_mean(name, EXPERIMENTS)}; choose of {', '.join(EXPERIMENTS)}"
            )
        function = EXPERIMENTS[name]
        parameters = list(inspect.signature(function).parameters.values())[1:]
        keywords = {p.name: p.default for p in parameters}
        if options.steps is not None:
            keywords["steps"] = options.steps
        try:
            model = function(spec, **keywords).model
        except BadInput:
            if name in options.families:
                raise
            continue  # nothing for these data, as a classifier without labels
        if not isinstance(model, Discriminative):
            chosen[name] = keywords
        elif name in options.families:
            raise BadInput(
                f"--families {name}: it is discriminative and draws no samples; "
                "leave it out"
            )
    return chosen


def compare(options: Compare) -> None:
    """Train, evaluate; write comparison.json, comparison.md and comparison.png."""
    import json

    from gengen.errors import BadInput

    from .cli.options import RunOptions, check_numbers
    from .data.load import load
    from .files import file_name, write_atomically
    from .measure.evaluation import check

    numbers = ("minutes", "steps", "num", "likelihood_num", "seed")
    check_numbers({name: getattr(options, name) for name in numbers})
    names = ("data_dir", "image_size", "levels")
    data = {name: getattr(options, name) for name in names}
    dataset = load(options.dataset, **data)
    dataset.spec.images_only("train.compare")
    chosen = experiments(options, dataset.spec)
    folder = options.workdir or Path("runs") / f"compare-{file_name(options.dataset)}"
    budget = f"{options.minutes:g} minutes"
    if options.steps is not None:
        budget = f"{options.steps} steps, or {budget}"
    print(f"data: {dataset.note}")
    print(
        f"cost: {len(chosen)} families ({', '.join(chosen)}), each trained for at most "
        f"{budget}, then {options.num:,} samples and likelihoods of each; into {folder}"
    )
    runs = {
        name: RunOptions(
            workdir=folder / name,
            dataset=options.dataset,
            **data,
            seed=options.seed,
            minutes=options.minutes,
        )
        for name in chosen
    }
    for name, run in runs.items():
        check(evaluation(run, options))
        check_run(run, name, chosen[name], dataset, options)
    extractor = opened_extractor(next(iter(runs.items())), chosen, dataset, options)
    rows, failed = [], {}
    for name, run in runs.items():
        print(f"\n{name}")
        try:
            result = measured(run, name, chosen[name], options, extractor)
        except BadInput as error:
            print(f"failed: {error}")
            failed[name] = str(error)
        else:
            rows.append(row_of(result))
    if not rows:
        raise BadInput(f"every family failed; of {name}: {failed[name]}")
    rows.sort(key=place)
    result = {"dataset": options.dataset, "budget": budget, "rows": rows}
    result |= {"failed": failed}
    text = markdown(result)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "comparison"
    write_atomically(path.with_suffix(".json"), json.dumps(result, indent=2) + "\n")
    write_atomically(path.with_suffix(".md"), text)
    trained = [folder / row["family"] for row in rows]
    print(f"\n{text}")
    picture(trained, dataset, path.with_suffix(".png"))
    for suffix in (".md", ".json", ".png"):
        print(path.with_suffix(suffix))


def evaluation(run, options: Compare):
    """How a run of the table is evaluated."""
    from .measure.evaluation import Evaluate

    return Evaluate(
        workdir=run.workdir,
        num=options.num,
        likelihood_num=options.likelihood_num,
        seed=options.seed,
        extractor=options.extractor,
        data_dir=options.data_dir,
    )


def check_run(run, name: str, keywords: dict, dataset, options: Compare) -> None:
    """BadInput where the workdir holds another run, or one beyond the budget."""
    from gengen.errors import BadInput

    from .measure.evaluation import training_seconds
    from .run.checkpoint import Checkpoints
    from .run.loop import record_of
    from .run.record import refuse_other_run

    refuse_other_run(run.workdir, record_of(run, name, keywords, dataset))
    step = Checkpoints(run.workdir).latest() or 0
    # A run ends with the call of some steps in which its minutes end.
    seconds, most = training_seconds(run.workdir) or 0, 60 * options.minutes
    if step > keywords["steps"] or seconds > 1.5 * most + 10:
        raise BadInput(
            f"{run.workdir} was trained for {step} steps and {seconds:.0f} s, beyond "
            "this budget: take another --workdir"
        )


def opened_extractor(first: tuple, chosen: dict, dataset, options: Compare):
    """The one extractor of the table, trained if need be; None if there can be none."""
    from .measure.extractors import open_extractor
    from .run.loop import record_of

    if options.extractor is None and not dataset.spec.num_classes:
        return None
    name, run = first
    record = record_of(run, name, chosen[name], dataset)
    return open_extractor(options.extractor, run.workdir, record, options.data_dir)


def measured(run, name: str, keywords: dict, options: Compare, extractor) -> dict:
    """Train within the budget, evaluate; what is there already is not done again."""
    import json

    from .measure.evaluation import asked, evaluate
    from .run.checkpoint import Checkpoints
    from .run.loop import train

    train(run, name, keywords)
    wanted = evaluation(run, options)
    path, step = run.workdir / "evaluation.json", Checkpoints(run.workdir).latest()
    if path.exists():
        there = json.loads(path.read_text())
        same = [
            (there["options"], asked(wanted)),
            (there["step"], step),
            (there.get("extractor"), extractor and extractor.name),
        ]
        if all(one == other for one, other in same):
            print(f"already evaluated: {path}")
            return there
    return evaluate(wanted)


def row_of(result: dict[str, Any]) -> dict[str, Any]:
    """A family's row of the table, from its evaluation."""
    bits = result.get("bits_per_dim", {}).get("test")
    return {
        "family": result["experiment"],
        "samples": result["samples"],
        "density": result["density"],
        "test_bits_per_dim": bits and bits["value"],
        "kind": bits and bits["kind"],
        "quality": brief(result.get("sample_quality")),
        "parameters": result["parameter_count"],
        "steps": result["step"],
        "training_seconds": result["training_seconds"],
        "milliseconds_per_sample": 1e3 * result["seconds_per_sample"],
        "network_evaluations": result["network_evaluations"],
        "class_accuracy": result.get("class_accuracy"),
        "extractor": result.get("extractor"),
        "device": result["device"],
        "test_images": brief(result.get("test_images")),
        "noise_floor": brief(result.get("noise_floor")),
    }


def brief(quality: dict | None) -> dict | None:
    """The figures of samples that the table has, and of how many they are."""
    if quality is None:
        return None
    names = ("frechet_distance", "precision", "recall")
    numbers = {n: quality["frechet_distance"][n] for n in ("n_fake", "n_real")}
    return {name: quality[name]["value"] for name in names} | numbers


def place(row: dict[str, Any]) -> tuple:
    """Where a row stands: by kind of density, then bits, then Fréchet distance."""
    bits, quality = row["test_bits_per_dim"], row["quality"]
    return (
        list(TAXONOMY).index(row["density"]),
        float("inf") if bits is None else bits,
        float("inf") if quality is None else quality["frechet_distance"],
    )


def cells(quality: dict | None) -> list[str]:
    """Fréchet distance, precision and recall in words."""
    if quality is None:
        return ["–"] * 3
    figures = (f"{quality[name]:.2f}" for name in ("precision", "recall"))
    return [f"{quality['frechet_distance']:.3f}", *figures]


def markdown(result: dict[str, Any]) -> str:
    """The table, and under it what its figures depend on."""
    lines = [["family", "density", "test bits/dim", "Fréchet", "precision", "recall"]]
    lines[0] += ["parameters", "steps", "training s", "ms/sample", "evaluations"]
    rows, width = result["rows"], len(lines[0])
    for row in rows:
        bits, seconds = row["test_bits_per_dim"], row["training_seconds"]
        lines.append(
            [
                row["family"] + ("" if row["samples"] == "samples" else " †"),
                TAXONOMY[row["density"]],
                "–" if bits is None else f"{bits:.3f} ({row['kind']})",
                *cells(row["quality"]),
                f"{row['parameters']:,}",
                f"{row['steps']:,}",
                "–" if seconds is None else f"{seconds:.1f}",
                f"{row['milliseconds_per_sample']:.3g}",
                str(row["network_evaluations"] or "adaptive"),
            ]
        )
    notes = [f"{name} failed: {why}" for name, why in result["failed"].items()]
    notes.append(
        f"{result['dataset']}; each family's default experiment, at most "
        f"{result['budget']} of training. {rows[0]['device']}."
    )
    if quality := rows[0]["quality"]:
        notes.append(
            f"{quality['n_fake']:,} samples against {quality['n_real']:,} training "
            f"images in the features of: {rows[0]['extractor']}."
        )
    for name, what, others in (
        ("test_images", "test images", "training images"),
        ("noise_floor", "training images", "others"),
    ):
        if other := rows[0][name]:
            lines.append([f"*{what}*", "", "", *cells(other)])
            lines[-1] += [""] * (width - len(lines[-1]))
            notes.append(
                f"*{what}*: {other['n_fake']:,} in the place of samples, against "
                f"{other['n_real']:,} {others}."
            )
    notes += {f"†: {row['samples']}." for row in rows if row["samples"] != "samples"}
    return "\n".join([*aligned(lines, 3), "", *notes]) + "\n"


def picture(workdirs: list[Path], dataset, path: Path) -> None:
    """A row a family, ten samples each, classes in turn; above them training images."""
    import jax
    import numpy as np

    from gengen.images import to_unit

    from .run.pictures import save_grid, to_uint8
    from .run.sampler import COLUMNS, Sampler, given_classes
    from .run.workdir import open_workdir

    some = dataset.fetch(np.arange(min(dataset.size, 1_000)))
    first = np.arange(COLUMNS) % len(some["image"])
    if "label" in some:
        of_class = [np.flatnonzero(some["label"] == i)[:1] for i in range(COLUMNS)]
        first = np.concatenate([*of_class, first])[:COLUMNS]
    rows = [np.asarray(to_unit(some["image"][first], dataset.spec.levels))]
    for workdir in workdirs:
        trained = open_workdir(workdir)
        given = given_classes(trained.model, COLUMNS)
        sampler, key = Sampler(trained.model, COLUMNS), jax.random.key(0)
        rows.append(sampler(trained.params, trained.state, key, COLUMNS, given))
    names = ("data", *(workdir.name for workdir in workdirs))
    save_grid(path, to_uint8(np.concatenate(rows)), COLUMNS, names)


def main() -> None:
    """The command line."""
    run_command(lambda: compare(parse(Compare, "python -m train.compare")))


if __name__ == "__main__":
    main()
