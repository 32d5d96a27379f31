"""python -m train.evaluate --workdir DIR: what a trained run is worth, in figures.

Sample quality in the features of an extractor, bits per dimension with their kind,
speed and size: the same command for every family. Each figure is recorded with what it
depends on. Features are written down batch by batch, so that an interrupted evaluation
goes on where it was.
"""

import dataclasses
from pathlib import Path
from typing import Any

from train.command import parse, told
from train.experiments.flow import SolverName


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Measure a trained run: samples, likelihood, speed; write evaluation.json.

    Samples are drawn with the averaged parameters (EMA) where the run keeps them, and
    compared with training images in the features of a classifier or of Inception-v3.
    """

    workdir: Path
    """The run's folder."""
    num: int = 10_000
    """Number of samples."""
    seed: int = 0
    """Seed of the samples and of all estimates."""
    extractor: Path | None = None
    """Weight file of the FID convention's Inception-v3 (pt_inception….pth or
    .safetensors), or workdir of a classifier; by default the classifier beside the
    run's workdir, trained first if there is none."""
    guidance_scale: float | None = None
    """Classifier-free guidance: 1 is none; by default the run's own."""
    steps: int | None = None
    """The sampler's steps; by default the run's own."""
    solver: SolverName | None = None
    """The sampler's solver; by default the run's own."""
    importance_samples: int | None = None
    """K of the likelihood's bound (IWAE-K), for models with latents; by default the
    run's own."""
    likelihood_num: int = 10_000
    """Images of each split, at most, whose likelihood is measured."""
    batch_size: int = 256
    """Images at a time."""
    data_dir: Path | None = None
    """Where the data set's files are."""


def check(options: Evaluate) -> None:
    """BadInput for numbers that no evaluation can have."""
    from gengen.types import BadInput
    from train.options import check_numbers

    for name in ("num", "likelihood_num"):
        if getattr(options, name) < 10:
            raise BadInput(
                f"--{name.replace('_', '-')} {getattr(options, name)}: figures of so "
                "few images mean nothing, take at least 10 (better 10,000)"
            )
    names = ("seed", "guidance_scale", "importance_samples", "batch_size")
    check_numbers({name: getattr(options, name) for name in names})


def evaluate(options: Evaluate) -> dict[str, Any]:
    """Measure, print, and write `evaluation.json`, which is returned."""
    import json

    from train.experiment import write_atomically
    from train.features import empty
    from train.quality import PART, quality
    from train.workdir import open_workdir

    check(options)
    trained = open_workdir(options.workdir)
    result = about(trained, options)
    print(
        f"{result['experiment']}, step {result['step']}: {result['parameter_count']:,} "
        f"{result['parameters']} parameters; {result['device']}"
    )
    if hasattr(trained.model, "log_prob_labels"):
        result |= accuracies(trained, options)
    else:
        result |= quality(trained, options)
        result |= likelihoods(trained, options)
    path = options.workdir / "evaluation.json"
    write_atomically(path, json.dumps(result, indent=2) + "\n")
    empty(options.workdir / PART)
    show(result, path)
    return result


def about(trained, options: Evaluate) -> dict[str, Any]:
    """What was evaluated, and how."""
    import jax

    device = jax.devices()[0]
    asked = {k: v for k, v in vars(options).items() if k not in ("workdir", "data_dir")}
    return {
        "experiment": trained.record.experiment,
        "dataset": trained.record.run["dataset"],
        "density": trained.model.density,
        "step": trained.step,
        "parameters": "averaged (EMA)" if trained.averaged else "live",
        "parameter_count": sum(x.size for x in jax.tree.leaves(trained.params)),
        "training_seconds": training_seconds(options.workdir),
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in asked.items()},
        "device": f"{device.platform}: {device.device_kind}",
        "jax": jax.__version__,
    }


def training_seconds(workdir: Path) -> float | None:
    """Seconds in training steps, from the run's last line of metrics."""
    import json

    try:
        last = (workdir / "metrics.jsonl").read_text().splitlines()[-1]
        return float(json.loads(last)["seconds"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None  # a run without metrics, or of an older version


# ------------------------------------------------------------- likelihood, labels


def likelihoods(trained, options: Evaluate) -> dict[str, Any]:
    """Bits per dimension of the train and test images, and what kind they are."""
    import jax

    from gengen.images import bits_per_dim
    from gengen.tasks.bayes import generative_classifier
    from gengen.types import BadInput

    model = trained.model
    if options.importance_samples is not None:
        if not hasattr(model, "importance_samples"):
            raise BadInput(
                f"--importance-samples {options.importance_samples}: a "
                f"{type(model).__name__} has no such estimate; leave it out"
            )
        changes = {"importance_samples": options.importance_samples}
        model = dataclasses.replace(model, **changes)
    if model.density == "none":
        return {"bits_per_dim": None}
    kind = model.likelihood_kind
    if getattr(model, "num_classes", 0):
        model = generative_classifier(model)
        kind = f"{kind} of the mixture over classes"
    shape = trained.record.data.shape

    @jax.jit
    def bits(*arguments):
        return bits_per_dim(model.log_likelihood(*arguments), shape)

    figures = over_splits(trained, bits, options, "log-likelihood")
    return {"bits_per_dim": {s: {"kind": kind, **f} for s, f in figures.items()}}


def accuracies(trained, options: Evaluate) -> dict[str, Any]:
    """A classifier's accuracy and cross-entropy (nats) on every split."""
    import jax
    import jax.numpy as jnp

    model = trained.model

    @jax.jit
    def right(params, state, batch, key):
        log_p = model.log_prob_labels(params, state, batch, key)
        return jnp.argmax(log_p, axis=-1) == batch["label"]

    @jax.jit
    def surprise(params, state, batch, key):
        log_p = model.log_prob_labels(params, state, batch, key)
        return -jnp.take_along_axis(log_p, batch["label"][:, None], axis=-1)[:, 0]

    return {
        "accuracy": over_splits(trained, right, options, "classification"),
        "cross_entropy": over_splits(trained, surprise, options, "classification"),
    }


def over_splits(trained, function, options: Evaluate, what: str) -> dict[str, Any]:
    """{split: mean, standard error and number of images} of a figure [B]."""
    import jax
    import numpy as np

    from train.heldout import batches, measure

    figures = {}
    for split in ("train", "validation", "test"):
        dataset = trained.dataset_if_any(split, options.data_dir)
        if dataset is None:
            continue
        num = min(dataset.size, options.likelihood_num)
        print(f"cost: {what} of {num:,} {split} images")
        values = measure(
            function,
            trained.params,
            trained.state,
            batches(dataset, options.batch_size, num),
            num,
            jax.random.key(options.seed),
        )
        error = float(np.std(values, ddof=1) / np.sqrt(num))
        figures[split] = {"value": float(np.mean(values)), "standard_error": error}
        figures[split]["num"] = num
    return figures


# ------------------------------------------------------------- the table


def show(result: dict[str, Any], path: Path) -> None:
    """The figures as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True, highlight=False)
    if quality := result.get("sample_quality"):
        table = Table(title=f"samples against training images; {result['extractor']}")
        columns = {"samples": quality, "test images": result.get("noise_floor", {})}
        table.add_column("")
        for name in columns:
            table.add_column(name, justify="right")
        for name in quality:
            cells = [words(column.get(name)) for column in columns.values()]
            table.add_row(name.replace("_", " "), *cells)
        console.print(table)
    table = Table(title=f"{result['experiment']} on {result['dataset']}")
    table.add_column("")
    table.add_column("", justify="right")
    for name in ("bits_per_dim", "accuracy", "cross_entropy"):
        for split, figure in (result.get(name) or {}).items():
            kind = f" ({figure['kind']})" if "kind" in figure else ""
            value = f"{figure['value']:.4f} ± {figure['standard_error']:.4f}"
            label = f"{name.replace('_', ' ')}, {figure['num']:,} {split} images{kind}"
            table.add_row(label, value)
    if result.get("class_accuracy") is not None:
        table.add_row(
            "samples of the class asked for", f"{result['class_accuracy']:.1%}"
        )
    if result.get("seconds_per_sample") is not None:
        milliseconds = 1e3 * result["seconds_per_sample"]
        table.add_row("milliseconds a sample", f"{milliseconds:.3g}")
        table.add_row(
            "network evaluations a sample", f"{result['network_evaluations']}"
        )
    table.add_row("parameters", f"{result['parameter_count']:,}")
    if result["training_seconds"] is not None:
        table.add_row("seconds of training", f"{result['training_seconds']:,.0f}")
    console.print(table)
    console.print(str(path))


def words(figure: dict[str, Any] | None) -> str:
    """A figure with its error and its numbers of samples."""
    if figure is None:
        return "–"
    error = figure["standard_error"]
    value = f"{figure['value']:.4g}" + ("" if error is None else f" ± {error:.2g}")
    real = f" of {figure['n_real']:,}" if figure["n_real"] else ""
    return f"{value}  ({figure['n_fake']:,}{real})"


def main() -> None:
    """The command line."""
    told(lambda: evaluate(parse(Evaluate, "python -m train.evaluate")))


if __name__ == "__main__":
    main()
