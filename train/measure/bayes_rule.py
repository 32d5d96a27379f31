"""Bayes' rule on a trained run: p(y|x) from p(x|y), or p(x|y) from p(x)."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from gengen.conditions import labels_of
from gengen.errors import BadInput
from gengen.images import to_unit
from gengen.tasks.bayes import conditional_from, rejection_threshold
from gengen.types import Discriminative

from ..cli.bounds import check_numbers
from ..cli.options import picture_path
from ..files import write_json
from ..progress import counted, print_table, progress
from ..run.heldout import with_importance_samples
from ..run.pictures import save_grid, to_uint8
from ..run.sampler import as_keywords, calls_in_words, keywords_of
from ..run.samples import class_rows
from ..run.workdir import OpenRun, open_workdir
from .evaluation import provenance
from .extractors import default_name, open_extractor
from .mixture import KIND, mixture_over_classes
from .outlier_sets import labelled_subset, outlier_sets, subset
from .scores import map_over_batches, overflow


def bayes(options) -> dict[str, Any]:
    """Measure, print, and write `bayes.json`, which is returned."""
    check_numbers(options)
    out = picture_path(options, "bayes.png")
    trained = open_workdir(options.workdir, options.step)
    path = options.workdir / "bayes.json"
    if is_conditional(trained):
        model = with_importance_samples(trained.model, options.importance_samples)
        result = provenance(trained, options) | classified(trained, model, options)
        write_json(path, result)
        print_classified(result, path)
        return result
    if options.importance_samples is not None:
        raise BadInput(
            f"--importance-samples {options.importance_samples}: an unconditional run "
            "is not classified with; leave it out"
        )
    result = provenance(trained, options) | conditioned(trained, out, options)
    write_json(path, result)
    print_conditioned(result, path)
    return result


def is_conditional(trained: OpenRun) -> bool:
    """Whether the run is p(x|y); BadInput for one that Bayes' rule does not change."""
    model, data = trained.model, trained.record.data
    if isinstance(model, Discriminative):
        raise BadInput("a classifier is p(y|x) already: take a generative run")
    if not data.num_classes:
        raise BadInput(
            f"{data.name} has no labels y: take a run on a labelled data set"
        )
    conditional = labels_of(model.condition) is not None
    if conditional and model.density == "none":
        raise BadInput(
            f"this {type(model).__name__} samples p(x|y) already, and it has no "
            "likelihood to classify by: take a conditional VAE, or a run trained with "
            "--no-conditional"
        )
    return conditional


def open_classifier(trained: OpenRun, options) -> tuple:
    """(extractor, its run): a classifier of the run's classes; else BadInput."""
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


def classified(trained: OpenRun, model, options) -> dict[str, Any]:
    """Accuracy and rejection by p(x|y), beside the discriminative classifier's."""
    spec = trained.record.data
    classifier = mixture_over_classes(model, trained.dataset("train", options.data_dir))
    split, held_out = held_out_set(trained, options)
    test = trained.dataset("test", options.data_dir)
    test = labelled_subset(test, options.num, options.seed)
    sets = {split: held_out["image"], "test": test["image"]}
    sets |= outlier_sets(test["image"], spec, options)
    extractor, _ = open_classifier(trained, options)
    images = sum(map(len, sets.values()))
    print(
        f"cost: {spec.num_classes} likelihoods ({model.likelihood_kind}) of each of "
        f"{images:,} images; the threshold is from {split} images"
    )
    joint = jax.jit(classifier.log_joint)
    evidence, labels, confidence, answers = {}, {}, {}, {}
    for name, image in sets.items():
        weights = trained.params, trained.state
        log_joint = map_over_batches(joint, *weights, {"image": image}, options)
        log_joint = -overflow(-log_joint)
        evidence[name] = np.logaddexp.reduce(log_joint, axis=1)
        labels[name] = np.argmax(log_joint, axis=1)
        _, probs = extractor(np.asarray(to_unit(image, spec.levels)))
        confidence[name], answers[name] = probs.max(axis=1), probs.argmax(axis=1)
    ours, theirs = (
        float(rejection_threshold(score[split], options.reject_rate))
        for score in (evidence, confidence)
    )
    known, right = evidence["test"] >= ours, labels["test"] == test["label"]
    return {
        "likelihood_kind": model.likelihood_kind,
        "prior": f"{KIND.partition(' with ')[2]} of classes",
        "classifier": extractor.name,
        "accuracy": {
            "generative": share(right),
            "generative, of what it does not reject": share(right[known]),
            "discriminative": share(answers["test"] == test["label"]),
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


def held_out_set(trained: OpenRun, options) -> tuple[str, dict[str, np.ndarray]]:
    """(its name, images) of the split that the threshold is taken from."""
    for split in ("validation", "train"):
        if dataset := trained.dataset_if_any(split, options.data_dir):
            break
    return split, subset(dataset, options.num, options.seed)


def share(event: np.ndarray) -> dict[str, Any]:
    """How often, with its standard error √(p (1 - p)/n); None of nothing."""
    num = len(event)
    if not num:
        return {"value": None, "standard_error": None, "num": 0}
    p = float(np.mean(event))
    return {"value": p, "standard_error": float(np.sqrt(p * (1 - p) / num)), "num": num}


# ------------------------------------------------------------- p(x|y) from p(x)


def conditioned(trained: OpenRun, out: Path, options) -> dict[str, Any]:
    """A picture of samples of p(x|y) ∝ p(y|x) p(x), and how well they were selected."""
    given = {"draw": True} if options.draw else {}
    spec, sampler = trained.record.data, as_keywords(trained.model, given)
    extractor, judge = open_classifier(trained, options)
    model = conditional_from(judge.model, trained.model, options.candidates)
    rows, each = class_rows(spec), options.per_class
    names = spec.class_names[:rows]
    labels = np.repeat(np.arange(rows, dtype=np.int32), each)
    drawn = "draws of p(x|z)" if options.draw else "means E[x|z]"
    kind = drawn if "draw" in keywords_of(trained.model) else "samples"
    print(
        f"cost: {len(labels) * options.candidates:,} candidates ({kind}), each of "
        f"{calls_in_words(trained.model.nfe())} and one label"
    )
    out.parent.mkdir(parents=True, exist_ok=True)  # before the work

    @jax.jit
    def resample(params, state, key, first, label):
        how = {"start_index": first, "label": label, **sampler}
        return model.resample(params, state, key, each, **how)

    weights = [
        {
            "discriminative": getattr(judge, name),
            "generative": getattr(trained, name),
        }
        for name in ("params", "state")
    ]
    key = jax.random.key(options.seed)
    with progress("classes", rows) as advance:
        parts = [
            jax.device_get(resample(*weights, key, row * each, np.int32(row)))
            for row in counted(range(rows), advance)
        ]
    x, size = (np.concatenate(part) for part in zip(*parts, strict=True))
    probs = extractor(x)[1]
    save_grid(out, to_uint8(x), each, names)
    sizes = size.reshape(rows, -1).mean(axis=1)
    return {
        "classifier": extractor.name,
        "candidates": options.candidates,
        "candidates_are": kind,
        "asked_for": share(probs.argmax(axis=1) == labels),
        "mean_probability": float(np.mean(probs[np.arange(len(labels)), labels])),
        "chance": 1 / spec.num_classes,
        "effective_sample_size": dict(zip(names, map(float, sizes), strict=True)),
        "picture": str(out),
    }


# ------------------------------------------------------------- telling


def print_classified(result: dict[str, Any], path: Path) -> None:
    """Accuracies, and what each classifier does not want to label."""
    lines = [["", ""]]
    for name, metric in result["accuracy"].items():
        kind = f" ({result['likelihood_kind']})" if name == "generative" else ""
        lines.append([f"accuracy, {name}{kind}", percent(metric)])
    print_table(lines, f"Bayes' rule: {result['experiment']} on {result['dataset']}")
    lines = [["", "by p(x)", "by max p(y|x)", "mean max p(y|x)"]]
    for name, metric in result["rejected"].items():
        shares = (percent(metric[by]) for by in ("by_p_x", "by_confidence"))
        lines.append([name, *shares, f"{metric['mean_confidence']:.1%}"])
    at = result["threshold"]
    print_table(lines, f"rejected at {at['rate']:.1%} of the {at['split']} images")
    print(f"p(y) is the {result['prior']}")
    print(path)


def print_conditioned(result: dict[str, Any], path: Path) -> None:
    """How often the judge sees the class asked for, and among how many it selected."""
    lines = [["", ""], ["called the class asked for", percent(result["asked_for"])]]
    lines.append(["  by chance", f"{result['chance']:.1%}"])
    lines.append(["their mean p(y|x)", f"{result['mean_probability']:.1%}"])
    for name, size in result["effective_sample_size"].items():
        of = f"effective candidates of {result['candidates']}, class {name}"
        lines.append([of, f"{size:.1f}"])
    print_table(lines, f"Bayes' rule: {result['experiment']} on {result['dataset']}")
    print(f"the judge is the one that selected: {result['classifier']}")
    print(result["picture"], path, sep="\n")


def percent(metric: dict[str, Any]) -> str:
    """A share with its error."""
    if metric["value"] is None:
        return "–"
    return f"{metric['value']:.1%} ± {metric['standard_error']:.1%}"
