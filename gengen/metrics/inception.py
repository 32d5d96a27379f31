"""The inception score: sharp and varied class probabilities of samples alone."""

import numpy as np
from scipy.special import rel_entr

from gengen.metrics.result import Estimate, as_features, estimate, refuse_unless

SPLITS = 10  # parts by default, and so the least number of samples


def as_probabilities(probs) -> np.ndarray:
    """Class probabilities [N, K] as float64; BadInput for rows that are none.

    Args:
        probs: [N, K] floats >= 0 whose rows sum to 1 within 1e-4.

    >>> as_probabilities([[0.25, 0.75]])
    array([[0.25, 0.75]])
    """
    (probs,) = as_features(probs)
    wrong = (probs < 0).any(axis=1) | (np.abs(probs.sum(axis=1) - 1) > 1e-4)
    row = int(wrong.argmax())
    refuse_unless(
        not wrong.any(),
        f"Class probabilities, row {row} with sum {probs[row].sum():g} and least entry "
        f"{probs[row].min():g}, must be >= 0 and sum to 1: apply softmax to logits.",
    )
    return probs


def inception_score(probs, splits: int = SPLITS, seed: int = 0) -> Estimate:
    """exp E KL(p(y|x) ‖ p(y)) of class probabilities, from 1 to the number of classes.

    The value is the mean over random parts, each with its own p(y); the standard error
    is that of the mean (the paper quotes the standard deviation over parts, √splits
    times larger). The paper's parts are consecutive; random ones do not mind samples
    sorted by class. The score is biased low by O(splits/N): compare at equal N only.

    Args:
        probs: [N, K], p(y|x) of each sample.
        splits: the number of parts, and so the least N; one has no standard error.
        seed: the seed of the random parts.

    Raises BadInput for rows that are no probabilities, and for N < splits.

    Salimans et al. 2016, arXiv:1606.03498, section 4.

    >>> inception_score([[1.0, 0.0], [0.0, 1.0]], splits=1)
    Estimate(value=2.0, standard_error=None)
    """
    probs = as_probabilities(probs)
    refuse_unless(
        1 <= splits <= len(probs),
        f"{len(probs)} samples cannot be split {splits} ways: give 1 <= splits <= N.",
    )
    order = np.random.default_rng(seed).permutation(len(probs))
    parts = (probs[rows] for rows in np.array_split(order, splits))
    # rel_entr is p log(p/q), and 0 log 0 = 0.
    nats = [rel_entr(p, p.mean(axis=0)).sum(axis=1).mean() for p in parts]
    return estimate(np.exp(nats))
