"""How good are samples? Figures of features, in float64, by numpy and scipy alone.

A feature extractor maps samples to vectors [N, D]. Every figure compares the features
of N real and M fake samples, and means nothing without the extractor, N and M: that
is what a `Result` records. Bigger is worse for the two distances,

    Fréchet   |m₁ - m₂|² + tr(C₁ + C₂ - 2 (C₁ C₂)^½)     biased by O(1/n)
    kernel    E k(x, x') + E k(y, y') - 2 E k(x, y)      unbiased

and better for precision and density (are fakes realistic?), recall and coverage (is
all of the data there?) and the inception score (sharp and varied classes). Outlier
scores and known mixtures are measured by `auroc`, `average_precision`, `modes_found`.
Features are never all needed at once for the Fréchet distance: `merge` adds `Moments`.
"""

import itertools
import math
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree
from scipy.special import rel_entr
from scipy.stats import rankdata

from gengen.errors import BadInput
from gengen.types import static

_BLOCK = 2**21  # entries of a block of distances, 16 MB


class Estimate(NamedTuple):
    """A mean over independent parts and its standard error (nan from one part)."""

    value: float
    standard_error: float


class Extrapolation(NamedTuple):
    """The line value + slope/n."""

    value: float
    slope: float


@static
class Result:
    """A figure and what is needed to compare it: the samples and features behind it."""

    value: float
    n_real: int
    n_fake: int
    extractor: str
    standard_error: float | None = None
    note: str = ""


def _check(valid: bool, sentence: str) -> None:
    if not valid:
        raise BadInput(sentence)


def _features(*sets, least: int = 1) -> list[np.ndarray]:
    """Sets of [N, D] as float64: of one D, finite, each of at least `least` samples."""
    arrays = [np.asarray(features, np.float64) for features in sets]
    for x in arrays:
        _check(x.ndim == 2, f"Features of shape {x.shape}: reshape them to [N, D].")
        n, width = x.shape
        _check(n >= least, f"{n} samples are too few: give at least {least}.")
        _check(
            width == arrays[0].shape[1],
            f"Features of {arrays[0].shape[1]} and {width} dimensions cannot be "
            "compared: take both from the same extractor.",
        )
        finite = np.isfinite(x).all(axis=1)
        _check(
            finite.all(),
            f"{n - finite.sum()} of {n} samples have features that are not finite, "
            f"sample {finite.argmin()} the first: look at what made it.",
        )
    return arrays


def _estimate(values) -> Estimate:
    n = len(values)
    error = np.std(values, ddof=1) / math.sqrt(n) if n > 1 else math.nan
    return Estimate(float(np.mean(values)), float(error))


# ----------------------------------------------------------- Fréchet distance


class Moments(NamedTuple):
    """Count n, mean [D] and m2 = Σ (x - mean)(x - mean)ᵀ [D, D] of n samples."""

    n: int
    mean: np.ndarray
    m2: np.ndarray

    @property
    def cov(self) -> np.ndarray:
        """The unbiased covariance m2/(n - 1) [D, D]; needs two samples."""
        _check(self.n > 1, f"{self.n} sample has no covariance: give at least 2.")
        return self.m2 / (self.n - 1)


def moments(features) -> Moments:
    """`Moments` of features [N, D], N >= 1."""
    (x,) = _features(features)
    mean = x.mean(axis=0)
    deviation = x - mean
    return Moments(len(x), mean, deviation.T @ deviation)


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of both sets together; associative and commutative.

    m2 = m2_a + m2_b + δ δᵀ n_a n_b/n with δ = mean_b - mean_a, n = n_a + n_b. Chan,
    Golub and LeVeque 1979 (Stanford STAN-CS-79-773), the pairwise update.
    """
    _features(a.mean[None], b.mean[None])
    n, delta = a.n + b.n, b.mean - a.mean
    m2 = a.m2 + b.m2 + np.outer(delta, delta) * (a.n * b.n / n)
    return Moments(n, a.mean + delta * (b.n / n), m2)


def _factor(cov: np.ndarray) -> np.ndarray:
    """A [D, r] with A Aᵀ = cov of rank r: eigenvalues of pure rounding are dropped."""
    eigenvalues, vectors = np.linalg.eigh(cov)
    _check(
        eigenvalues[0] >= -1e-6 * abs(eigenvalues).max(),
        f"A covariance has the eigenvalue {eigenvalues[0]:.3g}, and so is none: give "
        "that of features.",
    )
    floor = len(cov) * np.finfo(float).eps * max(eigenvalues[-1], 0.0)
    keep = eigenvalues > floor
    return vectors[:, keep] * np.sqrt(eigenvalues[keep])


def frechet_distance(mean_1, cov_1, mean_2, cov_2) -> float:
    """|m₁ - m₂|² + tr(C₁ + C₂ - 2 (C₁ C₂)^½), Wasserstein-2² of two Gaussians.

    With C₁ = A Aᵀ and C₂ = B Bᵀ the eigenvalues of C₁ C₂ are those of (AᵀB)(AᵀB)ᵀ and
    zeros, so the trace of the root is the sum of the singular values of AᵀB: real and
    exact for singular covariances too, where programs that call `sqrtm` add to the
    diagonal and drop an imaginary part. Means [D], covariances [D, D].

    Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500, equation 6.
    """
    m1, m2 = _features(np.atleast_2d(mean_1), np.atleast_2d(mean_2))
    _, c1, c2 = _features(m1, cov_1, cov_2)
    for c in (c1, c2):
        symmetric = len(c) == c.shape[1] and np.allclose(c, c.T)
        _check(
            symmetric,
            f"A covariance of shape {c.shape} is not symmetric: give that of the "
            "features, [D, D].",
        )
    return _procrustes(m1, _factor(c1), m2, _factor(c2))


def _procrustes(m1, a, m2, b) -> float:
    """|m₁ - m₂|² + |A|² + |B|² - 2 Σ singular values of AᵀB, A and B [D, rank]."""
    root = np.linalg.svd(a.T @ b, compute_uv=False).sum()
    squares = np.sum((m1 - m2) ** 2) + np.sum(a * a) + np.sum(b * b)
    return max(float(squares - 2 * root), 0.0)


def _sizes(
    n: int, dim: int, points: int = 15, smallest: int | None = None
) -> np.ndarray:
    if smallest is None:
        smallest = max(n // 10, min(dim + 1, n // 2), 2)
    _check(
        points > 1 and 2 <= smallest < n,
        f"No line goes through {points} sizes from {smallest} to {n}: give points >= 2 "
        "and 2 <= smallest < N.",
    )
    return np.unique(np.linspace(smallest, n, points).round().astype(int))


def frechet_at_infinity(
    real: Moments, fake, seed: int = 0, points: int = 15, smallest: int | None = None
) -> Extrapolation:
    """The Fréchet distance extrapolated to infinitely many fakes: FID(n) ≈ FID∞ + s/n.

    Least squares through `points` sizes n, equally spaced from `smallest` to N (by
    default N/10, or D + 1 to keep covariances regular, but never beyond N/2), of
    growing prefixes of fake [N, D] in one random order. The bias by the finite *real*
    set stays: compare at one real set.

    Chong and Forsyth 2020, arXiv:1911.07023, section 3.
    """
    (fake,) = _features(fake, least=3)
    _features(fake, real.mean[None])
    sizes, a = _sizes(*fake.shape, points, smallest), _factor(real.cov)
    chunks = np.split(np.random.default_rng(seed).permutation(fake), sizes)[:-1]
    totals = itertools.accumulate(map(moments, chunks), merge)
    distances = [_procrustes(real.mean, a, m.mean, _factor(m.cov)) for m in totals]
    slope, value = np.polyfit(1 / sizes, distances, 1)
    return Extrapolation(float(value), float(slope))


# ------------------------------------------------------------ kernel distance


def _subset_size(n: int, subsets: int, size: int | None = None) -> int:
    size = min(1000, n // max(subsets, 1)) if size is None else size
    _check(
        subsets >= 1 and size >= 2 and subsets * size <= n,
        f"{subsets} disjoint subsets of {size} samples cannot be drawn from {n}: give "
        f"at least {max(subsets, 1) * max(size, 2)} samples, or fewer subsets.",
    )
    return size


def _mmd(x: np.ndarray, y: np.ndarray, degree: int) -> float:
    """The unbiased MMD² of two sets [m, D]: means over pairs of *different* samples."""
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
    """KID: the unbiased MMD² of features [N, D], [M, D], k(x, y) = (x·y/D + 1)^degree.

    The mean over random *disjoint* subsets of both sets (by default of all samples,
    up to 1000 a subset), and its standard error. The paper draws subsets of 1000 that
    overlap: more draws shrink std/√subsets on the same data, so it says nothing about
    the sampling error. Disjoint subsets are independent, and theirs is honest. Near
    equality an unbiased estimate is often negative.

    Bińkowski et al. 2018, arXiv:1801.01401, section 4.
    """
    real, fake = _features(real, fake, least=2)
    size = _subset_size(min(len(real), len(fake)), subsets, subset_size)
    generator = np.random.default_rng(seed)
    parts = [
        x[generator.permutation(len(x))[: subsets * size]].reshape(subsets, size, -1)
        for x in (real, fake)
    ]
    return _estimate([_mmd(x, y, degree) for x, y in zip(*parts, strict=True)])


# ------------------------------------------------------------ inception score


def inception_score(probs, splits: int = 10, seed: int = 0) -> Estimate:
    """exp E KL(p(y|x) ‖ p(y)) of class probabilities [N, K], from 1 to K.

    The mean over `splits` random parts, each with its own p(y), and its standard error
    (the paper quotes the standard deviation over parts, √splits times larger). The
    paper's parts are consecutive; random ones do not mind samples sorted by class.
    Biased low by O(splits/N), so compare at equal N.

    Salimans et al. 2016, arXiv:1606.03498, section 4.
    """
    (probs,) = _features(probs)
    wrong = (probs < 0).any(axis=1) | (np.abs(probs.sum(axis=1) - 1) > 1e-4)
    row = int(wrong.argmax())
    _check(
        not wrong.any(),
        f"Class probabilities, row {row} with sum {probs[row].sum():g} and least entry "
        f"{probs[row].min():g}, must be >= 0 and sum to 1: apply softmax to logits.",
    )
    _check(
        1 <= splits <= len(probs),
        f"{len(probs)} samples cannot be split {splits} ways: give 1 <= splits <= N.",
    )
    order = np.random.default_rng(seed).permutation(len(probs))
    parts = (probs[rows] for rows in np.array_split(order, splits))
    # rel_entr is p log(p/q), and 0 log 0 = 0.
    nats = [rel_entr(p, p.mean(axis=0)).sum(axis=1).mean() for p in parts]
    return _estimate(np.exp(nats))


# -------------------------------- precision and recall, density and coverage


def _distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple]:
    """(rows, |xᵢ - yⱼ|² [rows, M], its rounding error) for blocks of rows of x.

    |x|² + |y|² - 2 x·y is a matrix product, much faster than differences, but leaves a
    rounding error of up to D ε (|x|² + |y|²) where x = y, which comparisons allow for.
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
    _check(
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


def precision_recall(real, fake, k: int = 3) -> tuple[float, float]:
    """The share of fakes in a ball of the real set, and of reals in one of the fakes.

    A set's balls reach from each sample to its k-th nearest neighbour. Features
    [N, D], [M, D]; both figures grow with k and depend on N and M.

    Kynkäänniemi et al. 2019, arXiv:1904.06991, section 2.
    """
    real, fake = _features(real, fake, least=2)
    fakes, reals = _balls(real, k, fake)[0] > 0, _balls(fake, k, real)[0] > 0
    return float(fakes.mean()), float(reals.mean())


def density_coverage(real, fake, k: int = 5) -> tuple[float, float]:
    """Real balls a fake is in, over k; and the share of real balls that hold a fake.

    Both use balls around real samples only (see `precision_recall`), so an outlying
    fake costs no more than itself. For equal distributions E density = 1, and
    E coverage = 1 - Π_{i=1…k} (N - i)/(N + M - i), whatever continuous one it is.
    The balls are closed; the authors' program leaves their edge out, which counts
    copies of repeated samples as misses.

    Naeem et al. 2020, arXiv:2002.09797, section 3.
    """
    real, fake = _features(real, fake, least=2)
    balls, held = _balls(real, k, fake)
    return float(balls.mean() / k), float((held > 0).mean())


# ------------------------------------------------------------- outlier scores


def _scores(scores, labels) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    _check(
        scores.ndim == 1 and len(scores) > 0 and scores.shape == labels.shape,
        f"Scores {scores.shape} and labels {labels.shape} must be [N] both, N >= 2.",
    )
    bad, other = np.isnan(scores), (labels != 0) & (labels != 1)
    _check(not bad.any(), f"Score {bad.argmax()} is NaN: look at what made it.")
    _check(not other.any(), f"A label is {labels[other.argmax()]}: use only 0 and 1.")
    _check(
        0 < labels.sum() < len(labels),
        f"All of {len(labels)} labels are of one class: give samples of both.",
    )
    return scores, labels.astype(bool)


def auroc(scores, labels) -> float:
    """P(score of a 1 > score of a 0) + ½ P(equal): the area under the ROC curve.

    Scores [N], labels [N] of 0 or 1. The statistic of Mann and Whitney 1947, from the
    ranks: (Σ ranks of 1s - n₁(n₁ + 1)/2)/(n₁ n₀).
    """
    scores, labels = _scores(scores, labels)
    ones, zeros = int(labels.sum()), int((~labels).sum())
    wins = rankdata(scores)[labels].sum() - ones * (ones + 1) / 2
    return float(wins / (ones * zeros))


def auroc_standard_error(area: float, ones: int, zeros: int) -> float:
    """The standard error of an AUROC from so many 1s and 0s.

    √[(A(1 - A) + (n₁ - 1)(Q₁ - A²) + (n₀ - 1)(Q₂ - A²))/(n₁ n₀)], Q₁ = A/(2 - A) and
    Q₂ = 2A²/(1 + A): exact for exponential scores, close for others. Hanley and McNeil
    1982, "The meaning and use of the area under a ROC curve", equation 1.
    """
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (ones - 1) * (one - area**2)
    return math.sqrt((spread + (zeros - 1) * (two - area**2)) / (ones * zeros))


def average_precision(scores, labels) -> float:
    """Σ (Rₙ - Rₙ₋₁) Pₙ over the distinct scores as thresholds, the highest first.

    Pₙ and Rₙ are precision and recall of "score >= the n-th threshold means 1". Scores
    [N], labels [N] of 0 or 1; a score that says nothing gets the share of 1s.
    """
    scores, labels = _scores(scores, labels)
    _, group = np.unique(-scores, return_inverse=True)
    ones = np.bincount(group, labels)
    precision = np.cumsum(ones) / np.cumsum(np.bincount(group))
    return float(ones @ precision / ones.sum())


# ---------------------------------------------------------------------- modes


def nearest_mode(samples, centers, radius: float) -> np.ndarray:
    """The index of the nearest of centers [K, D] to samples [N, D], as int [N].

    -1 where it is further than `radius`; the papers take three standard deviations of
    a mode. Srivastava et al. 2017, arXiv:1705.07761, section 4.
    """
    samples, centers = _features(samples, centers)
    distance, index = KDTree(centers).query(samples)
    return np.where(distance <= radius, index, -1)


def _histogram(assignment, num_modes: int) -> np.ndarray:
    given = np.asarray(assignment)
    assignment = given.astype(int)
    _check(np.array_equal(given, assignment), "Modes are integers: give -1 for none.")
    outside = set(assignment.tolist()) - set(range(-1, num_modes))
    _check(
        not outside,
        f"Modes {outside} are not among {num_modes}: give -1 … {num_modes - 1}.",
    )
    return np.bincount(assignment[assignment >= 0], minlength=num_modes)


def modes_found(assignment, num_modes: int, at_least: int = 1) -> int:
    """How many modes have `at_least` samples; assignment int [N] by `nearest_mode`."""
    return int((_histogram(assignment, num_modes) >= at_least).sum())


def mode_kl(assignment, num_modes: int) -> float:
    """KL(histogram of assigned samples ‖ uniform) in nats: 0 at best, log K at worst.

    Samples of no mode (-1) do not count; nan if there are no others. Metz et al. 2017,
    arXiv:1611.02163; Srivastava et al. 2017, arXiv:1705.07761, section 4.
    """
    counts = _histogram(assignment, num_modes)
    if not counts.any():
        return math.nan
    return float(rel_entr(counts / counts.sum(), 1 / num_modes).sum())


# ------------------------------------------------------------- sample quality


def _singular(n: int, dim: int, more_than: int) -> str:
    """What to know of a Fréchet distance from n samples; "" if n > dim are enough."""
    if n > dim:  # the covariance has rank n - 1 at most
        return ""
    return (
        f"{n} samples in {dim} dimensions have a singular covariance, so the Fréchet "
        "distance is mostly finite-sample bias, upward, and depends on n: give more "
        f"than {more_than} samples or narrower features, and compare at equal n only."
    )


def sample_quality(
    real,
    fake,
    extractor: str,
    probs=None,
    seed: int = 0,
    real_moments: Moments | None = None,
    fake_moments: Moments | None = None,
) -> dict[str, Result]:
    """All figures of features real [N, D] and fake [M, D] by name, each a `Result`.

    Given moments may be of more samples than the features kept; the Fréchet distances
    use them and state their n. `probs` [M, K], the fakes' class probabilities, adds
    the inception score. Warns, and notes, where a covariance is singular: of n <= D
    samples, or for the extrapolation at the smallest size of its line.
    """
    real, fake = _features(real, fake, least=3)
    a = real_moments or moments(real)
    b = fake_moments or moments(fake)
    _features(real, a.mean[None], b.mean[None])
    fewer = min(len(real), len(fake))
    subsets = min(10, fewer // 2) if fewer >= 4 else 1
    used = subsets * _subset_size(fewer, subsets)
    dim, first = fake.shape[1], int(_sizes(*fake.shape)[0])
    note = _singular(min(a.n, b.n), dim, dim)
    line_note = _singular(min(a.n, first), dim, 2 * dim + 1)
    if note or line_note:
        warnings.warn(note or line_note, stacklevel=2)

    def result(value, n_real=len(real), n_fake=len(fake), error=None, note=""):
        return Result(float(value), n_real, n_fake, extractor, error, note)

    if probs is not None:
        _check(
            len(probs) == len(fake),
            f"Class probabilities of {len(probs)} samples do not belong to {len(fake)} "
            "fakes: give one row a fake.",
        )
        score = inception_score(probs, seed=seed)
    distance = frechet_distance(a.mean, a.cov, b.mean, b.cov)
    infinity = frechet_at_infinity(a, fake, seed)
    kernel = kernel_distance(real, fake, subsets, seed=seed)
    precision, recall = precision_recall(real, fake)
    density, coverage = density_coverage(real, fake)
    results = {
        "frechet_distance": result(distance, a.n, b.n, note=note),
        "frechet_distance_at_infinity": result(infinity.value, a.n, note=line_note),
        "kernel_distance": result(kernel.value, used, used, kernel.standard_error),
        "precision": result(precision),
        "recall": result(recall),
        "density": result(density),
        "coverage": result(coverage),
    }
    if probs is not None:
        results["inception_score"] = result(score.value, 0, error=score.standard_error)
    return results
