"""The figures of one run: sample quality, likelihood, speed and size."""

import dataclasses
from pathlib import Path
from typing import Any

from ..cli.options import RunToOpen
from ..experiments.diffusion import GridName, SolverName
from .tables import show


@dataclasses.dataclass(frozen=True)
class Evaluate(RunToOpen):
    """Measure a trained run: samples, likelihood, speed; write evaluation.json.

    Samples are drawn with the averaged parameters (EMA) where the run keeps them, and
    compared with training images in the features of a classifier or of Inception-v3. Of
    text there are bits per byte, and the speed of samples.
    """

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
    interval: tuple[float, float] | None = None
    """The times at which there is guidance, 0 the data and 1 the noise."""
    rescale: float | None = None
    """Share of a guided image's contrast that is given back, against overexposure."""
    threshold: float | None = None
    """Dynamic thresholding of x at each step: the quantile, such as 0.995."""
    guide: Path | None = None
    """Workdir of a worse or shorter run of the same kind, which takes the place of the
    network without a class in guidance: autoguidance."""
    classifier: Path | None = None
    """Workdir of a classifier of noisy images (--path), which guides the sampler to the
    class, also of an unconditional run."""
    classifier_scale: float | None = None
    """How much it does: 1, the default, is Bayes' rule."""
    steps: int | None = None
    """The sampler's steps; by default the run's own."""
    solver: SolverName | None = None
    """The sampler's solver; by default the run's own."""
    grid: GridName | None = None
    """The grid of the sampler's times; by default the run's own."""
    temperature: float | None = None
    """Of an autoregressive model's symbols: below 1 the probable become more so."""
    top_k: int | None = None
    """Draw each symbol from the K most probable ones only."""
    top_p: float | None = None
    """Draw each symbol from the fewest that have this much probability together."""
    draw: bool = False
    """Draw x ~ p(x|z) where the run's samples are means E[x|z]."""
    importance_samples: int | None = None
    """K of the likelihood's bound (IWAE-K), for models with latents; by default the
    run's own."""
    likelihood_num: int = 10_000
    """Examples of each split, at most, whose likelihood is measured."""
    batch_size: int = 256
    """Examples at a time."""
    data_dir: Path | None = None
    """Where the data set's files are."""


def check(options: Evaluate) -> None:
    """BadInput for numbers that no evaluation can have."""
    from gengen.errors import BadInput

    from ..cli.options import check_numbers
    from ..run.sampler import KEYWORDS

    for name in ("num", "likelihood_num"):
        if getattr(options, name) < 10:
            raise BadInput(
                f"--{name.replace('_', '-')} {getattr(options, name)}: figures of so "
                "few images mean nothing, take at least 10 (better 10,000)"
            )
    names = ("seed", "importance_samples", "batch_size", "classifier_scale", *KEYWORDS)
    check_numbers({name: getattr(options, name) for name in names})


def evaluate(options: Evaluate) -> dict[str, Any]:
    """Measure, print, and write `evaluation.json`, which is returned."""
    import json

    from gengen.types import Discriminative

    from ..files import write_atomically
    from ..run.workdir import open_workdir
    from .features import alone, empty
    from .quality import PART, Quality

    check(options)
    trained = open_workdir(options.workdir, options.step)
    result = provenance(trained, options)
    print(
        f"{result['experiment']}, step {result['step']}: {result['parameter_count']:,} "
        f"{result['parameters']} parameters; {result['device']}"
    )
    names = ("train", "validation", "test")
    splits = {n: trained.dataset_if_any(n, options.data_dir) for n in names}
    splits = {name: dataset for name, dataset in splits.items() if dataset}
    if "train" not in splits:
        trained.dataset("train", options.data_dir)  # says what there is
    figures, noun = per_example(trained, options), trained.record.data.examples
    num = sum(min(x.size, options.likelihood_num) for x in splits.values())
    told = [f"cost: {' and '.join(figures)} of {num:,} {noun}"] if figures else []
    if isinstance(trained.model, Discriminative):
        refuse_sampling(options)
        print(*told)
    else:
        quality = Quality(trained, splits, options)
        print(*quality.cost(), *told, sep="\n")
        with alone(options.workdir / PART):
            result |= quality.measure()
    result |= over_splits(trained, splits, figures, options)
    result["examples"] = noun
    path = options.workdir / "evaluation.json"
    write_atomically(path, json.dumps(result, indent=2) + "\n")
    empty(options.workdir / PART)
    show(result, path)
    return result


def refuse_sampling(options: Evaluate) -> None:
    """BadInput for an option of the sampler, where there is none."""
    from gengen.errors import BadInput

    from ..run.sampler import given_keywords

    for name, value in given_keywords(options).items():
        raise BadInput(
            f"--{name.replace('_', '-')} {value}: a classifier draws no samples; "
            "leave it out"
        )


def provenance(trained, options: Evaluate) -> dict[str, Any]:
    """What was evaluated, and how."""
    import jax

    device = jax.devices()[0]
    return {
        "experiment": trained.record.experiment,
        "dataset": trained.record.data_options["dataset"],
        "density": trained.model.density,
        "step": trained.step,
        "parameters": "averaged (EMA)" if trained.averaged else "live",
        "parameter_count": sum(x.size for x in jax.tree.leaves(trained.params)),
        "training_seconds": training_seconds(options.workdir),
        "options": asked(options),
        "device": f"{device.platform}: {device.device_kind}",
        "jax": jax.__version__,
    }


def asked(options: Evaluate) -> dict[str, Any]:
    """The options on which the figures depend, as JSON's own types."""
    own = {k: v for k, v in vars(options).items() if k not in ("workdir", "data_dir")}
    return {k: str(v) if isinstance(v, Path) else v for k, v in own.items()}


def training_seconds(workdir: Path) -> float | None:
    """Seconds in training steps, from the run's last line of metrics."""
    import json

    try:
        last = (workdir / "metrics.jsonl").read_text().splitlines()[-1]
        return float(json.loads(last)["seconds"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None  # a run without metrics, or of an older version


# ------------------------------------------------------------- per example


def per_example(trained, options: Evaluate) -> dict[str, tuple[str, Any]]:
    """{figure: (its kind, (params, state, batch, key) -> [B])} of the model.

    Bits per dimension (of text, per byte) where there is a density, of the mixture
    over classes where it is conditional; accuracy and cross-entropy (nats) of a
    classifier.
    """
    import jax.numpy as jnp

    from gengen.conditions import labels_of
    from gengen.images import bits_name, bits_per_dim
    from gengen.tasks.bayes import generative_classifier
    from gengen.types import Discriminative

    from ..run.heldout import with_importance_samples

    model, shape = trained.model, trained.record.data.shape
    model = with_importance_samples(model, options.importance_samples)
    if isinstance(model, Discriminative):
        labels = model.labels

        def right(params, state, batch, key):
            log_p = model.log_prob_labels(params, state, batch, key)
            return jnp.argmax(log_p, axis=-1) == batch[labels.key]

        def surprise(params, state, batch, key):
            log_p = model.log_prob_labels(params, state, batch, key)
            return -jnp.take_along_axis(log_p, batch[labels.key][:, None], axis=-1)[
                :, 0
            ]

        return {"accuracy": ("share", right), "cross_entropy": ("nats", surprise)}
    if model.density == "none":
        return {}
    kind = model.likelihood_kind
    if labels_of(model.condition):
        model = generative_classifier(model)
        kind = f"{kind}, mixture over classes"

    def bits(*arguments):
        return bits_per_dim(model.log_likelihood(*arguments), shape)

    return {bits_name(shape): (kind, bits)}


def over_splits(trained, splits, figures, options: Evaluate) -> dict[str, Any]:
    """{figure: {split: its mean, standard error, kind and number of examples}}."""
    import jax
    import numpy as np

    from gengen.metrics.result import standard_error
    from gengen.types import Discriminative

    from ..run.heldout import batches, measure, subset

    result, key = {}, jax.random.key(options.seed)
    # Other figures are of the mixture over classes.
    model = trained.model
    label = model.labels.key if isinstance(model, Discriminative) else None
    for name, (kind, function) in figures.items():
        result[name], function = {}, jax.jit(function)
        for split, dataset in splits.items():
            num = min(dataset.size, options.likelihood_num)
            here = batches(dataset, subset(dataset, num), options.batch_size)
            arrays = trained.params, trained.state
            values = measure(function, *arrays, here, num, key, label)
            if len(values) < num:
                print(
                    f"note: {num - len(values):,} of {num:,} {split} images have no "
                    f"known label (-1): {name} leaves them out"
                )
            if not len(values):
                continue
            result[name][split] = {
                "value": float(np.mean(values)),
                "standard_error": standard_error(values),  # None of one example
                "kind": kind,
                "num": len(values),
            }
    return result
