"""Every observation is a distribution of what its features say: one table of laws.

Whether it is read by a decoder, with the features of all symbols at once, or by an
autoregressive network, one after the other, it is the same object.
"""

import itertools
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gengen.autoregressive.tempering import PLAIN, Tempering
from gengen.errors import BadInput
from gengen.models.autoregressive import Autoregressive
from gengen.observations.binomial import Binomial
from gengen.observations.categorical import Categorical
from gengen.observations.discretized_logistic import DiscretizedLogistic
from gengen.observations.gaussian import Gaussian
from gengen.observations.logistic_mixture import LogisticMixture
from gengen.observations.observation import decoded, outputs, symbols_of
from gengen.scan import sample_keys
from gengen.spaces import Images

KEY = jax.random.key(2)
ROWS = {
    "categorical": Categorical(5),
    "coin": Binomial(2),
    "coins": Binomial(5),
    "coins, 17 levels": Binomial(17),
    "logistic, two levels": DiscretizedLogistic(2),
    "logistic": DiscretizedLogistic(5),
    "logistic, 256 levels": DiscretizedLogistic(256),
    "logistic, wide": DiscretizedLogistic(5, min_log_scale=-0.5),
    "mixture, grey": LogisticMixture(5, 1, 2),
    "mixture, two channels": LogisticMixture(5, 2, 2),
    "mixture, colour": LogisticMixture(3, 3, 2),
}
EVERY = pytest.mark.parametrize("name", ROWS)
FEW_LEVELS = pytest.mark.parametrize(
    "name", [n for n, o in ROWS.items() if o.levels <= 5]
)
NUMBERS = pytest.mark.parametrize("name", [n for n, o in ROWS.items() if not o.symbol])


def features_of(observation, *shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(*shape, observation.features)).astype("f4")


def every_symbol(observation):
    """All values of one symbol, [N, *symbol]."""
    size = int(np.prod(observation.symbol))
    every = itertools.product(range(observation.levels), repeat=size)
    return np.array(list(every), np.int32).reshape(-1, *observation.symbol)


@partial(jax.jit, static_argnums=0)
def log_prob(observation, features, data):
    return observation.log_prob({}, features, data)


@cache
def keys_of(num):
    return jax.jit(sample_keys, static_argnums=1)(KEY, num)


def table(observation, features):
    """log p of every symbol [N], given features [F]."""
    every = every_symbol(observation)
    each = np.broadcast_to(features, (len(every), observation.features))
    nats = np.asarray(log_prob(observation, each, every))
    return np.float64(nats.reshape(len(every), -1).sum(-1))


def check_frequencies(counts, mass):
    """Pearson's χ²; outcomes rarer than five draws are counted together."""
    expected = mass / mass.sum() * counts.sum()
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], max(expected[rare].sum(), 1e-3))
    statistic = np.sum((counts - expected) ** 2 / expected)
    assert statistic < stats.chi2.ppf(1 - 1e-4, max(len(counts) - 1, 1))


@pytest.mark.parametrize("observation", [*ROWS.values(), Binomial(256)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_the_masses_of_all_symbols_sum_to_one(observation, seed):
    features = features_of(observation, seed=seed)
    assert np.exp(table(observation, features)).sum() == pytest.approx(1, abs=1e-4)


@partial(jax.jit, static_argnums=(0, 3))
def draw(observation, keys, features, sampler=PLAIN, given=None, observed=None):
    return observation.sample({}, keys, features, given, observed, sampler)


@FEW_LEVELS
def test_draws_of_a_map_have_the_masses_and_are_independent(name):
    """Two places with features of their own: the pair has the product of masses."""
    observation, num = ROWS[name], 20_000
    features = features_of(observation, 2)
    both = np.broadcast_to(features, (num, *features.shape))
    data, nats = draw(observation, keys_of(num), both)
    assert data.dtype == jnp.int32 and data.shape == (num, 2, *observation.symbol)
    every = every_symbol(observation)
    base = observation.levels ** np.arange(int(np.prod(observation.symbol)))
    number = np.asarray(data).reshape(num, 2, -1) @ base
    code = every.reshape(len(every), -1) @ base
    masses = [np.exp(table(observation, f))[np.argsort(code)] for f in features]
    for place in range(2):
        counts = np.bincount(number[:, place], minlength=len(every))
        check_frequencies(counts, masses[place])
    pairs = np.bincount(number @ [len(every), 1], minlength=len(every) ** 2)
    check_frequencies(pairs, np.outer(*masses).ravel())
    expected = log_prob(observation, both, data)
    np.testing.assert_allclose(nats, expected, rtol=1e-5, atol=1e-6)


@EVERY
def test_the_mean_is_the_sum_over_the_levels(name):
    """The discretised logistic's has a closed form, right to half a level."""
    observation = ROWS[name]
    features = features_of(observation, 2, 3, seed=1)
    found = np.asarray(jax.jit(observation.mean)({}, features))
    assert found.shape == (2, 3, *observation.symbol)
    x = 2 * every_symbol(observation) / (observation.levels - 1) - 1
    logistic = isinstance(observation, DiscretizedLogistic)
    atol = 1 / (observation.levels - 1) if logistic else 2e-6
    for place in np.ndindex(2, 3):
        mass = np.exp(table(observation, features[place]))
        mean = np.tensordot(mass, x, axes=1)
        np.testing.assert_allclose(found[place], mean, atol=atol)


TEMPERED = "categorical", "coins", "logistic", "mixture, colour"


@pytest.mark.parametrize(
    ("name", "sampler"),
    [(name, PLAIN) for name in ROWS] + [(name, Tempering(0.7)) for name in TEMPERED],
)
def test_what_is_observed_is_copied_and_the_rest_is_drawn(name, sampler):
    observation, num = ROWS[name], 64
    features = features_of(observation, num, 3)
    given = np.random.default_rng(3).integers(
        0, observation.levels, (num, 3, *observation.symbol)
    )
    observed = np.arange(3).reshape(3, *np.ones(len(observation.symbol), int)) != 1
    observed = np.broadcast_to(observed, given.shape)
    data, nats = jax.device_get(
        draw(observation, keys_of(num), features, sampler, given, observed)
    )
    np.testing.assert_array_equal(data[observed], given[observed])
    assert np.any(data[~observed] != given[~observed])
    if sampler == PLAIN:
        expected = log_prob(observation, features, data)
        np.testing.assert_allclose(nats, expected, rtol=1e-5, atol=1e-6)


@NUMBERS
def test_tempered_draws_have_the_tempered_masses(name):
    """At temperature ½ the squares of the masses, of which the largest two stay."""
    observation, num = ROWS[name], 5_000
    features = features_of(observation)
    many = np.broadcast_to(features, (num, observation.features))
    sampler = Tempering(0.5, top_k=2)
    data, nats = jax.device_get(draw(observation, keys_of(num), many, sampler))
    mass = np.exp(2 * table(observation, features))
    mass[np.argsort(mass)[:-2]] = 0.0
    mass /= mass.sum()
    counts = np.bincount(data, minlength=observation.levels)
    assert counts[mass == 0].sum() == 0
    check_frequencies(counts[mass > 0], mass[mass > 0])
    np.testing.assert_allclose(np.exp(nats), mass[data], rtol=1e-3)


@EVERY
def test_a_draw_is_a_function_of_its_key_and_features(name):
    observation = ROWS[name]
    features = features_of(observation, 64, 3)
    rows = np.random.default_rng(5).permutation(64)
    size = 64, 3, *observation.symbol
    none = PLAIN, np.zeros(size, int), np.zeros(size, bool)  # the program of above
    whole, _ = draw(observation, keys_of(64), features, *none)
    moved, _ = draw(observation, keys_of(64)[rows], features[rows], *none)
    np.testing.assert_array_equal(np.asarray(whole)[rows], moved)


@EVERY
def test_wrong_shapes_are_errors(name):
    observation = ROWS[name]
    features = features_of(observation, 2)
    data, keys = np.zeros((2, *observation.symbol), np.int32), keys_of(2)
    wrong = [
        (features[:, :-1], data),
        (features, data[:1]),
        (features, data[..., None]),
    ]
    wrong += [(features[0], data), (features.astype(int), data)]
    for pair in wrong:
        with pytest.raises(AssertionError):
            observation.log_prob({}, *pair)
    for given, seen in ((data[:1], data > 0), (data, data[:1] > 0)):
        with pytest.raises(AssertionError):
            observation.sample({}, keys, features, given, seen)


# ---------------------------------------------------------------- decoders


def test_a_gaussian_is_a_density_of_any_number():
    observation, params = Gaussian(), {"log_scale": jnp.log(0.4)}
    x = np.linspace(-9, 9, 4001).astype("f4")
    features = np.full((4001, 1), 1.5, "f4")  # beyond any image
    density = np.exp(observation.log_prob(params, features, x))
    np.testing.assert_allclose(density, stats.norm(1.5, 0.4).pdf(x), atol=1e-5)
    keys = sample_keys(KEY, 4001)
    data, nats = observation.sample(params, keys, features)
    assert stats.kstest(data, stats.norm(1.5, 0.4).cdf).pvalue > 1e-3
    np.testing.assert_allclose(nats, stats.norm(1.5, 0.4).logpdf(data), atol=1e-4)
    np.testing.assert_array_equal(observation.mean(params, features), features[:, 0])
    given, seen = jnp.full(4001, 3.0), jnp.arange(4001) < 5
    data, _ = observation.sample(params, keys, features, given, seen)
    assert np.all(data[:5] == 3.0) and np.all(data[5:] != 3.0)
    with pytest.raises(BadInput, match="has no levels to temper"):
        observation.sample(params, keys, features, tempering=Tempering(0.5))


def test_a_decoder_of_whole_pixels_is_a_distribution_of_images():
    """All 625 images of two pixels of two channels of five levels."""
    observation, shape = LogisticMixture(5, 2, 2), (1, 2, 2)
    output = features_of(observation, 1, 1, 2)
    features = decoded(observation, output, shape)
    images = np.array(list(itertools.product(range(5), repeat=4)), np.int32)
    images = images.reshape(-1, *shape)
    each = jnp.broadcast_to(features, (625, *features.shape[1:]))
    nats = observation.log_prob({}, each, images).sum((1, 2, 3))
    assert abs(jax.nn.logsumexp(nats)) < 2e-5


def test_a_decoders_output_is_cut_into_symbols():
    """Feature f of channel c is output f C + c; whole pixels take it as it is."""
    output = jnp.arange(24.0).reshape(1, 2, 2, 6)
    cut = decoded(DiscretizedLogistic(5), output, (2, 2, 3))
    assert cut.shape == (1, 2, 2, 3, 2)
    np.testing.assert_array_equal(cut[0, 1, 1, 2], [20.0, 23.0])
    assert outputs(DiscretizedLogistic(5), 3) == 6 and outputs(Binomial(5), 3) == 3
    mixture = LogisticMixture(5, 3, 1)
    whole = jnp.zeros((1, 2, 2, outputs(mixture, 3)))
    assert decoded(mixture, whole, (2, 2, 3)).shape == whole.shape
    np.testing.assert_array_equal(
        decoded(Gaussian(), output[:, 0, 0], (6,)), output[:, 0, 0, :, None]
    )


# ---------------------------------------------------------------- heads


class Shifted(nn.Module):
    """Features of x_t from all symbols before it, by one masked product."""

    features: int
    row_length = None

    @nn.compact
    def __call__(self, x, c=None, train=False):
        length = x.shape[1]
        kernel = self.param(
            "kernel", nn.initializers.normal(1.0), (length, length, self.features)
        )
        kernel = kernel * jnp.tri(length, k=-1)[:, :, None]
        values = x.reshape(*x.shape[:2], -1).sum(-1).astype(jnp.float32)
        bias = self.param("bias", nn.initializers.normal(1.0), (length, self.features))
        return jnp.einsum("bs,tsf->btf", values, kernel) + bias


@pytest.mark.parametrize(
    ("head", "shape"),
    [
        (DiscretizedLogistic(3), (2, 2, 1)),
        (Binomial(3), (2, 2, 1)),
        (Categorical(3), (2, 2, 1)),
        (LogisticMixture(3, 2, 2), (2, 1, 2)),
    ],
    ids=["logistic", "coins", "categorical", "mixture"],
)
def test_a_decoders_observation_is_an_autoregressive_head(head, shape):
    """All 81 images sum to one, and samples have their masses."""
    model = Autoregressive(Shifted(head.features), head, Images(shape, 3))
    params, state = jax.jit(model.init)(KEY)
    images = np.array(list(itertools.product(range(3), repeat=4)), np.uint8)
    batch = {"image": images.reshape(-1, *shape)}
    log_p = np.float64(jax.jit(model.log_likelihood)(params, state, batch, KEY))
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-5)
    sample = jax.jit(partial(model.sample, num=8_000, cached=False))
    k = np.rint(np.asarray(sample(params, state, KEY)) + 1).astype(int).reshape(-1, 4)
    counts = np.bincount(k @ [27, 9, 3, 1], minlength=81)
    check_frequencies(counts, np.exp(log_p))


def test_mistakes_are_sentences():
    with pytest.raises(BadInput, match="1 channels do not fit a head of 3"):
        symbols_of((4, 4, 1), LogisticMixture(5))
    assert symbols_of((4, 4, 3), LogisticMixture(5)) == 16
    with pytest.raises(BadInput, match="give the decoder 6 output channels"):
        decoded(DiscretizedLogistic(5), jnp.zeros((1, 2, 2, 3)), (2, 2, 3))
    with pytest.raises(BadInput, match="do not fit a head of 2"):
        decoded(LogisticMixture(5, 2), jnp.zeros((1, 2, 2, 3)), (2, 2, 3))
    many = LogisticMixture(256, 4, 1)
    with pytest.raises(BadInput, match="a sum of 16,777,216 terms"):
        many.mean({}, jnp.zeros((1, many.features)))
