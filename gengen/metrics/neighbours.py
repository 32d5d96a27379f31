"""Precision and recall, density and coverage: who lies in whose balls.

A set's balls reach from each of its samples to the k-th nearest *other* sample of the
set, so a set with balls needs k + 1 samples. They stand for the set's support.
"""

from collections.abc import Iterator

import numpy as np

from gengen.metrics.result import as_features, refuse_unless

K_PRECISION = 3  # the neighbour of `precision_recall`, the paper's
K_DENSITY = 5  # the neighbour of `density_coverage`, the paper's
_BLOCK = 2**21  # entries of a block of distances, 16 MB


def _distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple]:
    """(rows, |xᵢ - yⱼ|² [rows, M], its rounding error) for blocks of rows of x.

    |x|² + |y|² - 2 x·y is a matrix product, much faster than differences, but leaves a
    rounding error of up to F ε (|x|² + |y|²) where x = y, which comparisons allow for.
    """
    origin = x.mean(axis=0)  # the smaller the norms, the smaller the error
    x, y = x - origin, y - origin
    xx, yy = np.sum(x * x, axis=1), np.sum(y * y, axis=1)
    size = max(1, _BLOCK // len(y))
    for start in range(0, len(x), size):
        rows = slice(start, min(start + size, len(x)))
        norms = xx[rows, None] + yy
        error = 2 * x.shape[1] * np.finfo(float).eps * norms
        yield rows, norms - 2 * (x[rows] @ y.T), error


def _balls(centers: np.ndarray, k: int, points: np.ndarray) -> tuple:
    """How many balls each point is in [M], and how many points each ball holds [N].

    A ball reaches from its centre to the k-th nearest *other* centre, and is closed:
    an exact copy is inside even where the radius is 0.
    """
    n = len(centers)
    refuse_unless(
        1 <= k < n,
        f"The neighbour k = {k} does not exist among {n} samples: give 1 <= k < N.",
    )
    radii = np.empty(n)
    for rows, squared, _ in _distances(centers, centers):
        squared[np.arange(len(squared)), np.arange(n)[rows]] = np.inf  # itself
        radii[rows] = np.partition(squared, k - 1, axis=1)[:, k - 1]
    balls, held = np.zeros(len(points), int), np.empty(n, int)
    for rows, squared, error in _distances(centers, points):
        inside = squared - error <= radii[rows, None]
        balls += inside.sum(axis=0)
        held[rows] = inside.sum(axis=1)
    return balls, held


def nearest(x, reference, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(indices [N, k], distances [N, k]) of the nearest of a reference, nearest first.

    Beside a sample, its nearest training images show whether it is a copy.

    Args:
        x: features [N, F].
        reference: features [M, F].
        k: how many, at most M.

    Raises BadInput where k is not in 1 … M.

    >>> nearest([[0.0]], [[3.0], [1.0], [9.0]], k=2)
    (array([[1, 0]]), array([[1., 3.]]))
    """
    x, reference = as_features(x, reference)
    refuse_unless(
        1 <= k <= len(reference),
        f"k = {k} nearest of {len(reference)}: give 1 <= k <= M.",
    )
    found = np.empty((len(x), k), int)
    for rows, squared, _ in _distances(x, reference):
        some = np.argpartition(squared, k - 1, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(squared, some, 1), axis=1)
        found[rows] = np.take_along_axis(some, order, 1)
    # By differences: where two are equal, the product leaves a rounding error.
    distances = np.linalg.norm(x[:, None] - reference[found], axis=-1)
    return found, distances


def precision_recall(real, fake, k: int = K_PRECISION) -> tuple[float, float]:
    """(precision, recall): fraction of fakes in a real ball, of reals in a fake one.

    Both grow with k and depend on N and M.

    Args:
        real: features [N, F], N > k.
        fake: features [M, F], M > k.
        k: the neighbour at which a ball ends.

    Raises BadInput where N or M is not above k.

    Kynkäänniemi et al. 2019, arXiv:1904.06991, section 2.

    >>> precision_recall([[0.0], [1.0]], [[0.0], [0.25]], k=1)
    (1.0, 0.5)
    """
    real, fake = as_features(real, fake, least=2)
    fakes, reals = _balls(real, k, fake)[0] > 0, _balls(fake, k, real)[0] > 0
    return float(fakes.mean()), float(reals.mean())


def density_coverage(real, fake, k: int = K_DENSITY) -> tuple[float, float]:
    """(density, coverage): real balls per fake, over k; real balls that hold a fake.

    Both use balls around real samples only, so an outlying fake costs no more than
    itself. For equal distributions E density = 1, and
    E coverage = 1 - Π_{i=1…k} (N - i)/(N + M - i), whatever continuous one it is.
    The balls are closed; the authors' program leaves their edge out, which counts
    copies of repeated samples as misses.

    Args:
        real: features [N, F], N > k.
        fake: features [M, F], M >= 2.
        k: the neighbour at which a ball ends.

    Raises BadInput where N is not above k.

    Naeem et al. 2020, arXiv:2002.09797, section 3.

    >>> density_coverage([[0.0], [1.0], [9.0]], [[0.0], [0.5]], k=1)
    (2.0, 0.6666666666666666)
    """
    real, fake = as_features(real, fake, least=2)
    balls, held = _balls(real, k, fake)
    return float(balls.mean() / k), float((held > 0).mean())
