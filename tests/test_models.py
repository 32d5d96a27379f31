"""Laws of each family that an exact answer knows.

A linear VAE is probabilistic PCA; the best discriminator of two known distributions is
p/(p + q); a diffusion model whose network is the conditional mean samples its data.
"""

import itertools
from dataclasses import replace
from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from exact import fit_ppca, sigma_points
from scipy import special, stats
from scipy.spatial.distance import jensenshannon

from gengen import presets
from gengen.conditions import Labels, Nothing
from gengen.diffusion import paths
from gengen.diffusion.guidance import Guidance
from gengen.diffusion.likelihood import VariationalBound
from gengen.diffusion.ode import Adaptive
from gengen.diffusion.paths import Linear, VariancePreserving
from gengen.diffusion.process import Data, Noise, Process, V, Velocity
from gengen.diffusion.sampler import Sampler
from gengen.diffusion.solvers import (
    DDIM,
    DDPM,
    AdamsBashforth,
    Ancestral,
    DPMSolver,
    Euler,
    Heun,
    PredictorCorrector,
    learned_range,
)
from gengen.diffusion.training import Training
from gengen.errors import BadInput
from gengen.images import bin_width, log_bin_volume, to_levels, to_unit
from gengen.latent.bounds import elbo, iwae_bound, log_weight
from gengen.latent.objectives import ELBO
from gengen.losses.adversarial import Minimax, NonSaturating
from gengen.losses.likelihood import per_example
from gengen.losses.penalty import r1
from gengen.models.closed_form import Mixture, gaussian
from gengen.models.diffusion import Diffusion
from gengen.models.gan import GAN
from gengen.models.vae import VAE
from gengen.nets.mlp import MLPDecoder, MLPEncoder
from gengen.objective import Ramp
from gengen.observations.binomial import Binomial
from gengen.observations.discretized_logistic import DiscretizedLogistic
from gengen.observations.gaussian import Gaussian
from gengen.presets import changed
from gengen.spaces import Images, Reals
from gengen.step import init_train_state, make_train_step
from gengen.types import static

KEY = jax.random.key(0)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def sample(model, params, num, state=None, **options):
    """`model.sample` as one program, which compiles faster than its many operations."""

    def run(params, key):
        return model.sample(params, state or {}, key, num, **options)

    return np.asarray(jax.jit(run)(params, KEY))


def fits(counts, probabilities):
    """The counts pass a chi-squared test at the level 1e-3."""
    expected = np.asarray(probabilities, np.float64)
    expected = expected * np.sum(counts) / np.sum(expected)
    return stats.chisquare(counts, expected).pvalue > 1e-3


def close(actual, desired, rtol=1e-6, atol=1e-6):
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=atol)


# ---------------------------------------------------------------- linear VAE = pPCA


@static
class Exact(Images):
    """Without dequantisation, so that encoder and likelihood see the same numbers."""

    def dequantize(self, key, data):
        return self.to_model(data)


SHAPE, LATENT = (1, 4, 1), 2
CLOUD = np.random.default_rng(0).normal(size=(2, 40, 4))
IMAGE = np.clip(128 + 20 * CLOUD[0] @ CLOUD[1, :4], 0, 255).astype(np.uint8)
LEVELS = 257  # bins of 2/256: `to_unit` is exact in float32
Y = IMAGE / 128 - 1
PPCA = fit_ppca(Y, LATENT)
EVIDENCE = PPCA.log_evidence(Y)
BATCH = {"image": IMAGE.reshape(-1, *SHAPE)}
SPACE = Exact(SHAPE, LEVELS)
LINEAR = VAE(MLPEncoder(LATENT, ()), MLPDecoder(SHAPE, ()), Gaussian(), SPACE, LATENT)


def ppca_params():
    """The linear VAE at its optimum: decoder W z + mean, encoder the posterior."""
    projection, variance = PPCA.posterior()
    encoder = {
        "kernel": np.concatenate([projection.T, np.zeros((4, LATENT))], axis=1),
        "bias": np.concatenate([-projection @ PPCA.mean, np.log(variance)]),
    }
    own = {
        "encoder": {"Dense_0": encoder},
        "decoder": {"Dense_0": {"kernel": PPCA.weight.T, "bias": PPCA.mean}},
        "likelihood": {"log_scale": np.log(PPCA.variance) / 2},
    }
    return jax.tree.map(jnp.asarray, {"vae": own})


def perturbed(params, size=0.1):
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    return tree.unflatten([x + size * rng.normal(size=x.shape) for x in leaves])


@jax.jit
def bounds(params, noise):
    """(ELBO, log importance weight), each [N, B], for noise [N, Z]."""
    mean, logvar = LINEAR.posterior(params, BATCH)
    y = SPACE.read(BATCH)

    def log_prob(z):
        own, features = params["vae"]["likelihood"], LINEAR.decode(params, z, {})
        return per_example(LINEAR.observation.log_prob(own, features, y))

    def one(noise):
        noise = jnp.broadcast_to(noise, mean.shape)
        bound = elbo(log_prob, mean, logvar, noise)[0]
        return bound, log_weight(log_prob, mean, logvar, noise)

    return jax.vmap(one)(jnp.asarray(noise))


def exact_elbo(params):
    """[B]: the ELBO is quadratic in the noise, so sigma points take its mean."""
    return jnp.mean(bounds(params, sigma_points(LATENT))[0], axis=0)


def test_elbo_at_the_true_posterior_is_the_log_evidence_of_ppca(float64):
    close(exact_elbo(ppca_params()), EVIDENCE, 1e-9, 1e-9)


def test_importance_weights_at_the_true_posterior_are_the_evidence(float64):
    log_w = bounds(ppca_params(), np.random.default_rng(0).normal(size=(5, LATENT)))[1]
    close(log_w, np.tile(EVIDENCE, (5, 1)), 1e-9, 1e-9)
    for samples in (1, 3):
        model = replace(LINEAR, importance_samples=samples)
        found = jax.jit(model.log_likelihood)(ppca_params(), {}, BATCH, KEY)
        close(found, EVIDENCE + log_bin_volume(SHAPE, LEVELS), 1e-9, 1e-9)


def test_ppca_is_a_stationary_maximum_of_the_elbo(float64):
    @jax.jit
    def loss(params):
        return -jnp.mean(exact_elbo(params))

    best = ppca_params()
    for slope in jax.tree.leaves(jax.grad(loss)(best)):
        close(slope, np.zeros_like(slope), atol=1e-9)
    assert loss(perturbed(best)) > loss(best) + 0.1


def test_training_the_linear_vae_finds_ppca(float64):
    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, 3000))

    @jax.jit
    def train(params):
        def step(carry, _):
            params, opt_state = carry
            grads = jax.grad(lambda p: -jnp.mean(exact_elbo(p)))(params)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        carry = params, optimizer.init(params)
        return jax.lax.scan(step, carry, length=3000)[0][0]

    params = train(jax.jit(LINEAR.init)(KEY, BATCH)[0])
    close(np.mean(exact_elbo(params)), np.mean(EVIDENCE), atol=1e-4)
    variance = np.exp(2 * params["vae"]["likelihood"]["log_scale"])
    close(variance, PPCA.variance, 1e-2)


def test_more_importance_samples_tighten_the_bound(float64):
    # Averaged over all subsets of a pool, IWAE-K grows with K without exception.
    noise = np.random.default_rng(0).normal(size=(6, LATENT))
    single, log_w = map(np.asarray, bounds(perturbed(ppca_params()), noise))
    means = []
    for k in range(1, 7):
        subsets = np.array(list(itertools.combinations(range(6), k)))
        means.append(np.mean(jax.jit(jax.vmap(iwae_bound))(log_w[subsets]), axis=0))
    assert np.all(np.diff(means, axis=0) > 0)
    close(means[-1], np.log(np.mean(np.exp(log_w), axis=0)), 1e-9)
    close(means[0], np.mean(log_w, axis=0), 1e-9)
    assert np.all(exact_elbo(perturbed(ppca_params())) < EVIDENCE)
    assert not np.allclose(single, log_w)  # the ELBO's KL is exact, the weight's not


# ---------------------------------------------------------------- any VAE

PAIR = (1, 2, 1)  # two pixels of three levels: nine images
NINE = np.array(list(itertools.product(range(3), repeat=2)), np.uint8)


@pytest.fixture(scope="module")
def curved():
    """A nonlinear VAE of nine images, its parameters, and their exact evidence [9]."""
    nets = MLPEncoder(1, (8,)), MLPDecoder(PAIR, (8,))
    model = VAE(*nets, Binomial(3), Images(PAIR, 3), 1)
    batch = {"image": NINE.reshape(-1, *PAIR)}
    params = jax.tree.map(lambda x: 2 * x + 0.3, jax.jit(model.init)(KEY, batch)[0])
    z = np.linspace(-9, 9, 4001)
    p = jax.nn.sigmoid(model.decode(params, z[:, None], {}))[:, 0, :, 0, 0]
    given_z = np.prod(stats.binom.pmf(NINE[:, None], 2, np.asarray(p)), axis=-1)
    evidence = np.trapezoid(given_z * stats.norm.pdf(z), z)
    assert evidence.sum() == pytest.approx(1, abs=1e-5)
    return model, params, batch, np.log(evidence)


def log_likelihoods(model, params, batch, keys=400):
    """[keys, 9] of `log_likelihood`, each with its own key."""

    def one(key):
        return model.log_likelihood(params, {}, batch, key)

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(KEY, keys)))


def standard_error(values):
    return np.std(values, axis=0) / np.sqrt(len(values))


def test_log_likelihood_bounds_the_evidence_and_reaches_it(curved):
    model, params, batch, evidence = curved
    loose, middle, tight = (
        log_likelihoods(replace(model, importance_samples=k), params, batch)
        for k in (1, 8, 200)
    )
    gaps = [np.mean(evidence - bound) for bound in (loose, middle, tight)]
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2]
    assert np.all(np.mean(middle, axis=0) < evidence + 4 * standard_error(middle))
    weight = np.exp(tight - evidence)  # unbiased: its mean is 1
    assert np.all(np.abs(np.mean(weight, axis=0) - 1) < 4 * standard_error(weight))


def test_loss_is_minus_the_mean_elbo(curved):
    model, params, batch, _ = curved
    loss = jax.jit(jax.vmap(lambda key: model.loss(params, {}, batch, key)[0]))
    losses = loss(jax.random.split(KEY, 2000))
    bound = np.mean(log_likelihoods(model, params, batch, keys=2000), axis=1)
    error = np.hypot(standard_error(losses), standard_error(bound))
    assert abs(np.mean(losses) + np.mean(bound)) < 4 * error


def test_beta_weighs_the_kl_at_the_step(curved):
    model, params, batch, _ = curved
    model = replace(model, objective=ELBO(Ramp(0.0, 1.0, 10)))
    loss = jax.jit(lambda step: model.loss(params, {"step": step}, batch, KEY))
    for step, beta in [(0, 0.0), (5, 0.5), (10, 1.0), (99, 1.0)]:
        value, (_, seen) = loss(step)
        close(value, seen["reconstruction"] + beta * seen["kl"])
        assert seen["kl"] > 0.1


def test_features_are_posterior_means_and_reconstructions_their_images(curved):
    model, params, batch, _ = curved
    features = model.features(params, {}, batch, KEY)
    assert features.shape == (9, 1)
    close(features, model.posterior(params, batch)[0])
    x = model.space.read(batch)
    close(features, model.to_latent(params, {}, x))
    images = model.reconstruct(params, {}, batch, KEY)
    assert images.shape == (9, *PAIR)
    logits = model.decode(params, features, {})[..., 0]
    close(images, 2 * jax.nn.sigmoid(logits) - 1)


def test_drawn_images_have_the_evidence_as_their_frequencies(curved):
    model, params, _, evidence = curved
    images = sample(model, params, 4000, sample_pixels=True)
    levels = np.asarray(to_levels(images, 3))[:, 0, :, 0]
    close(images[:, 0, :, 0], to_unit(levels, 3))
    counts = np.sum(np.all(levels[:, None] == NINE, axis=-1), axis=0)
    assert fits(counts, np.exp(evidence))
    gap = images - sample(model, params, 4000)
    assert np.all(np.abs(np.mean(gap, axis=0)) < 4 * standard_error(gap))


# ---------------------------------------------------------------- likelihoods


@pytest.mark.parametrize("levels", [5, 256])
def test_gaussian_bounds_the_mass_of_each_bin(levels):
    # Jensen: the mean log-density over a bin is below the log of its mass.
    space, std = Images((1, 1, 1), levels), 0.4
    image = np.arange(levels, dtype=np.uint8)
    x, half = np.asarray(to_unit(image, levels)), bin_width(levels) / 2
    features = np.full((levels, 1), 0.13, np.float32)
    nodes, weights = np.polynomial.legendre.leggauss(3)  # exact for the quadratic
    params = {"log_scale": jnp.log(std)}
    bound = space.log_volume + sum(
        w / 2 * Gaussian().log_prob(params, features, np.float32(x + half * u))
        for u, w in zip(nodes, weights, strict=True)
    )
    true = stats.norm(0.13, std)
    exact = true.logpdf(x) - half**2 / 6 / std**2 + np.log(2 * half)
    close(bound, exact, atol=1e-5)
    mass = np.log(true.cdf(x + half) - true.cdf(x - half))
    assert np.all(bound < mass + 1e-5)
    if levels == 256:
        close(bound, mass, atol=1e-3)


def test_dequantised_images_are_uniform_over_their_bins():
    image = np.tile(np.arange(5, dtype=np.uint8), 400).reshape(-1, 1, 1, 1)
    y = Images((1, 1, 1), 5).dequantize(KEY, image)
    offset = (y - to_unit(image, 5)) / bin_width(5)
    assert stats.kstest(offset.ravel(), stats.uniform(-0.5, 1).cdf).pvalue > 1e-3


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_logistic_mean_is_that_of_its_levels_within_half_a_level(levels):
    mean, log_scale = np.meshgrid(np.linspace(-1.7, 1.7, 21), np.arange(-7.0, 3.0))
    features = np.stack([mean.ravel(), log_scale.ravel()], -1).astype(np.float32)
    logistic, every = DiscretizedLogistic(levels), np.arange(levels)

    def log_prob(k):
        return logistic.log_prob({}, features, jnp.full(len(features), k))

    @jax.jit
    def masses_and_mean(every):
        return jnp.exp(jax.vmap(log_prob)(every)), logistic.mean({}, features)

    masses, got = jax.device_get(masses_and_mean(every))
    exact = masses.T @ (2 * every / (levels - 1) - 1)
    np.testing.assert_allclose(got, exact, atol=bin_width(levels) / 2 + 1e-5)
    # The midpoint rule of a bin that the logistic's scale resolves: 1/24 of w²F''.
    wide = np.exp(features[:, 1]) > 2 * bin_width(levels)
    np.testing.assert_allclose(got[wide], exact[wide], atol=bin_width(levels) / 100)


def test_gaussian_pixels_are_normal_and_clipped_to_the_image_range():
    space = Images((1, 1, 1), 256)
    model = VAE(MLPEncoder(1, ()), MLPDecoder((1, 1, 1), ()), Gaussian(), space, 1)
    decoder = jax.eval_shape(model.init, KEY)[0]["vae"]["decoder"]
    decoder = jax.tree.map(lambda x: np.full(x.shape, 0.1 * (x.ndim == 1)), decoder)
    own = {"decoder": decoder, "likelihood": {"log_scale": np.log(0.4)}}
    drawn = sample(model, {"vae": own}, 2000, sample_pixels=True)
    inside = drawn[np.abs(drawn) < 1]
    law = stats.truncnorm((-1 - 0.1) / 0.4, (1 - 0.1) / 0.4, 0.1, 0.4)
    assert np.abs(drawn).max() <= 1
    assert stats.kstest(inside, law.cdf).pvalue > 1e-3


class TwoArguments(nn.Module):
    def __call__(self, z, t):
        return z


class WithAverages(nn.Module):
    @nn.compact
    def __call__(self, z, t, c=None, train=False):
        return nn.BatchNorm(not train)(z)


def test_a_network_of_ones_own_is_refused_in_a_sentence_at_init():
    space = Images((1, 1, 1), 5)
    with pytest.raises(BadInput, match=r"TwoArguments.__call__\(z, t\) cannot be"):
        presets.flow(TwoArguments(), space).init(KEY)
    with pytest.raises(BadInput, match="WithAverages keeps batch_stats beside"):
        presets.flow(WithAverages(), space).init(KEY)
    nets = TwoArguments(), MLPDecoder((1, 1, 1), ())
    with pytest.raises(BadInput, match="cannot be called with 2 arguments and train"):
        VAE(nets[1], nets[0], Gaussian(), space, 1).init(KEY)


def test_what_a_sampler_has_is_said_when_it_is_given_to_sample():
    model = presets.flow(WithAverages(), Images((1, 1, 1), 5))
    with pytest.raises(BadInput, match=r"give sampler=model\.sampler\.replace"):
        model.sample({}, {}, KEY, 1, steps=3)
    with pytest.raises(BadInput, match="sampler='heun' is not a Sampler"):
        model.sample({}, {}, KEY, 1, sampler="heun")
    with pytest.raises(BadInput, match="num_steps: the model is unconditional"):
        model.sample({}, {}, KEY, 1, num_steps=3)


def test_what_a_decoder_observes_has_the_levels_of_its_space():
    nets = MLPEncoder(1, ()), MLPDecoder((1, 1, 1), ())
    with pytest.raises(BadInput, match="Binomial of 2 levels on Images of 17"):
        VAE(*nets, Binomial(2), Images((1, 1, 1), 17), 1)
    with pytest.raises(BadInput, match="Binomial of 2 levels on Reals of None"):
        VAE(*nets, Binomial(2), Reals((1, 1, 1)), 1)
    with pytest.raises(BadInput, match="give the decoder 2 output channels"):
        VAE(*nets, DiscretizedLogistic(17), Images((1, 1, 1), 17), 1).init(KEY)


# ---------------------------------------------------------------- GAN

P, Q = np.array([4, 2, 1, 1]), np.array([1, 1, 2, 4])  # of 8: levels of data and fakes
REAL = {"image": np.repeat(np.arange(4), P).astype(np.uint8).reshape(8, 1, 1, 1)}


class Fixed(nn.Module):
    """A generator of always the same levels, Q of each; it may shift them."""

    @nn.compact
    def __call__(self, z, c=None, train=False):
        shift = self.param("shift", nn.initializers.zeros, ())
        fake = np.repeat(np.arange(4), Q).reshape(8, 1, 1, 1)
        return to_unit(jnp.asarray(fake), 4) + shift


class Table(nn.Module):
    """A critic with one logit a level: any function of the data."""

    @nn.compact
    def __call__(self, x, c=None, train=False):
        table = self.param("table", nn.initializers.zeros, (4,))
        return table[to_levels(x, 4)[:, 0, 0, 0]]


FOUR = Images((1, 1, 1), 4)
THREE = Labels(3)
GAME = GAN(Fixed(), Table(), FOUR, latent=2)
BEST = np.log(P / Q)  # logit of p/(p + q)


def test_stateless_nets_have_an_empty_state():
    assert GAME.init(KEY, REAL)[1] == {"discriminator": {}, "generator": {}}


def test_the_optimal_discriminator_is_p_over_p_plus_q():
    params, state = GAME.init(KEY, REAL)
    params["discriminator"]["table"] = jnp.asarray(BEST, jnp.float32)

    def loss(own):
        mine = {**params, "discriminator": own}
        return GAME.play_discriminator(mine, state, REAL, KEY)

    (value, (_, seen)), grads = jax.value_and_grad(loss, has_aux=True)(
        params["discriminator"]
    )
    close(grads["table"], np.zeros(4))
    close(value, 2 * np.log(2) - 2 * jensenshannon(P, Q) ** 2)
    close(seen["real"], np.mean(np.repeat(P / (P + Q), P)))
    close(seen["fake"], np.mean(np.repeat(P / (P + Q), Q)))


def test_training_the_discriminator_finds_the_optimum():
    params, state = GAME.init(KEY, REAL)
    optimizers = {"discriminator": optax.adam(0.1), "generator": optax.set_to_zero()}
    step = make_train_step(GAME.losses(), optimizers)

    @jax.jit
    def train(train_state):
        return jax.lax.scan(
            lambda train_state, _: (step(train_state, REAL)[0], None),
            train_state,
            length=400,
        )[0]

    done = train(init_train_state(KEY, params, state, optimizers))
    close(done.params["discriminator"]["table"], BEST, atol=1e-3)
    close(done.params["generator"]["shift"], 0.0)


@pytest.mark.parametrize(
    ("game", "expected"),
    [
        (Minimax(), np.sum(Q / 8 * np.log(Q / (P + Q)))),
        (NonSaturating(), -np.sum(Q / 8 * np.log(P / (P + Q)))),
    ],
)
def test_the_generator_plays_the_chosen_game(game, expected):
    model = replace(GAME, game=game)
    params, state = model.init(KEY, REAL)
    params["discriminator"]["table"] = jnp.asarray(BEST, jnp.float32)
    state = {**state, "ema": params}
    close(model.losses()["generator"](params, state, REAL, KEY)[0], expected)


class Plane(nn.Module):
    """A linear critic, so that R1 = |w|²."""

    @nn.compact
    def __call__(self, x, c=None, train=False):
        return nn.Dense(1)(x.reshape(x.shape[0], -1))[:, 0]


def test_r1_is_added_at_every_interval_and_as_many_times_as_strong():
    plain = GAN(Fixed(), Plane(), FOUR, latent=2)
    penalised = replace(plain, penalties=(r1(3.0),), penalty_interval=2)
    params, state = plain.init(KEY, REAL)
    w = params["discriminator"]["Dense_0"]["kernel"]
    before, after = (
        jax.jit(model.losses()["discriminator"]) for model in (plain, penalised)
    )
    for step in range(5):
        at = params, {**state, "step": jnp.int32(step)}, REAL, KEY
        loss, (_, seen) = after(*at)
        penalty = 3.0 / 2 * np.sum(w**2) if step % 2 == 0 else 0.0
        close(loss - before(*at)[0], 2 * penalty, atol=1e-5)
        close(seen["penalty"], 2 * penalty)  # so that the mean over steps is dense R1's


class Normed(nn.Module):
    """One BatchNorm: of z scaled as a generator, of the image as a critic."""

    image: bool

    @nn.compact
    def __call__(self, x, c=None, train=False):
        if self.image:
            x = x * self.param("scale", nn.initializers.ones, ())
        h = nn.BatchNorm(not train, momentum=0.9)(x.reshape(x.shape[0], -1))
        return h[:, :1].reshape(-1, 1, 1, 1) if self.image else h[:, 0]


def test_real_and_fake_pass_the_discriminator_separately():
    model = GAN(Fixed(), Normed(image=False), FOUR, latent=2)
    params, state = model.init(KEY, REAL)
    _, (new, _) = model.play_discriminator(params, state, REAL, KEY)
    real, fake = (np.repeat(to_unit(np.arange(4), 4), n).mean() for n in (P, Q))
    found = new["discriminator"]["batch_stats"]["BatchNorm_0"]["mean"]
    close(found[0], 0.9 * 0.1 * real + 0.1 * fake)


def test_generator_statistics_are_those_of_the_averaged_generator():
    model = GAN(Normed(image=True), Normed(image=False), FOUR, latent=1)
    now, state = model.init(KEY, REAL)
    average = jax.tree.map(lambda x: 3 * x, now)

    loss = jax.jit(model.losses()["generator"])

    def play(params, ema):
        _, (new, _) = loss(params, {**state, "ema": ema}, REAL, KEY)
        chex.assert_trees_all_equal(new["discriminator"], state["discriminator"])
        return new["generator"]["batch_stats"]["BatchNorm_0"]["mean"]

    close(play(now, average), play(average, average))
    close(play(now, average), 3 * play(now, now))
    assert abs(play(now, now)[0]) > 1e-3


class Labelled(nn.Module):
    """Says its label: as an image, or as a logit."""

    image: bool

    @nn.compact
    def __call__(self, x, c=None, train=False):
        said = self.param("scale", nn.initializers.ones, ()) * c["label"]
        return said.reshape(-1, 1, 1, 1) if self.image else said


def test_gan_labels_reach_both_nets():
    model = GAN(Labelled(True), Labelled(False), FOUR, 1, THREE)
    label = np.array([0, 1, 2, 2, 2, 2, 2, 2], np.int32)
    batch = {**REAL, "label": label}
    params, state = model.init(KEY, batch)
    loss, _ = model.play_discriminator(params, state, batch, KEY)
    close(loss, np.mean(np.logaddexp(0, -label) + np.logaddexp(0, label)))
    state = {**state, "ema": params}
    close(
        model.play_generator(params, state, batch, KEY)[0],
        np.mean(np.logaddexp(0, -label)),
    )


# ---------------------------------------------------------------- labels of samples

CALLS = []


def called():
    CALLS.append(None)


class Echo(nn.Module):
    """A network that says its label (0 without one), and is counted when it runs."""

    @nn.compact
    def __call__(self, z, t, c=None, train=False):
        jax.debug.callback(called)
        scale = self.param("scale", nn.initializers.ones, ())
        said = (c or {}).get("label", jnp.zeros(z.shape[0]))
        return scale * said.reshape(-1, 1, 1, 1) + 0 * z


# Asked for x, on a path that is singular at 0: the last jump is what the net says.
PIXEL = (1, 1, 1)
ECHO = Diffusion(
    Echo(),
    Process(Linear(), Data()),
    Images(PIXEL, 2),
    THREE,
    sampler=Sampler(steps=2),
)
ECHOES = {"denoiser": {"scale": jnp.ones(())}}
SPEAKER = GAN(Labelled(True), Labelled(False), FOUR, 1, THREE)
SPEAKERS = {"generator": {"scale": jnp.ones(())}}
SPEAK = {
    "diffusion": lambda num, **kw: sample(ECHO, ECHOES, num, **kw),
    "gan": lambda num, **kw: sample(SPEAKER, SPEAKERS, num, {"generator": {}}, **kw),
}
speakers = pytest.mark.parametrize("speak", SPEAK.values(), ids=SPEAK)


@speakers
def test_samples_have_the_label_asked_for(speak):
    close(speak(3, label=2).ravel(), [2, 2, 2])
    close(speak(3, label=np.array([2, 0, 1])).ravel(), [2, 0, 1])


@speakers
def test_labels_are_uniform_unless_given(speak):
    counts = np.bincount(np.round(speak(3000)).astype(int).ravel())
    assert len(counts) == 3 and fits(counts, np.ones(3))


@speakers
@pytest.mark.parametrize("label", [-1, 3, np.array([0, 3])])
def test_labels_out_of_range_are_refused(speak, label):
    with pytest.raises(BadInput, match="out of range"):
        speak(2, label=label)


@pytest.mark.parametrize("model", [replace(ECHO, condition=Nothing()), GAME], ids=type)
def test_a_label_of_an_unconditional_model_is_refused(model):
    with pytest.raises(BadInput, match="unconditional"):
        model.sample(ECHOES, {}, KEY, 2, label=0)


# ---------------------------------------------------------------- diffusion


@pytest.mark.parametrize("dropout", [0.0, 0.3, 1.0])
def test_label_dropout_shows_the_null_label(dropout):
    # x = -1 and label 0 make an error of 1, the null label 3 makes one of 16.
    n, model = 4000, changed(ECHO, condition_dropout=dropout)
    batch = {"image": np.zeros((n, 1, 1, 1), np.uint8), "label": np.zeros(n, np.int32)}
    loss, _ = jax.jit(model.loss)(ECHOES, {}, batch, KEY)
    error = np.sqrt(dropout * (1 - dropout) / n)
    assert (loss - 1) / 15 == pytest.approx(dropout, abs=4 * error + 1e-6)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_guidance_leads_away_from_the_null_label(scale):
    sampler = ECHO.sampler.replace(scale=scale)
    guided = sample(ECHO, ECHOES, 2, label=1, sampler=sampler)
    close(guided.ravel(), np.full(2, 3 + scale * (1 - 3)), atol=1e-5)


@pytest.mark.parametrize(
    "solver",
    [Euler(), Heun(), DPMSolver(), AdamsBashforth(3), PredictorCorrector(DDIM(0.5), 2)],
    ids=str,
)
@pytest.mark.parametrize(
    ("process", "scale"),
    [(Process(Linear(), Data()), 2.0), (Process(Linear(), Velocity()), 1)],
    ids=["with a last jump, guided", "to the end"],
)
def test_evaluations_are_the_network_calls_of_a_sample(process, solver, scale):
    model = replace(ECHO, process=process)
    sampler = Sampler(solver, steps=3, guidance=Guidance(scale))
    jax.effects_barrier()
    CALLS.clear()
    sample(model, ECHOES, 2, sampler=sampler)
    jax.effects_barrier()
    assert len(CALLS) == model.nfe(sampler)
    jump = process.prediction == Data()
    calls = solver.nfe(3) + jump
    assert len(CALLS) == calls * (2 if scale == 2 else 1)


def test_steps_and_solver_can_be_chosen_at_sampling():
    other = changed(ECHO, steps=5, solver=DDPM())
    assert ECHO.nfe() == 3 and other.nfe() == 6
    chosen = sample(MODES, NOTHING, 2, sampler=other.sampler)
    close(chosen, sample(changed(MODES, steps=5, solver=DDPM()), NOTHING, 2))
    assert not np.allclose(chosen, sample(MODES, NOTHING, 2))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (replace(ECHO, condition=Nothing()), "unconditional"),
        (changed(ECHO, condition_dropout=0.0), "condition_dropout"),
    ],
    ids=["unconditional", "no dropout"],
)
def test_guidance_without_a_null_label_is_refused(model, reason):
    for ask in (lambda **kw: model.sample(ECHOES, {}, KEY, 2, **kw), model.nfe):
        with pytest.raises(BadInput, match=reason):
            ask(sampler=model.sampler.replace(scale=2.0))


class Optimal(nn.Module):
    """The conditional mean itself."""

    data: Mixture
    process: Process

    def __call__(self, z, t, c=None, train=False):
        return self.data.predict(self.process)(z, t)


def optimal(data, path, prediction, levels=256, **values):
    process, space = Process(path, prediction), Images(PIXEL, levels)
    return changed(Diffusion(Optimal(data, process), process, space), **values)


NOTHING = {"denoiser": {}}
TWO_MODES = Mixture((0.3, 0.7), ((-0.8,), (0.5,)), (0.1, 0.3))
MODES = optimal(TWO_MODES, VariancePreserving(), Noise())


@pytest.mark.parametrize(
    ("path", "prediction", "solver"),
    [
        (Linear(), Velocity(), Heun()),
        (VariancePreserving(), Noise(), Heun()),
        (VariancePreserving(), Noise(), DDPM()),
        (Linear(), Data(), DDIM(0.5)),
    ],
    ids=str,
)
def test_samples_of_the_optimal_network_follow_the_data(path, prediction, solver):
    model = optimal(TWO_MODES, path, prediction, solver=solver, steps=200)
    x = sample(model, NOTHING, 2000).ravel()

    def cdf(x):
        parts = zip(TWO_MODES.weights, TWO_MODES.means, TWO_MODES.stds, strict=True)
        return sum(w * stats.norm(m[0], s).cdf(x) for w, m, s in parts)

    assert stats.kstest(x, cdf).pvalue > 1e-3


@pytest.mark.parametrize("solver", [Heun(), DDPM()], ids=str)
def test_samples_have_the_mean_and_variance_of_gaussian_data(solver):
    n, mean, std = 4000, 0.5, 0.4
    model = optimal(gaussian(mean, std), VariancePreserving(), Noise(), solver=solver)
    x = sample(model, NOTHING, n, sampler=model.sampler.replace(steps=400))
    assert x.mean() == pytest.approx(mean, abs=4 * std / np.sqrt(n))
    assert x.var() == pytest.approx(std**2, abs=4 * std**2 * np.sqrt(2 / n))


def test_noise_and_image_are_each_other_s():
    z = np.random.default_rng(0).normal(size=(8, 1, 1, 1)).astype(np.float32)
    model = changed(MODES, solver=Heun(), steps=200)
    x = jax.jit(model.from_latent)(NOTHING, {}, z)
    close(jax.jit(model.to_latent)(NOTHING, {}, x), z, atol=0.05)


def test_samples_in_parallel_are_those_in_turn():
    for solver in (DDPM(), Euler()):
        model = changed(MODES, solver=solver, steps=20)
        one = sample(model, NOTHING, 4)
        draw = jax.jit(lambda model=model: model.sample_parallel(NOTHING, {}, KEY, 4))
        swept, sweeps = draw()
        close(swept, one, atol=0.02)
        assert 1 < sweeps <= 20 and model.parallel()
    assert not changed(MODES, solver=DPMSolver()).parallel()
    assert not changed(MODES, solver=Adaptive()).parallel()
    assert changed(MODES, solver=Adaptive()).nfe() is None


def test_an_adaptive_solver_knows_each_row_s_label():
    process = Process(Linear(), Data())
    model = changed(ECHO, process=process, solver=Adaptive(), steps=1)
    close(sample(model, ECHOES, 3, label=np.array([2, 0, 1])).ravel(), [2, 0, 1], 1e-3)


def bound_of_gaussian_data(path, grid, x, levels, mean=0.2, std=0.3):
    """The terms of the bound on log p(x), each by hand, of x []: one level's value."""
    t = np.asarray(grid, np.float64)
    a, b = (np.asarray(f(jnp.asarray(t)), np.float64) for f in (path.a, path.b))
    k = a * std**2 / (a**2 * std**2 + b**2)  # x̂ = mean + k (z - a mean)
    error = ((mean - x) * (1 - k * a)) ** 2 + (k * b) ** 2
    diffusion = 0.5 * np.diff((a / b) ** 2) * error[:-1]
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    z, values = a[-1] * x + b[-1] * nodes, np.linspace(-1, 1, levels)
    logits = -0.5 * ((z[:, None] - a[-1] * values) / b[-1]) ** 2
    log_p = -0.5 * nodes**2 - special.logsumexp(logits, axis=1)
    prior = 0.5 * (a[0] / b[0] * x) ** 2
    return -prior - diffusion.sum() + weights @ log_p / weights.sum()


# At 256 levels σ is below the first step's.
@pytest.mark.parametrize(("levels", "draws"), [(17, 1000), (256, 16)])
def test_the_bound_of_a_table_is_the_one_by_hand(levels, draws):
    likelihood = VariationalBound(1000, draws)
    values = {"levels": levels, "likelihood": likelihood}
    model = optimal(gaussian(0.2, 0.3), paths.DDPMSchedule(), V(), **values)
    level = round(0.6 * (levels - 1))
    rows = 64_000 // draws
    image = np.full((rows, 1, 1, 1), level, np.uint8)
    log_p = jax.jit(model.log_likelihood)(NOTHING, {}, {"image": image}, KEY)
    x, grid = 2 * level / (levels - 1) - 1, likelihood.grid(model.process, levels)
    expected = bound_of_gaussian_data(paths.DDPMSchedule(), grid, x, levels)
    error = 4 * np.std(log_p) / np.sqrt(rows)
    assert abs(np.mean(log_p) - expected) < error < 0.6
    exact = stats.norm(0.2, 0.3).logpdf(x) + np.log(2 / (levels - 1))
    assert expected < exact


COIN = Mixture((0.3, 0.7), ((-1.0,), (1.0,)), (0.0, 0.0))


@pytest.mark.parametrize(
    ("path", "likelihood", "gap"),
    [
        (VariancePreserving(), VariationalBound(fraction=0.15), 0.0),
        (Linear(), VariationalBound(500, 500, 0.15), 0.01),
    ],
    ids=str,
)
def test_the_bound_of_the_optimal_network_is_tight(path, likelihood, gap):
    # Infinitely many small steps of the true conditional mean are the true reverse,
    # and where it ends, at a fraction of the levels' distance, -1 and 1 are far apart.
    model = optimal(COIN, path, V(), levels=17, likelihood=likelihood)
    rows = 64_000 // likelihood.draws
    image = np.repeat(np.array([0, 16], np.uint8), rows).reshape(-1, 1, 1, 1)
    log_p = jax.jit(model.log_likelihood)(NOTHING, {}, {"image": image}, KEY)
    log_p = np.asarray(log_p).reshape(2, -1)
    error = 4 * log_p.std(1) / np.sqrt(log_p.shape[1])
    assert np.all(np.abs(log_p.mean(1) - np.log([0.3, 0.7])) < error + gap)
    assert np.all(error < 0.1)


def test_times_drawn_by_importance_leave_the_loss_what_it_is():
    image = np.arange(20_000, dtype=np.uint8).reshape(-1, 1, 1, 1) % 2
    model = optimal(COIN, Linear(), Data(), levels=2)
    by_bins = changed(model, importance_bins=8)
    plain, _ = jax.jit(model.loss)(NOTHING, {}, {"image": image}, KEY)
    moment = jnp.linspace(0.01, 1.0, 8)
    found, (state, _) = jax.jit(by_bins.loss)(
        NOTHING, {"second_moment": moment}, {"image": image}, KEY
    )
    assert found == pytest.approx(float(plain), rel=0.05)
    seen = np.asarray(state["second_moment"] - 0.99 * moment) / 0.01
    assert np.all(seen >= 0) and np.all(np.diff(seen)[:3] > 0)  # noise costs more


class WithVariance(nn.Module):
    """What it is told of r and of v, times z."""

    @nn.compact
    def __call__(self, z, t, c=None, train=False):
        r, v = (self.param(name, nn.initializers.ones, ()) for name in "rv")
        return jnp.concatenate([r * z, 0.0 * z + v], axis=-1)


def test_the_learned_variance_is_learnt_and_the_mean_is_not_by_it():
    process = Process(VariancePreserving(), Noise())
    space, training = Images((2, 2, 1), 17), Training(vlb_weight=1.0)
    model = Diffusion(WithVariance(), process, space, training=training)
    params = {"denoiser": {"r": jnp.float32(0.7), "v": jnp.float32(-0.5)}}
    batch = {"image": np.full((64, 2, 2, 1), 12, np.uint8)}

    def gradient(weight):
        loss = changed(model, vlb_weight=weight).loss
        grads = jax.jit(jax.grad(lambda p: loss(p, {}, batch, KEY)[0]))(params)
        return grads["denoiser"]

    one, ten = gradient(1.0), gradient(10.0)
    assert one["r"] == pytest.approx(float(ten["r"]), rel=1e-4)
    assert ten["v"] == pytest.approx(10 * float(one["v"]), rel=1e-3) and one["v"] != 0
    for solver in (Ancestral(learned_range), Euler()):
        sampler = Sampler(solver, steps=5)
        sample = jax.jit(partial(model.sample, num=2, sampler=sampler))
        x = sample(params, {}, KEY)
        assert x.shape == (2, 2, 2, 1) and np.all(np.isfinite(x))


@pytest.mark.parametrize("path", [paths.DDPMSchedule(), paths.Cosine()], ids=type)
def test_the_first_step_of_all_has_a_gradient_where_variances_are_learned(path):
    process = Process(path, Noise())
    space, training = Images((2, 2, 1), 17), Training(vlb_weight=1.0)
    model = Diffusion(WithVariance(), process, space, training=training)
    x, noise = np.zeros((3, 2, 2, 1), np.float32), np.ones((3, 2, 2, 1), np.float32)

    def loss(own):
        t = jnp.array([0.001, 0.002, 0.9])  # before the first of them nothing is
        network = model.predictor({"denoiser": own})

        def predict(z, t):
            return network(z, t, {})

        return jnp.sum(training.each(predict, process, x, noise, t))

    own = {"r": jnp.float32(0.7), "v": jnp.float32(-0.5)}
    assert all(map(np.isfinite, jax.jit(jax.grad(loss))(own).values()))


def test_loss_of_the_optimal_network_is_the_posterior_variance():
    # Two levels, data -1 and 1: with x asked for, the loss is E[1 - tanh²(a z/b²)].
    data = Mixture((0.5, 0.5), ((-1.0,), (1.0,)), (0.0, 0.0))
    model = optimal(data, Linear(), Data(), levels=2)
    image = np.arange(20_000, dtype=np.uint8).reshape(-1, 1, 1, 1) % 2
    loss, _ = jax.jit(model.loss)(NOTHING, {}, {"image": image}, KEY)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    t = np.linspace(1e-3, 1, 2001)[:, None]
    a, b = 1 - t, t
    variance = 1 - np.tanh(a * (a + b * nodes) / b**2) ** 2
    expected = np.trapezoid(variance @ weights / weights.sum(), t[:, 0])
    assert loss == pytest.approx(expected, abs=4 * 0.6 / np.sqrt(20_000))
