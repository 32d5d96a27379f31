"""python -m train.compare --dataset digits --minutes 2: one table across families.

Every family's default experiment is trained under the same budget, evaluated by the
same command and put into one table, ordered by the taxonomy of generative models:
exact density, bounded density, no density. A new family appears by being listed in
`train.experiments.EXPERIMENTS`.
"""

import dataclasses
from pathlib import Path
from typing import Any

from train.command import did_you_mean, parse, told

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

    from gengen.types import BadInput
    from train.experiments import EXPERIMENTS

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
        if not hasattr(model, "log_prob_labels"):
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

    from gengen.types import BadInput
    from train.data import load
    from train.experiment import file_name, write_atomically
    from train.options import Run, check_numbers

    numbers = ("minutes", "steps", "num", "seed")
    check_numbers({name: getattr(options, name) for name in numbers})
    names = ("data_dir", "image_size", "levels")
    data = {name: getattr(options, name) for name in names}
    dataset = load(options.dataset, **data)
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
    rows, failed = [], {}
    for name, keywords in chosen.items():
        run = Run(
            workdir=folder / name,
            dataset=options.dataset,
            **data,
            seed=options.seed,
            minutes=options.minutes,
        )
        print(f"\n{name}")
        try:
            rows.append(row_of(measured(run, name, keywords, options)))
        except BadInput as error:
            print(f"failed: {error}")
            failed[name] = str(error)
    rows.sort(key=place)
    result = {"dataset": options.dataset, "budget": budget, "rows": rows}
    result |= {"failed": failed}
    text = markdown(result)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "comparison"
    write_atomically(path.with_suffix(".json"), json.dumps(result, indent=2) + "\n")
    write_atomically(path.with_suffix(".md"), text)
    trained = [folder / row["family"] for row in rows]
    picture(trained, dataset, path.with_suffix(".png"))
    print(f"\n{text}")
    for suffix in (".md", ".json", ".png"):
        print(path.with_suffix(suffix))


def measured(run, name: str, keywords: dict, options: Compare) -> dict[str, Any]:
    """Train within the budget, evaluate; what is there already is not done again."""
    import json

    from train.checkpoint import Checkpoints
    from train.evaluate import Evaluate, asked, evaluate
    from train.loop import train

    train(run, name, keywords)
    wanted = Evaluate(
        run.workdir,
        options.num,
        options.seed,
        options.extractor,
        data_dir=options.data_dir,
    )
    path, step = run.workdir / "evaluation.json", Checkpoints(run.workdir).latest()
    if path.exists():
        there = json.loads(path.read_text())
        if there["options"] == asked(wanted) and there["step"] == step:
            print(f"already evaluated: {path}")
            return there
    return evaluate(wanted)


def row_of(result: dict[str, Any]) -> dict[str, Any]:
    """A family's row of the table, from its evaluation."""
    quality, floor = result["sample_quality"], result.get("noise_floor")
    bits = result.get("bits_per_dim", {}).get("test")
    return {
        "family": result["experiment"],
        "density": result["density"],
        "test_bits_per_dim": bits and bits["value"],
        "kind": bits and bits["kind"],
        "frechet_distance": quality["frechet_distance"]["value"],
        "precision": quality["precision"]["value"],
        "recall": quality["recall"]["value"],
        "parameters": result["parameter_count"],
        "steps": result["step"],
        "training_seconds": result["training_seconds"],
        "milliseconds_per_sample": 1e3 * result["seconds_per_sample"],
        "network_evaluations": result["network_evaluations"],
        "class_accuracy": result.get("class_accuracy"),
        "n_fake": quality["frechet_distance"]["n_fake"],
        "n_real": quality["frechet_distance"]["n_real"],
        "extractor": result["extractor"],
        "device": result["device"],
        "noise_floor": floor and {
            name: floor[name]["value"]
            for name in ("frechet_distance", "precision", "recall")
        } | {"n_fake": floor["frechet_distance"]["n_fake"]},
    }  # fmt: skip


def place(row: dict[str, Any]) -> tuple:
    """Where a row stands: by kind of density, then bits, then Fréchet distance."""
    bits = row["test_bits_per_dim"]
    first = list(TAXONOMY).index(row["density"])
    return first, float("inf") if bits is None else bits, row["frechet_distance"]


def markdown(result: dict[str, Any]) -> str:
    """The table, and under it what its figures depend on."""
    columns = ["family", "density", "test bits/dim", "Fréchet", "precision", "recall"]
    columns += ["parameters", "steps", "training s", "ms/sample", "evaluations"]
    lines = [columns]
    for row in result["rows"]:
        bits, seconds = row["test_bits_per_dim"], row["training_seconds"]
        cells = [
            row["family"],
            TAXONOMY[row["density"]],
            "–" if bits is None else f"{bits:.3f} ({row['kind']})",
            f"{row['frechet_distance']:.3f}",
            f"{row['precision']:.2f}",
            f"{row['recall']:.2f}",
            f"{row['parameters']:,}",
            f"{row['steps']:,}",
            "–" if seconds is None else f"{seconds:.1f}",
            f"{row['milliseconds_per_sample']:.3g}",
            f"{row['network_evaluations']}",
        ]
        lines.append(cells)
    notes = [f"{name} failed: {why}" for name, why in result["failed"].items()]
    if result["rows"]:
        row = result["rows"][0]
        if floor := row["noise_floor"]:
            cells = ["*test images*", "", "", f"{floor['frechet_distance']:.3f}"]
            cells += [f"{floor['precision']:.2f}", f"{floor['recall']:.2f}"]
            lines.append(cells + [""] * (len(columns) - len(cells)))
        notes.append(
            f"{result['dataset']}; each family's default experiment, at most "
            f"{result['budget']} of training. {row['n_fake']:,} samples against "
            f"{row['n_real']:,} training images in the features of: "
            f"{row['extractor']}. {row['device']}."
        )
        if floor:
            notes.append(
                f"The last line is the noise floor: {floor['n_fake']:,} test images in "
                "the place of samples."
            )
    return "\n".join([*aligned(lines, 3), "", *notes]) + "\n"


def aligned(lines: list[list[str]], left: int) -> list[str]:
    """Cells as the lines of a Markdown table: `left` columns of words, then numbers."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return [
        "| " + " | ".join(
            cell.ljust(w) if i < left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ) + " |"
        for line in (lines[0], rule, *lines[1:])
    ]  # fmt: skip


def picture(workdirs: list[Path], dataset, path: Path) -> None:
    """A row a family, ten samples each, classes in turn; above them training images."""
    import jax
    import numpy as np

    from gengen.images import to_unit
    from train.pictures import save_grid, to_uint8
    from train.sampling import COLUMNS, Sampler, class_labels
    from train.workdir import open_workdir

    some = dataset.fetch(np.arange(min(dataset.size, 1_000)))
    first = np.arange(COLUMNS)
    if "label" in some:
        of_class = [np.flatnonzero(some["label"] == i)[:1] for i in range(COLUMNS)]
        first = np.concatenate([*of_class, first])[:COLUMNS]
    rows = [np.asarray(to_unit(some["image"][first], dataset.spec.levels))]
    for workdir in workdirs:
        trained = open_workdir(workdir)
        labels = class_labels(trained.model, COLUMNS)
        sampler, key = Sampler(trained.model, COLUMNS), jax.random.key(0)
        rows.append(sampler(trained.params, trained.state, key, COLUMNS, labels))
    names = ("data", *(workdir.name for workdir in workdirs))
    save_grid(path, to_uint8(np.concatenate(rows)), COLUMNS, names)


def main() -> None:
    """The command line."""
    told(lambda: compare(parse(Compare, "python -m train.compare")))


if __name__ == "__main__":
    main()
