"""The kernel distance (KID): an unbiased distance of two sets of features.

Its expectation is the squared maximum mean discrepancy whatever the number of samples,
so values at different N may be compared, at the price of a noise that must be stated.
"""

import numpy as np

from gengen.metrics.result import Estimate, as_features, estimate, refuse_unless

LEAST = 2  # samples of each set for one subset: a pair of different samples


def samples_per_subset(n: int, subsets: int = 10, size: int | None = None) -> int:
    """The number of samples per subset, of n: n/subsets, at most 1000, unless given.

    Args:
        n: the number of samples of the smaller set.
        subsets: the number of disjoint subsets.
        size: the samples per subset; None for as many as there are, up to 1000.

    Raises BadInput where n is below max(2, size) · subsets: the least n.

    >>> samples_per_subset(200)
    20
    """
    if size is None:
        size = min(1000, n // max(subsets, 1))
    refuse_unless(
        subsets >= 1 and size >= LEAST and subsets * size <= n,
        f"{subsets} disjoint subsets of {size} samples cannot be drawn from {n}: give "
        f"at least {max(subsets, 1) * max(size, LEAST)} samples, or fewer subsets.",
    )
    return size


def _mmd(x: np.ndarray, y: np.ndarray, degree: int) -> float:
    """The unbiased MMD² of two sets [m, F]: means over pairs of *different* samples."""
    m, dim = x.shape
    xx, yy, xy = ((a @ b.T / dim + 1) ** degree for a, b in ((x, x), (y, y), (x, y)))
    within = xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)
    return within / (m * (m - 1)) - 2 * xy.mean()


def kernel_distance(
    real,
    fake,
    subsets: int = 10,
    subset_size: int | None = None,
    degree: int = 3,
    seed: int = 0,
) -> Estimate:
    """KID: the unbiased MMD² of two sets of features, k(x, y) = (x·y/F + 1)^degree.

    The value is the mean over random *disjoint* subsets of both sets. The paper draws
    subsets of 1000 that overlap: more draws shrink std/√subsets on the same data, so it
    says nothing about the sampling error. Disjoint subsets are independent, and their
    standard error is honest. Near equality an unbiased estimate is often negative.

    Args:
        real: features [N, F].
        fake: features [M, F].
        subsets: the number of subsets; one subset has no standard error (None).
        subset_size: samples per subset; None for as many as there are, up to 1000.
        degree: the degree of the polynomial kernel.
        seed: the seed of the random subsets.

    Raises BadInput where min(N, M) is too small (see `samples_per_subset`).

    Bińkowski et al. 2018, arXiv:1801.01401, section 4.

    >>> kernel_distance([[0.0], [0.0]], [[2.0], [2.0]], subsets=1, degree=1)
    Estimate(value=4.0, standard_error=None)
    """
    real, fake = as_features(real, fake, least=LEAST)
    size = samples_per_subset(min(len(real), len(fake)), subsets, subset_size)
    generator = np.random.default_rng(seed)
    parts = [
        x[generator.permutation(len(x))[: subsets * size]].reshape(subsets, size, -1)
        for x in (real, fake)
    ]
    return estimate([_mmd(x, y, degree) for x, y in zip(*parts, strict=True)])
