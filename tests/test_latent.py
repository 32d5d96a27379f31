"""Priors, flows and objectives of models with latents, against closed forms."""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import close
from quick_keys import quick_key
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

KEY = quick_key(3)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


FLOWS = [AffineCouplings(4, (16,)), AutoregressiveFlow(2, (16,))]
FLOWS += [AutoregressiveFlow(1, ())]
named = pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: type(flow).__name__)


def scrambled(tree, size=0.4):
    """Parameters away from their first values."""
    rng = np.random.default_rng(0)

    def change(x):
        noise = size * rng.normal(size=x.shape)
        return (np.asarray(x) + noise).astype(x.dtype)

    return jax.device_put(jax.tree.map(change, tree))


# ------------------------------------------------------------- flows


@named
@pytest.mark.parametrize("width", [0, 3])
def test_flows_invert_and_their_log_determinant_is_autodiffs(flow, width, float64):
    draw = np.random.default_rng(0)
    z, h = draw.normal(size=(5, 4)), draw.normal(size=(5, width)) if width else None

    @jax.jit
    def at(params):
        def one(z, h):
            return flow.apply(params, z[None], None if h is None else h[None])[0][0]

        u, log_det = flow.apply(params, z, h)
        back = flow.apply(params, u, h, reverse=True)
        moved = flow.apply(params, z, h + 1.0)[0] if width else None
        return u, log_det, back, jax.vmap(jax.jacfwd(one))(z, h), moved

    first = jax.jit(flow.init)(KEY, z, h)
    u, log_det, *_ = at(first)
    close(u, z), close(log_det, np.zeros(5))  # the identity at first
    u, log_det, (back, log_det_back), jacobians, moved = at(scrambled(first))
    close(back, z, 1e-9, 1e-9), close(log_det_back, -log_det, 1e-9, 1e-9)
    assert not np.allclose(u, z, atol=0.1)
    close(np.linalg.slogdet(jacobians)[1], log_det, 1e-9, 1e-9)
    if width:
        assert not np.allclose(moved, u, atol=1e-3)


def test_each_layer_of_an_autoregressive_flow_is_triangular(float64):
    flow, z = AutoregressiveFlow(1, (16, 16)), np.linspace(-1, 1, 5)
    params = scrambled(jax.jit(flow.init)(KEY, z[None]))
    jacobian = jax.jit(jax.jacfwd(lambda z: flow.apply(params, z[None])[0][0]))(z)
    jacobian = np.asarray(jacobian)
    close(np.triu(jacobian, 1), np.zeros((5, 5)))
    assert np.all(np.abs(jacobian[np.tril_indices(5)]) > 1e-6)


def test_maps_of_latents_keep_their_shape():
    z = np.zeros((2, 4, 4, 3), np.float32)
    make = AffineCouplings(2, (8,)).init_with_output
    u, log_det = jax.eval_shape(make, KEY, z)[0]
    assert u.shape == z.shape and log_det.shape == (2,)


# ------------------------------------------------------------- priors


def posterior(x):
    """An encoder that needs no network."""
    return jnp.tanh(x[:, :2]), -1.0 + 0.3 * x[:, 1:]


PRIORS = [UnitGaussian(), GaussianMixture(3), Vamp(4, 1.0)]
PRIORS += [FlowPrior(AffineCouplings(4, (16,)))]
X = np.zeros((1, 3), np.float32)


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: type(prior).__name__)
def test_priors_integrate_to_one_and_are_sampled_as_they_say(prior):
    z = np.zeros((1, 2), np.float32)
    params = scrambled(jax.jit(prior.init)(KEY, z, X), 0.25)
    side = np.linspace(-7.0, 7.0, 281)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    log_p = jax.jit(lambda z: prior.log_prob(params, z, posterior))
    p = np.exp(np.asarray(log_p(grid.astype(np.float32)))).reshape(281, 281)
    area = (side[1] - side[0]) ** 2
    assert p.sum() * area == pytest.approx(1.0, abs=2e-3)
    num = 4000
    draw = jax.jit(lambda keys: prior.sample(params, keys, (2,), posterior))
    keys = jax.jit(sample_keys, static_argnums=1)(KEY, num)
    drawn = np.asarray(draw(keys))
    for d in range(2):  # each coordinate against the grid's marginal
        mass = p.sum(1 - d) * area
        uniform = np.interp(drawn[:, d], side + (side[1] - side[0]) / 2, mass.cumsum())
        assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    # Sample i is of (key, i).
    own = draw(jax.jit(partial(sample_keys, KEY, num))(5))
    np.testing.assert_allclose(own[:-5], drawn[5:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "prior", [GaussianMixture(4), Vamp(4)], ids=["mixture", "vamp"]
)
def test_the_component_and_its_noise_are_drawn_independently(prior):
    """Four far components: within each, what is left of z is standard normal."""
    mean = np.float32(40.0) * np.arange(4, dtype=np.float32)[:, None] * np.ones(2, "f4")
    logvar, weight = np.full((4, 2), 2.0, np.float32), np.zeros(4, np.float32)
    params = {"mean": mean, "logvar": logvar, "log_weight": weight, "x": mean}

    @jax.jit
    def draw(params, logvar):
        keys = sample_keys(KEY, 4000)
        return prior.sample(params, keys, (2,), lambda x: (x, logvar))

    z = np.asarray(draw(params, logvar))
    component = np.rint(z / 40).astype(int)
    assert np.all(component[:, 0] == component[:, 1])
    counts = np.bincount(component[:, 0], minlength=4)
    assert stats.chisquare(counts).pvalue > 1e-3
    for k in range(4):
        left = (z[component[:, 0] == k] - 40 * k) / math.e
        assert all(stats.kstest(left[:, d], "norm").pvalue > 1e-3 for d in (0, 1))


def test_total_correlation_is_that_of_the_batchs_aggregate_posterior():
    """KL(q(z) ‖ q(z₁) q(z₂)) by a grid, of a mixture of three posteriors."""
    mean = np.array([[-1.0, -1.0], [0.5, 0.5], [1.0, 2.0]])
    logvar = np.array([[-1.0, 0.0], [0.0, -2.0], [-0.5, -1.0]])
    side = np.linspace(-6, 6, 241)
    own = stats.norm.pdf(side[:, None, None], mean, np.exp(logvar / 2))  # [S, 3, D]
    joint = np.einsum("ik,jk->ij", own[:, :, 0], own[:, :, 1]) / 3
    apart = np.multiply.outer(*own.mean(1).T)
    exact = np.sum(joint * np.log(joint / apart)) * (side[1] - side[0]) ** 2
    noise = np.random.default_rng(0).normal(size=(4000, 3, 2))
    z = mean + np.exp(logvar / 2) * noise
    each = jax.jit(jax.vmap(lambda z: total_correlation(z, mean, logvar)))
    found = np.asarray(each(z))
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
    close(jax.jit(mixture_log_prob)(z, mean, logvar, weight), expected)


def test_a_vamp_prior_of_all_data_is_the_aggregate_posterior(float64):
    draw = np.random.default_rng(0)
    data, z = draw.normal(size=(6, 3)), draw.normal(size=(4, 2))
    mean, logvar = jax.jit(posterior)(data)
    each = stats.norm.logpdf(z[:, None], mean, np.exp(np.asarray(logvar) / 2)).sum(-1)
    expected = np.logaddexp.reduce(each, axis=1) - math.log(6)
    found = jax.jit(lambda z: Vamp(6).log_prob({"x": data}, z, posterior))(z)
    close(found, expected)


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
    keys = jax.random.split(KEY, 3)
    for values in (
        {"prior": FlowPrior(AffineCouplings(2, (8,)))},
        {"flow": AutoregressiveFlow(2, (8,))},
    ):
        model = vae(**values)
        more = jax.jit(model.init)(KEY)[0]
        more = {"vae": {**more["vae"], **params["vae"]}}
        pairs = (plain, params), (model, more)
        for key in keys:
            one, other = (jax.jit(m.loss)(p, {}, BATCH, key)[0] for m, p in pairs)
            assert one == other


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

    @jax.jit
    def both(image):
        log_prior = model.prior.log_prob(own, z, lambda x: model.encode(params, x, {}))
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

    @jax.jit
    def estimates(params):
        def each(key):
            log_p = model.log_likelihood(params, {}, BATCH, key)
            return -model.loss(params, {}, BATCH, key)[0], jnp.mean(log_p)

        shown = model.sample(params, {}, KEY, 5)
        return jax.vmap(each)(jax.random.split(KEY, 2000)), shown

    (bound, same), shown = jax.device_get(estimates(params))
    error = np.hypot(np.std(bound), np.std(same)) / math.sqrt(len(bound))
    assert abs(np.mean(bound) - np.mean(same)) < 4 * error  # the ELBO is E log w
    assert np.mean(bound) < np.mean(found[:, 0]) + 4 * error
    assert shown.shape == (5, *PAIR) and np.all(np.isfinite(shown))


def plane(most, num):
    """A grid of the square [-most, most]², [num², 2]."""
    side = np.linspace(-most, most, num, dtype=np.float32)
    return np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)


def test_the_doubly_reparameterised_gradient_is_iwaes_with_less_variance():
    """On a Gaussian: z ~ N(μ, s²) for p(x|z) = N(x; z, 1), 8 draws, many keys."""
    x, draws = np.array([1.5], np.float32), 8

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

    gaussian = np.array([0.2], np.float32), np.array([-0.5], np.float32)
    noise = np.random.default_rng(0).normal(size=(20_000, draws, 1, 1)).astype("f4")

    def gradients(f):
        return jax.jit(jax.vmap(jax.grad(f, (0, 1)), (None, None, 0)))(
            gaussian, np.float32(0.1), noise
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

    @jax.jit
    def estimates(params):
        def each(key):
            log_p = model.log_likelihood(params, {}, BATCH, key)
            return model.loss(params, {}, BATCH, key)[0], jnp.mean(log_p)

        slope = jax.grad(lambda p: model.loss(p, {}, BATCH, KEY)[0])(params)
        return *jax.vmap(each)(jax.random.split(KEY, 2000)), slope

    losses, bound, slope = jax.device_get(estimates(params))
    error = np.hypot(np.std(losses), np.std(bound)) / math.sqrt(len(losses))
    assert abs(np.mean(losses) + np.mean(bound)) < 4 * error
    assert all(np.any(g != 0) for g in jax.tree.leaves(slope))


def test_iwae_gives_the_encoder_the_gradient_of_its_bound():
    """Also through what a flow reads of the encoder, which must not be stopped."""
    values = {"flow": AffineCouplings(2, (8,)), "importance_samples": 3}
    model, params = changed(objective=IWAE(3), **values)

    def plain(params, key):
        return -jnp.mean(model.log_likelihood(params, {}, BATCH, key))

    def ours(params, key):
        return model.loss(params, {}, BATCH, key)[0]

    keys = jax.random.split(KEY, 6000)

    def gradients(f):
        each = jax.jit(jax.vmap(jax.grad(f), (None, 0)))(params, keys)
        return jax.tree.leaves(each["vae"]["encoder"])

    one, two = (
        np.concatenate([x.reshape(len(keys), -1) for x in gradients(f)], axis=1)
        for f in (plain, ours)
    )
    error = np.hypot(one.std(axis=0), two.std(axis=0)) / math.sqrt(len(keys))
    gaps = np.abs(one.mean(axis=0) - two.mean(axis=0)) / (error + 1e-9)
    assert np.mean(gaps) < 1.5 and np.max(gaps) < 6  # 0.8 by chance


def test_codes_are_those_that_the_decoder_reads():
    model, params = changed(flow=AffineCouplings(2, (8,)))

    @jax.jit
    def everything(params):
        z = model.to_latent(params, {}, model.space.read(BATCH))
        codes = z, model.features(params, {}, BATCH, KEY)
        shown = model.from_latent(params, {}, z)
        images = shown, model.reconstruct(params, {}, BATCH, KEY)
        return model.posterior(params, BATCH)[0], codes, images

    mean, codes, images = everything(params)
    assert not np.allclose(codes[0], mean, atol=0.05)
    close(*codes, 1e-5, 1e-5)
    close(*images, 1e-5, 1e-5)


def test_latent_of_a_model_draws_that_models_latents():
    inner = vae(prior=GaussianMixture(2))
    inner = replace(inner, space=Reals(PAIR), observation=Gaussian())
    params = scrambled(jax.jit(inner.init)(KEY)[0])
    model = Latent(inner, Identity())

    @jax.jit
    def both(params):
        keys = sample_keys(KEY, 3)
        return [m.sample_latent(params, {}, keys) for m in (model, inner)]

    close(*both(params))


@static
class Identity:
    """An autoencoder that does nothing."""

    space: Images = Images(PAIR, 3)
    latent_shape: tuple = PAIR

    def to_latent(self, params, state, x):
        return x

    def from_latent(self, params, state, z):
        return z


def test_free_nats_cost_nothing_and_have_no_gradient_and_correlation_is_weighed():
    _, params = changed()

    @jax.jit
    def everything(params):
        def loss(objective):
            of = jax.value_and_grad(vae(objective=objective).loss, has_aux=True)
            (value, (_, seen)), slope = of(params, {}, BATCH, KEY)
            return value, seen, slope

        kinds = ELBO(free_nats=100.0), ELBO(0.0), ELBO(0.5, free_nats=100.0)
        kinds += ELBO(free_nats=1e-3), ELBO(), ELBO(total_correlation=3.0)
        return [loss(objective) for objective in kinds]

    free, alone, half, enough, plain, correlated = jax.device_get(everything(params))
    value, seen, slope = free
    close(value, seen["reconstruction"] + 100.0, 1e-5, 1e-5)
    jax.tree.map(lambda a, b: close(a, b, 1e-4, 1e-5), slope, alone[2])
    close(half[0], seen["reconstruction"] + 50.0, 1e-5, 1e-5)
    close(enough[0], plain[0], 1e-5, 1e-5)
    # Total correlation is weighed.
    more = 3.0 * correlated[1]["total_correlation"]
    close(correlated[0], plain[0] + more, 1e-5, 1e-5)


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
    reals = NormalizingFlow(AffineCouplings(2, (4,)), Reals((2,)))
    own = scrambled(jax.jit(reals.init)(KEY)[0])

    @jax.jit
    def both(key):
        z = jax.random.normal(jax.random.split(key)[0], (4, 2))
        pairs = (colours, params), (reals, own)
        bare = [reference(model, 4).bare(p, {}, key) for model, p in pairs]
        return bare, [model.from_latent(p, {}, z) for model, p in pairs]

    for one, other in zip(*both(KEY), strict=True):
        close(one, other, 1e-5, 1e-5)


# ------------------------------------------------------------- the evidence

W = np.array([[1.0, -0.5], [0.3, 2.0], [0.7, 0.7]], np.float32)


def test_rate_and_distortion_are_the_two_terms_of_the_bound():
    for values in ({}, {"prior": GaussianMixture(2), "flow": AffineCouplings(2, (8,))}):
        model, params = changed(**values)

        @jax.jit
        def both(params, model=model):
            terms = rate_and_distortion(model, params, {}, BATCH, KEY)
            return terms, model.loss(params, {}, BATCH, KEY)

        terms, (value, (_, seen)) = jax.device_get(both(params))
        close(np.mean(terms[0]), seen["kl"], 1e-5, 1e-5)
        close(np.mean(terms[0] + terms[1]), value, 1e-5, 1e-5)


def test_completions_are_draws_of_the_exact_conditional():
    """x = W z + b + noise: of x₀ seen, x₁ and x₂ are Gaussian with known moments."""
    nets = MLPEncoder(2, ()), MLPDecoder((3,), ())
    model = VAE(*nets, Gaussian(), Reals((3,), 1.0, 2.0), 2)
    b, log_s = np.array([0.3, -0.2, 0.1], np.float32), math.log(0.5)
    own = jax.jit(model.init)(KEY)[0]["vae"]
    own |= {"decoder": {"Dense_0": {"kernel": W.T, "bias": b}}}
    params = {"vae": {**own, "likelihood": {"log_scale": np.float32(log_s)}}}
    num, seen = 3000, 2.4
    batch = {"latent": np.full((num, 3), [1.0 + 2.0 * seen, 9.0, -9.0], np.float32)}
    mask = np.array([True, False, False])
    complete = partial(model.complete, params, {}, moves=20, particles=4)
    x, effective = jax.jit(lambda key: complete(key, batch, mask))(KEY)
    x, effective = np.asarray(x, np.float64), np.asarray(effective)
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
    x, s = 1.5 * np.random.default_rng(0).normal(size=(4, 3)), 0.5
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
    simple = jax.jit(jax.vmap(lambda z: log_joint(z) - log_start(z)))
    noise = np.random.default_rng(1).normal(size=(400, 4, 2))
    draws = mean + math.exp(logvar / 2) * noise
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
