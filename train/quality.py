"""The samples of a run against its training images, in an extractor's features."""

import dataclasses
import statistics
import time
import warnings
from typing import Any

import jax
import numpy as np

from gengen.metrics import sample_quality
from train.data import order
from train.experiments.flow import solvers
from train.extractors import Extractor, digest_of, open_extractor
from train.features import Features, Parts, of_dataset
from train.report import progress
from train.sampling import Sampler
from train.workdir import Trained

KEPT = 10_000  # features kept for the figures that need all of them at once
PART = "evaluation.part"  # folder of the features of an evaluation under way


def quality(trained: Trained, options) -> dict[str, Any]:
    """Figures of the samples, and of test images in their place: the noise floor."""
    given = {
        "guidance_scale": options.guidance_scale,
        "steps": options.steps,
        "solver": options.solver and solvers()[options.solver],
    }
    given = {name: value for name, value in given.items() if value is not None}
    sampler = Sampler(trained.model, min(options.num, options.batch_size), **given)
    calls = trained.model.evaluations(**given)
    train = trained.dataset("train", options.data_dir)
    extractor = open_extractor(
        options.extractor, options.workdir, trained.record, options.data_dir
    )
    print(f"features: {extractor.name} ({extractor.note})")
    if options.extractor is None:
        print(
            "  --extractor FILE takes the FID convention's Inception-v3 instead; "
            "figures of different extractors cannot be compared"
        )
    print(
        f"cost: {options.num:,} samples of {calls} network evaluations, "
        f"{sampler.batch_size} at a time; features of {train.size:,} training images"
    )
    with progress("training images", train.size) as advance:
        real = of_dataset(extractor, train, KEPT, advance)
    labels = None
    if getattr(trained.model, "num_classes", 0):
        # As frequent as in the data: epoch after epoch of shuffled labels.
        labels = real.labels[order(options.seed, 0, options.num, len(real.labels))]
    seconds, fake = draw(trained, sampler, extractor, labels, options)
    result = {
        "extractor": extractor.name,
        "network_evaluations": calls,
        "seconds_per_sample": seconds,
        "sample_quality": compared(real, fake, extractor, options.seed, tell=True),
    }
    if labels is not None and extractor.labels:
        right = np.argmax(fake.probs, axis=1) == labels[: len(fake.probs)]
        result["class_accuracy"] = float(np.mean(right))
    if test := trained.dataset_if_any("test", options.data_dir):
        floor = of_dataset(extractor, test, KEPT)
        result["noise_floor"] = compared(
            real, floor, extractor, options.seed, tell=False
        )
    return result


def compared(
    real: Features, fake: Features, extractor: Extractor, seed: int, tell: bool
) -> dict[str, Any]:
    """`metrics.sample_quality` as dictionaries; what it warns of is printed."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        figures = sample_quality(
            real.kept,
            fake.kept,
            extractor.name,
            fake.probs,
            seed,
            real.moments,
            fake.moments,
        )
    for note in {str(warning.message) for warning in said} if tell else ():
        print(f"note: {note}")
    return {name: dataclasses.asdict(figure) for name, figure in figures.items()}


def draw(trained, sampler, extractor, labels, options) -> tuple[float, Features]:
    """(median seconds a sample, the samples' features); what is there is not redone."""
    names = ("num", "seed", "guidance_scale", "steps", "solver", "batch_size")
    identity = {name: getattr(options, name) for name in names}
    identity |= {"step": trained.step, "weights": digest_of(trained.params)}
    parts = Parts(options.workdir / PART, {**identity, "extractor": extractor.name})
    size, key = sampler.batch_size, jax.random.key(options.seed)
    firsts = range(0, options.num, size)
    missing = [first for first in firsts if not parts.has(first)]
    if len(missing) < len(firsts):
        done = options.num - sum(min(size, options.num - first) for first in missing)
        print(f"going on: {done:,} samples of an interrupted evaluation are there")

    def batch(first):
        began = time.perf_counter()
        x = sampler.batch(trained.params, trained.state, key, first, labels)
        return x, (time.perf_counter() - began) / size

    with progress("samples", options.num) as advance:
        for i, first in enumerate(missing):
            x, seconds = batch(first)
            if i == 0:  # that compiled: time it again
                _, seconds = batch(first)
                print(f"about {seconds * size * len(missing):,.0f} s for the samples")
            parts.save(first, *extractor(x[: options.num - first]), seconds)
            advance(min(first + size, options.num))
    return statistics.median(parts.seconds()), parts.features(KEPT)
