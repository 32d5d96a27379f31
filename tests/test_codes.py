"""Autoencoders, codes with a prior, and normalising flows: exact answers."""

import itertools
import math
from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import close
from quick_keys import quick_key
from scipy import special

from gengen.conditions import Labels
from gengen.errors import BadInput
from gengen.latent.quantizers import FiniteScalar, VectorQuantizer
from gengen.models.autoencoder import Autoencoder
from gengen.models.autoregressive import Autoregressive
from gengen.models.combinators.latent import Coded
from gengen.models.normalizing_flow import NormalizingFlow, squash, unsquash
from gengen.models.vae import VAE
from gengen.models.vqvae import VQVAE
from gengen.nets.flows import AffineCouplings
from gengen.nets.maps import Halves, MapDecoder, MapEncoder
from gengen.nets.mlp import MLPDecoder
from gengen.nets.realnvp import RealNVP
from gengen.nets.transformer import Transformer
from gengen.observations.binomial import Binomial
from gengen.observations.categorical import Categorical
from gengen.spaces import Images, Reals, Symbols
from gengen.types import Variables

KEY = quick_key(4)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def scrambled(tree, size=0.3):
    """Parameters away from their first values."""
    rng = np.random.default_rng(4)

    def change(x):
        noise = size * rng.normal(size=x.shape)
        return (np.asarray(x) + noise).astype(x.dtype)

    return jax.device_put(jax.tree.map(change, tree))


# ------------------------------------------------------------- codes


class Flat(nn.Module):
    """Anything [B, ...] and c -> [B, *shape]."""

    shape: tuple

    @nn.compact
    def __call__(self, x, c=None, train=False):
        return MLPDecoder(self.shape, (8,))(x.reshape(len(x), -1), c)


SPACE = Images((4, 4, 1), 3)
IMAGE = np.random.default_rng(0).integers(0, 3, (6, 4, 4, 1)).astype(np.uint8)
BATCH = {"image": IMAGE}


def vqvae(book):
    nets = MapEncoder(book.dim, 4, 1, groups=2), MapDecoder((4, 4, 1), 4, 1, groups=2)
    return VQVAE(*nets, book, Binomial(3), SPACE, (2, 2))


def prior(size):
    net = Transformer(size, 4, size, 8, 1, 2)
    return Autoregressive(net, Categorical(size), Symbols((2, 2), size))


BOOKS = [VectorQuantizer(5, 2), FiniteScalar((3, 3))]
books = pytest.mark.parametrize("book", BOOKS, ids=lambda book: type(book).__name__)


@cache
def trained(book):
    """A model with a book that has seen a batch, and scrambled parameters."""
    model = vqvae(book)
    params, state = jax.jit(model.init)(KEY)
    params = scrambled(params)
    _, (state, seen) = jax.jit(model.loss)(params, state, BATCH, KEY)
    return model, params, state, seen


@books
def test_a_prior_and_its_decoder_are_one_model_whose_bits_are_a_code_length(book):
    model, params, state, _ = trained(book)
    inner = prior(book.size)
    whole = Coded(inner, model)
    own = scrambled(jax.jit(inner.init)(KEY)[0])
    frozen = {"frozen": {"autoencoder": Variables(params, state)}}

    @jax.jit
    def everything(own):
        def bits(own):
            log_p = whole.log_likelihood(own, frozen, BATCH, KEY)
            return jnp.mean(log_p), log_p

        (_, found), slope = jax.value_and_grad(bits, has_aux=True)(own)
        codes = model.to_latent(params, state, SPACE.read(BATCH))
        given = model.log_prob_of_codes(params, state, BATCH, codes, KEY)
        length = inner.log_likelihood(own, {}, {"codes": codes}, KEY)
        # Drawn codes are decoded by the same decoder.
        drawn = inner.sample(own, {}, KEY, 4)
        x = whole.sample(own, frozen, KEY, 4)
        images = x, model.from_latent(params, state, drawn)
        return codes, (found, given + length), images, slope

    codes, lengths, images, slope = jax.device_get(everything(own))
    assert codes.dtype == np.int32 and codes.shape == (6, 2, 2)
    close(*lengths, 1e-5, 1e-5)
    assert whole.density == "bound" and whole.likelihood_kind == "code-length"
    close(*images, 1e-5, 1e-5)
    assert any(np.any(g) for g in jax.tree.leaves(slope))


@cache
def two_pixels():
    """(prior, its parameters, a model of two pixels by one of 9 codes, its arrays)."""
    space, book = Images((1, 2, 1), 2), FiniteScalar((3, 3))
    nets = Flat((1, 2)), Flat((1, 2, 1))
    model = VQVAE(*nets, book, Binomial(2), space, (1,))
    net = Transformer(9, 1, 9, 8, 1, 2)
    inner = Autoregressive(net, Categorical(9), Symbols((1,), 9))
    (params, state), (own, _) = jax.jit(lambda k: (model.init(k), inner.init(k)))(KEY)
    return inner, own, model, params, state


def test_a_completion_is_of_the_posterior_of_the_codes():
    """One of two pixels is seen: Σ_codes p(codes | x₁) E[x₂ | codes], enumerated."""
    inner, own, model, params, state = two_pixels()
    params = scrambled(params, 1.5)
    frozen = {"frozen": {"autoencoder": Variables(params, state)}}
    every = np.arange(9)[:, None]
    seen = np.array([True, False]).reshape(1, 2, 1)
    batch = {"image": np.zeros((9, 1, 2, 1), np.uint8)}

    @jax.jit
    def of_every(params):
        by_place = model.log_prob_by_place(params, state, batch, every, KEY)
        log_p = inner.log_likelihood(own, {}, {"codes": every}, KEY)
        x = model.from_latent(params, state, every)
        return log_p, by_place[:, 0, 0, 0], x[:, 0, 1, 0]

    log_prior, by_place, means = jax.device_get(of_every(params))
    posterior = special.softmax(log_prior + by_place)
    rows, whole = 600, Coded(inner, model)
    dark = {"image": np.zeros((rows, 1, 2, 1), np.uint8)}
    x, effective = jax.device_get(
        jax.jit(lambda key: whole.complete(own, frozen, key, dark, seen, particles=64))(
            KEY
        )
    )
    assert x.shape == (rows, 1, 2, 1) and np.all(x[:, 0, 0] == -1.0)
    spread = np.sqrt(posterior @ means**2 - (posterior @ means) ** 2)
    close(np.mean(x[:, 0, 1]), posterior @ means, 4 * spread / np.sqrt(rows) + 0.01)
    prior = special.softmax(log_prior)
    assert abs(posterior @ means - prior @ means) > 0.1  # it matters what is seen
    assert np.all((effective > 1) & (effective <= 64))


def test_codes_are_kept_whose_places_are_seen_and_begin_the_order():
    whole = Coded(prior(9), vqvae(FiniteScalar((3, 3))))
    mask = np.zeros((3, 4, 4, 1), bool)
    mask[0, :2] = True  # the upper half: both codes of the first row
    mask[1, 2:] = True  # the lower half begins no order
    mask[2, :2] = mask[2, 2, 0] = True  # a place is kept whole, or not
    kept = [[True, True, False, False], [False] * 4, [True, True, False, False]]
    np.testing.assert_array_equal(whole._beginning(mask), kept)


def test_a_code_length_is_a_lower_bound_on_the_evidence():
    """Two pixels, enumerated: Σ_x Σ_codes p(x | codes) p(codes) = 1."""
    inner, own, model, params, state = two_pixels()
    own, params = scrambled(own), scrambled(params)
    images = np.array(list(itertools.product(range(2), repeat=2)), np.uint8)
    batch = {"image": images.reshape(-1, 1, 2, 1)}
    frozen = {"frozen": {"autoencoder": Variables(params, state)}}

    @jax.jit
    def nats(own):
        def joint(code):
            codes = jnp.full((4, 1), code)
            log_p = inner.log_likelihood(own, {}, {"codes": codes}, KEY)
            return log_p + model.log_prob_of_codes(params, state, batch, codes, KEY)

        whole = Coded(inner, model)
        length = whole.log_likelihood(own, frozen, batch, KEY)
        return jax.vmap(joint)(jnp.arange(9)), length

    log_p, length = jax.device_get(nats(own))
    evidence = special.logsumexp(log_p, axis=0)
    close(special.logsumexp(evidence), 0.0, 1e-5, 1e-5)
    assert np.all(length <= evidence + 1e-6)
    assert np.all(np.isclose(log_p, length, atol=1e-5).any(axis=0))


@books
def test_every_part_of_a_vqvae_learns(book):
    model, params, state, seen = trained(book)

    @jax.jit
    def everything(params):
        loss = jax.value_and_grad(model.loss, has_aux=True)
        (value, (_, now)), slope = loss(params, state, BATCH, KEY)
        x = model.reconstruct(params, state, BATCH, KEY)
        return value, now, slope, x, model.features(params, state, BATCH, KEY)

    value, now, slope, x, features = jax.device_get(everything(params))
    assert all(np.any(g != 0) for g in jax.tree.leaves(slope))
    assert set(seen) == {"reconstruction", "distance"}
    close(value, now["reconstruction"] + 0.25 * now["distance"], 1e-5, 1e-5)
    assert x.shape == (6, 4, 4, 1) and np.all(np.abs(x) <= 1)
    assert features.shape == (6, 4 * book.dim)


def test_without_a_prior_there_are_no_samples_and_no_bits():
    model = vqvae(BOOKS[0])
    with pytest.raises(BadInput, match=r"Coded\(prior, vqvae\)"):
        model.sample({}, {}, KEY, 1)
    with pytest.raises(BadInput, match="density"):
        model.log_likelihood({}, {}, BATCH, KEY)
    with pytest.raises(BadInput, match="codes already"):
        VQVAE(None, None, BOOKS[0], Binomial(3), Symbols((2,), 3), (2,))


def test_a_grid_that_is_not_the_encoders_is_refused():
    model = vqvae(BOOKS[0])
    other = VQVAE(model.encoder, model.decoder, BOOKS[0], Binomial(3), SPACE, (4, 4))
    with pytest.raises(BadInput, match=r"\[2, 2, 2\]"):
        jax.eval_shape(other.init, KEY)


def test_maps_are_latents_of_a_vae():
    encoder = Halves(MapEncoder(6, 4, 1, groups=2))
    model = VAE(
        encoder, MapDecoder((4, 4, 1), 4, 1, groups=2), Binomial(3), SPACE, (2, 2, 3)
    )

    @jax.jit
    def everything(key):
        params, state = model.init(key)
        loss, _ = model.loss(params, state, BATCH, key)
        x = model.sample(params, state, key, 2)
        return model.posterior(params, BATCH)[0], loss, x

    mean, loss, x = everything(KEY)
    assert mean.shape == (6, 2, 2, 3) and x.shape == (2, 4, 4, 1)
    assert np.isfinite(loss)


# ------------------------------------------------------------- autoencoder


def test_the_linear_autoencoders_optimum_is_principal_components(float64):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 5)) @ draw.normal(size=(5, 5))
    x = x - x.mean(axis=0)
    vectors = np.linalg.svd(x, full_matrices=False)[2][:2]  # [2, 5]
    space = Reals((5,))
    nets = MLPDecoder((2,), ()), MLPDecoder((5,), ())
    model = Autoencoder(*nets, space, 2)

    def dense(kernel):
        return {"Dense_0": {"kernel": kernel, "bias": np.zeros(kernel.shape[1])}}

    best = {"autoencoder": {"encoder": dense(vectors.T), "decoder": dense(vectors)}}
    batch = {"latent": x}

    def value(params):
        return model.loss(params, {}, batch, KEY)[0]

    noisy = Autoencoder(*nets, space, 2, noise=0.5)

    @jax.jit
    def everything(best):
        own = jax.value_and_grad(value)(best)
        decoded = model.from_latent(best, {}, model.to_latent(best, {}, jnp.asarray(x)))
        keys = jax.random.split(KEY, 300)
        losses = jax.vmap(lambda key: noisy.loss(best, {}, batch, key)[0])(keys)
        return *own, decoded, losses

    least, slopes, decoded, found = jax.device_get(everything(best))
    close(least, np.sum(np.linalg.svd(x)[1][2:] ** 2) / 200, 1e-9)
    for slope in jax.tree.leaves(slopes):
        close(slope, np.zeros_like(slope), atol=1e-9)
    close(decoded, x @ vectors.T @ vectors, 1e-9, 1e-9)
    expected = least + 2 * 0.25  # the noise within the plane is kept
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - expected) < 4 * error


def test_an_autoencoder_has_no_prior_and_says_so():
    nets = MLPDecoder((2,), ()), MLPDecoder((5,), ())
    model = Autoencoder(*nets, Reals((5,)), 2)
    with pytest.raises(BadInput, match="VAE"):
        model.sample({}, {}, KEY, 1)
    with pytest.raises(BadInput, match="noise=-1"):
        Autoencoder(*nets, Reals((5,)), 2, noise=-1.0)
    with pytest.raises(BadInput, match="z has shape"):
        jax.eval_shape(Autoencoder(*nets, Reals((5,)), 3).init, KEY)


# ------------------------------------------------------------- normalising flows

TEN = Labels(3)
FLOW_SPACE = Images((4, 4, 1), 5)


def test_a_flow_of_images_inverts_and_knows_its_determinant(float64):
    net = RealNVP((4, 4, 1), 4, 1, 2, condition=TEN)
    model = NormalizingFlow(net, FLOW_SPACE, condition=TEN)
    params = scrambled(jax.jit(model.init)(KEY)[0], 0.1)
    given = {"label": np.array([0, 2])}
    data = np.random.default_rng(0).integers(0, 5, (2, 4, 4, 1)).astype(np.uint8)

    @jax.jit
    def everything(params):
        x = model.space.dequantize(KEY, data).astype(jnp.float64)
        u = model.to_latent(params, {}, x, **given)
        back = model.from_latent(params, {}, u, **given)

        def one(x, c):
            c = {name: value[None] for name, value in c.items()}
            return model.to_latent(params, {}, x.reshape(1, 4, 4, 1), **c)[0]

        jacobians = jax.vmap(jax.jacfwd(one))(x.reshape(2, -1), given)
        other = {name: value[::-1] for name, value in given.items()}
        log_ps = [model.log_prob(params, x, each) for each in (given, other)]
        return x, u, back, jacobians, log_ps

    x, u, back, jacobians, log_ps = jax.device_get(everything(params))
    assert u.shape == (2, 16)
    close(back, x, 1e-7, 1e-7)
    expected = np.linalg.slogdet(jacobians)[1] - 8 * math.log(2 * math.pi)
    close(log_ps[0], expected - 0.5 * np.sum(u**2, axis=1), 1e-8, 1e-8)
    assert not np.allclose(*log_ps)


def test_bounds_of_all_levels_sum_to_at_most_one_and_samples_are_images():
    space = Images((1, 2, 1), 3)
    model = NormalizingFlow(AffineCouplings(4, (8,)), space)
    params = scrambled(jax.jit(model.init)(KEY)[0], 0.2)
    images = np.array(list(itertools.product(range(3), repeat=2)), np.uint8)
    batch = {"image": images.reshape(-1, 1, 2, 1)}

    @jax.jit
    def everything(params):
        def log_p(key):
            return model.log_likelihood(params, {}, batch, key)

        u = jax.random.normal(KEY, (20_000, 2))
        x = model.from_latent(params, {}, u), model.sample(params, {}, KEY, 5)
        bounds = jax.vmap(log_p)(jax.random.split(KEY, 4000))
        return bounds, *x, model.loss(params, {}, batch, KEY)[0]

    bounds, x, drawn, value = jax.device_get(everything(params))
    # E exp of the bound is the probability itself; what is missing from one lies
    # outside of the interval of pixels, where no level is.
    found = np.exp(bounds).mean(0).sum()
    close(found, np.mean(np.all(np.abs(x) <= 1.5, axis=(1, 2, 3))), 0.03)
    assert 0.5 < np.exp(np.mean(bounds, axis=0)).sum() < found < 1.0
    assert drawn.shape == (5, 1, 2, 1) and np.all(np.isfinite(drawn))
    assert np.isfinite(value)


def test_a_logit_of_what_is_out_of_its_interval_is_that_of_the_end():
    x = np.array([-9.0, -1.0, 0.3, 1.0, 9.0], np.float32)

    @jax.jit
    def there_and_back(x):
        y, log_slope = squash(x, 1.0, 0.05)
        return y, log_slope, unsquash(y, 1.0, 0.05)

    y, log_slope, back = jax.device_get(there_and_back(x))
    assert np.all(np.isfinite(y)) and np.all(np.isfinite(log_slope))
    assert np.all(np.diff(y) > 0)
    close(back[1:4], x[1:4], 1e-5, 1e-5)


def test_a_flow_of_reals_is_an_exact_density(float64):
    model = NormalizingFlow(AffineCouplings(4, (8,)), Reals((2,), 1.0, 2.0))
    params = scrambled(jax.jit(model.init)(KEY)[0], 0.1)
    side = np.linspace(-19.0, 21.0, 161)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    log_p = jax.jit(model.log_likelihood)(params, {}, {"latent": grid}, KEY)
    assert model.density == model.likelihood_kind == "exact"
    assert np.exp(log_p).sum() * (side[1] - side[0]) ** 2 == pytest.approx(1, abs=1e-3)


def test_flows_of_what_they_cannot_move_are_refused():
    with pytest.raises(BadInput, match="without order"):
        NormalizingFlow(AffineCouplings(), Symbols((2,), 3))
    with pytest.raises(BadInput, match="alpha=0.5"):
        NormalizingFlow(AffineCouplings(), Reals((2,)), alpha=0.5)
    with pytest.raises(BadInput, match="side of 3"):
        NormalizingFlow(RealNVP((3, 3, 1)), Images((3, 3, 1), 5)).init(KEY)
