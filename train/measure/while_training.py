"""Sample quality while a run trains: few samples, the same ones at every step.

The metric is for comparing the steps of one run; `train.evaluate` takes more samples.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from gengen.conditions import labels_of
from gengen.metrics.frechet import Moments, frechet_distance, moments
from gengen.types import draws

from ..data.dataset import Dataset
from ..data.feed import order
from ..run.asked import of_data
from ..run.record import Record
from ..run.sampler import Sampler
from .extractors import Extractor, open_extractor
from .features import check_finite, known_labels, of_dataset

NUM = 1_000
REAL = 10_000  # training images that they are compared with, at most


@dataclasses.dataclass(frozen=True)
class SampleQuality:
    """{"quality/frechet_distance": …, "quality/class_accuracy": …} of a train state.

    It samples with the averaged parameters where there are any. Class accuracy is the
    share of samples that the extractor's classifier gives the class they were asked
    for; without classes it is left out. The value has no state, so that a resumed run
    measures as an uninterrupted one does.
    """

    every: int
    model: Any
    train: Dataset
    extractor: Extractor
    seed: int = 0
    num: int = NUM
    batch_size: int = 250
    name: ClassVar[str] = "the quality of samples"

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of what it measures."""
        classes = labels_of(self.model.condition) and self.extractor.labels
        names = "frechet_distance", *(["class_accuracy"] if classes else [])
        return tuple(f"quality/{name}" for name in names)

    @functools.cached_property
    def _real(self) -> tuple[Moments, np.ndarray | None]:
        """(moments of features, known labels) of training images."""
        places = order(self.seed, 0, min(self.train.size, REAL), self.train.size)
        some = dataclasses.replace(
            self.train, size=len(places), fetch=lambda i: self.train.fetch(places[i])
        )
        features = of_dataset(self.extractor, some, kept=1)
        return features.moments, known_labels(features.labels)

    @functools.cached_property
    def _sampler(self) -> Sampler:
        return Sampler(self.model, min(self.num, self.batch_size))

    def __call__(self, train_state) -> dict[str, float]:
        params = train_state.params if train_state.ema is None else train_state.ema
        (real, known), given = self._real, {}
        labels = labels_of(self.model.condition)
        if labels:
            given = {labels.key: np.resize(known, self.num)}
        else:
            places = order(self.seed, 0, self.num, self.train.size)
            given = of_data(self.model, self.train.fetch, places)
        key = jax.random.key(self.seed)
        x = self._sampler(params, train_state.state, key, self.num, given)
        features, probs = self.extractor(x)
        check_finite(features, 0)
        values = {"quality/frechet_distance": frechet_distance(real, moments(features))}
        if labels and self.extractor.labels:
            right = np.argmax(probs, axis=1) == given[labels.key]
            values["quality/class_accuracy"] = float(np.mean(right))
        return values


def sample_quality_of(
    every: int,
    workdir: Path,
    record: Record,
    model: Any,
    load_split: Callable[[str], Dataset],
    extractor: Path | None = None,
    data_dir: Path | None = None,
) -> SampleQuality | None:
    """The evaluator of a run that is going to be trained; None, with a note, of some.

    extractor: as in `open_extractor`: by default the classifier beside the workdir,
    which is trained first where there is none.
    """
    data = record.data
    if not draws(model):
        reason = f"this {type(model).__name__} draws no samples"
    elif data.kind != "images":
        reason = f"{data.name} has no images"
    elif extractor is None and not data.num_classes:
        reason = f"{data.name} has no labels to train a classifier on"
    else:
        opened = open_extractor(extractor, workdir, record, data_dir)
        print(f"quality: every {every} steps, of {NUM:,} samples, by {opened.name}")
        seed = record.data_options["seed"]
        return SampleQuality(every, model, load_split("train"), opened, seed)
    print(f"note: no quality while training: {reason}")
    return None
