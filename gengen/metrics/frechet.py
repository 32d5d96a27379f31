"""The Fréchet distance (FID) of two sets of features: that of two Gaussians.

It needs the mean and covariance of each set, `Moments`, which are merged batch by
batch. Estimated from n samples it is biased upwards by about s/n; the line through
several n gives its value at infinity.
"""

import itertools
from typing import NamedTuple

import numpy as np

from gengen.metrics.result import as_features, refuse_unless

LEAST = 2  # samples of each set: a covariance
LEAST_AT_INFINITY = 3  # fakes: a line through two sizes


class Extrapolation(NamedTuple):
    """The line value + slope/n."""

    value: float
    """The value at n = ∞."""
    slope: float
    """The bias at n samples, times n."""


class Moments(NamedTuple):
    """Count, mean and scatter of samples: all that a Fréchet distance needs."""

    n: int
    """The number of samples."""
    mean: np.ndarray
    """Their mean, float64 [F]."""
    m2: np.ndarray
    """Σ (x - mean)(x - mean)ᵀ, float64 [F, F]."""

    @property
    def cov(self) -> np.ndarray:
        """The unbiased covariance m2/(n - 1) [F, F]; needs two samples."""
        refuse_unless(
            self.n >= LEAST, f"{self.n} sample has no covariance: give at least 2."
        )
        return self.m2 / (self.n - 1)


def moments(features) -> Moments:
    """The `Moments` of features.

    Args:
        features: floats [N, F], N >= 1.

    >>> moments([[0.0], [2.0]]).cov
    array([[2.]])
    """
    (x,) = as_features(features)
    mean = x.mean(axis=0)
    deviation = x - mean
    return Moments(len(x), mean, deviation.T @ deviation)


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of both sets together; associative and commutative.

    m2 = m2_a + m2_b + δ δᵀ n_a n_b/n with δ = mean_b - mean_a, n = n_a + n_b.

    Args:
        a: the moments of one set.
        b: the moments of another set, of the same F.

    Chan, Golub and LeVeque 1979 (Stanford STAN-CS-79-773), the pairwise update.

    >>> merge(moments([[0.0]]), moments([[2.0]])) == moments([[0.0], [2.0]])
    True
    """
    as_features(a.mean[None], b.mean[None])
    n, delta = a.n + b.n, b.mean - a.mean
    m2 = a.m2 + b.m2 + np.outer(delta, delta) * (a.n * b.n / n)
    return Moments(n, a.mean + delta * (b.n / n), m2)


def _factor(cov: np.ndarray) -> np.ndarray:
    """A [F, r] with A Aᵀ = cov of rank r: eigenvalues of pure rounding are dropped."""
    eigenvalues, vectors = np.linalg.eigh(cov)
    refuse_unless(
        eigenvalues[0] >= -1e-6 * abs(eigenvalues).max(),
        f"A covariance has the eigenvalue {eigenvalues[0]:.3g}, and so is none: give "
        "that of features.",
    )
    floor = len(cov) * np.finfo(float).eps * max(eigenvalues[-1], 0.0)
    keep = eigenvalues > floor
    return vectors[:, keep] * np.sqrt(eigenvalues[keep])


def _mean_and_factor(moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    """(mean [F], A [F, r] with A Aᵀ the covariance); BadInput for what is neither."""
    mean, cov = np.asarray(moments.mean), np.asarray(moments.cov)
    refuse_unless(mean.ndim == 1, f"A mean of shape {mean.shape}: give it as [F].")
    (mean,), _ = as_features(mean[None], cov)
    refuse_unless(
        len(cov) == len(mean) and np.allclose(cov, cov.T),
        f"A covariance of shape {cov.shape} is not symmetric: give that of the "
        "features, [F, F].",
    )
    return mean, _factor(cov)


def frechet_distance(a: Moments, b: Moments) -> float:
    """|m₁ - m₂|² + tr(C₁ + C₂ - 2 (C₁ C₂)^½), Wasserstein-2² of two Gaussians.

    With C₁ = A Aᵀ and C₂ = B Bᵀ the eigenvalues of C₁ C₂ are those of (AᵀB)(AᵀB)ᵀ and
    zeros, so the trace of the root is the sum of the singular values of AᵀB: real and
    exact for singular covariances too, where programs that call `sqrtm` add to the
    diagonal and drop an imaginary part.

    Args:
        a: the moments of one set, of at least 2 samples.
        b: the moments of another set, of the same F and at least 2 samples.

    Raises BadInput for another F, fewer samples, or an m2 that is no scatter matrix.

    Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500, equation 6.

    >>> frechet_distance(moments([[0.0], [2.0]]), moments([[3.0], [5.0]]))
    9.0
    """
    as_features(np.atleast_2d(a.mean), np.atleast_2d(b.mean))
    return _procrustes(*_mean_and_factor(a), *_mean_and_factor(b))


def _procrustes(m1, a, m2, b) -> float:
    """|m₁ - m₂|² + |A|² + |B|² - 2 Σ singular values of AᵀB, A and B [F, rank]."""
    root = np.linalg.svd(a.T @ b, compute_uv=False).sum()
    squares = np.sum((m1 - m2) ** 2) + np.sum(a * a) + np.sum(b * b)
    return max(float(squares - 2 * root), 0.0)


def sizes_of_line(
    n: int, dim: int, points: int = 15, smallest: int | None = None
) -> np.ndarray:
    """The sizes through which `frechet_at_infinity` lays its line, int [≤ points].

    Args:
        n: the number of samples, above `smallest`.
        dim: F, the number of features.
        points: the number of sizes, at least 2; those that coincide are one.
        smallest: the least size, at least 2; None for N/10, or F + 1 to keep
            covariances regular, but never beyond N/2.

    >>> sizes_of_line(100, 3, points=4)
    array([ 10,  40,  70, 100])
    """
    if smallest is None:
        smallest = max(n // 10, min(dim + 1, n // 2), 2)
    refuse_unless(
        points > 1 and 2 <= smallest < n,
        f"No line goes through {points} sizes from {smallest} to {n}: give points >= 2 "
        "and 2 <= smallest < N.",
    )
    return np.unique(np.linspace(smallest, n, points).round().astype(int))


def frechet_at_infinity(
    real: Moments, fake, seed: int = 0, points: int = 15, smallest: int | None = None
) -> Extrapolation:
    """The Fréchet distance extrapolated to infinitely many fakes: FID(n) ≈ FID∞ + s/n.

    Least squares through the `sizes_of_line` n of growing prefixes of the fakes in one
    random order. The bias by the finite *real* set stays: compare at one real set.

    Args:
        real: the moments of the real set, of at least 2 samples.
        fake: features [N, F], N >= 3.
        seed: the seed of the random order.
        points: the number of sizes, at least 2.
        smallest: the least size, 2 <= smallest < N; None for that of `sizes_of_line`.

    Chong and Forsyth 2020, arXiv:1911.07023, section 3.

    >>> fake = np.random.default_rng(0).normal(size=(2000, 1))
    >>> known = Moments(10**9, np.zeros(1), (10**9 - 1) * np.eye(1))  # N(0, 1) itself
    >>> abs(frechet_at_infinity(known, fake).value) < 0.005
    True
    """
    (fake,) = as_features(fake, least=LEAST_AT_INFINITY)
    as_features(fake, real.mean[None])
    sizes = sizes_of_line(*fake.shape, points, smallest)
    mean, factor = _mean_and_factor(real)
    chunks = np.split(np.random.default_rng(seed).permutation(fake), sizes)[:-1]
    totals = itertools.accumulate(map(moments, chunks), merge)
    distances = [_procrustes(mean, factor, m.mean, _factor(m.cov)) for m in totals]
    slope, value = np.polyfit(1 / sizes, distances, 1)
    return Extrapolation(float(value), float(slope))


def singular_note(n: int, dim: int, more_than: int | None = None) -> str:
    """What to know of a Fréchet distance from n samples; "" if n > F are enough.

    Args:
        n: the number of samples of the smaller set.
        dim: F, the number of features.
        more_than: the number of samples that the remedy names; F by default.

    >>> singular_note(100, 3)
    ''
    """
    if n > dim:  # the covariance has rank n - 1 at most
        return ""
    return (
        f"{n} samples in {dim} dimensions have a singular covariance, so the Fréchet "
        "distance is mostly finite-sample bias, upward, and depends on n: give more "
        f"than {dim if more_than is None else more_than} samples or narrower features, "
        "and compare at equal n only."
    )
