"""Which scores of a trained run find outliers: measured, as tables and as a picture."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from gengen.conditions import labels_of
from gengen.tasks.outliers import LikelihoodRegret
from gengen.types import HasFeatures

from ..cli.bounds import check_numbers
from ..files import write_json, written_atomically
from ..progress import print_table
from ..run.heldout import with_importance_samples
from ..run.workdir import OpenRun, open_workdir
from .evaluation import provenance
from .extractors import extractor_if_any
from .mixture import mixture_over_classes
from .outlier_sets import outlier_sets, subset
from .scores import (
    LIKELIHOOD,
    REGRET,
    feature_scores,
    features_of,
    image_scores,
    judged,
    map_over_batches,
    overflow,
)

REFERENCE = 10_000  # training images with which features are compared, at most
TITLES = {
    "auroc": "AUROC: P(outlier scores above a test image of {dataset})",
    "average_precision": "average precision",
}


def outliers(options) -> dict[str, Any]:
    """Measure, print, and write `outliers.json`, which is returned."""
    check_numbers(options)
    trained = open_workdir(options.workdir, options.step)
    spec = trained.record.data
    spec.images_only("train.outliers")
    model = density = with_importance_samples(trained.model, options.importance_samples)
    training = trained.dataset("train", options.data_dir)
    test = subset(trained.dataset("test", options.data_dir), options.num, options.seed)
    sets = {"test": test["image"]}
    sets |= outlier_sets(test["image"], spec, options)
    if model.density != "none" and labels_of(model.condition):
        density = mixture_over_classes(model, training)
    scores, missing = image_scores(model, density, options.regret_num > 0)
    train = subset(training, REFERENCE, options.seed)
    record, data_dir = trained.record, options.data_dir
    extractor = extractor_if_any(options.extractor, options.workdir, record, data_dir)
    if extractor is None:
        missing["extractor feature distance"] = (
            "no labels to train one: give --extractor"
        )
    for line in cost(scores, sets, options):
        print(line)

    values, more = scored(trained, model, density, scores, sets, train, options)
    missing |= more
    if extractor:
        features = {of: features_of(extractor, x, spec) for of, x in sets.items()}
        known = features_of(extractor, train["image"], spec)
        labels = train.get("label")
        others, more = feature_scores("extractor", features, known, labels, options)
        values, missing = values | others, missing | more
    result = provenance(trained, options) | {
        "likelihood_kind": getattr(density, "likelihood_kind", None),
        "extractor": extractor and extractor.name,
        "scores": {name: judged(of_set) for name, of_set in values.items()},
        "missing": missing,
    }
    path = options.workdir / "outliers.json"
    write_json(path, result)
    draw(options.workdir / "outliers.png", values, sets, spec.levels, result)
    print_scores(result, path)
    return result


def cost(scores: dict, sets: dict, options) -> list[str]:
    """What will be done, in words."""
    sizes = ", ".join(f"{len(x):,} {name}" for name, x in sets.items())
    lines = [f"cost: {len(scores)} scores of images, distances of features; of {sizes}"]
    if REGRET in scores:
        calls = 2 * LikelihoodRegret.pairs * LikelihoodRegret.steps
        lines.append(
            f"  {REGRET}: {calls} decoder passes with gradients per image, of "
            f"{options.regret_num} images per set"
        )
    return lines


def scored(
    trained: OpenRun, model, density, scores, sets, train, options
) -> tuple[dict, dict]:
    """({name: {set: scores}}, {name: why it is missing}) of the run's own parts.

    Where images need a label, that is the likeliest under `density`.
    """

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
    own = {of: of_run(features, here) for of, here in arrays.items()}
    labels = train.get("label")
    more, missing = feature_scores("own", own, of_run(features, known), labels, options)
    return values | more, missing


# ------------------------------------------------------------- telling


def print_scores(result: dict[str, Any], path: Path) -> None:
    """The tables, what is missing and why, and where likelihood fails."""
    scores = result["scores"]
    for metric, title in TITLES.items():
        print_table(score_lines(metric, scores), title.format(**result))
    for score, reason in result["missing"].items():
        print(f"no {score}: {reason}")
    for name, judgement in scores.get(LIKELIHOOD, {}).items():
        if judgement["n_overflow"]:
            print(
                f"the likelihood of {judgement['n_overflow']:,} {name} images is too "
                "small for float32: 0"
            )
        if judgement["auroc"] < 0.5 - 2 * judgement["standard_error"]:
            print(
                f"raw likelihood ranks {name} as MORE likely than the data (AUROC "
                f"{judgement['auroc']:.3f}): a known failure of densities, "
                "Nalisnick et al. 2019, arXiv:1810.09136"
            )
    print(path, path.with_suffix(".png"), sep="\n")


def score_lines(metric: str, scores: dict[str, dict]) -> list[list[str]]:
    """One metric, a row per score, a column per set of outliers."""
    sets = next(iter(scores.values()))
    headings = [f"{name}\n{each['n_outliers']:,}" for name, each in sets.items()]
    rows = [
        [score, *(f"{each[metric]:.3f}" for each in of_set.values())]
        for score, of_set in scores.items()
    ]
    return [["score", *headings], *rows]


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
