"""A class-conditional density as p(x): classes as frequent as in the training split."""

import math

import numpy as np

from gengen.conditions import labels_of
from gengen.errors import BadInput
from gengen.tasks.bayes import GenerativeClassifier, generative_classifier

from ..data.dataset import Dataset
from ..progress import progress
from .features import known_labels

KIND = "mixture over classes with training frequencies"


def training_frequencies(train: Dataset, num: int) -> np.ndarray:
    """p(y) [num]: how often each class is among the known labels of the split."""
    counts, size = np.zeros(num), 1024
    with progress("training labels", train.size) as advance:
        for first in range(0, train.size, size):
            batch = train.fetch(np.arange(first, min(first + size, train.size)))
            counts += np.bincount(known_labels(batch["label"]), minlength=num)
            advance(min(first + size, train.size))
    if not counts.any():
        raise BadInput(
            f"no label of {train.spec.name} is known, so that its classes have no "
            "frequencies: take data with labels"
        )
    return counts / counts.sum()


def mixture_over_classes(model, train: Dataset) -> GenerativeClassifier:
    """p(x) = Σ_y p(y) p(x|y) of a conditional density, p(y) of the training split."""
    frequencies = training_frequencies(train, labels_of(model.condition).num)
    log_prior = tuple(math.log(p) if p else -math.inf for p in frequencies)
    return generative_classifier(model, log_prior)
