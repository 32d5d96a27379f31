"""Laws of StyleGAN2's layers and networks, and of its model."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from gengen.errors import BadInput
from gengen.losses.path_length import PathLength, path_lengths
from gengen.models.stylegan import StyleGAN
from gengen.nets.equalized import EqualConv, EqualDense
from gengen.nets.minibatch import minibatch_std
from gengen.nets.resample import BINOMIAL, blurred, enlarged, reduced, upfirdn
from gengen.nets.stylegan2 import ModulatedConv, StyleGAN2Generator
from gengen.nets.stylegan2_discriminator import StyleGAN2Discriminator
from gengen.spaces import Images
from gengen.tasks.styles import mixed, projected, truncated
from train.data.dataset import Spec
from train.experiments import EXPERIMENTS

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


# ------------------------------------------------------------------ resampling


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_resampling_is_scipys_upfirdn(up, down):
    taps, x = (0.5, -1.0, 2.0, 0.25), normal(1, 7, 5, 1)
    full = 3, 3 - (up - 1)  # scipy's signal ends with its last sample
    found = np.asarray(upfirdn(jnp.asarray(x), taps, up, down, full))[0, :, :, 0]
    wanted = x[0, :, :, 0]
    for axis in (0, 1):
        wanted = scipy.signal.upfirdn(taps, wanted, up, down, axis=axis)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_enlarging_keeps_and_reducing_mirrors():
    # <enlarged x, y> = 4 <x, reduced y>: the filters are one another's transpose.
    x, y = normal(2, 4, 6, 3), normal(2, 8, 12, 3)
    left = np.sum(np.asarray(enlarged(jnp.asarray(x))) * y)
    right = 4 * np.sum(x * np.asarray(reduced(jnp.asarray(y))))
    np.testing.assert_allclose(left, right, rtol=1e-4)


# ------------------------------------------------------------------ layers


def modulated(up=False, demodulate=True, channels=3, features=5):
    x, w = jnp.asarray(normal(2, 6, 6, channels)), jnp.asarray(normal(2, 4))
    layer = ModulatedConv(features, up=up, demodulate=demodulate)
    return layer, layer.init(KEY, x, w)["params"], x, w


def kernels(params, w):
    """Each example's own kernel, made explicitly: [B, 3, 3, C, F]."""
    style = w @ params["style"]["kernel"] / np.sqrt(w.shape[1])
    style = style + params["style"]["bias"]
    v = params["kernel"] / np.sqrt(np.prod(params["kernel"].shape[:-1]))
    own = style[:, None, None, :, None] * v
    size = np.sum(np.square(own), axis=(1, 2, 3), keepdims=True)
    return own, own / np.sqrt(size + 1e-8)


@pytest.mark.parametrize(("up", "demodulate"), [(True, True), (False, False)])
def test_a_modulated_convolution_is_one_by_each_examples_own_kernel(up, demodulate):
    layer, params, x, w = modulated(up, demodulate)
    own = kernels(params, w)[demodulate]
    large = enlarged(x) if up else x
    wanted = [
        jax.lax.conv_general_dilated(
            large[i : i + 1], own[i], (1, 1), "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        for i in range(2)
    ]  # fmt: skip
    found = layer.apply({"params": params}, x, w)
    inside = np.s_[:, 2:-2, 2:-2] if up else np.s_[:]  # the order of crops differs
    np.testing.assert_allclose(
        found[inside], jnp.concatenate(wanted)[inside], atol=1e-4
    )


def test_demodulation_keeps_variance_one():
    # The variance of a linear map of independent unit variances: its squares' sum.
    layer, params, x, w = modulated()
    params = jax.tree.map(lambda p: 7.0 * p, params)  # whatever the weights

    def pixel(x):
        return layer.apply({"params": params}, x[None], w[:1])[0, 3, 3]

    jacobian = jax.jit(jax.jacrev(pixel))(x[0])
    np.testing.assert_allclose(jnp.sum(jacobian**2, axis=(1, 2, 3)), 1.0, rtol=1e-5)


@pytest.mark.parametrize("make", [partial(EqualDense, 3), partial(EqualDense, 3, 1.0)])
def test_equalised_rates_leave_the_function_and_scale_its_learning(make):
    x, functions, moved = jnp.asarray(normal(4, 5)), [], []
    for rate in (1.0, 0.01):
        layer = make(rate=rate)
        params = layer.init(KEY, x)

        def value(params, layer=layer):
            return layer.apply(params, x)

        functions.append(value(params))
        sign = jax.tree.map(jnp.ones_like, params)  # Adam's first update
        moved.append(jax.jvp(value, (params,), (sign,))[1])
    np.testing.assert_allclose(functions[0], functions[1], rtol=1e-5)
    np.testing.assert_allclose(0.01 * moved[0], moved[1], rtol=1e-4)


def test_a_reducing_convolution_filters_first():
    x = jnp.asarray(normal(2, 8, 8, 3))
    layer = EqualConv(4, down=True)
    params = layer.init(KEY, x)
    kernel = params["params"]["kernel"] / np.sqrt(27)
    wide = upfirdn(x, BINOMIAL, pad=(2, 2))
    wanted = jax.lax.conv_general_dilated(
        wide, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(layer.apply(params, x), wanted, atol=1e-5)
    assert blurred(x).shape == x.shape


def test_the_deviation_of_a_minibatch_is_that_of_its_groups():
    x = normal(6, 2, 2, 3)
    found = np.asarray(minibatch_std(jnp.asarray(x), 4))  # gcd(6, 4) = 2
    np.testing.assert_array_equal(found[..., :3], x)
    for i in range(3):
        wanted = np.std(x[[i, i + 3]], axis=0).mean()
        np.testing.assert_allclose(found[[i, i + 3], ..., 3], wanted, rtol=1e-5)


# ------------------------------------------------------------------ networks

SIZES = {"channels": 4, "max_channels": 6, "downsamples": 1}


@cache
def generator(mixing=0.0):
    """(network, its arrays, z [4, 5])."""
    net = StyleGAN2Generator((8, 8, 1), style=8, mixing=mixing, **SIZES)
    z = jax.random.normal(KEY, (4, 5))
    return net, jax.jit(net.init)({"params": KEY, "noise": KEY}, z), z


def test_the_mean_style_is_tracked_in_training():
    net, variables, z = generator()
    told = {"method": "styles", "rngs": {"noise": KEY}, "mutable": ["average"]}
    _, new = net.apply(variables, z, None, True, **told)
    w = net.apply(variables, z, method="styles")[:, 0]
    np.testing.assert_allclose(
        new["average"]["w"], 0.002 * jnp.mean(w, axis=0), rtol=1e-4
    )


def test_mixing_takes_the_fine_styles_of_another_latent():
    net, variables, z = generator(mixing=1.0)
    own = net.apply(variables, z, method="styles")
    rngs = {"noise": jax.random.key(3)}
    mixed = net.apply(variables, z, None, True, method="styles", rngs=rngs)
    same = np.all(np.isclose(own, mixed, atol=1e-6), axis=-1)  # [B, layers]
    assert same[:, 0].all() and not same[:, -1].any()
    assert (np.diff(same.astype(int)) <= 0).all()


def test_derivatives_through_the_network_are_finite_differences():
    with jax.enable_x64(True):
        net, variables, z = generator()
        wide = partial(jnp.asarray, dtype=jnp.float64)
        variables, z = jax.tree.map(wide, variables), wide(z)
        direction = wide(normal(*z.shape))

        cotangent = wide(normal(4, 8, 8, 1))

        @jax.jit
        def derivatives(variables, z):
            value = partial(net.apply, variables)
            jvp = jax.jvp(value, (z,), (direction,))[1]
            step = 1e-6 * direction
            wanted = (value(z + step) - value(z - step)) / 2e-6
            return jvp, wanted, jax.vjp(value, z)[1](cotangent)[0]

        jvp, wanted, vjp = derivatives(variables, z)
        np.testing.assert_allclose(jvp, wanted, atol=1e-7)
        np.testing.assert_allclose(
            jnp.sum(vjp * direction), jnp.sum(jvp * cotangent), rtol=1e-8
        )


def test_the_discriminator_scores_and_its_features_are_each_images_own():
    net = StyleGAN2Discriminator(**SIZES, residual=True)
    x = jnp.asarray(normal(4, 8, 8, 1))
    variables = {"params": jax.jit(net.init)(KEY, x)["params"]}
    apply = jax.jit(partial(net.apply, mutable="intermediates"))
    scores, sown = apply(variables, x)
    assert scores.shape == (4,)
    _, alone = apply(variables, x[:1])
    features = [s["intermediates"]["features"][0] for s in (sown, alone)]
    np.testing.assert_allclose(features[0][:1], features[1], atol=1e-5)


# ------------------------------------------------------------------ the model


def linear(matrix, w):
    """A generator that is linear in w: [B, L, D] -> images [B, 2, 3, 1]."""
    return (w.reshape(len(w), -1) @ matrix).reshape(-1, 2, 3, 1)


def test_the_path_length_of_a_linear_generator_is_constant():
    matrix, w = normal(8, 6), jnp.asarray(normal(3, 2, 4))
    lengths = jax.jit(path_lengths, static_argnums=0)(partial(linear, matrix), w, KEY)
    y = np.asarray(jax.random.normal(KEY, (3, 2, 3, 1))).reshape(3, 6) / np.sqrt(6)
    pulled = (y @ matrix.T).reshape(3, 2, 4)  # Jᵀ y, per layer
    np.testing.assert_allclose(
        lengths, np.sqrt(np.square(pulled).sum(2).mean(1)), rtol=1e-4
    )
    elsewhere = path_lengths(partial(linear, matrix), 5.0 * w + 1.0, KEY)
    np.testing.assert_allclose(lengths, elsewhere, rtol=1e-4)
    value, mean = PathLength(decay=1.0)(lengths[:1], jnp.float32(0.0))
    np.testing.assert_allclose(value, 0.0, atol=1e-6)
    np.testing.assert_allclose(mean, lengths[0], rtol=1e-6)


@cache
def stylegan():
    """(model, params, state), the mean style moved off zero."""
    small = StyleGAN2Generator((8, 8, 1), 4, downsamples=0, style=8, mixing=0.5)
    nets = small, StyleGAN2Discriminator(**SIZES)
    path = PathLength(interval=2)
    model = StyleGAN(*nets, Images((8, 8, 1), 17), 5, path=path)
    params, state = jax.jit(model.init)(KEY)
    center = 0.3 * jnp.asarray(normal(8))
    return model, params, {**state, "generator": {"average": {"w": center}}}


def test_truncation_0_is_the_mean_styles_image_whatever_the_latent():
    model, params, state = stylegan()
    z = jax.random.normal(KEY, (3, 5))
    psi = np.array([0.0, 0.5, 1.0])
    draw = jax.jit(lambda p, s, z, psi: truncated(model, p, s, z, psi))
    x = draw(params, state, z, psi)
    np.testing.assert_allclose(x[:, 0], np.broadcast_to(x[:1, 0], x[:, 0].shape))
    one = jax.jit(lambda p, s, z, psi: model.from_latent(p, s, z, truncation=psi))
    np.testing.assert_allclose(x[:, 2], one(params, state, z, 1.0), atol=1e-5)
    np.testing.assert_allclose(x[:, 1], one(params, state, z, 0.5), atol=1e-5)
    for psi in (-0.1, 1.1):
        with pytest.raises(BadInput, match=f"truncation={psi} is outside"):
            model.from_latent(params, state, z, truncation=psi)


def test_mixing_with_oneself_changes_nothing_and_the_ends_are_either_image():
    model, params, state = stylegan()
    w = model.styles(params, state, jax.random.normal(KEY, (2, 5)))
    own = jax.jit(model.from_styles)(params, state, w)
    mix = jax.jit(partial(mixed, model), static_argnums=4)
    for first, wanted in ((0, own[None].repeat(2, 0)), (2, own[:, None].repeat(2, 1))):
        x = mix(params, state, w, w, first)
        np.testing.assert_allclose(x, wanted, atol=1e-5)
        np.testing.assert_allclose(x[[0, 1], [0, 1]], own, atol=1e-5)
    with pytest.raises(BadInput, match="first=3: the model has 2 layers"):
        mixed(model, params, state, w, w, 3)


def test_a_drawn_image_is_found_again():
    model, params, state = stylegan()
    z = jax.random.normal(KEY, (2, 5))
    x = model.from_latent(params, state, z)
    find = jax.jit(partial(projected, model), static_argnums=(3, 4))
    error = find(params, state, x, 100, 0.1).error
    assert (error[-1] < 0.1 * error[0]).all()


def test_lazy_path_lengths_change_state_at_their_steps_alone():
    model, params, state = stylegan()
    batch = {"image": np.zeros((4, 8, 8, 1), np.uint8)}
    play = jax.jit(model.losses()["generator"])
    for step, moves in ((1, False), (2, True)):
        told = state | {"step": jnp.int32(step), "ema": params}
        _, (new, _) = play(params, told, batch, KEY)
        assert bool(new["path"]["mean"] > 0) == moves


def test_a_lazy_penalty_corrects_the_optimisers():
    # Adam of k + 1 updates in k steps: its first update is the rate times c.
    data = Spec("x", (8, 8, 1), 17, 0, ())
    experiment = EXPERIMENTS["stylegan2"](data, path_weight=2.0, learning_rate=1.0)
    sizes = {}
    for player, optimizer in experiment.optimizers.items():
        weights = {"w": jnp.ones(3)}
        update, _ = optimizer.update(weights, optimizer.init(weights), weights)
        sizes[player] = -float(update["w"][0])
    wanted = {"discriminator": 16 / 17, "generator": 4 / 5}
    assert sizes == pytest.approx(wanted, rel=1e-4)
    assert experiment.model.path.weight == 2.0


def test_small_images_get_the_small_configuration_and_large_ones_the_full_one():
    for side, large in ((32, False), (64, True)):
        data = Spec("x", (side, side, 3), 256, 0, ())
        model = EXPERIMENTS["stylegan2"](data).model
        assert model.discriminator.residual == large
        assert model.generator.mixing == (0.9 if large else 0.0)
        assert (model.path is not None) == large
        assert model.generator.downsamples == (4 if large else 3)
