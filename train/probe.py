"""python -m train.probe --workdir DIR: what a linear classifier reads off the features.

A representation is worth what it saves in labels. Multinomial logistic regression is
trained on the run's features, on the pixels, and on the features of the same network
before its first step, which is the control: whatever it reaches was not learnt.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from .cli.command import parse, run_command
from .cli.options import RunToOpen

PENALTIES = np.logspace(-4, 0, 5)  # C of scikit-learn, chosen by cross-validation


@dataclasses.dataclass(frozen=True)
class Probe(RunToOpen):
    """Test accuracy of logistic regression on features; write probe.json.

    Features are standardised, and the regularisation is chosen by cross-validation of
    the training images alone.
    """

    per_class: int = 10
    """Labels of each class, of the probe with few of them."""
    repeats: int = 5
    """Draws of the few labels."""
    num_train: int = 10_000
    """Training images, at most, of the probe with all labels."""
    seed: int = 0
    """Seed of the draws, the untrained network and the noise of features."""
    batch_size: int = 256
    """Images at a time."""
    data_dir: Path | None = None
    """Where the data set's files are."""


def probe(options: Probe) -> dict[str, Any]:
    """Measure, print, and write `probe.json`, which is returned."""
    import json

    from gengen.errors import BadInput
    from gengen.tasks import require
    from gengen.types import Discriminative, HasFeatures

    from .cli.options import at_least, check_numbers
    from .files import write_atomically
    from .measure.evaluation import provenance
    from .measure.outlier_sets import labelled_subset
    from .run.workdir import open_workdir

    at_least(options, per_class=2, repeats=1, num_train=10)
    check_numbers({"seed": options.seed, "batch_size": options.batch_size})
    trained = open_workdir(options.workdir, options.step)
    require(trained.model, HasFeatures, "take a run with a representation")
    if not trained.record.data.num_classes:
        raise BadInput(
            f"{trained.record.data.name} has no labels, which a probe needs: take a "
            "run on a labelled data set"
        )
    train, test = (
        labelled_subset(trained.dataset(split, options.data_dir), num, options.seed)
        for split, num in (("train", options.num_train), ("test", 10_000))
    )
    draws = few(train["label"], options.per_class, options.repeats, options.seed)
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
        "accuracy": {},
    }
    for name, represent in representations(trained, options).items():
        inside, outside = represent(train["image"]), represent(test["image"])

        def accuracy(chosen, inside=inside, outside=outside):
            own = inside[chosen], train["label"][chosen]
            return fitted(*own).score(outside, test["label"])

        scores = [accuracy(chosen) for chosen in draws]
        spread = np.std(scores, ddof=1) / np.sqrt(len(scores)) if scores[1:] else None
        result["accuracy"][name] = {
            "size": inside.shape[1],
            "few": float(np.mean(scores)),
            "few_standard_error": None if spread is None else float(spread),
            "all": float(accuracy(slice(None))),
        }
    path = options.workdir / "probe.json"
    write_atomically(path, json.dumps(result, indent=2) + "\n")
    show(result, path)
    return result


def few(labels: np.ndarray, per_class: int, repeats: int, seed: int) -> list:
    """`repeats` draws of `per_class` indices of every class, without replacement.

    Raises BadInput for a class with fewer images.
    """
    from gengen.errors import BadInput

    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < per_class:
        raise BadInput(
            f"--per-class {per_class}: there are {counts.min()} training images of "
            f"class {classes[counts.argmin()]}; lower it, or raise --num-train"
        )
    rng = np.random.default_rng(seed)
    places = [np.flatnonzero(labels == each) for each in classes]
    return [
        np.concatenate([rng.choice(p, per_class, replace=False) for p in places])
        for _ in range(repeats)
    ]


def representations(trained, options) -> dict[str, Any]:
    """{name: levels [N, H, W, C] -> float32 [N, F]}: learnt, untrained, pixels.

    Raises BadInput where features are computed from the label that is asked for.
    """
    import jax

    from gengen.errors import BadInput

    from .measure.scores import map_over_batches

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
    untrained = jax.jit(model.init)(key, example)

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
    import warnings

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


def show(result: dict[str, Any], path: Path) -> None:
    """A row a representation."""
    from rich.table import Table

    from .progress import wide_console

    console = wide_console()
    about = f"{result['experiment']} on {result['dataset']}"
    table = Table(title=f"linear probes of {about}: test accuracy")
    table.add_column("logistic regression on")
    for label in (f"{result['n_few']:,} labels", f"{result['n_train']:,} labels"):
        table.add_column(label, justify="right")
    for name, figure in result["accuracy"].items():
        error = figure["few_standard_error"]
        few = f"{figure['few']:.1%}" + (f" ± {error:.1%}" if error is not None else "")
        table.add_row(f"{name} ({figure['size']:,})", few, f"{figure['all']:.1%}")
    console.print(table)
    console.print(f"{result['n_test']:,} test images; ± is the standard error of draws")
    console.print(str(path))


def main() -> None:
    """The command line."""
    run_command(lambda: probe(parse(Probe, "python -m train.probe")))


if __name__ == "__main__":
    main()
