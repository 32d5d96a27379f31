"""The hierarchical VAE: exact on a Gaussian tree, and its networks' promises."""

from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import close
from scipy import stats

from gengen.conditions import Labels
from gengen.errors import BadInput
from gengen.models.hvae import HierarchicalVAE
from gengen.nets.ladder import Group, Ladder
from gengen.observations.gaussian import Gaussian
from gengen.observations.logistic_mixture import LogisticMixture
from gengen.observations.observation import outputs
from gengen.spaces import Images, Reals, Symbols

KEY = jax.random.key(6)
# z₁ ~ N(0.5, 1.2²), z₂ | z₁ ~ N(0.7 z₁, 0.9²), x | z ~ N(z₂, s²) with log s = -0.3.
A, S1, S2, S = 0.7, 1.2, 0.9, float(np.exp(-0.3))


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def conditional(mean, variance, x):
    """(mean, variance) of z ~ N(mean, variance) given x = z + N(0, x's variance)."""
    noise, value = x
    gain = variance / (variance + noise)
    return mean + gain * (value - mean), variance * (1 - gain)


class Tree(nn.Module):
    """The Gaussian tree with its exact posterior, as a ladder of two groups."""

    latent_shapes = ((1,), (1,))

    @nn.compact
    def __call__(self, x, noise, c=None, train=False):
        first = conditional(0.5, S1**2, ((S**2 + S2**2) / A**2, x / A))
        z1 = first[0] + jnp.sqrt(first[1]) * noise[0]
        second = conditional(A * z1, S2**2, (S**2, x))
        z2 = second[0] + jnp.sqrt(second[1]) * noise[1]

        def full(value, like):
            return jnp.broadcast_to(jnp.asarray(value, like.dtype), like.shape)

        groups = [
            Group(
                full(0.5, z1),
                full(2 * np.log(S1), z1),
                full(first[0], z1),
                full(jnp.log(first[1]), z1),
                z1,
            ),
            Group(
                A * z1,
                full(2 * np.log(S2), z2),
                full(second[0], z2),
                full(jnp.log(second[1]), z2),
                z2,
            ),
        ]
        return z2, groups

    def generate(self, noise, c=None):
        return A * (0.5 + S1 * noise[0]) + S2 * noise[1]


def tree_model():
    return HierarchicalVAE(Tree(), Gaussian(), Reals((1,)))


def test_exact_conditionals_on_a_gaussian_tree_have_the_exact_evidence(float64):
    x = np.random.default_rng(0).normal(size=(7, 1))
    params = {"hvae": {"net": {}, "likelihood": {"log_scale": jnp.log(S)}}}
    spread = np.sqrt(A**2 * S1**2 + S2**2 + S**2)
    evidence = stats.norm(0.5 * A, spread).logpdf(x[:, 0])
    for samples in (1, 4):
        model = replace(tree_model(), importance_samples=samples)
        found = jax.jit(model.log_likelihood)(params, {}, {"latent": x}, KEY)
        close(found, evidence, 1e-9, 1e-9)
    # The ELBO's noise is that of the expectations alone, whose mean is the evidence.
    losses = jax.jit(
        jax.vmap(lambda k: tree_model().loss(params, {}, {"latent": x}, k)[0])
    )
    values = np.asarray(losses(jax.random.split(KEY, 4000)))
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() + evidence.mean()) < 4 * error
    draw = jax.jit(
        lambda key: tree_model().sample(params, {}, key, 4000, sample_pixels=True)
    )
    drawn = draw(KEY)
    assert stats.kstest(drawn[:, 0], stats.norm(0.5 * A, spread).cdf).pvalue > 1e-3
    z = jax.random.normal(KEY, (3, 2))
    assert tree_model().from_latent(params, {}, z).shape == (3, 1)


SPACE = Images((8, 8, 1), 5)
MIXTURE = LogisticMixture(5, channels=1, components=2)


def small(condition=None, **values):
    more = {} if condition is None else {"condition": condition}
    shape = (8, 8, outputs(MIXTURE, 1))
    net = Ladder(shape, (2, 1), 2, 8, norm_groups=4, **more)
    return HierarchicalVAE(net, MIXTURE, SPACE, **more, **values)


BATCH = {
    "image": np.random.default_rng(0).integers(0, 5, (4, 8, 8, 1)).astype(np.uint8),
    "label": np.array([0, 1, 2, 1], np.int32),
}


def moved(tree, size=0.2):
    """Parameters away from their first values."""
    rng = np.random.default_rng(6)
    return jax.tree.map(
        lambda x: x + np.float32(size) * rng.normal(size=x.shape).astype(np.float32),
        tree,
    )


@pytest.fixture(scope="module")
def trained():
    model = small(Labels(3))
    return model, moved(jax.jit(model.init)(KEY)[0])


def test_groups_stand_at_two_resolutions_and_cost_little_at_first():
    model = small()
    assert model.net.latent_shapes == ((2, 2, 2), (2, 2, 2), (4, 4, 2))
    params = jax.jit(model.init)(KEY)[0]
    _, (_, seen) = jax.jit(model.loss)(params, {}, BATCH, KEY)
    close(seen["kl"], seen["kl_0"] + seen["kl_1"] + seen["kl_2"], 1e-5, 1e-6)
    assert 0.0 < seen["kl"] < 1.0 < 0.1 * seen["reconstruction"]


def test_latents_are_the_noise_of_the_prior(trained):
    model, params = trained
    label = {"label": BATCH["label"]}
    x = model.space.read(BATCH)
    z = jax.jit(model.to_latent)(params, {}, x, **label)
    assert z.shape == (4, model.latent_shape[0]) == (4, 48)
    shown = jax.jit(model.from_latent)(params, {}, z, **label)
    both = jax.jit(lambda *a: (model.reconstruct(*a), model.features(*a)))
    restored, features = both(params, {}, BATCH, KEY)
    close(shown, restored, 1e-4, 1e-4)
    close(z, features, 1e-4, 1e-4)


def test_everything_learns_and_every_group_matters(trained):
    model, params = trained
    grads = jax.jit(jax.grad(lambda p: model.loss(p, {}, BATCH, KEY)[0]))(params)
    for path, leaf in jax.tree_util.tree_flatten_with_path(grads)[0]:
        assert np.any(np.asarray(leaf) != 0), jax.tree_util.keystr(path)
    z = jax.random.normal(KEY, (1, 48))
    show = jax.jit(lambda z: model.from_latent(params, {}, z, label=1))
    for place in (0, 8, 16):
        other = z.at[:, place].add(3.0)
        assert not np.allclose(show(z), show(other), atol=1e-5)
    bound = jax.jit(replace(model, importance_samples=3).log_likelihood)
    assert np.all(np.isfinite(bound(params, {}, BATCH, KEY)))


def test_beta_weighs_the_kl_and_levels_have_a_volume(trained):
    model, params = trained
    values = [
        jax.jit(replace(model, beta=beta).loss)(params, {}, BATCH, KEY)
        for beta in (1.0, 3.0)
    ]
    kl = values[0][1][1]["kl"]
    close(values[1][0] - values[0][0], 2 * kl, 1e-3, 1e-3)
    # A density of x and one of 2 x differ by log 2 per number.
    x = np.random.default_rng(0).normal(size=(5, 1))
    own = {"hvae": {"net": {}, "likelihood": {"log_scale": jnp.float32(np.log(S))}}}
    wide = replace(tree_model(), space=Reals((1,), 0.0, 2.0))
    narrow = jax.jit(tree_model().log_likelihood)(own, {}, {"latent": x}, KEY)
    found = jax.jit(wide.log_likelihood)(own, {}, {"latent": 2 * x}, KEY)
    close(found, narrow - np.log(2), 1e-4, 1e-4)


def test_free_nats_are_of_each_group(trained):
    model, params = trained
    loss = jax.jit(replace(model, free_nats=1e4).loss)
    value, (_, seen) = loss(params, {}, BATCH, KEY)
    close(value, seen["reconstruction"] + 3e4, 1e-5, 1e-2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: small(importance_samples=0), "importance_samples=0"),
        (lambda: small(free_nats=-1.0), "free_nats=-1"),
        (lambda: HierarchicalVAE(Tree(), Gaussian(), Symbols((2,), 3)), "symbols"),
        (lambda: replace(small(), condition=Labels(3)), "conditioned on"),
        (lambda: replace(small(), space=Images((8, 8, 1), 7)), "levels"),
        (lambda: Ladder((6, 6, 1)).latent_shapes, "side of 6"),
    ],
)
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(BadInput, match=words):
        make()
