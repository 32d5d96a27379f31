"""python -m train.outliers --workdir DIR: which scores of a trained run find outliers.

Inliers are the test images of the run's data set. Outliers are made from them, which
needs no other data set, or are the test images of another one. Every score that the
model supports is judged by the area under its ROC curve: ½ is worthless, and below ½ it
takes outliers for better data than the data, which raw likelihood is known to do
(Nalisnick et al. 2019, arXiv:1810.09136).
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from .cli.command import parse, run_command
from .cli.options import RunToOpen
from .files import write_atomically, written_atomically
from .measure.outlier_sets import outlier_sets, subset
from .measure.scores import (
    LIKELIHOOD,
    REGRET,
    feature_scores,
    features_of,
    image_scores,
    judged,
    map_over_batches,
    open_or_not,
    overflow,
)

REFERENCE = 10_000  # training images with which features are compared, at most
TITLES = {
    "auroc": "AUROC: P(outlier scores above a test image of {dataset})",
    "average_precision": "average precision",
}


@dataclasses.dataclass(frozen=True)
class Outliers(RunToOpen):
    """Judge every outlier score of a run; write outliers.json and outliers.png.

    The scores are those of gengen.tasks.outliers. A class-conditional density is turned
    into p(x), its sum over classes; what needs a label gets the likeliest one.
    """

    against: tuple[str, ...] = ()
    """Outliers: noise (uniform levels), inverted, constant, shuffled (pixels), faint (a
    quarter of the contrast), or data sets by name (digits, folder:PATH, …), scaled to
    the run's size; by default the first five, and digits."""
    num: int = 1_000
    """Images of each set, at most."""
    regret_num: int = 200
    """Images of each set for the likelihood regret, which optimises every code; 0
    leaves it out."""
    importance_samples: int | None = None
    """K of the likelihood's bound (IWAE-K), for models with latents; by default the
    run's own."""
    extractor: Path | None = None
    """Where features come from beside the model's own: as in train.evaluate."""
    seed: int = 0
    """Seed of the outliers and of all estimates."""
    batch_size: int = 256
    """Images at a time."""
    data_dir: Path | None = None
    """Where the data sets' files are."""


def outliers(options: Outliers) -> dict[str, Any]:
    """Measure, print, and write `outliers.json`, which is returned."""
    import json

    from gengen.conditions import labels_of
    from gengen.tasks.bayes import generative_classifier
    from gengen.tasks.outliers import LikelihoodRegret

    from .cli.options import at_least, check_numbers
    from .measure.evaluation import provenance
    from .run.heldout import with_importance_samples
    from .run.workdir import open_workdir

    at_least(options, num=10, regret_num=0)
    names = ("seed", "importance_samples", "batch_size")
    check_numbers({name: getattr(options, name) for name in names})
    trained = open_workdir(options.workdir, options.step)
    spec = trained.record.data
    spec.images_only("train.outliers")
    model = density = with_importance_samples(trained.model, options.importance_samples)
    if model.density != "none" and labels_of(model.condition):
        density = generative_classifier(model)
    scores, missing = image_scores(model, density, options.regret_num > 0)

    test = subset(trained.dataset("test", options.data_dir), options.num, options.seed)
    sets = {"test": test["image"]}
    sets |= outlier_sets(test["image"], spec, options)
    train = subset(trained.dataset("train", options.data_dir), REFERENCE, options.seed)
    extractor = open_or_not(trained, options, missing)
    sizes = ", ".join(f"{len(x):,} {name}" for name, x in sets.items())
    print(f"cost: {len(scores)} scores of images, distances of features; of {sizes}")
    if REGRET in scores:
        calls = 2 * LikelihoodRegret.pairs * LikelihoodRegret.steps
        print(
            f"  {REGRET}: {calls} decoder passes with gradients an image, of "
            f"{options.regret_num} images a set"
        )

    values, less = scored(trained, model, density, scores, sets, train, options)
    missing |= less
    if extractor:
        found = {of: features_of(extractor, x, spec) for of, x in sets.items()}
        known = features_of(extractor, train["image"], spec)
        labels = train.get("label")
        more, less = feature_scores("extractor", found, known, labels, options)
        values, missing = values | more, missing | less
    result = provenance(trained, options) | {
        "likelihood_kind": getattr(density, "likelihood_kind", None),
        "extractor": extractor and extractor.name,
        "scores": {name: judged(found) for name, found in values.items()},
        "missing": missing,
    }
    path = options.workdir / "outliers.json"
    write_atomically(path, json.dumps(result, indent=2) + "\n")
    draw(options.workdir / "outliers.png", values, sets, spec.levels, result)
    show(result, path)
    return result


def scored(trained, model, density, scores, sets, train, options) -> tuple:
    """({name: {set: scores}}, {name: why it is missing}) of the run's own parts.

    Where images need a label, that is the likeliest under `density`.
    """
    import jax

    from gengen.types import HasFeatures

    def of_run(function, arrays):
        return map_over_batches(
            function, trained.params, trained.state, arrays, options
        )

    arrays = {name: {"image": x} for name, x in sets.items()}
    known = {"image": train["image"]}
    if density is not model:
        likeliest = jax.jit(density.classify)
        for here in (*arrays.values(), known):
            here["label"] = of_run(likeliest, here).astype(np.int32)
    values = {}
    for name, score in scores.items():
        function = jax.jit(score)
        limit = options.regret_num if name == REGRET else options.num
        values[name] = {
            of: overflow(of_run(function, {k: v[:limit] for k, v in here.items()}))
            for of, here in arrays.items()
        }
    if not isinstance(model, HasFeatures):
        return values, {}
    features = jax.jit(model.features)
    found = {of: of_run(features, here) for of, here in arrays.items()}
    labels = train.get("label")
    more, missing = feature_scores(
        "own", found, of_run(features, known), labels, options
    )
    return values | more, missing


# ------------------------------------------------------------- telling


def show(result: dict[str, Any], path: Path) -> None:
    """The table, what is missing and why, and where likelihood fails."""
    from .progress import wide_console

    console, scores = wide_console(), result["scores"]
    for figure in ("auroc", "average_precision"):
        console.print(table_of(figure, scores, result))
    for score, reason in result["missing"].items():
        console.print(f"no {score}: {reason}", markup=False)
    for name, figure in scores.get(LIKELIHOOD, {}).items():
        if figure["n_overflow"]:
            console.print(
                f"the likelihood of {figure['n_overflow']:,} {name} images is too "
                "small for float32: 0"
            )
        if figure["auroc"] < 0.5 - 2 * figure["standard_error"]:
            console.print(
                f"raw likelihood ranks {name} as MORE likely than the data (AUROC "
                f"{figure['auroc']:.3f}): a known failure of densities, "
                "Nalisnick et al. 2019, arXiv:1810.09136",
                markup=False,
            )
    console.print(str(path))
    console.print(str(path.with_suffix(".png")))


def table_of(figure: str, scores: dict, result: dict[str, Any]):
    """One figure, a row a score, a column a set of outliers."""
    from rich.table import Table

    table = Table(title=TITLES[figure].format(**result))
    table.add_column("score", no_wrap=True)
    for name, judgement in next(iter(scores.values())).items():
        heading = f"{name}\n{judgement['n_outliers']:,}"
        table.add_column(heading, justify="right", no_wrap=True)
    for score, sets in scores.items():
        table.add_row(score, *(f"{each[figure]:.3f}" for each in sets.values()))
    return table


def draw(path: Path, values: dict, sets: dict, levels: int, result: dict) -> None:
    """Histograms of the first score, raw likelihood if any, beside example images."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns, name = 8, next(iter(values))
    figure = plt.figure(figsize=(12, 0.4 + 0.7 * max(len(sets), 5)))
    left, right = figure.subfigures(1, 2, width_ratios=(1.1, 1))
    ax, score = left.subplots(), values[name]
    low = min(map(np.min, score.values()))
    high = min(max(map(np.max, score.values())), 100 * np.max(score["test"]))
    wide = 0 < 10 * low < high
    bins = (np.geomspace if wide else np.linspace)(low, high, 80)
    for i, (of, x) in enumerate(score.items()):
        x = np.minimum(x, high)
        share = {"bins": bins, "weights": np.full(len(x), 1 / len(x))}
        if of == "test":
            ax.hist(x, **share, color="0.6", label=f"test, {result['dataset']}")
        else:
            label = f"{of}, AUROC {result['scores'][name][of]['auroc']:.2f}"
            style = {"histtype": "step", "linewidth": 1.8, "color": f"C{i - 1}"}
            ax.hist(x, **share, **style, label=label)
    if wide:
        ax.set_xscale("log")
    unit = f"{result['likelihood_kind']}, bits per dimension"
    ax.set_xlabel(f"{name} ({unit})" if name == LIKELIHOOD else name)
    ax.set_ylabel("share of images, beyond in the last bin")
    left.subplots_adjust(left=0.12, right=0.97, bottom=0.15, top=0.95)
    right.subplots_adjust(left=0.12, right=0.99, bottom=0.05, top=0.97)
    ax.legend(fontsize=9)
    panels = right.subplots(len(sets), columns, squeeze=False)
    for row, (of, images) in zip(panels, sets.items(), strict=True):
        row[0].set_ylabel(of, rotation=0, ha="right", va="center")
        for panel, image in zip(row, images, strict=False):
            panel.imshow(image / (levels - 1), cmap="gray", vmin=0, vmax=1)
        for panel in row:
            panel.set(xticks=[], yticks=[])
    with written_atomically(path) as file:
        figure.savefig(file, dpi=110, format="png")
    plt.close(figure)


def main() -> None:
    """The command line."""
    run_command(lambda: outliers(parse(Outliers, "python -m train.outliers")))


if __name__ == "__main__":
    main()
