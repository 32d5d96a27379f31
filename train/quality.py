"""The samples of a run against its training images, in an extractor's features."""

import dataclasses
import inspect
import statistics
import time
import warnings
from typing import Any

import jax
import numpy as np

from gengen.metrics import moments, sample_quality
from train.data import Dataset, order
from train.experiments.flow import solvers
from train.extractors import digest_of, open_extractor
from train.features import Features, Parts, check_finite, of_dataset
from train.report import progress
from train.sampling import Sampler
from train.workdir import Trained

KEPT = 10_000  # features kept for the figures that need all of them at once
PART = "evaluation.part"  # folder of the features of an evaluation under way


class Quality:
    """What it takes to judge the samples of a run; BadInput before any work."""

    def __init__(self, trained: Trained, splits: dict[str, Dataset], options):
        given = {
            "guidance_scale": options.guidance_scale,
            "steps": options.steps,
            "solver": options.solver and solvers()[options.solver],
        }
        given = {name: value for name, value in given.items() if value is not None}
        if options.extractor is not None:
            trained.record.data.images_only("--extractor")
        self.trained, self.splits, self.options = trained, splits, options
        drawn = {"draw": True} if options.draw else {}
        self.sampler = Sampler(
            trained.model, min(options.num, options.batch_size), **given, **drawn
        )
        self.calls = trained.model.evaluations(**given)
        means = "draw" in inspect.signature(trained.model.sample).parameters
        self.kind = "means E(x|z)" if means and not options.draw else "samples"

    def cost(self) -> list[str]:
        """What will be done, in words."""
        sizes = [f"{dataset.size:,} {name}" for name, dataset in self.splits.items()]
        hint = " (--draw for x ~ p(x|z))" if self.kind != "samples" else ""
        return [
            f"cost: {self.options.num:,} {self.kind}{hint} of {self.calls} network "
            f"evaluations, {self.sampler.batch_size} at a time; "
            f"{self.trained.record.data.examples}: {', '.join(sizes)}",
        ]

    def open_extractor(self):
        """What turns images into features, told; None if there is nothing that does."""
        path, record = self.options.extractor, self.trained.record
        if record.data.kind == "text":
            return None
        if path is None and not record.data.num_classes:
            print(
                f"no sample quality: {record.data.name} has no labels to train a "
                "classifier on, so give --extractor the weight file of Inception-v3"
            )
            return None
        extractor = open_extractor(
            path, self.options.workdir, record, self.options.data_dir
        )
        print(f"features: {extractor.name} ({extractor.note})")
        if path is None:
            print(
                "  --extractor FILE takes the FID convention's Inception-v3 instead; "
                "figures of different extractors cannot be compared"
            )
        return extractor

    def measure(self) -> dict[str, Any]:
        """Figures of samples; of test images in their place; and the noise floor.

        The noise floor is one half of the training images against the other: what
        remains of the figures where nothing differs.
        """
        self.extractor, seed = self.open_extractor(), self.options.seed
        result = {"samples": self.kind, "network_evaluations": self.calls}
        if self.extractor is None:
            self.timed(0, None)  # compiles
            return {**result, "seconds_per_sample": self.timed(0, None)[1]}
        extractor, train = self.extractor, self.splits["train"]
        with progress("training images", train.size) as advance:
            real = of_dataset(extractor, train, KEPT, advance)
        labels = None
        if getattr(self.trained.model, "num_classes", 0):
            # As frequent as in the data: epoch after epoch of shuffled labels.
            places = order(seed, 0, self.options.num, len(real.labels))
            labels = real.labels[places]
        seconds, fake = self.draw(labels)
        result |= {
            "extractor": extractor.name,
            "seconds_per_sample": seconds,
            "sample_quality": self.compared(real, fake, tell=True),
        }
        if labels is not None and extractor.labels:
            right = np.argmax(fake.probs, axis=1) == labels[: len(fake.probs)]
            result["class_accuracy"] = float(np.mean(right))
        if "test" in self.splits:
            test = of_dataset(extractor, self.splits["test"], KEPT)
            # Samples nearer to training than to test images may be memories of them.
            result["against_test"] = self.compared(test, fake, tell=False)
            result["test_images"] = self.compared(real, test, tell=False)
        halves = [kept_part(real, half) for half in (0, 1)]
        result["noise_floor"] = self.compared(*halves, tell=False)
        return result

    def compared(self, real: Features, fake: Features, tell: bool) -> dict[str, Any]:
        """`metrics.sample_quality` as dictionaries; what it warns of is printed."""
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            figures = sample_quality(
                real.kept,
                fake.kept,
                self.extractor.name,
                fake.probs,
                self.options.seed,
                real.moments,
                fake.moments,
            )
        for note in {str(warning.message) for warning in said} if tell else ():
            print(f"note: {note}")
        return {name: dataclasses.asdict(figure) for name, figure in figures.items()}

    def draw(self, labels) -> tuple[float, Features]:
        """(median seconds a sample, their features); what is there is not redone."""
        trained, sampler, options = self.trained, self.sampler, self.options
        extractor = self.extractor
        names = (
            "num",
            "seed",
            "guidance_scale",
            "steps",
            "solver",
            "batch_size",
            "draw",
        )
        identity = {name: getattr(options, name) for name in names}
        identity |= {"step": trained.step, "weights": digest_of(trained.params)}
        parts = Parts(options.workdir / PART, {**identity, "extractor": extractor.name})
        size = sampler.batch_size
        firsts = range(0, options.num, size)
        missing = [first for first in firsts if not parts.has(first)]
        if len(missing) < len(firsts):
            done = sum(min(size, options.num - first) for first in firsts)
            done -= sum(min(size, options.num - first) for first in missing)
            print(f"going on: {done:,} samples of an interrupted evaluation are there")

        with progress("samples", options.num) as advance:
            for i, first in enumerate(missing):
                x, seconds = self.timed(first, labels)
                if i == 0:  # that compiled: time it again
                    _, seconds = self.timed(first, labels)
                    left = seconds * size * len(missing)
                    print(f"about {left:,.0f} s for the samples")
                features, probs = extractor(x[: options.num - first])
                check_finite(features, first)
                parts.save(first, features, probs, seconds)
                advance(min(first + size, options.num))
        return statistics.median(parts.seconds()), parts.features(KEPT)

    def timed(self, first: int, labels) -> tuple[np.ndarray, float]:
        """(a batch of samples, seconds a sample)."""
        trained, key = self.trained, jax.random.key(self.options.seed)
        began = time.perf_counter()
        x = self.sampler.batch(trained.params, trained.state, key, first, labels)
        return x, (time.perf_counter() - began) / self.sampler.batch_size


def kept_part(whole: Features, half: int) -> Features:
    """Every second of the features that were kept, from number 0 or 1 on."""
    kept, probs = whole.kept[half::2], whole.probs[half::2]
    return Features(moments(kept), kept, probs, None)
