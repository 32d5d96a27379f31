"""What a GAN's critic sees and knows: norms, packs, classes, changes that adapt."""

from dataclasses import replace
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gengen.augment import Flip, Gated
from gengen.conditions import Labels, Nothing
from gengen.errors import BadInput
from gengen.losses.penalty import r1
from gengen.models.gan import GAN, Adaptive
from gengen.nets.critic import spectral
from gengen.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from gengen.nets.mlp import MLPCritic, MLPDecoder
from gengen.nets.normalization import batch_norm
from gengen.nets.resgan import ResNetDiscriminator, ResNetGenerator
from gengen.spaces import Images, Reals
from train.data.dataset import Spec
from train.experiments import EXPERIMENTS

KEY, TEN = jax.random.key(0), Labels(10)
POINTS = {"latent": np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2)}
DIGITS = Spec("digits", (8, 8, 1), 17, 10, tuple("0123456789"))
GRID = Spec("gaussians:grid", (2,), 0, 0, (), "reals", (0.0, 0.0), (1.0, 1.0))


def points_gan(condition=Nothing(), conditioning="projection", **values):
    nets = (
        MLPDecoder((2,), (4,), condition),
        MLPCritic((4,), condition, conditioning),
    )
    return GAN(*nets, Reals((2,)), 3, condition, **values)


# ---------------------------------------------------------------------- spectral norm


class Linear(nn.Module):
    """Layers whose product with the identity is the kernel that they use."""

    @nn.compact
    def __call__(self, x, image, train=True):
        dense = spectral(partial(nn.Dense, use_bias=False), True, train)
        conv = partial(nn.Conv, use_bias=False, padding="VALID")
        return dense(5)(x), spectral(conv, True, train)(3, (2, 2))(image)


def test_spectral_norm_divides_by_the_largest_singular_value():
    taps = jnp.eye(8).reshape(8, 2, 2, 2)  # each tap and channel of a 2×2 kernel
    variables = Linear().init(KEY, jnp.eye(4), taps)
    params, state = variables["params"], variables["batch_stats"]

    @jax.jit
    def call(state):
        weights = {"params": params, "batch_stats": state}
        used, new = Linear().apply(weights, jnp.eye(4), taps, mutable=["batch_stats"])
        return [x.reshape(-1, x.shape[-1]) for x in used], new["batch_stats"]

    for _ in range(60):
        used, state = call(state)
    for kernel, mine in zip(jax.tree.leaves(params)[::-1], used, strict=True):
        kernel = np.asarray(kernel).reshape(-1, kernel.shape[-1])
        expected = kernel / np.linalg.svd(kernel)[1][0]
        np.testing.assert_allclose(mine, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("net", "x"),
    [
        (MLPCritic((4,), spectral_norm=True, group=2), jnp.ones((4, 2))),
        (ResNetDiscriminator(4, 1, group=2), jnp.ones((4, 4, 4, 1))),
        (DCGANDiscriminator(4, 1, spectral_norm=True), jnp.ones((4, 4, 4, 1))),
    ],
)
def test_every_kernel_of_a_spectral_critic_is_normalised(net, x):
    shapes = jax.eval_shape(partial(net.init, KEY), x)
    kernels = [p for p in jax.tree.leaves(shapes["params"]) if p.ndim > 1]
    assert len(jax.tree.leaves(shapes["batch_stats"])) == 2 * len(kernels)


# -------------------------------------------------------------------------- conditions


def test_conditional_batch_norm_is_batch_norm_with_a_scale_and_bias_of_its_own():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, vector):
            return batch_norm(x, True, vector=vector)

    x = jax.random.normal(KEY, (6, 3, 3, 2))
    vector = jax.nn.one_hot(jnp.array([0, 0, 1, 1, 2, 2]), 3)
    variables = Net().init(KEY, x, vector)
    film = jax.random.normal(KEY, (3, 4))
    params = {"Dense_0": {"kernel": film}}
    variables = {**variables, "params": params}
    y, _ = Net().apply(variables, x, vector, mutable=["batch_stats"])
    normal = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    for label in range(3):
        rows = slice(2 * label, 2 * label + 2)
        expected = normal[rows] * (1 + film[label, :2]) + film[label, 2:]
        np.testing.assert_allclose(y[rows], expected, atol=1e-5)


@pytest.mark.parametrize("how", ["projection", "concatenation", "auxiliary"])
def test_a_label_enters_the_critic_or_is_read_off_by_it(how):
    net, x = MLPCritic((4,), TEN, how), jnp.ones((2, 3))
    label = {"label": jnp.array([1, 2])}
    params = net.init(KEY, x, label)["params"]
    logit, sown = net.apply({"params": params}, x, label, mutable="intermediates")
    assert (logit[0] == logit[1]) == (how == "auxiliary")
    assert ("classes" in sown["intermediates"]) == (how == "auxiliary")
    with pytest.raises(BadInput, match="enters a critic by projection, concat"):
        MLPCritic((4,), TEN, "attention").init(KEY, x, label)


@pytest.mark.parametrize("how", ["concatenation", "batch-norm"])
@pytest.mark.parametrize("kind", [DCGANGenerator, ResNetGenerator])
def test_a_label_enters_the_generator(kind, how):
    net = kind((4, 4, 1), 4, 1, TEN, conditioning=how)
    z, label = jnp.ones((2, 3)), {"label": jnp.array([1, 2])}
    image, _ = net.init_with_output(KEY, z, label)
    assert image.shape == (2, 4, 4, 1)
    assert np.any(image[0] != image[1])
    with pytest.raises(BadInput, match="enters a generator by concatenation or"):
        kind((4, 4, 1), 4, 1, TEN, conditioning="projection").init(KEY, z, label)


def test_an_auxiliary_classifier_pays_for_the_classes_it_cannot_tell():
    batch = {**POINTS, "label": np.arange(6, dtype=np.int32)}
    model = points_gan(TEN, "auxiliary", auxiliary=0.5)
    params, state = model.init(KEY, batch)
    nothing = jax.tree.map(jnp.zeros_like, params["discriminator"])
    params = {**params, "discriminator": nothing}
    state = {**state, "ema": params}
    critic, _ = model.play_discriminator(params, state, batch, KEY)
    generator, _ = model.play_generator(params, state, batch, KEY)
    np.testing.assert_allclose(critic, 2 * np.log(2) + np.log(10), rtol=1e-6)
    np.testing.assert_allclose(generator, np.log(2) + 0.5 * np.log(10), rtol=1e-6)


# ---------------------------------------------------------------------- what is seen


def test_a_pack_is_examples_side_by_side_in_the_channels():
    class Sum(nn.Module):
        @nn.compact
        def __call__(self, x, c=None, train=False):
            assert x.shape[1:] == (6,)
            return x @ self.param("w", nn.initializers.ones, (6,))

    model = replace(points_gan(packing=3), discriminator=Sum())
    params, state = model.init(KEY, POINTS)
    packed = model.seen(state, jnp.asarray(POINTS["latent"]), KEY)
    for row in range(2):
        together = POINTS["latent"][row::2].ravel()
        np.testing.assert_array_equal(packed[row], together)
    penalised = replace(model, penalties=(r1(2.0),))
    value, _ = penalised.penalty(params, state, POINTS, KEY)
    np.testing.assert_allclose(value, 6.0, rtol=1e-6)  # |w|² of a whole pack
    with pytest.raises(BadInput, match="packing=3 does not divide the batch of 4"):
        model.init(KEY, {"latent": POINTS["latent"][:4]})
    with pytest.raises(BadInput, match="packing=2 with a condition"):
        points_gan(TEN, packing=2)


def test_an_adaptive_probability_is_part_of_the_state_and_both_are_changed():
    space = Images((2, 2, 1), 17)
    nets = MLPDecoder((2, 2, 1), (4,)), MLPCritic(())
    model = GAN(*nets, space, 3, augment=Gated((Flip(),)), probability=Adaptive(0, 12))
    batch = {"image": np.arange(24, dtype=np.uint8).reshape(6, 2, 2, 1) % 17}
    params, state = model.init(KEY, batch)
    assert state["augment"]["p"] == 0
    # A critic that calls everything real is right on every real example.
    params["discriminator"]["Dense_0"]["bias"] = jnp.array([9.0])
    _, (new, seen) = model.play_discriminator(params, state, batch, KEY)
    assert new["augment"]["p"] == seen["augment"] == 0.5
    images = jnp.tile(jnp.array([0.0, 1.0]), (400, 2)).reshape(400, 2, 2, 1)
    mirrored = model.seen({"augment": {"p": jnp.float32(0.5)}}, images, KEY)
    share = np.mean(np.asarray(mirrored)[:, 0, 0, 0] == 1)
    assert abs(share - 0.25) < 0.08


# -------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"penalties": (r1(1.0),)}, "batch norm, which mixes them.*batch_norm=False"),
        ({"probability": Adaptive()}, "adaptive probability, and no augmentation"),
        ({"auxiliary": 1.0}, "auxiliary=1.0 without labels"),
    ],
)
def test_what_contradicts_itself_is_refused(values, words):
    nets = DCGANGenerator((4, 4, 1), 4, 1), DCGANDiscriminator(4, 1)
    with pytest.raises(BadInput, match=words):
        GAN(*nets, Images((4, 4, 1), 17), 3, **values)


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (DIGITS, {"regulariser": ("off", "r1")}, "name each once, and off alone"),
        (DIGITS, {"label_smoothing": 0.1}, "it has no label of one example"),
        (DIGITS, {"augment_target": 0.6}, "without augmentations to adapt"),
        (DIGITS, {"packing": 3, "conditional": False}, "--packing 3 does not divide"),
        (
            DIGITS,
            {"critic_augment": ("flip",), "instance_noise": 0.1},
            "take one of the two",
        ),
        (GRID, {"network": "dcgan"}, "gaussians:grid are points"),
        (GRID, {"critic_augment": ("flip",)}, "works on images"),
    ],
)
def test_options_that_contradict_each_other_are_refused(data, options, words):
    with pytest.raises(BadInput, match=words):
        EXPERIMENTS["gan"](data, **options)


LOSSES = {
    "relativistic": ("Relativistic", [("real", "fake")]),
    "nonsaturating": ("NonSaturating", [("real",)]),
    "minimax": ("Minimax", [("real",)]),
    "least-squares": ("LeastSquares", []),
    "hinge": ("Hinge", []),
    "wasserstein": ("Wasserstein", [("between",)]),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_comes_with_the_regularisers_it_was_published_with(loss):
    experiment = EXPERIMENTS["gan"](DIGITS, loss=loss, critic_turns=3)
    model, (name, at) = experiment.model, LOSSES[loss]
    assert type(model.game).__name__ == name
    assert [penalty.at for penalty in model.penalties] == at
    assert model.discriminator.batch_norm == (loss == "least-squares")
    assert model.discriminator.spectral_norm == (loss == "hinge")
    assert experiment.order == ("discriminator",) * 3 + ("generator",)


def test_the_players_have_their_own_rates_and_clipped_weights_stay_in_bounds():
    options = {"regulariser": ("clipping",), "generator_rate": 0.5}
    experiment = EXPERIMENTS["gan"](GRID, **options, learning_rate=0.25, b1=0.0)
    ones, moves = {"w": jnp.ones(2)}, {}
    for player, optimizer in experiment.optimizers.items():
        updates, _ = optimizer.update(ones, optimizer.init(ones), ones)
        moves[player] = float(updates["w"][0])
    assert moves == pytest.approx({"discriminator": -0.99, "generator": -0.5}, 1e-4)
