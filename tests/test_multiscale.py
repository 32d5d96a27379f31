"""Multi-scale PixelRNN: a small image, then the rest: still one exact density."""

import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_autoregressive import (
    CLASSES,
    KEY,
    assert_drawn_from,
    random_batch,
    random_params,
)

from gengen.conditions import Labels, Maps, Nothing, Scalar
from gengen.errors import BadInput
from gengen.models.autoregressive import Autoregressive
from gengen.models.multiscale import Multiscale
from gengen.nets.pixelrnn import PixelRNN
from gengen.nets.recurrence import RowLSTM
from gengen.nets.upsample import Upsample
from gengen.observations.categorical import Categorical
from gengen.spaces import Images

SHAPE = (3, 4, 1)
LABELS = Labels(CLASSES)


def multiscale(condition=Nothing(), small=(2, 2, 1), shape=SHAPE, **changes):
    def model(shape, condition):
        net = PixelRNN(2, shape, 2, 6, 1, RowLSTM, condition)
        return Autoregressive(net, Categorical(2), Images(shape, 2), condition)

    fine = changes.get("maps", Maps((*shape[:2], 4)))
    upsample = Upsample(4, shape[:2], condition=changes.get("heard", condition))
    return Multiscale(model(small, condition), model(shape, fine), upsample)


@cache
def drawn(condition=Nothing()):
    """(model, parameters drawn at random)."""
    model = multiscale(condition)
    return model, random_params(model, random_batch(SHAPE, 2))


@cache
def every_image():
    images = np.array(list(itertools.product((0, 1), repeat=12)), np.uint8)
    return images.reshape(-1, *SHAPE)


def test_all_images_together_have_probability_one_in_each_class():
    model, params = drawn(LABELS)
    images, log_likelihood = every_image(), jax.jit(model.log_likelihood)
    one, other = (
        log_likelihood(params, {}, {"image": images, "label": label}, KEY)
        for label in (np.full(len(images), n) for n in (1, 2))
    )
    for log_p in (one, other):
        assert abs(jax.nn.logsumexp(log_p)) < 2e-5
        assert np.std(log_p) > 0.1
    assert np.any(one != other)


def test_samples_have_the_probability_of_teacher_forcing():
    """Cached or not: the same images."""
    model, params = drawn(LABELS)
    keys = jax.random.split(KEY, 6)
    label = jnp.arange(6) % CLASSES
    generate = jax.jit(partial(model.generate, params), static_argnames="cached")
    x, log_p = generate(keys, {"label": label})
    naive, naive_log_p = generate(keys, {"label": label}, cached=False)
    np.testing.assert_array_equal(x, naive)
    np.testing.assert_allclose(log_p, naive_log_p, atol=2e-5)
    batch = {"image": x, "label": label}
    forced = jax.jit(model.log_likelihood)(params, {}, batch, KEY)
    np.testing.assert_allclose(log_p.sum((1, 2, 3)), forced, atol=2e-5)


def test_the_losses_are_the_likelihood_in_parts():
    model, params = drawn()
    batch = {"image": every_image()}

    @jax.jit
    def both(params):
        nats = {p: f(params, {}, batch, KEY)[0] for p, f in model.losses().items()}
        log_p = model.log_likelihood(params, {}, batch, KEY)
        return 4 * nats["coarse"] + 8 * nats["fine"], -jnp.mean(log_p)

    np.testing.assert_allclose(*both(params), rtol=1e-5)


@pytest.mark.parametrize(
    ("seen", "particles"),
    [((), 1), ((0, 2, 6, 8, 1), 1), ((1, 8), 48), ((1, 3, 4, 5, 7), 48)],
)
def test_what_is_observed_stays_and_the_rest_is_the_posterior(seen, particles):
    """Nothing, or all of xˢ and a pixel more are a beginning; the others are not."""
    shape = (3, 3, 1)
    model = multiscale(shape=shape)
    params = random_params(model, random_batch(shape, 2))
    loud = 1.5 if seen else 0.5  # much depends on much; or all is about as probable
    params = jax.tree.map(lambda leaf: loud * leaf, params)
    images = np.array(list(itertools.product((0, 1), repeat=9)), np.uint8)
    images = images.reshape(-1, *shape)
    log_p = jax.jit(model.log_likelihood)(params, {}, {"image": images}, KEY)
    observed = np.isin(np.arange(9), seen).reshape(shape)
    values = np.arange(9).reshape(shape) % 3 == 1
    agrees = np.all(images[:, observed] == values[observed], axis=1)
    posterior = np.where(agrees, np.exp(np.float64(log_p)), 0.0)
    posterior /= posterior.sum()
    num = 3000
    batch = {"image": np.repeat(values[None].astype(np.uint8), num, axis=0)}

    @partial(jax.jit, static_argnames="particles")
    def complete(params, batch, particles):
        how = {"particles": particles}
        return model.complete(params, {}, KEY, batch, observed, **how)

    x, effective = complete(params, batch, particles)
    assert np.all(x[:, observed] == 2.0 * values[observed] - 1)
    assert np.all((effective >= 1 - 1e-5) & (effective <= particles + 1e-3))
    assert_drawn_from(posterior, images, x)
    if particles > 1:
        with pytest.raises(BadInput, match="take 64 particles or more"):
            complete(params, batch, 1)


def test_a_pixel_knows_the_small_image_below_it():
    """p(x_1 | x_0, xˢ) moves with the last pixel of xˢ."""
    model, params = drawn()
    louder = jax.tree.map(lambda leaf: 4.0 * leaf, params["fine"]["upsample"])
    params = {**params, "fine": {**params["fine"], "upsample": louder}}
    batch = {"image": every_image()}
    log_p = jax.jit(model.log_likelihood)(params, {}, batch, KEY).reshape((2,) * 12)
    assert abs(jax.nn.logsumexp(log_p)) < 2e-5
    p = np.exp(np.float64(log_p))
    known = (0, 2, 8, 10)
    joint = p.sum(tuple(t for t in range(12) if t not in (1, *known)))
    conditional = joint / joint.sum(1, keepdims=True)  # x_0, x_1, x_2, x_8, x_10
    assert np.abs(np.diff(conditional, axis=4)).max() > 1e-3


def test_mistakes_are_sentences():
    with pytest.raises(BadInput, match="one pixel in 2 each way makes"):
        multiscale(small=(3, 4, 1))
    for maps in (LABELS, Nothing(), Scalar("r")):
        with pytest.raises(BadInput, match="the fine model's condition is one Maps"):
            multiscale(maps=maps)
    with pytest.raises(BadInput, match="upsampling to 4 features for a map of 3"):
        multiscale(maps=Maps((3, 4, 3)))
    with pytest.raises(BadInput, match="the Upsample is conditioned on nothing"):
        multiscale(LABELS, heard=Nothing())
    model, params = drawn(LABELS)
    with pytest.raises(BadInput, match="image 2 is out of range"):
        model.init(KEY, random_batch(SHAPE, 3))
    with pytest.raises(BadInput, match="map: the model is conditioned on label"):
        model.sample(params, {}, KEY, 1, map=jnp.zeros((3, 4, 4)))
