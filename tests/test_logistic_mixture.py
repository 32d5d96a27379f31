"""The mixture of logistics, by its definition in float64: masses, draws, tempering."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_expit, logsumexp
from scipy.stats import chi2, logistic

from gengen.autoregressive.tempering import PLAIN, Tempering
from gengen.observations.categorical import Categorical
from gengen.observations.logistic_mixture import LogisticMixture
from gengen.scan import sample_keys

KEY = jax.random.key(5)
COLOURS = LogisticMixture(levels=5, channels=3, components=2)
PIXELS = np.array(list(itertools.product(range(5), repeat=3)), np.int32)
FREE = jnp.zeros(3, jnp.int32), jnp.zeros(3, bool)


def random_features(head, seed=0, num=None):
    shape = (head.features,) if num is None else (num, head.features)
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def tails(head, seed, scale):
    """Features whose means lie far outside [-1, 1], with log-scales `scale`."""
    parts = random_features(head, seed).reshape(-1, head.components)
    c = head.channels
    parts[1 : 1 + c] *= 10.0
    parts[1 + c : 1 + 2 * c] = scale
    return parts.reshape(-1)


FEATURES = {
    "ordinary": random_features(COLOURS),
    "sharp": tails(COLOURS, 1, -7.0),
    "below the least scale": tails(COLOURS, 2, -50.0),
    "wide": tails(COLOURS, 3, 9.0),
}
EVERY = pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)


def reference(features, head, pixels):
    """The joint log-mass of pixels [N, C] in float64, by the definition.

    In the tails, from the smaller of the two: log(F(b) - F(a)) where a, b <= 0.
    """
    k, c, levels = head.components, head.channels, head.levels
    parts = np.asarray(features, np.float64).reshape(-1, k)
    log_p = np.tile(parts[0] - logsumexp(parts[0]), (len(pixels), 1))
    x, half = 2.0 * pixels / (levels - 1) - 1.0, 1.0 / (levels - 1)
    for i in range(c):
        coefficients = np.tanh(parts[1 + 2 * c + i * (i - 1) // 2 :][:i])
        mean = parts[1 + i] + x[:, :i] @ coefficients
        scale = np.exp(np.maximum(parts[1 + c + i], -7.0))
        low = np.where(pixels[:, i] == 0, -np.inf, x[:, i] - half)[:, None]
        high = np.where(pixels[:, i] == levels - 1, np.inf, x[:, i] + half)[:, None]
        a, b = (low - mean) / scale, (high - mean) / scale
        a, b = np.where(a + b > 0, -b, a), np.where(a + b > 0, -a, b)
        with np.errstate(divide="ignore"):
            log_p += log_expit(b) + np.log1p(-np.exp(log_expit(a) - log_expit(b)))
    return logsumexp(log_p, axis=1)


def test_the_reference_is_scipys_distribution():
    head = LogisticMixture(levels=5, channels=1, components=1)
    features = np.array([0.0, 0.3, -0.5])
    edges = np.array([-np.inf, -0.75, -0.25, 0.25, 0.75, np.inf])
    mass = np.diff(logistic.cdf(edges, 0.3, np.exp(-0.5)))
    ours = np.exp(reference(features, head, np.arange(5)[:, None]))
    np.testing.assert_allclose(ours, mass, rtol=1e-12)


@EVERY
def test_a_mixture_is_the_reference_and_sums_to_one(features):
    each = jnp.broadcast_to(jnp.asarray(features), (125, COLOURS.features))
    log_p = COLOURS.log_prob({}, each, PIXELS).sum(-1)
    assert abs(jax.nn.logsumexp(log_p)) < 2e-5
    expected = reference(features, COLOURS, PIXELS)
    np.testing.assert_allclose(log_p, expected, rtol=1e-4, atol=2e-5)


@EVERY
def test_a_mixture_has_finite_gradients(features):
    def total(features):
        each = jnp.broadcast_to(features, (125, COLOURS.features))
        return COLOURS.log_prob({}, each, PIXELS).sum()

    assert np.all(np.isfinite(jax.jit(jax.grad(total))(features)))


@EVERY
def test_the_table_of_a_draw_is_the_mass(features):
    """The first channel's, to 1e-6 of mass."""
    parts = COLOURS._parts(jnp.asarray(features))
    of_first = parts[0], *COLOURS._logistics(parts, FREE[0], 0)
    table, logits = COLOURS.table(*of_first), COLOURS.logits(*of_first)
    levels = jnp.zeros((5, 3), jnp.int32).at[:, 0].set(jnp.arange(5))
    each = jnp.broadcast_to(jnp.asarray(features), (5, COLOURS.features))
    exact = COLOURS.log_prob({}, each, levels)[:, 0]
    np.testing.assert_allclose(np.exp(table), np.exp(exact), atol=1e-6)
    np.testing.assert_allclose(logits, exact, rtol=1e-4, atol=2e-5)


def draws(head, features, num, given=0, observed=False, tempering=PLAIN):
    """(symbols, nats) of `num` draws."""
    shape = (num, *head.symbol)
    features = jnp.broadcast_to(jnp.asarray(features), (num, head.features))
    given = jnp.broadcast_to(jnp.asarray(given, jnp.int32), shape)
    observed = jnp.broadcast_to(observed, shape)
    keys = sample_keys(KEY, num)
    return jax.jit(head.sample, static_argnums=5)(
        {}, keys, features, given, observed, tempering
    )


def check_frequencies(counts, mass):
    """Pearson's χ²; outcomes rarer than five draws are counted together."""
    expected = mass * counts.sum()
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], max(expected[rare].sum(), 1e-3))
    statistic = np.sum((counts - expected) ** 2 / expected)
    assert statistic < chi2.ppf(0.999, len(counts) - 1)


@pytest.mark.parametrize("name", ["ordinary", "wide"])
def test_draws_of_a_mixture_have_its_frequencies(name):
    features = FEATURES[name]
    x, log_p = draws(COLOURS, features, 20_000)
    counts = np.bincount(np.asarray(x) @ [25, 5, 1], minlength=125)
    check_frequencies(counts, np.exp(reference(features, COLOURS, PIXELS)))
    expected = reference(features, COLOURS, np.asarray(x[:50]))
    np.testing.assert_allclose(log_p[:50].sum(-1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tempering", [PLAIN, Tempering(0.7, top_k=4)])
def test_draws_of_a_categorical_have_its_frequencies(tempering):
    head = Categorical(6)
    logits = jnp.asarray(random_features(head))
    x, log_p = draws(head, logits, 20_000, tempering=tempering)
    mass = np.exp(jax.nn.log_softmax(tempering(logits)))
    check_frequencies(np.bincount(x, minlength=6), mass)
    np.testing.assert_allclose(np.exp(log_p), mass[x], rtol=1e-5)


def test_observed_channels_stay_and_later_ones_are_conditioned_on_them():
    """The first and the last are given: the middle one knows of the first alone."""
    features, given = FEATURES["ordinary"], np.array([4, 0, 2])
    x, log_p = draws(COLOURS, features, 20_000, given, np.array([True, False, True]))
    assert np.all(x[:, 0] == 4) and np.all(x[:, 2] == 2)
    joint = np.exp(reference(features, COLOURS, PIXELS)).reshape(5, 5, 5)
    middle = joint[4].sum(-1) / joint[4].sum()
    check_frequencies(np.bincount(x[:, 1], minlength=5), middle)
    np.testing.assert_allclose(log_p[:, 0], np.log(joint[4].sum()), rtol=1e-4)
    last = joint[4, :, 2] / joint[4].sum(-1)
    np.testing.assert_allclose(np.exp(log_p[:, 2]), last[x[:, 1]], rtol=1e-4)


def test_a_tempered_mixture_reports_the_tempered_mass():
    """The conditional of each channel to the power of 1/temperature."""
    features, tempering = FEATURES["ordinary"], Tempering(0.5)
    x, log_p = draws(COLOURS, features, 200, tempering=tempering)
    joint = np.exp(reference(features, COLOURS, PIXELS)).reshape(5, 5, 5)
    first, second = joint.sum((1, 2)), joint.sum(2)
    conditionals = first[None].repeat(200, 0), second[x[:, 0]], joint[x[:, 0], x[:, 1]]
    for c, mass in enumerate(conditionals):
        squared = mass**2 / (mass**2).sum(-1, keepdims=True)
        expected = np.take_along_axis(squared, np.asarray(x[:, c : c + 1]), 1)[:, 0]
        np.testing.assert_allclose(np.exp(log_p[:, c]), expected, rtol=1e-3)


def test_heat_raises_what_is_rare():
    """One narrow logistic of 256 levels at temperature 5: no level is lost."""
    head = LogisticMixture(256, 1, 1)
    features = jnp.array([0.0, 0.0, -4.0])  # its weight, mean and log s
    levels = jnp.arange(256)[:, None]
    log_p = np.asarray(head.log_prob({}, jnp.broadcast_to(features, (256, 3)), levels))
    mass = np.exp(np.float64(log_p[:, 0]) / 5)
    given, observed = levels, jnp.ones((256, 1), bool)
    keys, features = jax.random.split(KEY, 256), jnp.broadcast_to(features, (256, 3))
    draw = jax.jit(lambda *given: head.sample({}, *given, Tempering(5.0)))
    _, tempered = draw(keys, features, given, observed)
    np.testing.assert_allclose(np.exp(tempered[:, 0]), mass / mass.sum(), rtol=1e-3)
