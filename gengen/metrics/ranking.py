"""How well scores tell two classes apart: the areas under two curves."""

import math

import numpy as np
from scipy.stats import rankdata

from gengen.metrics.result import refuse_unless


def _scores(scores, labels) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    refuse_unless(
        scores.ndim == 1 and len(scores) > 0 and scores.shape == labels.shape,
        f"Scores {scores.shape} and labels {labels.shape} must be [N] both, N >= 2.",
    )
    bad, other = np.isnan(scores), (labels != 0) & (labels != 1)
    refuse_unless(not bad.any(), f"Score {bad.argmax()} is NaN: look at what made it.")
    refuse_unless(
        not other.any(), f"A label is {labels[other.argmax()]}: use only 0 and 1."
    )
    refuse_unless(
        0 < labels.sum() < len(labels),
        f"All of {len(labels)} labels are of one class: give samples of both.",
    )
    return scores, labels.astype(bool)


def auroc(scores, labels) -> float:
    """P(score of a 1 > score of a 0) + ½ P(equal): the area under the ROC curve.

    The statistic of Mann and Whitney 1947, from the ranks:
    (Σ ranks of 1s - n₁(n₁ + 1)/2)/(n₁ n₀).

    Args:
        scores: [N] numbers, ±∞ included.
        labels: [N], each 0 or 1, of both at least one.

    Raises BadInput for a NaN, another label, or labels of one class.

    >>> auroc([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1])
    0.875
    """
    scores, labels = _scores(scores, labels)
    ones, zeros = int(labels.sum()), int((~labels).sum())
    wins = rankdata(scores)[labels].sum() - ones * (ones + 1) / 2
    return float(wins / (ones * zeros))


def auroc_standard_error(area: float, ones: int, zeros: int) -> float:
    """The standard error of an AUROC A, computed from n₁ 1s and n₀ 0s.

    √[(A(1 - A) + (n₁ - 1)(Q₁ - A²) + (n₀ - 1)(Q₂ - A²))/(n₁ n₀)], Q₁ = A/(2 - A) and
    Q₂ = 2A²/(1 + A): exact for exponential scores, close for others.

    Args:
        area: the AUROC, in [0, 1].
        ones: n₁ >= 1.
        zeros: n₀ >= 1.

    Raises BadInput for an area outside [0, 1], or a class without samples.

    Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve",
    equation 1.

    >>> auroc_standard_error(0.5, 1, 1)
    0.5
    """
    refuse_unless(0 <= area <= 1, f"An area of {area}: an AUROC is in [0, 1].")
    refuse_unless(
        min(ones, zeros) >= 1,
        f"An AUROC of {ones} ones and {zeros} zeros: give samples of both.",
    )
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (ones - 1) * (one - area**2)
    return math.sqrt((spread + (zeros - 1) * (two - area**2)) / (ones * zeros))


def calibration_error(probability, outcome, bins: int = 10) -> float:
    """Σ_b n_b/N |mean outcome - mean probability| over equal bins of [0, 1].

    The expected calibration error: 0 if what is given the probability p happens in a
    share p of cases, in every bin. Guo et al. 2017, arXiv:1706.04599, equation 3.

    Args:
        probability: numbers in [0, 1], [N].
        outcome: whether it happened, bool or 0 and 1, [N].
        bins: the number of bins.

    >>> calibration_error([0.75, 0.75, 0.75, 0.75], [1, 1, 1, 0])
    0.0
    """
    p, y = np.asarray(probability, float), np.asarray(outcome, float)
    place = np.minimum((p * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=y - p, minlength=bins)
    return float(np.sum(np.abs(gaps)) / len(p))


def average_precision(scores, labels) -> float:
    """Σ (Rₙ - Rₙ₋₁) Pₙ over the distinct scores as thresholds, the highest first.

    Pₙ and Rₙ are precision and recall of "score >= the n-th threshold means 1". Scores
    that say nothing reach the fraction of 1s.

    Args:
        scores: [N] numbers, ±∞ included.
        labels: [N], each 0 or 1, of both at least one.

    Raises BadInput for a NaN, another label, or labels of one class.

    >>> average_precision([0.1, 0.4, 0.6, 0.8], [0, 1, 0, 1])
    0.8333333333333333
    """
    scores, labels = _scores(scores, labels)
    _, group = np.unique(-scores, return_inverse=True)
    ones = np.bincount(group, labels)
    precision = np.cumsum(ones) / np.cumsum(np.bincount(group))
    return float(ones @ precision / ones.sum())
