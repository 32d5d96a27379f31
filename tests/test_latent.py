"""Priors, flows and objectives of models with latents, against closed forms."""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import close
from scipy import stats

from gengen.conditions import Labels
from gengen.errors import BadInput
from gengen.latent.bounds import (
    doubly_reparameterized,
    iwae_bound,
    log_weight,
    total_correlation,
)
from gengen.latent.evidence import annealed, temperatures
from gengen.latent.objectives import ELBO, IWAE
from gengen.latent.priors import (
    FlowPrior,
    GaussianMixture,
    UnitGaussian,
    Vamp,
    mixture_log_prob,
)
from gengen.losses.likelihood import normal_log_prob, per_example
from gengen.models.combinators.latent import Latent
from gengen.models.normalizing_flow import NormalizingFlow
from gengen.models.vae import VAE
from gengen.nets.flows import AffineCouplings, AutoregressiveFlow
from gengen.nets.mlp import MLPDecoder, MLPEncoder
from gengen.observations.binomial import Binomial
from gengen.observations.discretized_logistic import DiscretizedLogistic
from gengen.observations.gaussian import Gaussian
from gengen.scan import sample_keys
from gengen.spaces import Images, Reals
from gengen.tasks.latents import rate_and_distortion
from gengen.types import static
from train.measure.bare_loops import reference

KEY = jax.random.key(3)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


FLOWS = [AffineCouplings(4, (16,)), AutoregressiveFlow(2, (16,))]
FLOWS += [AutoregressiveFlow(1, ())]
named = pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: type(flow).__name__)


def scrambled(tree, size=0.4):
    """Parameters away from their first values, where flows are the identity."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(KEY, len(leaves))
    moved = [
        x + size * jax.random.normal(k, x.shape, x.dtype)
        for x, k in zip(leaves, keys, strict=True)
    ]
    return structure.unflatten(moved)


# ------------------------------------------------------------- flows


@named
@pytest.mark.parametrize("width", [0, 3])
def test_flows_invert_and_their_log_determinant_is_autodiffs(flow, width, float64):
    z = jax.random.normal(KEY, (5, 4))
    h = jax.random.normal(KEY, (5, width)) if width else None
    first = flow.init(KEY, z, h)
    u, log_det = flow.apply(first, z, h)
    close(u, z), close(log_det, np.zeros(5))  # the identity at first
    params = scrambled(first)
    u, log_det = jax.jit(flow.apply)(params, z, h)
    back, log_det_back = jax.jit(partial(flow.apply, reverse=True))(params, u, h)
    close(back, z, 1e-9, 1e-9), close(log_det_back, -log_det, 1e-9, 1e-9)
    assert not np.allclose(u, z, atol=0.1)

    def one(z, h):
        return flow.apply(params, z[None], None if h is None else h[None])[0][0]

    jacobians = jax.vmap(jax.jacfwd(one))(z, h)
    close(jnp.linalg.slogdet(jacobians)[1], log_det, 1e-9, 1e-9)
    if width:
        assert not np.allclose(flow.apply(params, z, h + 1.0)[0], u, atol=1e-3)


def test_each_layer_of_an_autoregressive_flow_is_triangular(float64):
    flow, z = AutoregressiveFlow(1, (16, 16)), jax.random.normal(KEY, (1, 5))
    params = scrambled(flow.init(KEY, z))
    jacobian = jax.jacfwd(lambda z: flow.apply(params, z[None])[0][0])(z[0])
    close(jnp.triu(jacobian, 1), np.zeros((5, 5)))
    assert np.all(np.abs(jacobian[np.tril_indices(5)]) > 1e-6)


def test_maps_of_latents_keep_their_shape():
    z = jax.random.normal(KEY, (2, 4, 4, 3))
    u, log_det = AffineCouplings(2, (8,)).init_with_output(KEY, z)[0]
    assert u.shape == z.shape and log_det.shape == (2,)


# ------------------------------------------------------------- priors


def posterior(x):
    """An encoder that needs no network."""
    return jnp.tanh(x[:, :2]), -1.0 + 0.3 * x[:, 1:]


PRIORS = [UnitGaussian(), GaussianMixture(3), Vamp(4, 1.0)]
PRIORS += [FlowPrior(AffineCouplings(4, (16,)))]
X = jnp.zeros((1, 3))


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: type(prior).__name__)
def test_priors_integrate_to_one_and_are_sampled_as_they_say(prior):
    z = jnp.zeros((1, 2))
    params = scrambled(prior.init(KEY, z, X), 0.25)
    side = np.linspace(-7.0, 7.0, 281)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    log_p = jax.jit(lambda z: prior.log_prob(params, z, posterior))
    p = np.exp(np.asarray(log_p(jnp.array(grid, jnp.float32)))).reshape(281, 281)
    area = (side[1] - side[0]) ** 2
    assert p.sum() * area == pytest.approx(1.0, abs=2e-3)
    num = 4000
    draw = jax.jit(lambda keys: prior.sample(params, keys, (2,), posterior))
    drawn = np.asarray(draw(sample_keys(KEY, num)))
    for d in range(2):  # each coordinate against the grid's marginal
        mass = p.sum(1 - d) * area
        uniform = np.interp(drawn[:, d], side + (side[1] - side[0]) / 2, mass.cumsum())
        assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    own = draw(sample_keys(KEY, 3, 5))  # sample i is of (key, i)
    np.testing.assert_allclose(own, drawn[5:8], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "prior", [GaussianMixture(4), Vamp(4)], ids=["mixture", "vamp"]
)
def test_the_component_and_its_noise_are_drawn_independently(prior):
    """Four far components: within each, what is left of z is standard normal."""
    mean, logvar = 40.0 * jnp.arange(4.0)[:, None] * jnp.ones(2), jnp.full((4, 2), 2.0)
    params = {"mean": mean, "logvar": logvar, "log_weight": jnp.zeros(4), "x": mean}
    keys = sample_keys(KEY, 4000)
    z = np.asarray(prior.sample(params, keys, (2,), lambda x: (x, logvar)))
    component = np.rint(z / 40).astype(int)
    assert np.all(component[:, 0] == component[:, 1])
    counts = np.bincount(component[:, 0], minlength=4)
    assert stats.chisquare(counts).pvalue > 1e-3
    for k in range(4):
        left = (z[component[:, 0] == k] - 40 * k) / math.e
        assert all(stats.kstest(left[:, d], "norm").pvalue > 1e-3 for d in (0, 1))


def test_total_correlation_is_that_of_the_batchs_aggregate_posterior():
    """KL(q(z) ‖ q(z₁) q(z₂)) by a grid, of a mixture of three posteriors."""
    mean = jnp.array([[-1.0, -1.0], [0.5, 0.5], [1.0, 2.0]])
    logvar = jnp.array([[-1.0, 0.0], [0.0, -2.0], [-0.5, -1.0]])
    side = np.linspace(-6, 6, 241)
    own = stats.norm.pdf(side[:, None, None], mean, np.exp(logvar / 2))  # [S, 3, D]
    joint = np.einsum("ik,jk->ij", own[:, :, 0], own[:, :, 1]) / 3
    apart = np.multiply.outer(*own.mean(1).T)
    exact = np.sum(joint * np.log(joint / apart)) * (side[1] - side[0]) ** 2
    noise = jax.random.normal(KEY, (4000, 3, 2))
    found = jax.vmap(
        lambda e: total_correlation(mean + jnp.exp(logvar / 2) * e, mean, logvar)
    )
    found = np.asarray(found(noise))
    assert abs(found.mean() - exact) < 4 * found.std() / math.sqrt(4000)
    assert exact > 0.1


def test_a_mixture_is_scipys(float64):
    draw = np.random.default_rng(0)
    mean, logvar = draw.normal(size=(2, 3, 2))
    z, weight = draw.normal(size=(5, 2)), draw.normal(size=3)
    each = [
        np.log(w) + stats.multivariate_normal(m, np.diag(np.exp(s))).logpdf(z)
        for m, s, w in zip(
            mean, logvar, np.exp(weight) / np.exp(weight).sum(), strict=True
        )
    ]
    expected = np.logaddexp.reduce(each, axis=0)
    close(mixture_log_prob(*map(jnp.asarray, (z, mean, logvar, weight))), expected)


def test_a_vamp_prior_of_all_data_is_the_aggregate_posterior(float64):
    data = jax.random.normal(KEY, (6, 3))
    z, (mean, logvar) = jax.random.normal(KEY, (4, 2)), posterior(data)
    each = [
        per_example(normal_log_prob(z, m[None] + 0 * z, s[None] + 0 * z))
        for m, s in zip(mean, logvar, strict=True)
    ]
    expected = np.logaddexp.reduce(np.array(each), axis=0) - math.log(6)
    close(Vamp(6).log_prob({"x": data}, z, posterior), expected)


# ------------------------------------------------------------- in a VAE

PAIR = (1, 2, 1)
BATCH = {"image": np.array([[0, 1], [2, 2], [1, 0]], np.uint8).reshape(-1, *PAIR)}


def vae(latent=2, **values):
    nets = MLPEncoder(latent, (8,)), MLPDecoder(PAIR, (8,))
    return VAE(*nets, Binomial(3), Images(PAIR, 3), latent, **values)


def changed(**values):
    """A VAE with these values, its parameters scrambled, and a loss of them."""
    model = vae(**values)
    return model, scrambled(jax.jit(model.init)(KEY)[0], 0.12)


def test_an_identity_flow_is_the_plain_elbo_bit_for_bit():
    plain = vae()
    params = jax.jit(plain.init)(KEY)[0]
    for values in (
        {"prior": FlowPrior(AffineCouplings(2, (8,)))},
        {"flow": AutoregressiveFlow(2, (8,))},
    ):
        model = vae(**values)
        more = jax.jit(model.init)(KEY)[0]
        more = {"vae": {**more["vae"], **params["vae"]}}
        for key in jax.random.split(KEY, 3):
            expected = jax.jit(plain.loss)(params, {}, BATCH, key)[0]
            assert jax.jit(model.loss)(more, {}, BATCH, key)[0] == expected


@pytest.mark.parametrize(
    "values",
    [
        {"prior": GaussianMixture(3)},
        {"prior": Vamp(3, 1.0)},
        {"prior": FlowPrior(AffineCouplings(4, (8,)))},
        {"flow": AffineCouplings(2, (8,))},
        {"prior": GaussianMixture(2), "flow": AutoregressiveFlow(2, (8,))},
    ],
    ids=lambda values: "-".join(type(v).__name__ for v in values.values()),
)
def test_importance_weights_have_the_evidence_as_their_mean(values):
    """E_q w = p(x) = ∫ p(x|z) p(z) dz, both on grids, for any prior and posterior."""
    model, params = changed(**values)
    own = params["vae"].get("prior", {})
    z = plane(8.0, 161)
    log_prior = model.prior.log_prob(own, z, lambda x: model.encode(params, x, {}))

    @jax.jit
    def both(image):
        batch = {"image": jnp.broadcast_to(image, (len(z), *PAIR))}
        log_prob = model.log_prob_given(params, batch, KEY)
        noise = plane(16.0, 161)
        mean, logvar = model.posterior(params, batch)
        latent = model.latents(params, mean, logvar)
        log_w = log_weight(log_prob, mean, logvar, noise, latent)
        log_q = per_example(normal_log_prob(noise, 0.0, 0.0))
        areas = 2 * math.log(16.0 / 160), 2 * math.log(32.0 / 160)
        evidence = jax.nn.logsumexp(log_prob(z) + log_prior) + areas[0]
        return evidence, jax.nn.logsumexp(log_w + log_q) + areas[1]

    found = np.array([both(image) for image in BATCH["image"]])
    np.testing.assert_allclose(found[:, 1], found[:, 0], atol=2e-3)
    keys = jax.random.split(KEY, 2000)
    losses = jax.jit(jax.vmap(lambda key: model.loss(params, {}, BATCH, key)[0]))
    weights = jax.jit(jax.vmap(lambda k: model.log_likelihood(params, {}, BATCH, k)))
    bound, same = -np.asarray(losses(keys)), np.mean(weights(keys), axis=1)
    error = np.hypot(np.std(bound), np.std(same)) / math.sqrt(len(keys))
    assert abs(np.mean(bound) - np.mean(same)) < 4 * error  # the ELBO is E log w
    assert np.mean(bound) < np.mean(found[:, 0]) + 4 * error
    shown = jax.jit(lambda key: model.sample(params, {}, key, 5))(KEY)
    assert shown.shape == (5, *PAIR) and np.all(np.isfinite(shown))


def plane(most, num):
    """A grid of the square [-most, most]², [num², 2]."""
    side = jnp.linspace(-most, most, num)
    return jnp.stack(jnp.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)


def test_the_doubly_reparameterised_gradient_is_iwaes_with_less_variance():
    """On a Gaussian: z ~ N(μ, s²) for p(x|z) = N(x; z, 1), 8 draws, many keys."""
    x, draws = jnp.array([1.5]), 8

    def log_weights(z, moving, stopped):
        expected = normal_log_prob(jnp.broadcast_to(x, z.shape), z, 0.0 * z)
        prior = normal_log_prob(z, moving + 0.0 * z, 0.0 * z)
        mean, logvar = stopped
        own = normal_log_prob(z, mean + 0.0 * z, logvar + 0.0 * z)
        return jnp.sum(expected + prior - own, axis=-1)

    def naive(gaussian, moving, noise):
        mean, logvar = gaussian
        z = mean + jnp.exp(0.5 * logvar) * noise
        return iwae_bound(log_weights(z, moving, gaussian))[0]

    def doubly(gaussian, moving, noise):
        mean, logvar = gaussian
        stopped = jax.lax.stop_gradient(gaussian)
        z = mean + jnp.exp(0.5 * logvar) * noise
        f = partial(log_weights, stopped=stopped)
        return doubly_reparameterized(f, z, moving)[0]

    gaussian = jnp.array([0.2]), jnp.array([-0.5])
    noise = jax.random.normal(KEY, (20_000, draws, 1, 1))

    def gradients(f):
        return jax.jit(jax.vmap(jax.grad(f, (0, 1)), (None, None, 0)))(
            gaussian, jnp.array(0.1), noise
        )

    ((m1, v1), p1), ((m2, v2), p2) = gradients(naive), gradients(doubly)
    np.testing.assert_allclose(p1, p2, rtol=1e-3, atol=1e-4)  # the model's: the same
    for plain, better in ((m1, m2), (v1, v2)):
        error = np.hypot(np.std(plain), np.std(better)) / math.sqrt(len(noise))
        assert abs(np.mean(plain) - np.mean(better)) < 4 * error
        assert np.std(better) < 0.7 * np.std(plain)
        assert abs(np.mean(better)) > 10 * error  # there is something to estimate


def test_iwae_in_training_is_the_bound_it_reports():
    model, params = changed(objective=IWAE(5), importance_samples=5)
    keys = jax.random.split(KEY, 2000)
    losses = jax.jit(jax.vmap(lambda k: model.loss(params, {}, BATCH, k)[0]))(keys)
    bound = jax.jit(
        jax.vmap(lambda k: jnp.mean(model.log_likelihood(params, {}, BATCH, k)))
    )(keys)
    error = np.hypot(np.std(losses), np.std(bound)) / math.sqrt(len(keys))
    assert abs(np.mean(losses) + np.mean(bound)) < 4 * error
    grads = jax.grad(lambda p: model.loss(p, {}, BATCH, KEY)[0])(params)
    assert all(np.any(np.asarray(g) != 0) for g in jax.tree.leaves(grads))


def test_iwae_gives_the_encoder_the_gradient_of_its_bound():
    """Also through what a flow reads of the encoder, which must not be stopped."""
    values = {"flow": AffineCouplings(2, (8,)), "importance_samples": 3}
    model, params = changed(objective=IWAE(3), **values)

    def plain(params, key):
        return -jnp.mean(model.log_likelihood(params, {}, BATCH, key))

    def ours(params, key):
        return model.loss(params, {}, BATCH, key)[0]

    keys = jax.random.split(KEY, 3000)

    def gradients(f):
        each = jax.jit(jax.vmap(jax.grad(f), (None, 0)))(params, keys)
        return jax.tree.leaves(each["vae"]["encoder"])

    for one, two in zip(gradients(plain), gradients(ours), strict=True):
        error = np.hypot(np.std(one, axis=0), np.std(two, axis=0)) / math.sqrt(
            len(keys)
        )
        gap = np.abs(np.mean(one, axis=0) - np.mean(two, axis=0))
        assert np.mean(gap / (error + 1e-9)) < 1.5  # 0.8 by chance
        assert np.max(gap / (error + 1e-9)) < 6


def test_codes_are_those_that_the_decoder_reads():
    model, params = changed(flow=AffineCouplings(2, (8,)))
    x = model.space.read(BATCH)
    mean, _ = model.posterior(params, BATCH)
    z = model.to_latent(params, {}, x)
    assert not np.allclose(z, mean, atol=0.05)
    close(z, model.features(params, {}, BATCH, KEY), 1e-5, 1e-5)
    shown = model.from_latent(params, {}, z)
    close(shown, model.reconstruct(params, {}, BATCH, KEY), 1e-5, 1e-5)


def test_latent_of_a_model_draws_that_models_latents():
    inner = vae(prior=GaussianMixture(2))
    inner = replace(inner, space=Reals(PAIR), observation=Gaussian())
    params = scrambled(inner.init(KEY)[0])
    model = Latent(inner, Identity())
    keys = sample_keys(KEY, 3)
    close(model.sample_latent(params, {}, keys), inner.sample_latent(params, {}, keys))


@static
class Identity:
    """An autoencoder that does nothing."""

    space: Images = Images(PAIR, 3)
    latent_shape: tuple = PAIR

    def to_latent(self, params, state, x):
        return x

    def from_latent(self, params, state, z):
        return z


def test_free_nats_cost_nothing_and_have_no_gradient():
    _, params = changed()
    free = vae(objective=ELBO(free_nats=100.0))
    value, (_, seen) = free.loss(params, {}, BATCH, KEY)
    close(value, seen["reconstruction"] + 100.0, 1e-5, 1e-5)
    slope = jax.grad(lambda p: free.loss(p, {}, BATCH, KEY)[0])(params)
    alone = jax.grad(lambda p: vae(objective=ELBO(0.0)).loss(p, {}, BATCH, KEY)[0])
    jax.tree.map(lambda a, b: close(a, b, 1e-4, 1e-5), slope, alone(params))
    half = vae(objective=ELBO(0.5, free_nats=100.0)).loss(params, {}, BATCH, KEY)[0]
    close(half, seen["reconstruction"] + 50.0, 1e-5, 1e-5)
    enough = vae(objective=ELBO(free_nats=1e-3))
    close(
        enough.loss(params, {}, BATCH, KEY)[0],
        vae().loss(params, {}, BATCH, KEY)[0],
        1e-5,
        1e-5,
    )


def test_total_correlation_is_weighed():
    _, params = changed()
    model = vae(objective=ELBO(total_correlation=3.0))
    value, (_, seen) = model.loss(params, {}, BATCH, KEY)
    plain = vae().loss(params, {}, BATCH, KEY)[0]
    close(value, plain + 3.0 * seen["total_correlation"], 1e-5, 1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: vae(importance_samples=0), "at least 1 draw"),
        (lambda: IWAE(1), "at least 2 draws"),
        (lambda: ELBO(free_nats=-1.0), "free_nats=-1.0"),
        (lambda: GaussianMixture(0), "components=0"),
        (
            lambda: vae(
                objective=ELBO(total_correlation=1.0), flow=AutoregressiveFlow()
            ),
            "total correlation",
        ),
        (
            lambda: FlowPrior(AffineCouplings(2, [8])),
            "AffineCouplings.* no arrays|lists",
        ),
        (lambda: vae(latent=[2]), "in the place of lists"),
        (lambda: vae(prior=Vamp(2), flow=AutoregressiveFlow()), "Vamp"),
        (lambda: replace(vae(), prior=Vamp(2), condition=Labels(3)), "condition"),
    ],
)
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(BadInput, match=words):
        make()


def test_bare_programs_draw_what_the_models_draw():
    """Also of three channels, whose features are cut, and of real numbers."""
    shape = (2, 2, 3)
    nets = MLPEncoder(2, (4,)), MLPDecoder((2, 2, 6), (4,))
    head = DiscretizedLogistic(5)
    colours = VAE(*nets, head, Images(shape, 5), 2)
    params = scrambled(jax.jit(colours.init)(KEY)[0], 1.0)
    x = reference(colours, 4).bare(params, {}, KEY)
    z = jax.random.normal(jax.random.split(KEY)[0], (4, 2))
    close(x, colours.from_latent(params, {}, z), 1e-5, 1e-5)
    reals = NormalizingFlow(AffineCouplings(2, (4,)), Reals((2,)))
    params = scrambled(jax.jit(reals.init)(KEY)[0])
    u = jax.random.normal(jax.random.split(KEY)[0], (4, 2))
    x = reference(reals, 4).bare(params, {}, KEY)
    close(x, reals.from_latent(params, {}, u), 1e-5, 1e-5)


# ------------------------------------------------------------- the evidence

W = jnp.array([[1.0, -0.5], [0.3, 2.0], [0.7, 0.7]])


def test_rate_and_distortion_are_the_two_terms_of_the_bound():
    for values in ({}, {"prior": GaussianMixture(2), "flow": AffineCouplings(2, (8,))}):
        model, params = changed(**values)
        terms = jax.jit(partial(rate_and_distortion, model))(params, {}, BATCH, KEY)
        value, (_, seen) = jax.jit(model.loss)(params, {}, BATCH, KEY)
        close(np.mean(terms[0]), seen["kl"], 1e-5, 1e-5)
        close(np.mean(terms[0] + terms[1]), value, 1e-5, 1e-5)


def test_completions_are_draws_of_the_exact_conditional():
    """x = W z + b + noise: of x₀ seen, x₁ and x₂ are Gaussian with known moments."""
    nets = MLPEncoder(2, ()), MLPDecoder((3,), ())
    model = VAE(*nets, Gaussian(), Reals((3,), 1.0, 2.0), 2)
    b, log_s = jnp.array([0.3, -0.2, 0.1]), math.log(0.5)
    own = model.init(KEY)[0]["vae"]
    own |= {"decoder": {"Dense_0": {"kernel": W.T, "bias": b}}}
    params = {"vae": {**own, "likelihood": {"log_scale": jnp.float32(log_s)}}}
    num, seen = 3000, 2.4
    batch = {"latent": jnp.full((num, 3), jnp.array([1.0 + 2.0 * seen, 9.0, -9.0]))}
    mask = np.array([True, False, False])
    complete = partial(model.complete, params, {}, moves=20, particles=4)
    x, effective = jax.jit(lambda key: complete(key, batch, mask))(KEY)
    x = np.asarray(x, np.float64)
    close(x[:, 0], np.full(num, seen), 1e-6, 1e-6)
    cov = np.asarray(W @ W.T) + 0.25 * np.eye(3)
    mean = b[1:] + cov[1:, 0] / cov[0, 0] * (seen - b[0])
    rest = cov[1:, 1:] - np.outer(cov[1:, 0], cov[0, 1:]) / cov[0, 0]
    error = np.sqrt(np.diag(rest) / num)
    assert np.all(np.abs(x[:, 1:].mean(0) - mean) < 4 * error)
    found = np.cov(x[:, 1:].T)
    spread = np.sqrt((rest**2 + np.outer(np.diag(rest), np.diag(rest))) / num)
    assert np.all(np.abs(found - rest) < 4 * spread)
    assert np.all((effective >= 1) & (effective <= 4.001))


@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_annealing_finds_the_exact_evidence(start, float64):
    """x = W z + noise: log N(x; 0, W Wᵀ + s² I), from the prior and from a wrong q."""
    x, s = jax.random.normal(KEY, (4, 3)) * 1.5, 0.5
    exact = stats.multivariate_normal(np.zeros(3), W @ W.T + s**2 * np.eye(3))
    mean, logvar = (0.0, 0.0) if start == "prior" else (0.4, -0.5)

    def log_start(z):
        return per_example(normal_log_prob(z, mean, logvar))

    def log_joint(z):
        given = per_example(normal_log_prob(x, z @ W.T, 2 * math.log(s)))
        return given + per_example(normal_log_prob(z, 0.0, 0.0))

    @jax.jit
    @jax.vmap
    def chain(key):
        def draw(key):
            return mean + math.exp(logvar / 2) * jax.random.normal(key, (4, 2))

        return annealed(key, draw, log_start, log_joint, temperatures(60), 5)

    _, log_w, accepted = chain(jax.random.split(KEY, 400))
    weight = np.exp(log_w - exact.logpdf(x))  # unbiased: its mean is 1
    assert np.all(np.abs(weight.mean(0) - 1) < 4 * weight.std(0) / 20)
    assert np.all(weight.std(0) < 1.5) and np.all(accepted > 0.4)
    simple = jax.vmap(lambda z: log_joint(z) - log_start(z))
    draws = mean + math.exp(logvar / 2) * jax.random.normal(KEY, (400, 4, 2))
    assert np.mean(log_w) > np.mean(simple(draws)) + 1.0  # what one jump would give


def test_annealing_is_unbiased_where_step_sizes_would_betray_it():
    """A wide and a narrow Gaussian: a chain that adapted as it went would be biased."""

    def log_start(z):
        return per_example(normal_log_prob(z, 0.0, 2 * math.log(3.0)))

    def log_joint(z):
        each = [normal_log_prob(z[:, 0], m, 2 * math.log(s)) for m, s in TWO]
        return jax.nn.logsumexp(jnp.stack(each), axis=0) - math.log(2)

    def draw(key):
        return 3.0 * jax.random.normal(key, (20_000, 1))

    run = partial(annealed, leapfrogs=3, step_size=0.3)
    _, log_w, _ = jax.jit(
        lambda key: run(key, draw, log_start, log_joint, temperatures(40))
    )(KEY)
    weight = np.exp(np.asarray(log_w, np.float64))
    assert abs(weight.mean() - 1) < 4 * weight.std() / math.sqrt(len(weight))


TWO = ((-2.0, 1.0), (3.0, 0.05))
