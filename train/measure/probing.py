"""Linear probes: logistic regression on features that were learnt, or were not."""

import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gengen.errors import BadInput
from gengen.metrics.result import standard_error
from gengen.tasks import require
from gengen.types import Discriminative, HasFeatures

from ..cli.bounds import check_numbers
from ..files import write_json
from ..progress import print_table
from ..run.workdir import OpenRun, open_workdir
from .evaluation import provenance
from .outlier_sets import labelled_subset
from .scores import map_over_batches

PENALTIES = np.logspace(-4, 0, 5)  # C of scikit-learn, selected by cross-validation


def probe(options) -> dict[str, Any]:
    """Measure, print, and write `probe.json`, which is returned."""
    check_numbers(options)
    trained = open_workdir(options.workdir, options.step)
    require(trained.model, HasFeatures, "take a run with a representation")
    train, test = labelled_sets(trained, options)
    draws = few_labels(train["label"], options.per_class, options.repeats, options.seed)
    fits = 3 * (len(PENALTIES) * 3 + 1)  # representations, folds
    print(
        f"cost: features of {len(train['label']):,} training and "
        f"{len(test['label']):,} test images; {fits} logistic regressions on all of "
        f"them, {options.repeats * fits} on {len(draws[0])}"
    )
    if isinstance(trained.model, Discriminative):
        print("note: a classifier's features were learnt from all labels already")
    result = provenance(trained, options) | {
        "n_train": len(train["label"]),
        "n_few": len(draws[0]),
        "n_test": len(test["label"]),
        "accuracy": {
            name: accuracies(represent, train, test, draws)
            for name, represent in representations(trained, options).items()
        },
    }
    path = options.workdir / "probe.json"
    write_json(path, result)
    print_accuracies(result, path)
    return result


def labelled_sets(trained: OpenRun, options) -> list[dict[str, np.ndarray]]:
    """Training and test examples whose label is known; BadInput without any."""
    data = trained.record.data
    if not data.num_classes:
        raise BadInput(
            f"{data.name} has no labels, which a probe needs: take a run on a labelled "
            "data set"
        )
    return [
        labelled_subset(trained.dataset(split, options.data_dir), num, options.seed)
        for split, num in (("train", options.num_train), ("test", 10_000))
    ]


def accuracies(represent, train: dict, test: dict, draws: list) -> dict[str, Any]:
    """Test accuracy of a representation's probe with few labels and with all."""
    inside, outside = represent(train["image"]), represent(test["image"])

    def accuracy(places):
        own = inside[places], train["label"][places]
        return float(fitted(*own).score(outside, test["label"]))

    scores = [accuracy(places) for places in draws]
    return {
        "size": inside.shape[1],
        "few": float(np.mean(scores)),
        "few_standard_error": standard_error(scores),
        "all": accuracy(slice(None)),
    }


def few_labels(labels: np.ndarray, per_class: int, repeats: int, seed: int) -> list:
    """`repeats` draws of `per_class` indices of every class, without replacement.

    Raises BadInput for a class with fewer images.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < per_class:
        raise BadInput(
            f"--per-class {per_class}: there are {counts.min()} training images of "
            f"class {classes[counts.argmin()]}; lower it, or raise --num-train"
        )
    rng = np.random.default_rng(seed)
    of_class = [np.flatnonzero(labels == each) for each in classes]
    return [
        np.concatenate([rng.choice(p, per_class, replace=False) for p in of_class])
        for _ in range(repeats)
    ]


def representations(trained, options) -> dict[str, Any]:
    """{name: levels [N, H, W, C] -> float32 [N, F]}: learnt, untrained, pixels.

    Raises BadInput where features are computed from the label that is asked for.
    """
    model, key = trained.model, jax.random.key(options.seed)
    example = trained.record.data.example(2)
    blind = {"image": example["image"]}
    try:
        jax.eval_shape(model.features, trained.params, trained.state, blind, key)
    except (KeyError, BadInput) as error:
        raise BadInput(
            f"the features of this {type(model).__name__} are computed from the image "
            "and its label, so that they give the label away: take an unconditional run"
        ) from error
    features = jax.jit(model.features)
    learnt = trained.params, trained.state
    params, state = jax.jit(model.init)(key, example)
    untrained = params, {**state, "frozen": trained.state["frozen"]}

    def of(arrays):
        return lambda image: map_over_batches(
            features, *arrays, {"image": image}, options
        ).astype(np.float32)

    return {
        "learnt features": of(learnt),
        "untrained features": of(untrained),
        "pixels": lambda image: image.reshape(len(image), -1).astype(np.float32),
    }


def fitted(features: np.ndarray, labels: np.ndarray):
    """Standardisation and logistic regression, its C by three-fold cross-validation.

    With fewer examples than features, these are first rotated into the examples' span:
    the regularised optimum lies in it, so that nothing but time is lost.
    """
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    rotation = [PCA(svd_solver="full")] if features.shape[1] > len(features) else []
    regression = LogisticRegression(max_iter=200, tol=1e-3)
    folds = StratifiedKFold(min(3, np.unique(labels, return_counts=True)[1].min()))
    search = GridSearchCV(regression, {"C": PENALTIES}, cv=folds)
    pipeline = make_pipeline(StandardScaler(), *rotation, search)
    # One thread: products of this size lose more by waiting than they gain by sharing.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 steps are enough
        return pipeline.fit(features, labels)


def print_accuracies(result: dict[str, Any], path: Path) -> None:
    """A row per representation."""
    few, every = (f"{result[name]:,} labels" for name in ("n_few", "n_train"))
    lines = [["logistic regression on", few, every]]
    for name, metric in result["accuracy"].items():
        error = metric["few_standard_error"]
        few = f"{metric['few']:.1%}" + (f" ± {error:.1%}" if error is not None else "")
        lines.append([f"{name} ({metric['size']:,})", few, f"{metric['all']:.1%}"])
    run = f"{result['experiment']} on {result['dataset']}"
    print_table(lines, f"linear probes of {run}: test accuracy")
    print(f"{result['n_test']:,} test images; ± is the standard error of draws")
    print(path)
