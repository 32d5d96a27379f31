"""The samples of a run against its training images, in an extractor's features."""

import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gengen.conditions import labels_of
from gengen.images import require_finite
from gengen.metrics.frechet import moments
from gengen.metrics.quality import (
    LEAST_SAMPLES,
    possible_metrics,
    sample_quality,
)

from ..data.dataset import Dataset
from ..data.feed import order
from ..progress import progress
from ..run.asked import of_data, text_of
from ..run.digests import digest_of
from ..run.guides import guided
from ..run.guides import identity as guides_identity
from ..run.sampler import (
    KEYWORDS,
    Sampler,
    as_keywords,
    calls_in_words,
    calls_of,
    given_keywords,
    keywords_of,
    sample_condition,
)
from ..run.workdir import OpenRun
from .extractors import Extractor, open_extractor
from .features import Features, Parts, check_finite, known_labels, of_dataset
from .memory import ROWS, draw_neighbours, memory
from .tables import COMPARISONS

KEPT = 10_000  # features kept for the metrics that need all of them at once
PART = "evaluation.part"  # folder of the features of an evaluation under way
NO_LABELS = (
    "{} has no labels to train a classifier on, so give --extractor the weight file of "
    "Inception-v3"
)


def find_extractor(trained: OpenRun, options) -> Extractor | None:
    """What turns images into features, which is said; None if nothing does."""
    path, record = options.extractor, trained.record
    if record.data.kind != "images":
        return None
    if path is None and not record.data.num_classes:
        print(f"no sample quality: {NO_LABELS.format(record.data.name)}")
        return None
    extractor = open_extractor(path, options.workdir, record, options.data_dir)
    print(f"features: {extractor.name} ({extractor.note})")
    if path is None:
        print(
            "  --extractor FILE takes the FID convention's Inception-v3 instead; "
            "numbers of different extractors cannot be compared"
        )
    return extractor


class Reference:
    """The training images in an extractor's features: what samples are held against."""

    def __init__(self, extractor: Extractor, train: Dataset, seed: int):
        self.extractor, self.seed = extractor, seed
        with progress("training images", train.size) as advance:
            self.features = of_dataset(extractor, train, KEPT, advance)

    def compared(
        self, fake: Features, real: Features | None = None, tell: bool = False
    ) -> dict[str, Any]:
        """`sample_quality` as dictionaries; `tell` prints what it warns of.

        Metrics for which there are too few images are left out. real: others in the
        place of the training images.
        """
        real = self.features if real is None else real
        names = possible_metrics(len(real.kept), len(fake.kept))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results = sample_quality(
                real.kept,
                fake.kept,
                self.extractor.name,
                fake.probs,
                self.seed,
                real.moments,
                fake.moments,
                names,
            )
        for note in {str(warning.message) for warning in caught} if tell else ():
            print(f"note: {note}")
        return {name: result.as_dict() for name, result in results.items()}

    def noise_floor(self) -> dict[str, Any]:
        """One half of the images against the other: what is left where nothing differs.

        {} of a single image.
        """
        if len(self.features.kept) < 2:
            return {}
        first, second = (kept_part(self.features, half) for half in (0, 1))
        return self.compared(second, first)


class Quality:
    """What it takes to judge the samples of a run; BadInput before any work.

    part: the folder of the features of samples under way.
    """

    def __init__(
        self,
        trained: OpenRun,
        splits: dict[str, Dataset],
        options,
        part: Path | None = None,
    ):
        if options.extractor is not None:
            trained.record.data.images_only("--extractor")
        trained = guided(trained, options)
        self.trained, self.splits, self.options = trained, splits, options
        self.part = part or options.workdir / PART
        given = given_keywords(options)
        size = min(options.num, options.batch_size)
        self.sampler = Sampler(trained.model, size, **given)
        self.calls = calls_of(trained.model, as_keywords(trained.model, given))
        means = "draw" in keywords_of(trained.model)
        self.kind = "means E(x|z)" if means and not options.draw else "samples"

    def cost(self) -> list[str]:
        """What will be done, in words."""
        sizes = [f"{dataset.size:,} {name}" for name, dataset in self.splits.items()]
        hint = " (--draw for x ~ p(x|z))" if self.kind != "samples" else ""
        return [
            f"cost: {self.options.num:,} {self.kind}{hint}, each of "
            f"{calls_in_words(self.calls)}, {self.sampler.batch_size} at a time; "
            f"{self.trained.record.data.examples}: {', '.join(sizes)}",
            *(self.too_few() if self.is_possible else []),
        ]

    @property
    def is_possible(self) -> bool:
        """Whether there is, or can be trained, an extractor."""
        data = self.trained.record.data
        given = self.options.extractor is not None or data.num_classes
        return data.kind == "images" and bool(given)

    def too_few(self) -> list[str]:
        """The metrics that so few images do not allow, a note per comparison."""
        train, test = (
            min(self.splits[name].size, KEPT) if name in self.splits else None
            for name in ("train", "test")
        )
        num = min(self.options.num, KEPT)
        real_and_fake = {
            "sample_quality": (train, num),
            "against_test": (test, num),
            "test_images": (train, test),
            "noise_floor": (train - train // 2, train // 2),
        }
        notes = []
        for name, (n_real, n_fake) in real_and_fake.items():
            if None in (n_real, n_fake):
                continue
            possible = possible_metrics(n_real, n_fake)
            if missing := [x for x in LEAST_SAMPLES if x not in possible]:
                notes.append(
                    f"note: {COMPARISONS[name]}: {n_fake:,} images against {n_real:,} "
                    f"are too few for {', '.join(missing).replace('_', ' ')}"
                )
        return notes

    def measure(self) -> dict[str, Any]:
        """Metrics of samples; of test images in their place; and the noise floor."""
        extractor = find_extractor(self.trained, self.options)
        result = {"samples": self.kind, "network_evaluations": self.calls}
        if extractor is None:
            self.timed(0, {})  # compiles
            return {**result, "seconds_per_sample": self.timed(0, {})[1]}
        reference = Reference(extractor, self.splits["train"], self.options.seed)
        metrics, fake = self.against(reference)
        result |= {"extractor": extractor.name, **metrics}
        if "test" in self.splits:
            test = of_dataset(extractor, self.splits["test"], KEPT)
            # Samples nearer to training than to test images may be memories of them.
            result["against_test"] = reference.compared(fake, test)
            result["test_images"] = reference.compared(test)
        result["noise_floor"] = reference.noise_floor()
        held_out = test.kept if "test" in self.splits else None
        result["memory"] = memory(fake.kept, reference.features.kept, held_out)
        x, path = self.timed(0, {})[0], self.options.workdir / "neighbours.png"
        draw_neighbours(path, x[:ROWS], reference, self.splits["train"])
        print(f"samples and their nearest training images: {path}")
        return result

    def against(
        self, reference: Reference, tell: bool = True
    ) -> tuple[dict[str, Any], Features]:
        """(metrics of the samples, their features); `tell`: what to beware of."""
        given, extractor = {}, reference.extractor
        if labels := labels_of(sample_condition(self.trained.model)):
            # As frequent as in the data: epoch after epoch of shuffled labels.
            known = known_labels(reference.features.labels)
            places = order(reference.seed, 0, self.options.num, len(known))
            given = {labels.key: known[places]}
        elif text_of(self.trained.model):
            train = self.splits["train"]
            places = order(reference.seed, 0, self.options.num, train.size)
            given = of_data(self.trained.model, train.fetch, places)
        seconds, fake = self.draw(extractor, given)
        metrics = {
            "seconds_per_sample": seconds,
            "sample_quality": reference.compared(fake, tell=tell),
        }
        if labels and extractor.labels:
            wanted = given[labels.key][: len(fake.probs)]
            right = np.argmax(fake.probs, axis=1) == wanted
            metrics["class_accuracy"] = float(np.mean(right))
        return metrics, fake

    def draw(self, extractor: Extractor, given: dict) -> tuple[float, Features]:
        """(median seconds a sample, their features); what is there is not redone."""
        trained, sampler, options = self.trained, self.sampler, self.options
        names = ("num", "seed", "batch_size", "classifier_scale", *KEYWORDS)
        identity = {name: getattr(options, name) for name in names}
        identity["guides"] = guides_identity(trained)
        identity |= {"step": trained.step, "weights": digest_of(trained.params)}
        parts = Parts(self.part, {**identity, "extractor": extractor.name})
        size = sampler.batch_size
        firsts = range(0, options.num, size)
        missing = [first for first in firsts if not parts.has(first)]
        if len(missing) < len(firsts):
            done = sum(min(size, options.num - first) for first in firsts)
            done -= sum(min(size, options.num - first) for first in missing)
            print(f"going on: {done:,} samples of an interrupted evaluation are there")

        with progress("samples", options.num) as advance:
            for i, first in enumerate(missing):
                x, seconds = self.timed(first, given)
                if i == 0:  # that compiled: time it again
                    _, seconds = self.timed(first, given)
                    left = seconds * size * len(missing)
                    print(f"about {left:,.0f} s for the samples")
                x = x[: options.num - first]
                require_finite(x, start=first)
                features, probs = extractor(x)
                check_finite(features, first)
                parts.save(first, features, probs, seconds)
                advance(min(first + size, options.num))
        return statistics.median(parts.seconds()), parts.features(KEPT)

    def timed(self, first: int, given: dict) -> tuple[np.ndarray, float]:
        """(a batch of samples, seconds a sample)."""
        trained, key = self.trained, jax.random.key(self.options.seed)
        began = time.perf_counter()
        x = self.sampler.batch(trained.params, trained.state, key, first, given)
        return x, (time.perf_counter() - began) / self.sampler.batch_size


def kept_part(whole: Features, half: int) -> Features:
    """Every second of the features that were kept, from number 0 or 1 on."""
    kept, probs = whole.kept[half::2], whole.probs[half::2]
    return Features(moments(kept), kept, probs, None)
