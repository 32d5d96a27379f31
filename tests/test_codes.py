"""Autoencoders, codes with a prior, and normalising flows: exact answers."""

import itertools
import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import close
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

KEY = jax.random.key(4)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def scrambled(tree, size=0.3):
    """Parameters away from their first values."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(KEY, len(leaves))
    moved = [
        x + size * jax.random.normal(k, x.shape, x.dtype)
        for x, k in zip(leaves, keys, strict=True)
    ]
    return structure.unflatten(moved)


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
    found = jax.jit(whole.log_likelihood)(own, frozen, BATCH, KEY)
    codes = jax.jit(model.to_latent)(params, state, SPACE.read(BATCH))
    assert codes.dtype == jnp.int32 and codes.shape == (6, 2, 2)
    given = jax.jit(model.log_prob_of_codes)(params, state, BATCH, codes, KEY)
    length = jax.jit(inner.log_likelihood)(own, {}, {"codes": codes}, KEY)
    close(found, given + length, 1e-5, 1e-5)
    assert whole.density == "bound" and whole.likelihood_kind == "code-length"
    # Drawn codes are decoded by the same decoder, and all of them are in the book.
    x = jax.jit(lambda key: whole.sample(own, frozen, key, 4))(KEY)
    drawn = jax.jit(lambda key: inner.sample(own, {}, key, 4))(KEY)
    close(x, jax.jit(model.from_latent)(params, state, drawn), 1e-5, 1e-5)
    slope = jax.jit(
        jax.grad(lambda p: jnp.mean(whole.log_likelihood(p, frozen, BATCH, KEY)))
    )
    assert any(np.any(np.asarray(g)) for g in jax.tree.leaves(slope(own)))


def two_pixels():
    """(prior, its parameters, a model of two pixels by one of 9 codes, its arrays)."""
    space, book = Images((1, 2, 1), 2), FiniteScalar((3, 3))
    nets = Flat((1, 2)), Flat((1, 2, 1))
    model = VQVAE(*nets, book, Binomial(2), space, (1,))
    params, state = model.init(KEY)
    net = Transformer(9, 1, 9, 8, 1, 2)
    inner = Autoregressive(net, Categorical(9), Symbols((1,), 9))
    return inner, scrambled(inner.init(KEY)[0]), model, scrambled(params), state


def test_a_completion_is_of_the_posterior_of_the_codes():
    """One of two pixels is seen: Σ_codes p(codes | x₁) E[x₂ | codes], enumerated."""
    inner, _, model, params, state = two_pixels()
    own, params = jax.jit(inner.init)(KEY)[0], scrambled(params, 1.5)
    frozen = {"frozen": {"autoencoder": Variables(params, state)}}
    every = jnp.arange(9)[:, None]
    seen = np.array([True, False]).reshape(1, 2, 1)
    batch = {"image": np.zeros((9, 1, 2, 1), np.uint8)}
    by_place = model.log_prob_by_place(params, state, batch, every, KEY)
    log_p = inner.log_likelihood(own, {}, {"codes": every}, KEY) + by_place[:, 0, 0, 0]
    posterior = special.softmax(log_p)
    means = model.from_latent(params, state, every)[:, 0, 1, 0]
    rows, whole = 600, Coded(inner, model)
    batch = {"image": np.zeros((rows, 1, 2, 1), np.uint8)}
    x, effective = jax.jit(
        lambda key: whole.complete(own, frozen, key, batch, seen, particles=64)
    )(KEY)
    assert x.shape == (rows, 1, 2, 1) and np.all(x[:, 0, 0] == -1.0)
    spread = np.sqrt(posterior @ means**2 - (posterior @ means) ** 2)
    close(np.mean(x[:, 0, 1]), posterior @ means, 4 * spread / np.sqrt(rows) + 0.01)
    prior = special.softmax(log_p - by_place[:, 0, 0, 0])
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
    images = np.array(list(itertools.product(range(2), repeat=2)), np.uint8)
    batch = {"image": images.reshape(-1, 1, 2, 1)}
    log_p = [
        model.log_prob_of_codes(params, state, batch, jnp.full((4, 1), code), KEY)
        + inner.log_likelihood(own, {}, {"codes": jnp.full((4, 1), code)}, KEY)
        for code in range(9)
    ]
    evidence = special.logsumexp(log_p, axis=0)
    close(special.logsumexp(evidence), 0.0, 1e-5, 1e-5)
    frozen = {"frozen": {"autoencoder": Variables(params, state)}}
    length = Coded(inner, model).log_likelihood(own, frozen, batch, KEY)
    assert np.all(length <= evidence + 1e-6)
    assert np.all(np.isclose(log_p, length, atol=1e-5).any(axis=0))


@books
def test_every_part_of_a_vqvae_learns(book):
    model, params, state, seen = trained(book)
    slope = jax.jit(jax.grad(lambda p: model.loss(p, state, BATCH, KEY)[0]))(params)
    moved = [bool(np.any(np.asarray(g) != 0)) for g in jax.tree.leaves(slope)]
    assert all(moved)
    assert set(seen) == {"reconstruction", "distance"}
    value, (_, now) = jax.jit(model.loss)(params, state, BATCH, KEY)
    close(value, now["reconstruction"] + 0.25 * now["distance"], 1e-5, 1e-5)
    x = jax.jit(model.reconstruct)(params, state, BATCH, KEY)
    assert x.shape == (6, 4, 4, 1) and np.all(np.abs(x) <= 1)
    assert model.features(params, state, BATCH, KEY).shape == (6, 4 * book.dim)


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
        other.init(KEY)


def test_maps_are_latents_of_a_vae():
    encoder = Halves(MapEncoder(6, 4, 1, groups=2))
    model = VAE(
        encoder, MapDecoder((4, 4, 1), 4, 1, groups=2), Binomial(3), SPACE, (2, 2, 3)
    )
    params, state = jax.jit(model.init)(KEY)
    mean, _ = model.posterior(params, BATCH)
    assert mean.shape == (6, 2, 2, 3)
    assert np.isfinite(jax.jit(model.loss)(params, state, BATCH, KEY)[0])
    assert model.sample(params, state, KEY, 2).shape == (2, 4, 4, 1)


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
        kernel = jnp.asarray(kernel)
        return {"Dense_0": {"kernel": kernel, "bias": jnp.zeros(kernel.shape[1])}}

    best = {"autoencoder": {"encoder": dense(vectors.T), "decoder": dense(vectors)}}
    batch = {"latent": x}

    def value(params):
        return model.loss(params, {}, batch, KEY)[0]

    close(value(best), np.sum(np.linalg.svd(x)[1][2:] ** 2) / 200, 1e-9)
    for slope in jax.tree.leaves(jax.grad(value)(best)):
        close(slope, np.zeros_like(slope), atol=1e-9)
    z = model.to_latent(best, {}, jnp.asarray(x))
    close(model.from_latent(best, {}, z), x @ vectors.T @ vectors, 1e-9, 1e-9)
    noisy = Autoencoder(*nets, space, 2, noise=0.5)
    keys = jax.random.split(KEY, 300)
    found = jax.vmap(lambda key: noisy.loss(best, {}, batch, key)[0])(keys)
    expected = value(best) + 2 * 0.25  # the noise within the plane is kept
    error = np.std(found) / math.sqrt(len(keys))
    assert abs(np.mean(found) - expected) < 4 * error


def test_an_autoencoder_has_no_prior_and_says_so():
    nets = MLPDecoder((2,), ()), MLPDecoder((5,), ())
    model = Autoencoder(*nets, Reals((5,)), 2)
    with pytest.raises(BadInput, match="VAE"):
        model.sample({}, {}, KEY, 1)
    with pytest.raises(BadInput, match="noise=-1"):
        Autoencoder(*nets, Reals((5,)), 2, noise=-1.0)
    with pytest.raises(BadInput, match="z has shape"):
        Autoencoder(*nets, Reals((5,)), 3).init(KEY)


# ------------------------------------------------------------- normalising flows

TEN = Labels(3)
FLOW_SPACE = Images((4, 4, 1), 5)


def image_flow(condition=None):
    more = {} if condition is None else {"condition": condition}
    return NormalizingFlow(RealNVP((4, 4, 1), 4, 1, 2, **more), FLOW_SPACE, **more)


@pytest.mark.parametrize("condition", [None, TEN], ids=["plain", "labels"])
def test_a_flow_of_images_inverts_and_knows_its_determinant(condition, float64):
    model = image_flow(condition)
    params = scrambled(jax.jit(model.init)(KEY)[0], 0.1)
    given = {} if condition is None else {"label": jnp.array([0, 2])}
    data = np.random.default_rng(0).integers(0, 5, (2, 4, 4, 1)).astype(np.uint8)
    x = model.space.dequantize(KEY, data).astype(jnp.float64)
    u = jax.jit(partial(model.to_latent, params, {}))(x, **given)
    assert u.shape == (2, 16)
    close(jax.jit(partial(model.from_latent, params, {}))(u, **given), x, 1e-7, 1e-7)
    log_p = model.log_prob(params, x, given)

    def one(x, c):
        return model.to_latent(params, {}, x.reshape(1, 4, 4, 1), **c)[0]

    for i in range(2):
        c = {name: value[i : i + 1] for name, value in given.items()}
        jacobian = jax.jacfwd(lambda x, c=c: one(x, c))(x[i].ravel())
        expected = np.linalg.slogdet(np.asarray(jacobian))[1]
        expected = expected - 0.5 * np.sum(u[i] ** 2) - 8 * math.log(2 * math.pi)
        close(log_p[i], expected, 1e-8, 1e-8)
    if condition is not None:
        assert not np.allclose(
            log_p, model.log_prob(params, x, {"label": jnp.array([1, 1])})
        )


def test_bounds_of_all_levels_sum_to_at_most_one_and_samples_are_images():
    space = Images((1, 2, 1), 3)
    model = NormalizingFlow(AffineCouplings(4, (8,)), space)
    params = scrambled(jax.jit(model.init)(KEY)[0], 0.2)
    images = np.array(list(itertools.product(range(3), repeat=2)), np.uint8)
    batch = {"image": images.reshape(-1, 1, 2, 1)}
    keys = jax.random.split(KEY, 4000)
    each = jax.jit(jax.vmap(lambda k: model.log_likelihood(params, {}, batch, k)))
    bounds = each(keys)
    # E exp of the bound is the probability itself; what is missing from one lies
    # outside of the interval of pixels, where no level is.
    found = np.exp(bounds).mean(0).sum()
    u = jax.random.normal(KEY, (20_000, 2))
    x = model.from_latent(params, {}, u)
    close(found, np.mean(np.all(np.abs(x) <= 1.5, axis=(1, 2, 3))), 0.03)
    assert 0.5 < np.exp(np.mean(bounds, axis=0)).sum() < found < 1.0
    draw = jax.jit(lambda key: model.sample(params, {}, key, 5))
    x = draw(KEY)
    assert x.shape == (5, 1, 2, 1) and np.all(np.isfinite(x))
    value, _ = jax.jit(model.loss)(params, {}, batch, KEY)
    assert np.isfinite(value)


def test_a_logit_of_what_is_out_of_its_interval_is_that_of_the_end():
    x = jnp.array([-9.0, -1.0, 0.3, 1.0, 9.0])
    y, log_slope = squash(x, 1.0, 0.05)
    assert np.all(np.isfinite(y)) and np.all(np.isfinite(log_slope))
    assert np.all(np.diff(y) > 0)
    close(unsquash(y, 1.0, 0.05)[1:4], x[1:4], 1e-5, 1e-5)


def test_a_flow_of_reals_is_an_exact_density(float64):
    model = NormalizingFlow(AffineCouplings(4, (8,)), Reals((2,), 1.0, 2.0))
    params = scrambled(model.init(KEY)[0], 0.1)
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
