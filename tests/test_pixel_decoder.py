"""Autoregressive pixels given a decoder's map: a distribution that is what it draws."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gengen.conditions import Labels, Maps
from gengen.errors import BadInput
from gengen.models.autoregressive import Autoregressive
from gengen.models.vae import VAE
from gengen.nets.gated_pixelcnn import GatedPixelCNN
from gengen.nets.mlp import MLPDecoder, MLPEncoder
from gengen.nets.pixelcnn import PixelCNN
from gengen.observations.autoregressive import AutoregressivePixels
from gengen.observations.binomial import Binomial
from gengen.observations.categorical import Categorical
from gengen.observations.gaussian import Gaussian
from gengen.scan import sample_keys
from gengen.spaces import Images

KEY = jax.random.key(2)


def drawn(shapes, size=0.5):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: jnp.asarray(size * rng.normal(size=x.shape), x.dtype), shapes
    )


def pixels(kind, shape, levels, features=3, **values):
    condition = Maps((*shape[:2], features), "features")
    values = {"width": 12, "blocks": 2, "condition": condition, **values}
    net = kind(levels, shape, levels, **values)
    return AutoregressivePixels(net, Categorical(levels))


@pytest.mark.parametrize("kind", [PixelCNN, GatedPixelCNN])
def test_both_views_agree_given_a_map(kind):
    """What decoding says of an image that is given is what the whole pass says."""
    p_x = pixels(kind, (3, 4, 2), 3)
    params = drawn(jax.eval_shape(p_x.init, KEY))
    features = jax.random.normal(KEY, (2, 3, 4, 3))
    data = jax.random.randint(KEY, (2, 3, 4, 2), 0, 3)
    whole = jax.jit(p_x.log_prob)(params, features, data)
    seen = jnp.ones(data.shape, bool)
    keys = sample_keys(KEY, 2)
    same, step = jax.jit(p_x.sample)(params, keys, features, data, seen)
    np.testing.assert_array_equal(same, data)
    np.testing.assert_allclose(step, whole, rtol=1e-4, atol=1e-5)


SHAPE = (2, 2, 1)
EVERY = np.array([*itertools.product((0, 1), repeat=4)], np.uint8).reshape(-1, *SHAPE)


def vae(**values):
    p_x = pixels(GatedPixelCNN, SHAPE, 2, width=4, blocks=1, window=3)
    nets = MLPEncoder(1, (8,)), MLPDecoder((2, 2, 3), (8,))
    return VAE(*nets, p_x, Images(SHAPE, 2), 1, **values)


def test_a_vae_of_such_pixels_has_the_evidence_of_what_it_draws():
    """∫ p(x|z) p(z) dz of all 16 images sums to one, bounds the ELBO, and is drawn."""
    model = vae()
    params = drawn(jax.eval_shape(lambda: model.init(KEY)[0]))
    z = jnp.linspace(-6, 6, 241)[:, None]
    log_prior = np.asarray(stats.norm.logpdf(z[:, 0])) + math.log(12 / 240)

    @jax.jit
    def log_evidence(image):
        batch = {"image": jnp.broadcast_to(image, (len(z), *SHAPE))}
        given = model.log_prob_given(params, batch, KEY)(z)
        return jax.nn.logsumexp(given + log_prior)

    exact = np.array([log_evidence(image) for image in EVERY], np.float64)
    assert np.exp(exact).sum() == pytest.approx(1.0, abs=1e-4)
    bound = jax.jit(jax.vmap(model.log_likelihood, (None, None, None, 0)))(
        params, {}, {"image": EVERY}, jax.random.split(KEY, 2000)
    )
    error = np.std(bound, axis=0) / math.sqrt(2000)
    assert np.all(np.mean(bound, axis=0) < exact + 4 * error)
    x = jax.jit(lambda key: model.sample(params, {}, key, 3000))(KEY)
    code = (np.asarray(x).reshape(-1, 4) > 0) @ [8, 4, 2, 1]
    counts = np.bincount(code, minlength=16)
    expected = np.exp(exact) / np.exp(exact).sum() * len(code)
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_what_is_shown_of_a_code_is_a_function_of_it_alone():
    model = vae()
    params = drawn(jax.eval_shape(lambda: model.init(KEY)[0]), 0.2)
    z = jnp.array([[0.3], [1.0], [0.3]])
    shown = jax.jit(lambda z: model.from_latent(params, {}, z))
    first = shown(z)
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(shown(z[1:])[0], first[1])
    assert set(np.unique(first)) <= {-1.0, 1.0}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: AutoregressivePixels(GatedPixelCNN(2, SHAPE, 2), Categorical(2)),
            r"conditioned on Nothing\(\): give it Maps\(\(2, 2, F\)\)",
        ),
        (
            lambda: AutoregressivePixels(
                GatedPixelCNN(2, SHAPE, 2, condition=Maps((4, 4, 1))), Categorical(2)
            ),
            "give it Maps",
        ),
        (
            lambda: AutoregressivePixels(
                GatedPixelCNN(2, SHAPE, 2, condition=Labels(3)), Binomial(2)
            ),
            "give it Maps",
        ),
        (
            lambda: AutoregressivePixels(pixels(PixelCNN, SHAPE, 2).net, Gaussian()),
            "Gaussian as the head",
        ),
        (
            lambda: Autoregressive(
                GatedPixelCNN(2, SHAPE, 2), pixels(PixelCNN, SHAPE, 2), Images(SHAPE, 2)
            ),
            "AutoregressivePixels as a head",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(BadInput, match=words):
        make()
