"""Multi-scale PixelRNN: a small image, then the rest: still one exact density."""

import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_autoregressive import CLASSES, KEY, random_batch, random_params

from gengen.heads import Categorical
from gengen.models.autoregressive import Autoregressive
from gengen.models.multiscale import Multiscale
from gengen.nets.pixelrnn import PixelRNN, RowLSTM, Upsample
from gengen.types import BadInput

SHAPE = (3, 4, 1)


def multiscale(num_classes=0, small=(2, 2, 1)):
    def model(shape, classes):
        net = PixelRNN(2, shape, 2, 6, 1, RowLSTM, classes)
        return Autoregressive(net, Categorical(2), shape, classes)

    upsample = Upsample(4, SHAPE[:2], num_classes=num_classes)
    return Multiscale(model(small, num_classes), model(SHAPE, 0), upsample)


@cache
def drawn(num_classes=0):
    """(model, parameters drawn at random)."""
    model = multiscale(num_classes)
    return model, random_params(model, random_batch(SHAPE, 2))


@cache
def every_image():
    images = np.array(list(itertools.product((0, 1), repeat=12)), np.uint8)
    return images.reshape(-1, *SHAPE)


@pytest.mark.parametrize("num_classes", [0, CLASSES])
def test_all_images_together_have_probability_one(num_classes):
    model, params = drawn(num_classes)
    images = every_image()
    batch = {"image": images, "label": np.full(len(images), 1)}
    log_p = jax.jit(model.log_likelihood)(params, {}, batch, KEY)
    assert abs(jax.nn.logsumexp(log_p)) < 2e-5
    assert np.std(log_p) > 0.1
    if num_classes:
        other = {**batch, "label": np.full(len(images), 2)}
        assert np.any(log_p != jax.jit(model.log_likelihood)(params, {}, other, KEY))


@pytest.mark.parametrize("num_classes", [0, CLASSES])
def test_samples_have_the_probability_of_teacher_forcing(num_classes):
    """Cached or not: the same images."""
    model, params = drawn(num_classes)
    keys = jax.random.split(KEY, 6)
    label = jnp.arange(6) % CLASSES if num_classes else None
    generate = jax.jit(partial(model.generate, params), static_argnames="cached")
    x, log_p = generate(keys, label)
    naive, naive_log_p = generate(keys, label, cached=False)
    np.testing.assert_array_equal(x, naive)
    np.testing.assert_allclose(log_p, naive_log_p, atol=2e-5)
    batch = {"image": x, "label": label}
    forced = model.log_likelihood(params, {}, batch, KEY)
    np.testing.assert_allclose(log_p, forced, atol=2e-5)


def test_the_losses_are_the_likelihood_in_parts():
    model, params = drawn()
    batch = random_batch(SHAPE, 2)
    nats = {
        player: loss(params, {}, batch, KEY)[0]
        for player, loss in model.losses().items()
    }
    log_p = model.log_likelihood(params, {}, batch, KEY)
    np.testing.assert_allclose(
        4 * nats["coarse"] + 8 * nats["fine"], -np.mean(log_p), rtol=1e-5
    )


def test_a_pixel_knows_the_small_image_below_it():
    """p(x_1 | x_0, xˢ) moves with the last pixel of xˢ, and with no other after it."""
    model, params = drawn()
    images = every_image()
    batch = {"image": images, "label": None}
    log_p = jax.jit(model.log_likelihood)(params, {}, batch, KEY).reshape((2,) * 12)
    p = np.exp(np.float64(log_p))
    known = (0, 2, 8, 10)
    joint = p.sum(tuple(t for t in range(12) if t not in (1, *known)))
    conditional = joint / joint.sum(1, keepdims=True)  # x_0, x_1, x_2, x_8, x_10
    assert np.abs(np.diff(conditional, axis=4)).max() > 1e-3


def test_mistakes_are_sentences():
    with pytest.raises(BadInput, match=r"every 2th pixel makes \(2, 2, 1\) with 2"):
        multiscale(small=(3, 4, 1))
