"""Laws of `gengen.losses`: probabilities sum to one, divergences vanish at equality."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from gengen.losses.divergence import gaussian_kl
from gengen.losses.likelihood import (
    binomial_log_prob,
    discretized_logistic_log_prob,
    normal_log_prob,
    per_example,
)

LEVELS = pytest.mark.parametrize("levels", [2, 17, 256])


# ---------------------------------------------------------------- likelihoods


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 2, 2, 5)])
def test_per_example_sums_all_but_the_first_dimension(shape):
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    expected = x.sum(axis=tuple(range(1, len(shape))))
    got = per_example(jnp.asarray(x))
    assert got.shape == (3,)
    np.testing.assert_array_equal(got, expected)


def test_normal_log_prob_is_scipys():
    x, mean = np.linspace(-5, 5, 11, dtype=np.float32)[:, None], np.float32(0.7)
    logvar = np.array([-6.0, -1.0, 0.0, 3.0], np.float32)
    scale = np.exp(logvar.astype(float) / 2)
    expected = scipy.stats.norm.logpdf(x.astype(float), float(mean), scale)
    every_x, every_logvar = map(jnp.asarray, np.broadcast_arrays(x, logvar))
    got = normal_log_prob(every_x, mean, every_logvar)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def pairs(level, *parameters):
    """Each level with all parameters: uint8 and floats of one shape."""
    level, *parameters = np.broadcast_arrays(level, *parameters)
    return jnp.asarray(level, jnp.uint8), *map(jnp.asarray, parameters)


@LEVELS
def test_binomial_log_prob_is_scipys(levels):
    n, k, logits = levels - 1, np.arange(levels), np.linspace(-8, 8, 9)[:, None]
    expected = scipy.stats.binom.logpmf(k, n, scipy.special.expit(logits))
    got = binomial_log_prob(*pairs(k, logits), levels)
    # No more error than the float32 rounding of the three terms of the sum.
    log_p, log_q = scipy.special.log_expit(logits), scipy.special.log_expit(-logits)
    arrangements = np.log(scipy.special.comb(n, k))
    terms = arrangements - k * log_p - (n - k) * log_q
    assert np.all(np.abs(got - expected) <= 3e-7 * terms)


def test_binomial_of_two_levels_is_bernoulli():
    logits = np.linspace(-40.0, 40.0, 17)
    for k, sign in [(0, -1), (1, 1)]:
        expected = scipy.special.log_expit(sign * logits)
        got = binomial_log_prob(jnp.full(17, k, jnp.uint8), jnp.asarray(logits))
        np.testing.assert_allclose(got, expected, rtol=1e-6)


@LEVELS
def test_binomial_sums_to_one_over_the_levels(levels):
    k, logits = np.arange(levels), np.linspace(-30, 30, 7, dtype=np.float32)[:, None]
    got = np.asarray(binomial_log_prob(*pairs(k, logits), levels), float)
    total = scipy.special.logsumexp(got, axis=1)
    np.testing.assert_allclose(total, 0, atol=3e-7 * levels)


MEANS = np.array([-1e4, -30, -1.3, -1, 0.1, 1, 40, 1e4], np.float32)[:, None, None]
LOG_SCALES = np.array([-7, -5, -2, 0, 3, 12], np.float32)[:, None]


def logistic_levels(mean, log_scale, levels):
    """log P of all levels, on the last axis."""
    k = jnp.arange(levels, dtype=jnp.uint8)
    k, mean, log_scale = jnp.broadcast_arrays(k, mean, log_scale)
    return discretized_logistic_log_prob(k, mean, log_scale, levels)


def logistic_rounding(mean):
    """Relative rounding of bin edges and mean, over the scale: the error of log P."""
    return 4e-7 * np.exp(-LOG_SCALES.astype(float)) * np.maximum(1, abs(mean)) + 1e-6


def logistic_reference(mean, log_scale, levels):
    """The same from scipy's logistic distribution in float64, tail by tail."""
    edges = -1 + (np.arange(levels + 1) - 0.5) * 2 / (levels - 1)
    edges[0], edges[-1] = -np.inf, np.inf
    z = (edges - mean.astype(float)) / np.exp(log_scale.astype(float))
    low, high = z[..., :-1], z[..., 1:]
    right = low > 0  # mirror the right tail, where the CDF has lost its digits
    low, high = np.where(right, -high, low), np.where(right, -low, high)
    logcdf = scipy.stats.logistic.logcdf
    return logcdf(high) + np.log(-np.expm1(logcdf(low) - logcdf(high)))


@LEVELS
def test_discretized_logistic_is_the_mass_of_scipys_logistic(levels):
    mean = MEANS[1:-1]  # beyond, float64 differences of CDFs have no digits left
    got = logistic_levels(mean, LOG_SCALES, levels)
    expected = logistic_reference(mean, LOG_SCALES, levels)
    error = np.abs(got - expected)
    assert np.all(error <= logistic_rounding(mean) + 1e-6 * np.abs(expected))


@LEVELS
def test_discretized_logistic_sums_to_one_over_the_levels(levels):
    got = np.asarray(logistic_levels(MEANS, LOG_SCALES, levels), float)
    total = scipy.special.logsumexp(got, axis=-1, keepdims=True)
    assert np.all(np.abs(total) <= logistic_rounding(np.clip(MEANS, -1, 1)))


@LEVELS
def test_discretized_logistic_has_finite_gradients_in_the_tails(levels):
    mean, log_scale = np.broadcast_arrays(MEANS, LOG_SCALES)

    def total(mean, log_scale):
        return jnp.sum(logistic_levels(mean, log_scale, levels))

    gradients = jax.jit(jax.grad(total, argnums=(0, 1)))(mean, log_scale)
    for gradient in gradients:
        assert jnp.all(jnp.isfinite(gradient))
    # Far outside the levels the mean is still pulled towards them.
    assert jnp.all(gradients[0][0] > 0)
    assert jnp.all(gradients[0][-1] < 0)


@LEVELS
@pytest.mark.parametrize(
    ("log_prob", "theta"),
    [
        (binomial_log_prob, (0.7,)),
        (discretized_logistic_log_prob, (0.3, -2.0)),
        (discretized_logistic_log_prob, (-1.2, 0.5)),
    ],
)
def test_the_expected_score_is_zero(log_prob, theta, levels):
    """Σ_k P(k) ∂ log P(k)/∂θ = ∂/∂θ Σ_k P(k) = 0."""
    k = jnp.arange(levels, dtype=jnp.uint8)
    p = np.exp(np.asarray(log_prob(k, *theta, levels), float))
    jacobian = jax.jit(jax.jacfwd(lambda theta: log_prob(k, *theta, levels)))(theta)
    for score in jacobian:
        assert np.max(np.abs(score)) > 0.1
        np.testing.assert_allclose(p @ score, 0, atol=2e-6 * np.max(np.abs(score)))


# ---------------------------------------------------------------- divergence


@pytest.mark.parametrize(
    ("q", "p"),
    [
        ((0.0, 0.0), (0.0, 0.0)),
        ((1.5, 0.0), (0.0, 0.0)),
        ((0.0, -4.0), (0.0, 0.0)),
        ((-0.5, 1.0), (0.3, -1.0)),
        ((2.0, -2.0), (-1.0, 2.0)),
    ],
)
def test_gaussian_kl_is_the_integral(q, p):
    def density(x, mean, logvar):
        return scipy.stats.norm.logpdf(x, mean, np.exp(logvar / 2))

    def integrand(x):
        return np.exp(density(x, *q)) * (density(x, *q) - density(x, *p))

    width = 12 * np.exp(q[1] / 2)
    one, _ = scipy.integrate.quad(integrand, q[0] - width, q[0] + width)
    got = gaussian_kl(*(jnp.full((2, 3), value) for value in (*q, *p)))
    np.testing.assert_allclose(got, [3 * one] * 2, rtol=1e-5, atol=1e-8)


def test_gaussian_kl_is_the_multivariate_closed_form():
    rng = np.random.default_rng(0)
    mean, logvar, prior_mean, prior_logvar = rng.normal(size=(4, 5, 6))
    expected = []
    for m, s, n, r in zip(
        mean, np.exp(logvar), prior_mean, np.exp(prior_logvar), strict=True
    ):
        inverse, difference = np.linalg.inv(np.diag(r)), n - m
        log_dets = np.linalg.slogdet(np.diag(r))[1] - np.linalg.slogdet(np.diag(s))[1]
        trace = np.trace(inverse @ np.diag(s))
        square = difference @ inverse @ difference
        expected.append((trace + square - len(m) + log_dets) / 2)
    arrays = (mean, logvar, prior_mean, prior_logvar)
    images = [jnp.asarray(a).reshape(5, 1, 2, 3) for a in arrays]
    got = gaussian_kl(*images)
    assert got.shape == (5,)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("prior", [(0.0, 0.0), (0.5, -2.0), (-3.0, 1.0)])
def test_gaussian_kl_is_zero_iff_equal(prior):
    def from_prior(d_mean, d_logvar):
        q = jnp.array([[prior[0] + d_mean]]), jnp.array([[prior[1] + d_logvar]])
        return gaussian_kl(*q, *prior)[0]

    np.testing.assert_allclose(from_prior(0.0, 0.0), 0, atol=2e-7)
    for step in [(0.1, 0.0), (-0.1, 0.0), (0.0, 0.1), (0.0, -0.1), (0.1, 0.1)]:
        assert from_prior(*step) > 1e-3


# ---------------------------------------------------------------- borders

# Arguments that are right, and for each one what would broadcast without a border.
X, K, ROW = jnp.zeros((4, 3)), jnp.zeros((4, 3), jnp.uint8), jnp.zeros(4)
WRONG = [(3,), (4, 1), (1, 3), (2, 4, 3)]  # [4, 3] meets each of them
BORDERS = {
    "normal_log_prob": (normal_log_prob, (X, X, X), WRONG),
    "binomial_log_prob": (binomial_log_prob, (K, X), WRONG),
    "discretized_logistic_log_prob": (discretized_logistic_log_prob, (K, X, X), WRONG),
    "gaussian_kl": (gaussian_kl, (X, X, X, X), WRONG),
    "per_example": (per_example, (X,), [()]),
}


def rejected(function, arguments):
    with pytest.raises(AssertionError):
        jax.eval_shape(function, *arguments)


@pytest.mark.parametrize("name", BORDERS)
def test_a_wrong_shape_is_an_error_and_never_a_broadcast(name):
    function, right, shapes = BORDERS[name]
    jax.eval_shape(function, *right)
    for i, argument in enumerate(right):
        for shape in shapes:
            wrong = jnp.zeros(shape, argument.dtype)
            rejected(function, (*right[:i], wrong, *right[i + 1 :]))


@pytest.mark.parametrize("name", BORDERS)
def test_a_wrong_type_is_an_error(name):
    function, right, _ = BORDERS[name]
    for i, argument in enumerate(right):
        other = jnp.int32 if argument.dtype == jnp.float32 else jnp.float32
        rejected(function, (*right[:i], argument.astype(other), *right[i + 1 :]))


def test_one_number_stands_for_all_of_a_parameter():
    normal = normal_log_prob(X, X + 0.5, X - 1.0)
    np.testing.assert_array_equal(normal_log_prob(X, 0.5, -1.0), normal)
    kl = gaussian_kl(X, X, X + 0.5, X - 1.0)
    np.testing.assert_array_equal(gaussian_kl(X, X, 0.5, jnp.float32(-1.0)), kl)


def test_log_probabilities_of_float64_parameters_are_float64():
    """C17's kind: nothing is rounded to float32 on the way."""
    with jax.enable_x64(True):
        k, mean = jnp.arange(256, dtype=jnp.uint8), np.full(256, 0.3)
        got = discretized_logistic_log_prob(k, jnp.asarray(mean), -2.0)
        assert got.dtype == jnp.float64
        expected = logistic_reference(np.array([0.3]), np.array([-2.0]), 256)
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        total = scipy.special.logsumexp(binomial_log_prob(k, jnp.asarray(mean), 256))
        np.testing.assert_allclose(total, 0, atol=1e-13)
