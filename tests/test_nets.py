"""Laws of `gengen.nets`: shapes, what depends on what, and errors that explain."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_keys import quick_key

from gengen.conditions import Labels, Nothing, Scalar, both
from gengen.errors import BadInput
from gengen.nets.attention import Attention
from gengen.nets.conditioning import Conditioning
from gengen.nets.conv import ConvDecoder, ConvEncoder
from gengen.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from gengen.nets.dit import DiT
from gengen.nets.layers import check_divisible, group_norm, time_embedding
from gengen.nets.mlp import MLPDecoder, MLPEncoder
from gengen.nets.unet import ResidualBlock, UNet

KEY = quick_key(0)
SHAPES = pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3)])


def randomised(net, *args, scale=0.5, **kwargs):
    """Variables of the net, every parameter from N(0, scale²), statistics of ones."""
    variables = jax.eval_shape(net.init, KEY, *args, **kwargs)
    rng = np.random.default_rng(0)

    def draw(leaf):
        return (scale * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), variables)
    return jax.device_put({**ones, "params": jax.tree.map(draw, variables["params"])})


def images(batch=2, shape=(8, 8, 1), seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, *shape)), "f4")


def output_shape(net, *args):
    out, _ = jax.eval_shape(net.init_with_output, KEY, *args)
    return jax.tree.map(lambda x: x.shape, out)


# ---------------------------------------------------------------- shapes

CONDITIONS = pytest.mark.parametrize(
    "condition", [Nothing(), Labels(3), both(Labels(3), Scalar("r"))], ids=str
)


@SHAPES
def test_encoders_give_mean_and_logvar_and_decoders_the_shape(shape):
    x, z = images(2, shape), jnp.zeros((2, 5))
    for net in (MLPEncoder(5, (7,)), ConvEncoder(5, channels=4, groups=4)):
        assert output_shape(net, x) == ((2, 5), (2, 5))
    wide = (*shape[:2], 2 * shape[2])  # mean and log-scale
    for net in (MLPDecoder(wide, (7,)), ConvDecoder(wide, channels=4, groups=4)):
        assert output_shape(net, z) == (2, *wide)


@SHAPES
@CONDITIONS
def test_dcgan_turns_latents_into_images_into_logits(shape, condition):
    c = condition.zeros(2)
    generator = DCGANGenerator(shape, 4, condition=condition)
    discriminator = DCGANDiscriminator(4, condition=condition)
    assert output_shape(generator, jnp.zeros((2, 5)), c) == (2, *shape)
    assert output_shape(discriminator, images(2, shape), c) == (2,)


@SHAPES
@CONDITIONS
def test_unet_keeps_the_shape(shape, condition):
    net, c = UNet(4, (1, 2, 2), condition=condition, groups=4), condition.zeros(2)
    assert output_shape(net, images(2, shape), jnp.zeros(2), c) == (2, *shape)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("net", "args"),
    [
        (ConvEncoder(2, channels=6, groups=4), (images(),)),
        (ConvDecoder((8, 8, 1), channels=6, groups=4), (jnp.zeros((2, 2)),)),
        (UNet(6, groups=4), (images(), jnp.zeros(2))),
    ],
)
def test_channels_that_are_no_multiple_of_the_groups_are_refused(net, args):
    with pytest.raises(BadInput, match="6 channels .* 4 groups: .* multiple of 4"):
        jax.eval_shape(net.init, KEY, *args)


@pytest.mark.parametrize(
    ("net", "args"),
    [
        (ConvEncoder(2), (images(2, (8, 6, 1)),)),
        (ConvDecoder((8, 6, 1)), (jnp.zeros((2, 2)),)),
        (DCGANGenerator((8, 6, 1), 4), (jnp.zeros((2, 2)),)),
        (DCGANDiscriminator(4), (images(2, (6, 8, 1)),)),
        (UNet(8, (1, 1, 1)), (images(2, (6, 8, 1)), jnp.zeros(2))),
    ],
)
def test_sides_that_do_not_divide_are_refused_by_name(net, args):
    name = type(net).__name__
    with pytest.raises(
        BadInput, match=f"{name} halves .* 2 times.* 6 .* multiple of 4"
    ):
        jax.eval_shape(net.init, KEY, *args)


@pytest.mark.parametrize(("side", "times", "low"), [(28, 2, 7), (7, 0, 7), (32, 5, 1)])
def test_halvings(side, times, low):
    assert check_divisible(side, times, "Net") == low


def test_group_norm_of_a_multiple_is_flax_group_norm():
    assert group_norm(12, 4).num_groups == 4


# ---------------------------------------------------------------- embeddings


def test_sinusoidal_is_cosines_then_sines_of_geometric_frequencies():
    t = np.array([0.0, 0.013, 0.5, 1.0])
    angle = 1000 * t[:, None] * 10_000.0 ** (-np.arange(4) / 4)
    expected = np.concatenate([np.cos(angle), np.sin(angle)], axis=-1)
    # float32 rounds the largest angle, 1000 radians, by 6e-5.
    np.testing.assert_allclose(time_embedding(jnp.asarray(t), 8), expected, atol=1e-4)


def test_conditioning_adds_one_vector_a_class_and_one_for_no_class():
    net, t = Conditioning(6, Labels(3)), jnp.full(4, 0.3)
    c = {"label": jnp.arange(4)}
    variables = randomised(net, t, c)
    table = variables["params"]["Embed_0"]["embedding"]
    assert table.shape == (4, 6)  # the last is the null label's
    out = net.apply(variables, t, c)
    np.testing.assert_array_equal(net.apply(variables, t)[0], out[3])  # none is null
    difference = (out - out[:1]) - (table - table[:1])
    np.testing.assert_allclose(difference, 0, atol=1e-5)


# ---------------------------------------------------------------- MLP


def test_linear_mlps_are_affine_and_hidden_layers_are_not():
    def curvature(net, *shape):
        x = images(2, shape, 1), images(2, shape, 2)
        variables = randomised(net, x[0])

        def f(x):
            return jnp.concatenate(jax.tree.leaves(net.apply(variables, x)), axis=-1)

        @jax.jit
        def second(a, b):
            return jnp.max(jnp.abs(f(a + b) - f(a) - f(b) + f(0 * a)))

        return second(*x)

    assert curvature(MLPEncoder(2, hidden=()), 3, 3, 1) < 1e-5
    assert curvature(MLPDecoder((3, 3, 1), hidden=()), 2) < 1e-5
    assert curvature(MLPEncoder(2, hidden=(4,)), 3, 3, 1) > 0.1
    assert curvature(MLPDecoder((3, 3, 1), hidden=(4,)), 2) > 0.1


# ---------------------------------------------------------------- U-Net


@pytest.fixture(scope="module")
def unet():
    """(variables at init, randomised variables, compiled apply) of a tiny net."""
    net = UNet(4, (1, 2), condition=Labels(3), groups=2)
    args = images(4), jnp.zeros(4), {"label": jnp.zeros(4, jnp.int32)}
    init = jax.jit(net.init)(KEY, *args)
    return init, randomised(net, *args), jax.jit(net.apply)


def test_unet_is_zero_at_init(unet):
    init, _, apply = unet
    c = {"label": jnp.arange(4)}
    out = apply(init, images(4), jnp.linspace(0, 1, 4), c)
    assert jnp.all(out == 0)


def test_unet_answers_each_example_by_its_own_image_time_and_label(unet):
    _, variables, apply = unet
    z, t, label = images(4), jnp.linspace(0, 1, 4), {"label": jnp.array([0, 1, 2, 3])}
    other = {"label": label["label"][::-1]}
    out = apply(variables, z, t, label)
    assert jnp.all(jnp.isfinite(out))
    back = apply(variables, z[::-1], t[::-1], other)[::-1]
    np.testing.assert_allclose(out, back, atol=1e-4 * jnp.max(jnp.abs(out)))
    others = [(z[::-1], t, label), (z, t[::-1], label), (z, t, other)]
    for args in others:
        changed = jnp.max(jnp.abs(apply(variables, *args) - out), axis=(1, 2, 3))
        assert jnp.all(changed > 1e-2 * jnp.max(jnp.abs(out)))


def test_unet_knows_the_null_label_and_no_further(unet):
    _, variables, apply = unet
    same = jnp.broadcast_to(images(1), (4, 8, 8, 1))
    out = apply(variables, same, jnp.full(4, 0.3), {"label": jnp.arange(4)})
    assert jnp.all(jnp.isfinite(out))
    for i in range(3):  # null, the last, differs from every class
        assert jnp.max(jnp.abs(out[3] - out[i])) > 1e-2 * jnp.max(jnp.abs(out))
    beyond = apply(variables, same, jnp.full(4, 0.3), {"label": jnp.arange(1, 5)})
    assert jnp.all(jnp.isnan(beyond[3]))  # not somebody else's embedding


def test_a_residual_block_starts_as_the_identity():
    h, embedding = images(2, (2, 2, 4)), images(2, (3,))
    out, _ = jax.jit(ResidualBlock(4, groups=2).init_with_output)(KEY, h, embedding)
    np.testing.assert_array_equal(out, h)


def test_dropout_acts_in_training_only():
    net, h, embedding = ResidualBlock(4, 2, 0.5), images(2, (2, 2, 4)), images(2, (3,))
    variables = randomised(net, h, embedding)

    @jax.jit
    def out(seed):
        rngs = {"dropout": quick_key(seed)}
        call = partial(net.apply, variables, h, embedding, rngs=rngs)
        return call(train=False), call(train=True)

    (still, moved), (same, other) = jax.device_get((out(0), out(1)))
    np.testing.assert_array_equal(still, same)
    assert np.max(np.abs(moved - other)) > 0.1


# ---------------------------------------------------------------- DCGAN

LABEL = {"label": jnp.array([0, 1, 2, 0])}
PLAYERS = pytest.mark.parametrize(
    ("net", "x"),
    [
        (DCGANGenerator((8, 8, 1), 4, condition=Labels(3)), images(4, (5,))),
        (DCGANDiscriminator(4, condition=Labels(3)), images(4)),
    ],
)


@PLAYERS
def test_batch_statistics_move_in_training_only(net, x):
    variables = randomised(net, x, LABEL)
    before = jax.device_get(variables["batch_stats"])

    for train in (False, True):
        apply = partial(net.apply, train=train, mutable=["batch_stats"])
        _, new = jax.device_get(jax.jit(apply)(variables, x, LABEL))
        moved = jax.tree.map(
            lambda new, old: bool(np.any(new != old)), new["batch_stats"], before
        )
        assert set(jax.tree.leaves(moved)) == {train}


@PLAYERS
def test_dcgan_reads_the_label(net, x):
    variables = randomised(net, x, LABEL, scale=0.1)
    label = jnp.array([1, 1, 0, 0])
    other = net.apply(variables, x, {"label": label})
    difference = other - net.apply(variables, x, LABEL)
    changed = jnp.any(difference.reshape(4, -1) != 0, axis=1)
    np.testing.assert_array_equal(changed, label != LABEL["label"])


@pytest.mark.parametrize(
    ("net", "x"),
    [
        (DCGANGenerator((2, 2, 1), 4, downsamples=1), (3,)),
        (DCGANDiscriminator(4), (4, 4, 1)),
    ],
)
def test_batch_normalisation_of_one_value_is_refused_in_training(net, x):
    variables = randomised(net, jnp.zeros((1, *x)))

    def logits(num, train):
        apply = partial(net.apply, train=train, mutable=["batch_stats"])
        return jax.eval_shape(apply, variables, np.zeros((num, *x), "f4"))[0]

    assert logits(1, train=False).shape[0] == 1
    assert logits(2, train=True).shape[0] == 2
    with pytest.raises(BadInput, match=r"\[1, 1, 1, .* a batch of 2 or more"):
        logits(1, train=True)


def test_batches_of_one_on_several_devices_are_normalised_together():
    net = DCGANGenerator((2, 2, 1), 4, downsamples=1, axis_name="data")
    z = images(2, (3,))
    variables = randomised(net.clone(axis_name=None), z)

    def out(net, z):
        return net.apply(variables, z, train=True, mutable=["batch_stats"])[0]

    @jax.jit
    def both(z):
        split = jax.vmap(lambda z: out(net, z[None])[0], axis_name="data")(z)
        return split, out(net.clone(axis_name=None), z)

    split, whole = both(z)
    np.testing.assert_allclose(split, whole, rtol=1e-4, atol=1e-5)


def test_the_projection_discriminator_reads_the_label_like_its_last_layer():
    """<embedding, h> and <kernel, h> are the same function of the features h."""
    net, x = DCGANDiscriminator(4, condition=Labels(3)), images(4)
    variables = randomised(net, x, LABEL, scale=0.1)
    table = variables["params"]["embed"]["kernel"]

    def logit(kernel, table):
        dense = {**variables["params"]["Dense_0"], "kernel": kernel[:, None]}
        own = {"Dense_0": dense, "embed": {"kernel": table}}
        params = {**variables["params"], **own}
        return net.apply({**variables, "params": params}, x, LABEL)

    by_embedding = logit(0 * table[0], table)
    by_kernel = jnp.stack([logit(row, 0 * table) for row in table])
    own = by_kernel[LABEL["label"], jnp.arange(4)]
    np.testing.assert_allclose(by_embedding, own, atol=1e-5)
    assert jnp.min(jnp.std(by_kernel, axis=0)) > 0.01


def test_generated_images_are_in_the_open_interval_minus_one_to_one():
    net, z = DCGANGenerator((8, 8, 1), 4), images(4, (5,))
    variables = randomised(net, z)
    for train in (False, True):
        apply = partial(net.apply, train=train, mutable=["batch_stats"])
        out = np.asarray(jax.jit(apply)(variables, z)[0])
        assert 0.9 < np.max(np.abs(out)) < 1  # without the tanh it would be wider


# ---------------------------------------------------------------- values


def nets():
    """Every net, rebuilt from nothing."""
    return [
        MLPEncoder(2, (3,)),
        MLPDecoder((8, 8, 1), (3,)),
        ConvEncoder(2, channels=8),
        ConvDecoder((8, 8, 1), channels=8),
        DCGANGenerator((8, 8, 1), 4),
        DCGANDiscriminator(4),
        UNet(8, (1, 2)),
        UNet(8, (1, 2), attention=(4,)),
        DiT(),
        Attention(2),
        ResidualBlock(8),
        Conditioning(4),
    ]


@pytest.mark.parametrize("i", range(len(nets())))
def test_equal_nets_are_equal_and_hash_equal(i):
    one, two = nets()[i], nets()[i]
    assert one is not two
    assert one == two
    assert hash(one) == hash(two)
    assert one not in nets()[:i] + nets()[i + 1 :]
