"""Laws of `gengen.metrics`: closed forms, exact expectations, naive references."""

import dataclasses
import functools
import itertools
import json
import math
import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import sklearn.calibration
import sklearn.metrics
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from gengen.errors import BadInput
from gengen.metrics import kernel, neighbours
from gengen.metrics.frechet import (
    Moments,
    frechet_at_infinity,
    frechet_distance,
    merge,
    moments,
)
from gengen.metrics.inception import inception_score
from gengen.metrics.kernel import kernel_distance
from gengen.metrics.modes import mode_kl, modes_found, nearest_mode
from gengen.metrics.neighbours import density_coverage, nearest, precision_recall
from gengen.metrics.quality import LEAST_SAMPLES, possible_metrics, sample_quality
from gengen.metrics.ranking import (
    auroc,
    auroc_standard_error,
    average_precision,
    calibration_error,
)
from gengen.metrics.result import Result, standard_error


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def mix(dim, seed):
    """A random D x D matrix: normal(n, D) @ mix has a covariance of full rank."""
    return normal(dim, dim, seed=seed) / math.sqrt(dim)


def exact(mean, cov, n=10**9):
    """Moments of a distribution that is known, as if n samples had shown it."""
    return Moments(n, np.asarray(mean, float), np.asarray(cov) * (n - 1))


def between(mean_1, cov_1, mean_2, cov_2):
    """The Fréchet distance of two distributions that are known."""
    return frechet_distance(exact(mean_1, cov_1), exact(mean_2, cov_2))


def gaussians(dim, rank=None, seed=0):
    """Means and covariances of two Gaussians, the second of this rank."""
    a, b = mix(dim, seed), mix(dim, seed + 1)[:, :rank]
    means = normal(2, dim, seed=seed + 2)
    return means[0], a @ a.T, means[1], b @ b.T


# -------------------------------------------------------------------- moments


def test_moments_are_numpys():
    x = normal(50, 7) @ mix(7, 1) + 3
    got = moments(x)
    assert got.n == 50
    np.testing.assert_allclose(got.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(got.cov, np.cov(x, rowvar=False), rtol=1e-12)


def test_moments_are_float64_whatever_the_features_are():
    """The variance of float32 features around 1e4 has no digits left in float32."""
    x = (1e4 + normal(500, 3)).astype(np.float32)
    got = moments(x)
    assert got.cov.dtype == np.float64
    np.testing.assert_allclose(got.cov, np.cov(x.astype(float).T), rtol=1e-12)


@pytest.mark.parametrize("sizes", [[100], [1] * 100, [7, 93], [90, 1, 9], [50, 50]])
def test_any_chunking_gives_the_same_moments(sizes):
    x = 10 * normal(100, 4) + 1e3
    chunks = np.split(x, np.cumsum(sizes)[:-1])
    got = functools.reduce(merge, map(moments, chunks))
    whole = moments(x)
    assert got.n == whole.n
    np.testing.assert_allclose(got.mean, whole.mean, rtol=1e-10)
    np.testing.assert_allclose(got.m2, whole.m2, rtol=1e-10, atol=1e-10)


def test_merge_is_associative_and_commutative():
    a, b, c = (moments(normal(n, 3, seed=n) + n) for n in (2, 30, 5))
    one = merge(merge(a, b), c)
    for other in (
        merge(a, merge(b, c)),
        merge(merge(c, a), b),
    ):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-10)


# ----------------------------------------------------------- Fréchet distance


def test_frechet_distance_in_one_dimension():
    """(m₁ - m₂)² + (s₁ - s₂)²."""
    for m1, s1, m2, s2 in [(0, 1, 0, 1), (1, 2, -3, 0.5), (0, 0, 2, 3), (5, 0, 5, 0)]:
        got = between([m1], [[s1**2]], [m2], [[s2**2]])
        assert got == pytest.approx((m1 - m2) ** 2 + (s1 - s2) ** 2, abs=1e-12)


def test_frechet_distance_of_commuting_covariances():
    """Σ (√λ₁ - √λ₂)² where both covariances have the same eigenvectors."""
    basis = scipy.stats.ortho_group.rvs(6, random_state=0)
    l1, l2 = np.array([0, 0, 1, 2, 3, 9.0]), np.array([0, 4, 0, 2, 1, 1e-8])
    zero = np.zeros(6)
    got = between(zero, basis * l1 @ basis.T, zero, basis * l2 @ basis.T)
    assert got == pytest.approx(np.sum((np.sqrt(l1) - np.sqrt(l2)) ** 2), rel=1e-12)


@pytest.mark.parametrize("dim", [1, 5, 40])
def test_frechet_distance_is_scipys_sqrtm(dim):
    m1, c1, m2, c2 = gaussians(dim)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    expected = np.sum((m1 - m2) ** 2) + np.trace(c1 + c2 - 2 * root)
    got = between(m1, c1, m2, c2)
    assert got == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("rank", [1, 3])
def test_frechet_distance_of_singular_covariances(rank):
    """tr (C₁ B Bᵀ)^½ = tr (Bᵀ C₁ B)^½, an r x r matrix; √(bᵀ C₁ b) for rank one."""
    m1, c1, m2, c2 = gaussians(20, rank=rank)
    b = mix(20, 1)[:, :rank]
    trace = np.trace(scipy.linalg.sqrtm(b.T @ c1 @ b)).real
    expected = np.sum((m1 - m2) ** 2) + np.trace(c1) + np.trace(c2) - 2 * trace
    got = between(m1, c1, m2, c2)
    assert got == pytest.approx(expected, rel=1e-12)
    assert between(m2, c2, m1, c1) == pytest.approx(got, rel=1e-12)


@pytest.mark.parametrize("rank", [None, 3])
def test_frechet_distance_is_zero_exactly_at_equality(rank):
    _, _, m, c = gaussians(20, rank=rank)
    assert 0 <= between(m, c, m, c) < 1e-12
    for change in (1e-3, -1e-3):
        assert between(m, c, m, c * (1 + change)) > 1e-8
        assert between(m, c, m + change, c) > 1e-8


def test_frechet_distance_is_blind_to_rigid_motion_and_scales_as_a_square():
    m1, c1, m2, c2 = gaussians(8)
    turn = scipy.stats.ortho_group.rvs(8, random_state=1)
    base = between(m1, c1, m2, c2)
    moved = between(
        m1 @ turn + 5, turn.T @ c1 @ turn, m2 @ turn + 5, turn.T @ c2 @ turn
    )
    scaled = between(3 * m1, 9 * c1, 3 * m2, 9 * c2)
    assert moved == pytest.approx(base, rel=1e-12)
    assert scaled == pytest.approx(9 * base, rel=1e-12)


def test_extrapolation_removes_the_finite_sample_bias():
    """For N(0, I_D) against n of its samples, FID(n) ≈ (D + D(D + 1)/4)/n.

    D is the mean's share; the covariance's is n tr E[(S - I)²]/4, to first order.
    """
    dim, n = 16, 3_200
    real = exact(np.zeros(dim), np.eye(dim))
    at_n, line = [], []
    for seed in range(40):
        fake = normal(n, dim, seed=seed)
        got = moments(fake)
        at_n.append(frechet_distance(real, got))
        line.append(frechet_at_infinity(real, fake, seed=seed))
    slope = dim + dim * (dim + 1) / 4
    assert np.mean(at_n) == pytest.approx(slope / n, rel=0.03)
    error = np.abs(np.mean(line, axis=0) - (0, slope))
    assert np.all(error < 3 * scipy.stats.sem(line))
    assert scipy.stats.sem(line)[0] < np.mean(at_n) / 15  # the bias would be seen


def test_extrapolation_is_unbiased_around_a_distance_that_is_not_zero():
    dim, n, shift = 8, 2_000, 0.3
    real = exact(np.full(dim, shift), np.eye(dim))
    error = [
        frechet_at_infinity(real, normal(n, dim, seed=seed), seed).value
        - dim * shift**2
        for seed in range(40)
    ]
    assert abs(np.mean(error)) < 3 * scipy.stats.sem(error)


def test_extrapolation_depends_on_its_arguments_only():
    real, fake = exact(np.zeros(3), np.eye(3)), normal(60, 3)
    first = frechet_at_infinity(real, fake, seed=1)
    assert first == frechet_at_infinity(real, fake, seed=1)
    assert first != frechet_at_infinity(real, fake, seed=2)


# ------------------------------------------------------------ kernel distance


def naive_mmd(x, y, degree):
    """The U-statistic by a double loop over pairs."""

    def k(a, b):
        return (a @ b / len(a) + 1) ** degree

    xx = [k(a, b) for a, b in itertools.permutations(x, 2)]
    yy = [k(a, b) for a, b in itertools.permutations(y, 2)]
    xy = [k(a, b) for a in x for b in y]
    return np.mean(xx) + np.mean(yy) - 2 * np.mean(xy)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_kernel_distance_of_one_subset_is_the_u_statistic(degree):
    real, fake = normal(12, 5), normal(12, 5, seed=1) + 0.5
    got = kernel_distance(real, fake, 1, 12, degree=degree)
    assert got.value == pytest.approx(naive_mmd(real, fake, degree), rel=1e-12)
    assert got.standard_error is None  # one subset knows nothing of its error


def test_kernel_distance_is_the_mean_over_disjoint_subsets(monkeypatch):
    """The subsets that the U-statistics were of: every sample is in exactly one."""
    drawn, mmd = [], kernel._mmd

    def spy(x, y, degree):
        drawn.append((x, y, mmd(x, y, degree)))
        return drawn[-1][2]

    monkeypatch.setattr(kernel, "_mmd", spy)
    real, fake = normal(12, 2), normal(15, 2, seed=1)
    got = kernel_distance(real, fake, subsets=4)
    for part, whole in ((0, real), (1, fake)):
        assert all(subset[part].shape == (3, 2) for subset in drawn)
        rows = {tuple(row) for subset in drawn for row in subset[part]}
        assert len(rows) == 12
        assert rows <= set(map(tuple, whole))
    values = [value for _, _, value in drawn]
    assert got.value == pytest.approx(np.mean(values))
    assert got.standard_error == pytest.approx(scipy.stats.sem(values))
    again = kernel_distance(real, fake, subsets=4)
    assert again == got != kernel_distance(real, fake, subsets=4, seed=1)


def test_kernel_distance_of_degree_one_is_the_distance_of_means():
    """|m₁ - m₂|²/D; of samples, less its bias (tr C₁ + tr C₂)/n/D."""
    real, fake = normal(40, 6), 2 * normal(40, 6, seed=1) + 1
    a, b = moments(real), moments(fake)
    bias = (np.trace(a.cov) + np.trace(b.cov)) / 40
    expected = (np.sum((a.mean - b.mean) ** 2) - bias) / 6
    got = kernel_distance(real, fake, 1, 40, degree=1)
    assert got.value == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_is_unbiased_and_may_be_negative():
    values = [
        kernel_distance(
            normal(100, 4, seed=2 * i), normal(100, 4, seed=2 * i + 1), seed=i
        ).value
        for i in range(200)
    ]
    assert abs(np.mean(values)) < 3 * scipy.stats.sem(values)
    assert min(values) < 0 < max(values)


@pytest.mark.parametrize(("degree", "shift"), [(1, 0.5), (3, 0.5), (3, 0.0)])
def test_the_standard_error_of_the_kernel_distance_covers(degree, shift):
    """A 95 % interval of Student's t holds the truth in 95 % of repetitions."""
    dim, repeats = 4, 300
    truth = shift**2 if degree == 1 else cubic_truth(dim, shift)
    inside = 0
    for i in range(repeats):
        real = normal(400, dim, seed=2 * i)
        fake = normal(400, dim, seed=2 * i + 1) + shift
        got = kernel_distance(real, fake, degree=degree, seed=i)
        width = scipy.stats.t.ppf(0.975, 9) * got.standard_error
        inside += abs(got.value - truth) < width
    # Three standard deviations of a binomial count around its mean.
    assert abs(inside - 0.95 * repeats) < 3 * math.sqrt(repeats * 0.95 * 0.05)


def cubic_truth(dim, shift):
    """MMD² of the cubic kernel between N(0, I) and N(s 1, I), from its moments.

    With u = x·y: E(u/D + 1)³ = E u³/D³ + 3 E u²/D² + 3 E u/D + 1, and for
    independent x ~ N(p, I), y ~ N(q, I): E u = p·q, E u² = D + |p|² + |q|² + (p·q)²,
    E u³ = (p·q)³ + 3 p·q (|p|² + |q|² + D + 2).
    """

    def expected(p, q):
        pq, norms = p @ q, p @ p + q @ q
        cube = pq**3 + 3 * pq * (norms + dim + 2)
        return cube / dim**3 + 3 * (dim + norms + pq**2) / dim**2 + 3 * pq / dim + 1

    zero, m = np.zeros(dim), np.full(dim, shift)
    return expected(zero, zero) + expected(m, m) - 2 * expected(zero, m)


# ------------------------------------------------------------ inception score


def test_inception_score_is_the_number_of_classes_at_best_and_one_at_worst():
    one_hot = np.eye(7)[np.arange(70) % 7]
    assert inception_score(one_hot, splits=1).value == pytest.approx(7)
    rows = np.tile([0.5, 0.25, 0.25, 0.0], (40, 1))
    got = inception_score(rows)
    assert got.value == pytest.approx(1)
    assert got.standard_error == pytest.approx(0, abs=1e-12)


def test_inception_score_is_scipys_entropies():
    """log IS = H(mean p) - mean H(p): the mutual information of sample and class."""
    probs = np.random.default_rng(0).dirichlet(np.full(5, 0.3), size=200)
    entropy = scipy.stats.entropy
    expected = np.exp(entropy(probs.mean(0)) - np.mean(entropy(probs, axis=1)))
    got = inception_score(probs, splits=1)
    assert got.value == pytest.approx(expected, rel=1e-12)


def test_inception_score_survives_rows_in_order_of_class_or_in_cycles():
    """Splits are drawn, not sliced: neither order of one-hot rows lowers the score."""
    for labels in (np.repeat(np.arange(10), 200), np.arange(2_000) % 10):
        got = inception_score(np.eye(10)[labels])
        assert 9 < got.value <= 10


# -------------------------------- precision and recall, density and coverage


def naive_balls(centers, k, points):
    """[centers, points] bool by scikit-learn: is the point in the centre's ball?"""
    neighbours = NearestNeighbors(n_neighbors=k + 1).fit(centers)
    radii = neighbours.kneighbors(centers)[0][:, -1]
    distance = sklearn.metrics.pairwise_distances(centers, points)
    return distance <= radii[:, None]


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(
    ("dim", "shift", "scale"), [(2, 1, 1), (9, 0, 0.8), (5, 100, 1)]
)
def test_manifold_metrics_are_scikit_learns(k, dim, shift, scale):
    real, fake = normal(120, dim) + 50, scale * normal(90, dim, seed=1) + shift + 50
    of_real, of_fake = naive_balls(real, k, fake), naive_balls(fake, k, real)
    assert precision_recall(real, fake, k) == (
        of_real.any(0).mean(),
        of_fake.any(0).mean(),
    )
    density, coverage = density_coverage(real, fake, k)
    assert density == pytest.approx(of_real.sum(0).mean() / k, rel=1e-12)
    assert coverage == of_real.any(1).mean()


def test_blocks_of_rows_change_nothing(monkeypatch):
    real, fake = normal(101, 4), normal(57, 4, seed=1)
    whole = precision_recall(real, fake), density_coverage(real, fake)
    monkeypatch.setattr(neighbours, "_BLOCK", 300)
    assert whole == (
        precision_recall(real, fake),
        density_coverage(real, fake),
    )


def test_memory_is_bounded_by_the_block():
    real, fake = normal(4_000, 2), normal(4_000, 2, seed=1)
    tracemalloc.start()
    precision_recall(real[:2_000], fake)  # 64 MB a whole matrix of float64
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 8 * neighbours._BLOCK


def test_identical_sets_are_perfect():
    """Each ball holds its centre and, closed, its k neighbours: density (k + 1)/k."""
    x = normal(150, 6) * 1e3 + 1e5
    assert precision_recall(x, x.copy()) == (1, 1)
    assert density_coverage(x, x.copy(), k=5) == (6 / 5, 1)


@pytest.mark.parametrize("size", [2, 7, 38, 61])
def test_the_edge_of_a_ball_is_inside_whatever_the_rounding(size, monkeypatch):
    """Fakes from the real set itself are often the k-th neighbour that sets a radius.

    Blocks of one row for radii and of several for fakes round products differently.
    The reference is scipy's `cdist`, whose distance of a pair never depends on others.
    """
    monkeypatch.setattr(neighbours, "_BLOCK", 150)
    k, real = 5, normal(150, 33) * 1e3 + 1e5
    fake = real[::-1][:size]
    radii = np.sort(cdist(real, real), axis=1)[:, k]
    inside = cdist(real, fake) <= radii[:, None]
    density, coverage = density_coverage(real, fake, k)
    assert density == pytest.approx(inside.sum() / (k * size), rel=1e-12)
    assert coverage == inside.any(axis=1).mean()


def test_copies_are_inside_even_balls_of_radius_zero():
    """Every real point four times: all radii are 0, and only exact copies are real."""
    real = np.tile(normal(30, 64) * 1e3 + 7e3, (4, 1))
    copies, others = real[:25], real[:25] + 1e-3
    assert precision_recall(real, copies)[0] == 1
    assert precision_recall(real, others)[0] == 0
    density, coverage = density_coverage(real, copies, k=3)
    assert density == pytest.approx(4 / 3)  # the copies' four balls, over k
    assert coverage == pytest.approx(25 / 30)


def test_sets_far_apart_share_nothing():
    real = normal(50, 3)
    assert precision_recall(real, real + 1e3) == (0, 0)
    assert density_coverage(real, real + 1e3) == (0, 0)


def test_dropping_a_mode_costs_recall_and_coverage_only():
    left, right = normal(200, 2), normal(200, 2, seed=1) + 50
    real, fake = np.concatenate([left, right]), normal(400, 2, seed=2)
    precision, recall = precision_recall(real, fake)
    density, coverage = density_coverage(real, fake)
    assert precision > 0.9
    assert density > 0.9
    assert 0.4 < recall < 0.5 + 1e-9
    assert 0.4 < coverage < 0.5 + 1e-9


def test_density_is_one_and_coverage_known_when_the_distributions_are_one():
    """Exact for every continuous distribution (Naeem et al. 2020, Lemmas 1 and 2):

    E density = 1 and E coverage = 1 - Π_i (N - i)/(M + N - i), i = 1 … k.
    """
    n, m, k = 40, 30, 5
    got = [
        density_coverage(normal(n, 3, seed=i), normal(m, 3, seed=10**6 + i), k)
        for i in range(300)
    ]
    i = np.arange(1, k + 1)
    expected = 1, 1 - np.prod((n - i) / (m + n - i))
    error = np.abs(np.mean(got, axis=0) - expected)
    assert np.all(error < 3 * scipy.stats.sem(got))


# ------------------------------------------------------------ outlier scores


@pytest.mark.parametrize("values", [3, 10, 10**6])
def test_auroc_and_average_precision_are_scikit_learns(values):
    generator = np.random.default_rng(values)
    labels = generator.integers(0, 2, 300)
    scores = generator.integers(0, values, 300) + labels
    area = auroc(scores, labels)
    assert area == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores))
    expected = sklearn.metrics.average_precision_score(labels, scores)
    assert average_precision(scores, labels) == pytest.approx(expected)
    # Only the order counts; the other order, or the other class, is the complement.
    assert auroc(np.exp(scores / values), labels) == pytest.approx(area)
    assert auroc(-scores, labels) == pytest.approx(1 - area)
    assert auroc(scores, labels == 0) == pytest.approx(1 - area)


def test_scores_that_say_nothing_or_everything():
    labels = np.array([0, 1, 0, 0])
    assert auroc(np.zeros(4), labels) == 0.5
    assert average_precision(np.zeros(4), labels) == 0.25
    infinite = np.where(labels, 0.0, -np.inf)  # a log-likelihood of nothing
    assert auroc(infinite, labels) == 1
    assert average_precision(infinite, labels) == 1


# ---------------------------------------------------------------------- modes


def test_nearest_mode_is_the_nearest_within_the_radius():
    samples, centers = 3 * normal(500, 2), normal(8, 2, seed=1)
    distance = np.linalg.norm(samples[:, None] - centers, axis=-1)
    expected = np.where(distance.min(1) <= 0.7, distance.argmin(1), -1)
    got = nearest_mode(samples, centers, 0.7)
    assert np.issubdtype(got.dtype, np.integer)
    np.testing.assert_array_equal(got, expected)
    assert {-1, 0, 7} <= set(got)
    # On the edge is within.
    assert nearest_mode([[3.0, 4.0]], [[0.0, 0.0]], 5.0).tolist() == [0]


def test_modes_found_counts_modes_with_enough_samples():
    assignment = np.array([0, 0, 0, 2, 2, -1, 4])
    found = [modes_found(assignment, 6, at_least=n) for n in (1, 2, 3, 4)]
    assert found == [3, 2, 1, 0]


def test_mode_kl_is_scipys_entropy_and_log_k_when_all_collapse():
    assignment = np.array([0, 0, 0, 2, 2, -1, 4, -1])
    expected = scipy.stats.entropy([3, 0, 2, 0, 1], np.full(5, 0.2))
    assert mode_kl(assignment, 5) == pytest.approx(expected)
    assert mode_kl(np.arange(50) % 5, 5) == pytest.approx(0, abs=1e-12)
    assert mode_kl(np.full(9, 3), 5) == pytest.approx(math.log(5))
    assert math.isnan(mode_kl(np.full(9, -1), 5))


# ------------------------------------------------------------- sample quality

FIGURES = {
    "frechet_distance",
    "frechet_distance_at_infinity",
    "kernel_distance",
    "precision",
    "recall",
    "density",
    "coverage",
}


def test_sample_quality_is_its_parts():
    real, fake = normal(220, 5), normal(200, 5, seed=1) + 0.3
    probs = np.random.default_rng(0).dirichlet(np.ones(4), size=200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = sample_quality(real, fake, "random-5", probs, seed=3)
    assert set(got) == FIGURES | {"inception_score"}
    a, b = moments(real), moments(fake)
    expected = {
        "frechet_distance": frechet_distance(a, b),
        "frechet_distance_at_infinity": frechet_at_infinity(a, fake, 3).value,
        "kernel_distance": kernel_distance(real, fake, seed=3).value,
        "inception_score": inception_score(probs, seed=3).value,
    }
    expected |= zip(("precision", "recall"), precision_recall(real, fake), strict=True)
    expected |= zip(("density", "coverage"), density_coverage(real, fake), strict=True)
    assert {name: result.value for name, result in got.items()} == expected
    for name, result in got.items():
        assert type(result.value) is float
        assert result.extractor == "random-5"
        measured = name in {"kernel_distance", "inception_score"}
        assert (result.standard_error is not None) == measured
    used = {name: (result.n_real, result.n_fake) for name, result in got.items()}
    assert used.pop("kernel_distance") == (200, 200)  # ten disjoint subsets of 20
    assert used.pop("inception_score") == (0, 200)
    assert set(used.values()) == {(220, 200)}
    with pytest.raises(dataclasses.FrozenInstanceError):
        got["recall"].value = 1.0


def test_sample_quality_states_the_samples_behind_given_moments():
    real, fake = normal(300, 4), normal(300, 4, seed=1)
    a, b = moments(real), moments(fake)
    got = sample_quality(
        real[:100], fake[:90], "random-4", real_moments=a, fake_moments=b
    )
    result = got["frechet_distance"]
    assert (result.n_real, result.n_fake) == (300, 300)
    assert result.value == frechet_distance(a, b)
    infinite = got["frechet_distance_at_infinity"]
    assert (infinite.n_real, infinite.n_fake) == (300, 90)
    assert (got["precision"].n_real, got["precision"].n_fake) == (100, 90)


@pytest.mark.parametrize(
    ("n_fake", "singular", "says"),
    [
        (30, {"frechet_distance", "frechet_distance_at_infinity"}, "30 samples in 30 "),
        (31, {"frechet_distance_at_infinity"}, "15 .* more than 61 "),  # its line's end
        (61, {"frechet_distance_at_infinity"}, "30 .* more than 61 "),
    ],
)
def test_sample_quality_warns_once_of_singular_covariances(n_fake, singular, says):
    real, fake = normal(100, 30), normal(n_fake, 30, seed=1)
    with pytest.warns(UserWarning, match=says) as caught:
        got = sample_quality(real, fake, "random-30")
    assert len(caught) == 1
    assert {name for name, result in got.items() if result.note} == singular
    assert str(caught[0].message) in {result.note for result in got.values()}


def test_sample_quality_is_silent_where_covariances_are_regular():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = sample_quality(normal(31, 30), normal(62, 30, seed=1), "random")
    assert not any(result.note for result in got.values())


def test_each_metric_is_possible_from_the_samples_it_asks_for_and_no_fewer():
    """`LEAST_SAMPLES` is where the metric itself begins to refuse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, (n_real, n_fake) in LEAST_SAMPLES.items():

            def of(n_real, n_fake, name=name):
                probs = np.full((n_fake, 3), 1 / 3)
                sets = normal(n_real, 2), normal(n_fake, 2, seed=1)
                return sample_quality(*sets, "random", probs, names=[name])

            least = max(n_real, 1), n_fake  # the score needs none, an array has one
            assert list(of(*least)) == [name]
            assert name in possible_metrics(*least)
            for fewer in ((n_real - 1, n_fake), (n_real, n_fake - 1)):
                if min(fewer) >= 1:
                    assert name not in possible_metrics(*fewer)
                    with pytest.raises(BadInput, match=name):
                        of(*fewer)


PARTS = {  # the metrics themselves, without the table of what they need
    "frechet_distance": lambda x, y: frechet_distance(moments(x), moments(y)),
    "frechet_distance_at_infinity": lambda x, y: frechet_at_infinity(moments(x), y),
    "kernel_distance": lambda x, y: kernel_distance(x, y, subsets=1),
    "precision": precision_recall,
    "recall": precision_recall,
    "density": density_coverage,
    "coverage": density_coverage,
    "inception_score": lambda _, y: inception_score(np.full((len(y), 3), 1 / 3)),
}


@pytest.mark.parametrize("name", LEAST_SAMPLES)
def test_the_table_of_least_samples_is_that_of_the_metrics_themselves(name):
    n_real, n_fake = LEAST_SAMPLES[name]
    x, y = normal(max(n_real, 1), 2), normal(n_fake, 2, seed=1)
    PARTS[name](x, y)
    for fewer in ((x[:-1], y), (x, y[:-1])):
        if len(fewer[0]):
            with pytest.raises(BadInput):
                PARTS[name](*fewer)


def test_results_are_valid_json_whatever_the_numbers():
    result = Result(math.nan, 1, 1, "pixels", math.inf)
    text = json.dumps(result.as_dict(), allow_nan=False)
    assert json.loads(text)["value"] is None
    assert json.loads(text)["standard_error"] is None
    finite = Result(1.5, 2, 3, "pixels", 0.5, "note")
    assert json.loads(json.dumps(finite.as_dict())) == dataclasses.asdict(finite)


def test_the_standard_error_is_scipys_and_none_of_a_single_value():
    x = normal(30)
    assert standard_error(x) == pytest.approx(scipy.stats.sem(x), rel=1e-12)
    assert standard_error(x[:1]) is None
    assert inception_score(PROBS, splits=1).standard_error is None


# ------------------------------------------------------------------ bad input

X = normal(20, 3)
PROBS = np.full((20, 4), 0.25)


def spoilt(row, value):
    x = X.copy()
    x[row:, 1] = value
    return x


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: kernel_distance(X, X[:, :2]), "3 .*2 .*same extractor"),
        (lambda: merge(moments(X), moments(X[:, :2])), "3.*2"),
        (lambda: between([0], [[1]], [0, 0], np.eye(2)), "1.*2"),
        (lambda: between([0, 0], [[1]], [0, 0], np.eye(2)), "2.*1"),
        (lambda: moments(np.zeros((2, 3, 4))), r"\(2, 3, 4\).*reshape"),
        (lambda: moments(spoilt(13, np.nan)), "7 of 20 .*sample 13 "),
        (lambda: precision_recall(X, spoilt(4, np.inf)), "sample 4 "),
        (lambda: moments(np.zeros((0, 3))), "0 samples"),
        (lambda: moments(np.zeros((5, 3), np.uint8)), "uint8.*floats"),
        (lambda: inception_score(np.eye(9, dtype=int)), "int64.*floats"),
        (lambda: modes_found([[0, 1]], 3), r"\(1, 2\).*\[N\]"),
        (lambda: auroc_standard_error(1.1, 3, 3), "1.1"),
        (lambda: auroc_standard_error(0.5, 3, 0), "3 ones and 0 zeros"),
        (lambda: standard_error([]), r"\(0,\)"),
        (lambda: sample_quality(X[:5], X, ""), "density of 5 real .*6 and 2"),
        (lambda: sample_quality(X, X, "", names=["fid"]), "fid: .*recall"),
        (lambda: sample_quality(X, X, "", names=["inception_score"]), "0 .*20 "),
        (lambda: frechet_distance(moments(X), moments(X[:, :2])), "3.*2"),
        (lambda: moments(X[:1]).cov, "1 sample"),
        (lambda: density_coverage(X[:1], X), "1 samples"),
        (lambda: precision_recall(X, X[:3]), "k = 3.*3 samples"),
        (lambda: density_coverage(X, X, k=0), "k = 0"),
        (lambda: density_coverage(X[:5], X, k=5), "k = 5.*5 samples"),
        (lambda: kernel_distance(X[:19], X), "10 .*19.*20 "),
        (lambda: kernel_distance(X, X, subsets=3, subset_size=7), "3 .*7 .*20"),
        (
            lambda: frechet_at_infinity(moments(X), X, smallest=20),
            "20.*20",
        ),
        (lambda: frechet_at_infinity(moments(X), X, points=1), "1"),
        (lambda: frechet_at_infinity(moments(X), X[:, :2]), "2 and 3"),
        (lambda: inception_score(2 * PROBS), "row 0 .*2.*softmax"),
        (lambda: inception_score(PROBS - [[1, -1, 0, 0]]), "row 0 "),
        (lambda: inception_score(PROBS[:9]), "9 .*10"),
        (lambda: auroc([1, 2, 3], [1, 1, 1]), "class"),
        (lambda: average_precision([1, 2, 3], [0, 0, 0]), "class"),
        (lambda: auroc([1, 2, 3], [0, 1, 2]), "label is 2.*0 and 1"),
        (lambda: auroc([1, 2, 3], [0, 1]), r"\(3,\).*\(2,\)"),
        (lambda: auroc([1, np.nan, 3], [0, 1, 1]), "Score 1 "),
        (lambda: nearest_mode(X, X[:, :2], 1.0), "3 .*2 "),
        (lambda: modes_found([0, 5], 5), "5.*among 5"),
        (lambda: mode_kl([0, -2], 5), "-2"),
        (
            lambda: sample_quality(X, X, "", probs=PROBS[:7]),
            "7 .*20 ",
        ),
        (
            lambda: sample_quality(X, X, "", real_moments=moments(X[:, :2])),
            "3 and 2 dim",
        ),
    ],
)
def test_bad_input_is_told_in_one_sentence(call, says):
    with pytest.raises(BadInput, match=says) as caught:
        call()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 200


def test_the_standard_error_of_an_area_is_that_of_exponential_scores():
    # Scores of the 1s exponential with another rate: P(1 > 0) = a known area.
    rng, ones, zeros, ratio = np.random.default_rng(0), 40, 60, 2.0
    area = ratio / (1 + ratio)
    labels = np.repeat([1, 0], [ones, zeros])
    areas = [
        auroc(
            np.r_[ratio * rng.exponential(size=ones), rng.exponential(size=zeros)],
            labels,
        )
        for _ in range(4000)
    ]
    assert abs(np.mean(areas) - area) < 4 * np.std(areas) / 4000**0.5
    error = auroc_standard_error(area, ones, zeros)
    assert abs(np.std(areas) / error - 1) < 4 / (2 * 4000) ** 0.5


@pytest.mark.parametrize(
    "cov", [[[1, 5], [0, 1]], [[1, 0, 0], [0, 1, 0]], [[-1, 0], [0, -1]]]
)
def test_what_is_no_covariance_is_refused(cov):
    with pytest.raises(BadInput):
        between(np.zeros(2), cov, np.zeros(2), np.eye(2))


def test_modes_may_be_none_and_whole_floats():
    assert math.isnan(mode_kl([], 3)) and modes_found([], 3) == 0
    assert modes_found([0.0, 1.0, 1.0], 3) == 2
    with pytest.raises(BadInput, match="integers"):
        modes_found([0.5], 3)


# ---------------------------------------------------------------- calibration


def test_calibration_error_is_that_of_scikit_learns_curve():
    rng = np.random.default_rng(0)
    p = rng.uniform(size=2_000)
    y = rng.uniform(size=2_000) < p**2
    happened, said = sklearn.calibration.calibration_curve(y, p, n_bins=10)
    share = np.bincount((p * 10).astype(int)) / len(p)
    found = calibration_error(p, y)
    np.testing.assert_allclose(found, np.sum(share * np.abs(happened - said)))
    assert calibration_error(p, rng.uniform(size=2_000) < p) < 0.05 < found


# ---------------------------------------------------------------- nearest of a set


def test_nearest_are_those_of_scipys_tree():
    rng = np.random.default_rng(0)
    x, reference = rng.normal(size=(20, 5)), rng.normal(size=(50, 5))
    reference[7] = x[3]
    distances, indices = NearestNeighbors(n_neighbors=4).fit(reference).kneighbors(x)
    found = nearest(x, reference, 4)
    np.testing.assert_array_equal(found[0], indices)
    np.testing.assert_allclose(found[1], distances, atol=1e-12)
    assert found[0][3, 0] == 7 and found[1][3, 0] == 0
    with pytest.raises(BadInput, match="k = 51 nearest of 50"):
        nearest(x, reference, 51)
