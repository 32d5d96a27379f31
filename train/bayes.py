"""python -m train.bayes --workdir DIR: Bayes' rule on a trained run.

A class-conditional density p(x|y) becomes a classifier that can also reject:

    p(y|x) = p(x|y) p(y) / p(x),        reject where p(x) is small

and is judged beside a discriminative classifier, which can only be unsure. An
unconditional generative model p(x) becomes a conditional one by the classifier:

    p(x|y) ∝ p(y|x) p(x)

by choosing among candidates. See `gengen.tasks.bayes`.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from .cli.command import parse, run_command
from .cli.options import RunToOpen


@dataclasses.dataclass(frozen=True)
class Bayes(RunToOpen):
    """p(y|x) from p(x|y), or p(x|y) from p(x), whichever the run allows.

    A class-conditional run with a likelihood (a VAE trained with --conditional): its
    accuracy and what it rejects. An unconditional run: a picture of its samples of
    every class. Both write bayes.json.
    """

    num: int = 1_000
    """Test images, and outliers of each kind, at most."""
    reject_rate: float = 0.01
    """Share of held-out images that the threshold may reject."""
    against: tuple[str, ...] = ()
    """Outliers, as in python -m train.outliers."""
    importance_samples: int | None = None
    """K of the likelihood's bound (IWAE-K), for models with latents; by default the
    run's own."""
    candidates: int = 64
    """Samples of p(x) among which one of p(x|y) is chosen."""
    per_class: int = 10
    """Samples of each class, a row of the picture."""
    draw: bool = False
    """Sample a VAE's x ~ p(x|z) instead of showing its mean E[x|z]."""
    out: Path | None = None
    """The picture (.png); by default bayes.png in the workdir."""
    extractor: Path | None = None
    """Workdir of the classifier p(y|x); by default the one beside the run's workdir,
    trained first if there is none."""
    seed: int = 0
    """Seed of all draws and estimates."""
    batch_size: int = 256
    """Images at a time."""
    data_dir: Path | None = None
    """Where the data set's files are."""


def bayes(options: Bayes) -> dict[str, Any]:
    """Measure, print, and write `bayes.json`, which is returned."""
    import json

    from gengen.conditions import labels_of
    from gengen.errors import BadInput
    from gengen.types import Discriminative

    from .cli.options import at_least, check_numbers, check_png
    from .files import write_atomically
    from .measure.evaluation import provenance
    from .run.heldout import with_importance_samples
    from .run.workdir import open_workdir

    at_least(options, num=10, candidates=1, per_class=1)
    names = ("seed", "importance_samples", "batch_size")
    check_numbers({name: getattr(options, name) for name in names})
    if not 0 < options.reject_rate < 1:
        raise BadInput(f"--reject-rate {options.reject_rate}: a share between 0 and 1")
    out = options.out or options.workdir / "bayes.png"
    check_png(out)
    trained = open_workdir(options.workdir, options.step)
    model = trained.model
    if isinstance(model, Discriminative):
        raise BadInput("a classifier is p(y|x) already: take a generative run")
    if not trained.record.data.num_classes:
        name = trained.record.data.name
        raise BadInput(f"{name} has no labels y: take a run on a labelled data set")
    conditional = labels_of(model.condition) is not None
    if conditional and model.density == "none":
        raise BadInput(
            f"this {type(model).__name__} samples p(x|y) already, and it has no "
            "likelihood to classify by: take a conditional VAE, or a run trained with "
            "--no-conditional"
        )
    if conditional:
        model = with_importance_samples(model, options.importance_samples)
        result = classified(trained, model, options)
    elif options.importance_samples is not None:
        raise BadInput(
            f"--importance-samples {options.importance_samples}: an unconditional run "
            "is not classified with; leave it out"
        )
    else:
        result = conditioned(trained, out, options)
    result = provenance(trained, options) | result
    path = options.workdir / "bayes.json"
    write_atomically(path, json.dumps(result, indent=2) + "\n")
    show(result, path)
    return result


def opened_classifier(trained, options: Bayes) -> tuple:
    """(extractor, its run): a classifier of the run's classes; else BadInput."""
    from gengen.errors import BadInput

    from .measure.extractors import default_name, open_extractor
    from .run.workdir import open_workdir

    given, record = options.extractor, trained.record
    path = given or options.workdir.absolute().parent / default_name(record)
    extractor = open_extractor(given, options.workdir, record, options.data_dir)
    if not extractor.labels:
        raise BadInput(
            f"--extractor {path} knows other classes than {record.data.name}'s: give "
            "the workdir of a classifier trained on the run's data set"
        )
    return extractor, open_workdir(path)


# ------------------------------------------------------------- p(y|x) from p(x|y)


def classified(trained, model, options: Bayes) -> dict[str, Any]:
    """Accuracy and rejection by p(x|y), beside the discriminative classifier's."""
    import jax

    from gengen.tasks.bayes import generative_classifier, rejection_threshold

    from .measure.outlier_sets import labelled_subset, outlier_sets, subset
    from .measure.scores import map_over_batches, overflow

    classifier, spec = generative_classifier(model), trained.record.data
    split = next(
        name
        for name in ("validation", "train")
        if trained.dataset_if_any(name, options.data_dir)
    )
    count = options.num, options.seed
    held = subset(trained.dataset(split, options.data_dir), *count)
    test = labelled_subset(trained.dataset("test", options.data_dir), *count)
    sets = {split: held["image"], "test": test["image"]}
    sets |= outlier_sets(test["image"], spec, options)
    extractor, _ = opened_classifier(trained, options)
    images = sum(map(len, sets.values()))
    print(
        f"cost: {spec.num_classes} likelihoods ({model.likelihood_kind}) of each of "
        f"{images:,} images; the threshold is from {split} images"
    )
    joint = jax.jit(classifier.log_joint)
    evidence, labels, confidence, said = {}, {}, {}, {}
    for name, image in sets.items():
        weights = trained.params, trained.state
        log_joint = map_over_batches(joint, *weights, {"image": image}, options)
        log_joint = -overflow(-log_joint)
        evidence[name] = np.logaddexp.reduce(log_joint, axis=1)
        labels[name] = np.argmax(log_joint, axis=1)
        probs = probabilities(extractor, image, spec)
        confidence[name], said[name] = probs.max(axis=1), probs.argmax(axis=1)
    ours = float(rejection_threshold(evidence[split], options.reject_rate))
    theirs = float(rejection_threshold(confidence[split], options.reject_rate))
    known = evidence["test"] >= ours
    right = labels["test"] == test["label"]
    return {
        "likelihood_kind": model.likelihood_kind,
        "classifier": extractor.name,
        "accuracy": {
            "generative": share(right),
            "generative, of what it does not reject": share(right[known]),
            "discriminative": share(said["test"] == test["label"]),
        },
        "threshold": {"split": split, "rate": options.reject_rate, "log_p_x": ours},
        "rejected": {
            name: {
                "by_p_x": share(evidence[name] < ours),
                "by_confidence": share(confidence[name] < theirs),
                "mean_confidence": float(np.mean(confidence[name])),
            }
            for name in sets
            if name != split
        },
    }


def probabilities(extractor, image: np.ndarray, spec) -> np.ndarray:
    """p(y|x) of levels, [N, K], by the extractor's classifier."""
    from gengen.images import to_unit

    return extractor(np.asarray(to_unit(image, spec.levels)))[1]


def share(event: np.ndarray) -> dict[str, Any]:
    """How often, with its standard error √(p (1 - p)/n)."""
    p, n = float(np.mean(event)), len(event)
    return {"value": p, "standard_error": float(np.sqrt(p * (1 - p) / n)), "num": n}


# ------------------------------------------------------------- p(x|y) from p(x)


def conditioned(trained, out: Path, options: Bayes) -> dict[str, Any]:
    """A picture of samples of p(x|y) ∝ p(y|x) p(x), and how well they were chosen."""
    import jax

    from gengen.tasks.bayes import conditional_from

    from .run.pictures import save_grid, to_uint8
    from .run.sampler import as_keywords, calls_in_words, keywords_of
    from .run.samples import class_rows

    given = {"draw": True} if options.draw else {}
    spec, sampler = trained.record.data, as_keywords(trained.model, given)
    extractor, judge = opened_classifier(trained, options)
    model = conditional_from(judge.model, trained.model, options.candidates)
    rows = class_rows(spec)
    asked = np.repeat(np.arange(rows, dtype=np.int32), options.per_class)
    total = len(asked) * options.candidates
    drawn = "draws of p(x|z)" if options.draw else "means E[x|z]"
    kind = drawn if "draw" in keywords_of(trained.model) else "samples"
    print(
        f"cost: {total:,} candidates ({kind}), each of "
        f"{calls_in_words(trained.model.nfe())} and one label"
    )
    out.parent.mkdir(parents=True, exist_ok=True)  # before the work

    @jax.jit
    def resample(params, state, key, first, label):
        return model.resample(
            params,
            state,
            key,
            options.per_class,
            start_index=first,
            label=label,
            **sampler,
        )

    weights = [
        {"discriminative": ours, "generative": theirs}
        for ours, theirs in (
            (judge.params, trained.params),
            (judge.state, trained.state),
        )
    ]
    key = jax.random.key(options.seed)
    parts = [
        resample(*weights, key, row * options.per_class, asked[row * options.per_class])
        for row in range(rows)
    ]
    x, size = (np.concatenate(each) for each in zip(*parts, strict=True))
    probs = extractor(x)[1]
    save_grid(out, to_uint8(x), options.per_class, spec.class_names[:rows])
    sizes = size.reshape(rows, -1).mean(axis=1)
    return {
        "classifier": extractor.name,
        "candidates": options.candidates,
        "candidates_are": kind,
        "asked_for": share(probs.argmax(axis=1) == asked),
        "mean_probability": float(np.mean(probs[np.arange(len(asked)), asked])),
        "chance": 1 / spec.num_classes,
        "effective_sample_size": dict(
            zip(spec.class_names[:rows], map(float, sizes), strict=True)
        ),
        "picture": str(out),
    }


# ------------------------------------------------------------- telling


def show(result: dict[str, Any], path: Path) -> None:
    """Tables of what was map_over_batches."""
    from rich.table import Table

    from .progress import wide_console

    console = wide_console()
    title = f"Bayes' rule: {result['experiment']} on {result['dataset']}"
    table = Table(title=title)
    table.add_column("")
    table.add_column("", justify="right")
    if "accuracy" in result:
        kind = result["likelihood_kind"]
        for name, figure in result["accuracy"].items():
            given = f" ({kind})" if name == "generative" else ""
            table.add_row(f"accuracy, {name}{given}", words(figure))
        console.print(table)
        console.print(rejections(result))
    else:
        table.add_row("called the class asked for", words(result["asked_for"]))
        table.add_row("  by chance", f"{result['chance']:.1%}")
        table.add_row("their mean p(y|x)", f"{result['mean_probability']:.1%}")
        sizes = result["effective_sample_size"]
        for name, size in sizes.items():
            of = f"effective candidates of {result['candidates']}, class {name}"
            table.add_row(of, f"{size:.1f}")
        console.print(table)
        console.print(f"the judge is the one that chose: {result['classifier']}")
        console.print(result["picture"])
    console.print(str(path))


def rejections(result: dict[str, Any]):
    """A row a set of images: what each classifier does not want to label."""
    from rich.table import Table

    at = result["threshold"]
    table = Table(title=f"rejected at {at['rate']:.1%} of the {at['split']} images")
    table.add_column("")
    for name in ("by p(x)", "by max p(y|x)", "mean max p(y|x)"):
        table.add_column(name, justify="right")
    for name, figure in result["rejected"].items():
        shares = (words(figure[by]) for by in ("by_p_x", "by_confidence"))
        table.add_row(name, *shares, f"{figure['mean_confidence']:.1%}")
    return table


def words(figure: dict[str, Any]) -> str:
    """A share with its error."""
    return f"{figure['value']:.1%} ± {figure['standard_error']:.1%}"


def main() -> None:
    """The command line."""
    run_command(lambda: bayes(parse(Bayes, "python -m train.bayes")))


if __name__ == "__main__":
    main()
