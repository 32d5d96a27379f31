"""The evaluation of one run: sample quality, likelihood, speed and size."""

from pathlib import Path
from typing import Any

import jax

from gengen.errors import BadInput
from gengen.types import draws

from ..cli.bounds import check_numbers
from ..data.dataset import Dataset
from ..files import write_json
from ..run import card
from ..run.report import read_rows
from ..run.sampler import given_keywords
from ..run.workdir import OpenRun, open_workdir
from .clip_score import clip_figures, open_judge
from .critic import critic_figures
from .disentangling import disentanglement
from .features import alone, empty
from .known_modes import count_modes, known_modes
from .options import Evaluate
from .per_example import Metric, codebook_use, example_metrics, over_splits
from .quality import PART, Quality
from .tables import print_evaluation

SPLITS = ("train", "validation", "test")


def check(options: Evaluate) -> None:
    """BadInput for numbers that no evaluation can have."""
    for name in ("num", "likelihood_num"):
        value, zero = getattr(options, name), name == "likelihood_num"
        if value < 10 and not (zero and value == 0):
            raise BadInput(
                f"--{name.replace('_', '-')} {value}: numbers of so few images mean "
                f"nothing, take at least 10 (better 10,000){', or 0 for none' * zero}"
            )
    check_numbers(options)


def evaluate(options: Evaluate) -> dict[str, Any]:
    """Measure, print, and write `evaluation.json`, which is returned."""
    check(options)
    trained = open_workdir(options.workdir, options.step)
    result = provenance(trained, options)
    print(
        f"{result['experiment']}, step {result['step']}: {result['parameter_count']:,} "
        f"{result['parameters']} parameters; {result['device']}"
    )
    quality = None
    if not draws(trained.model):
        refuse_sampling(trained.model, options)
    judge = open_judge(trained, options.clip)
    splits = open_splits(trained, options.data_dir)
    notes = [trained.changed_since(*split) for split in splits.items()]
    if changed := list(filter(None, notes)):
        result["data_changed"] = changed
    if draws(trained.model):
        quality = Quality(trained, splits, options)
    metrics = example_metrics(trained, splits["train"], options)
    for line in cost(quality, metrics, trained, splits, options):
        print(line)
    if quality:
        with alone(options.workdir / PART):
            result |= quality.measure()
        result |= modes_of_samples(trained, options)
        result |= critic_figures(trained, splits, options.seed)
        result |= clip_figures(judge, trained, splits, options)
    result |= over_splits(trained, splits, metrics, options)
    result |= disentanglement(trained, splits["train"], options)
    result |= codebook_use(trained, splits, options)
    result["examples"] = trained.record.data.examples
    path = options.workdir / "evaluation.json"
    write_json(path, result)
    card.write(options.workdir, trained.model)
    empty(options.workdir / PART)
    print_evaluation(result, path)
    return result


def modes_of_samples(trained: OpenRun, options: Evaluate) -> dict[str, Any]:
    """{"modes": the figures of known modes}; {} where the data have none."""
    arguments = (trained.record, trained.model, options.workdir, options.data_dir)
    known = known_modes(*arguments)
    if known is None:
        return {}
    weights = trained.params, trained.state
    return {"modes": count_modes(known, trained.model, *weights, options.seed)}


def open_splits(trained: OpenRun, data_dir: Path | None) -> dict[str, Dataset]:
    """{name: split} of those that the run's data set has; says which it has not."""
    splits = {"train": trained.dataset("train", data_dir)}
    for name in SPLITS[1:]:
        dataset = trained.dataset_if_any(name, data_dir)
        if dataset and dataset.size:
            splits[name] = dataset
        else:
            print(
                f"note: {trained.record.data.name} has no {name} split, so that there "
                f"are no numbers of {name} {trained.record.data.examples}"
            )
    return splits


def cost(
    quality: Quality | None, metrics: list[Metric], trained, splits: dict, options
) -> list[str]:
    """What will be done, and what cannot be, in words."""
    lines = quality.cost() if quality else []
    noun = trained.record.data.examples
    num = sum(min(x.size, options.likelihood_num) for x in splits.values())
    if metrics:
        what = " and ".join(metric.cost(num, noun) for metric in metrics)
        lines.append(f"cost: {what}")
    return lines


def refuse_sampling(model, options) -> None:
    """BadInput for what means nothing of a classifier, or of an autoencoder alone."""
    what = f"this {type(model).__name__}"
    clip = {"clip": options.clip} if options.clip else {}
    for name, value in (given_keywords(options) | clip).items():
        raise BadInput(
            f"--{name.replace('_', '-')} {value}: {what} draws no samples; leave it out"
        )
    if not options.likelihood_num:
        raise BadInput(
            f"--likelihood-num 0 leaves nothing to measure of {what}: take at least 10"
        )


def provenance(trained: OpenRun, options) -> dict[str, Any]:
    """What was measured, and how."""
    device = jax.devices()[0]
    return {
        "experiment": trained.record.experiment,
        "dataset": trained.record.data_options["dataset"],
        "density": trained.model.density,
        "step": trained.step,
        "parameters": "averaged (EMA)" if trained.averaged else "live",
        "parameter_count": sum(x.size for x in jax.tree.leaves(trained.params)),
        "training_seconds": training_seconds(options.workdir),
        "options": recorded_options(options),
        "device": f"{device.platform}: {device.device_kind}",
        "jax": jax.__version__,
    }


def recorded_options(options) -> dict[str, Any]:
    """The options on which the metrics depend, as JSON's own types."""
    own = {k: v for k, v in vars(options).items() if k not in ("workdir", "data_dir")}
    return {k: str(v) if isinstance(v, Path) else v for k, v in own.items()}


def training_seconds(workdir: Path) -> float | None:
    """Seconds in training steps, from the run's last line of metrics; None unknown."""
    seconds = [row.get("seconds") for row in read_rows(workdir / "metrics.jsonl")]
    last = seconds[-1] if seconds else None
    return float(last) if isinstance(last, int | float) else None
