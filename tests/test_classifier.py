"""Laws of p(y|x): a classifier and the residual network that it is made of.

Losses are held against numpy on the log-probabilities, logits against the last layer
applied to the features, and training against data that a plane separates.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from gengen.conditions import Labels
from gengen.diffusion.noisy import clean, noisy, unit_variance
from gengen.diffusion.paths import Linear
from gengen.errors import BadInput
from gengen.models.classifier import Classifier
from gengen.nets.headed import HeadedEncoder
from gengen.nets.mlp import MLPEncoder
from gengen.nets.resnet import ResNet
from gengen.objective import add, scale
from gengen.spaces import Images
from gengen.step import init_train_state, make_train_step
from gengen.types import static

KEY = jax.random.key(0)
NET = ResNet(10, channels=8, multipliers=(1, 2), dropout=0.5, groups=4)
SPACE = Images((8, 8, 1), 17)
MODEL = Classifier(NET, SPACE, Labels(10))
CERTAIN = replace(MODEL, net=NET.clone(dropout=0.0))


def digits(num):
    bunch = load_digits()
    image = bunch.images[:num, :, :, None].astype(np.uint8)
    return {"image": image, "label": bunch.target[:num].astype(np.int32)}


BATCH = digits(6)


@pytest.fixture(scope="module")
def params():
    """Random, with a last layer that is no longer indifferent."""
    params, state = jax.jit(MODEL.init)(KEY, BATCH)
    assert state == {}
    params["classifier"]["Dense_0"]["kernel"] *= 10.0
    return params


def log_probs(params, batch=BATCH, key=KEY):
    return np.asarray(jax.jit(MODEL.log_prob_labels)(params, {}, batch, key), float)


def features(params, batch=BATCH):
    return np.asarray(jax.jit(MODEL.features)(params, {}, batch, KEY))


def loss(model, params, batch=BATCH, key=KEY):
    """(loss, accuracy) of the loss that training takes."""
    value, (state, metrics) = jax.jit(model.losses()["classifier"])(
        params, {"kept": 1}, batch, key
    )
    assert state == {"kept": 1} and list(metrics) == ["accuracy"]
    return float(value), float(metrics["accuracy"])


def close(actual, desired, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=atol)


# --------------------------------------------------------------- probabilities


def test_the_probabilities_of_the_labels_sum_to_one(params):
    log_p = log_probs(params)
    assert log_p.shape == (6, 10) and np.ptp(log_p) > 1
    close(np.exp(log_p).sum(axis=1), np.ones(6))


def test_the_loss_is_minus_log_p_of_the_label(params):
    log_p = log_probs(params)
    expected = -np.mean(log_p[np.arange(6), BATCH["label"]])
    close(loss(CERTAIN, params)[0], expected)


@pytest.mark.parametrize("smoothing", [0.1, 0.9])
def test_label_smoothing_is_cross_entropy_to_a_mixture_with_the_uniform(
    params, smoothing
):
    log_p, target = log_probs(params), np.full((6, 10), smoothing / 10)
    target[np.arange(6), BATCH["label"]] += 1 - smoothing
    expected = -np.mean(np.sum(target * log_p, axis=1))
    close(loss(replace(CERTAIN, label_smoothing=smoothing), params)[0], expected)


def test_accuracy_is_the_share_of_most_probable_labels(params):
    said = log_probs(params).argmax(axis=1).astype(np.int32)
    for wrong in (0, 2, 6):
        label = np.where(np.arange(6) < wrong, (said + 1) % 10, said)
        batch = {**BATCH, "label": label}
        close(loss(CERTAIN, params, batch)[1], 1 - wrong / 6)


# -------------------------------------------------------------------- features


def test_logits_are_the_last_layer_of_the_features(params):
    last, seen = params["classifier"]["Dense_0"], features(params)
    assert seen.shape == (6, 16)  # the channels of the last level
    logits = seen @ np.asarray(last["kernel"]) + np.asarray(last["bias"])
    close(jax.nn.log_softmax(logits), log_probs(params), atol=1e-5)


def test_features_of_an_image_are_its_own(params):
    alone = [features(params, {"image": BATCH["image"][i : i + 1]}) for i in range(6)]
    together = features(params)
    close(np.concatenate(alone), together, rtol=1e-4, atol=1e-5)
    black = {"image": BATCH["image"] * (np.arange(6) == 2)[:, None, None, None]}
    close(features(params, black)[2], together[2])
    assert np.abs(features(params, black)[3] - together[3]).max() > 1e-3


def test_features_need_no_label_and_no_key(params):
    image = {"image": BATCH["image"]}
    close(MODEL.features(params, {}, image, None), features(params), 1e-4, 1e-5)


def test_an_image_is_seen_in_units_of_its_levels(params):
    """Levels 0 … 16 and their multiples by 15 among 0 … 240 are one image."""
    other = replace(MODEL, space=Images((8, 8, 1), 241))
    batch = {"image": 15 * BATCH["image"]}
    close(jax.jit(other.features)(params, {}, batch, KEY), features(params), 1e-4, 1e-5)


def test_the_maps_are_those_of_all_convolutions(params):
    """Channels and sides of each level; the first one by hand."""
    x = SPACE.read(BATCH)
    maps = jax.jit(MODEL.maps)(params, {}, x)
    shapes = [(6, 8, 8, 8)] * 3 + [(6, 4, 4, 16)] * 3
    assert sorted(m.shape for m in maps) == sorted(shapes)
    own = params["classifier"]["Conv_0"]
    middle = np.einsum("bijc,ijcf->bf", x[:, 2:5, 2:5], own["kernel"]) + own["bias"]
    close(maps[0][:, 3, 3], middle, atol=1e-5)
    flat = replace(MODEL, net=HeadedEncoder(MLPEncoder(2, (4,)), 10))
    with pytest.raises(BadInput, match="a HeadedEncoder without convolutions has no"):
        jax.eval_shape(lambda: flat.maps(flat.init(KEY)[0], {}, x))


def test_noisy_data_are_a_mixture_and_of_variance_one_to_the_network():
    """Large data show a(t), data of zeros show b(t), both what is divided by."""
    path, own = Linear(), np.random.default_rng(0).normal(size=(4_000, 1))

    @jax.jit
    def made(x):
        z, t = noisy(path, x, KEY)
        return z, t, unit_variance(path, z, t)[0]

    large, t, _ = made(np.full((4_000, 1), 1e5))
    close(large[:, 0] / 1e5, path.a(t), atol=1e-3)
    nothing, t, _ = made(np.zeros((4_000, 1)))
    close(np.mean(nothing[:, 0] ** 2 / path.b(t) ** 2), 1, rtol=0.1)
    close(np.mean(made(own)[2] ** 2), 1, rtol=0.1)
    assert np.all((t >= 0) & (t < 1)) and np.std(t) > 0.25
    z, t = clean(path, own)
    close(unit_variance(path, z, t)[0], own)


# --------------------------------------------------- what happens in training only


def test_dropout_is_of_training_alone(params):
    keys = jax.random.split(KEY, 2)
    np.testing.assert_array_equal(*(log_probs(params, key=key) for key in keys))
    first, second = (loss(MODEL, params, key=key)[0] for key in keys)
    assert abs(first - second) > 1e-3
    assert loss(CERTAIN, params, key=keys[0]) == loss(CERTAIN, params, key=keys[1])


def test_dropout_leaves_the_features_and_the_mean_of_the_logits(params):
    x = BATCH["image"][:2] / 8.0 - 1.0
    weights = {"params": params["classifier"]}

    @jax.jit
    @jax.vmap
    def trained(key):
        return NET.apply(weights, x, train=True, rngs={"dropout": key})

    drawn, seen = map(np.asarray, trained(jax.random.split(KEY, 4_000)))
    exact, whole = NET.apply(weights, x)
    close(seen, np.broadcast_to(whole, seen.shape), 1e-4, 1e-5)
    error = drawn.std(axis=0) / np.sqrt(4_000)
    assert np.all(error > 0)
    assert np.all(np.abs(drawn.mean(axis=0) - exact) < 4.5 * error)


@static
class Blacken:
    """An augmentation that cannot be missed; counts nothing, draws nothing."""

    def __call__(self, batch, key):
        return {**batch, "image": jnp.zeros_like(batch["image"])}


def test_augmentation_is_of_training_alone(params):
    model = replace(CERTAIN, augment=Blacken())
    black = {**BATCH, "image": np.zeros_like(BATCH["image"])}
    close(loss(model, params)[0], loss(CERTAIN, params, black)[0])
    assert abs(loss(model, params)[0] - loss(CERTAIN, params)[0]) > 1e-3
    close(
        jax.jit(model.log_prob_labels)(params, {}, BATCH, KEY),
        log_probs(params),
        atol=1e-5,
    )


def test_the_loss_is_a_value_and_composes(params):
    model = replace(CERTAIN, augment=Blacken())
    assert model.losses() == replace(model).losses()
    assert hash(model.losses()["classifier"]) == hash(
        replace(model).losses()["classifier"]
    )
    half = scale(CERTAIN.losses()["classifier"], 0.5)
    value, _ = jax.jit(add(half))(params, {}, BATCH, KEY)
    close(value, 0.5 * loss(CERTAIN, params)[0])


# -------------------------------------------------------------------- training


def separable(num, seed):
    """Noise, and 6 levels more in every second row or column, as the label says."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, num).astype(np.int32)
    image = rng.integers(0, 11, (num, 8, 8, 1)).astype(np.uint8)
    image[label == 0, ::2] += 6
    image[label == 1, :, ::2] += 6
    return {"image": image, "label": label}


def test_what_a_plane_separates_is_learnt_without_a_mistake():
    model = Classifier(ResNet(2, 8, (1,), groups=2), SPACE, Labels(2))
    optimizers = {"classifier": optax.adam(0.01)}
    data = separable(32, 0)
    params, state = jax.jit(model.init)(KEY, data)
    train_state = init_train_state(KEY, params, state, optimizers)
    step = jax.jit(make_train_step(model.losses(), optimizers))
    for _ in range(30):
        train_state, metrics = step(train_state, data)
    assert metrics["classifier/accuracy"] == 1
    fresh = separable(500, 1)
    log_p = jax.jit(model.log_prob_labels)(
        train_state.params, train_state.state, fresh, KEY
    )
    assert np.array_equal(np.argmax(log_p, axis=1), fresh["label"])


# --------------------------------------------------------------------- refusals


def test_sampling_is_refused_with_the_remedy(params):
    with pytest.raises(BadInput, match=r"draws no samples.*tasks\.bayes") as said:
        MODEL.sample(params, {}, KEY, 3, label=1)
    assert "\n" not in str(said.value)
    assert MODEL.density == "none"
    with pytest.raises(BadInput, match="has no density"):
        MODEL.log_likelihood(params, {}, {}, KEY)


def test_data_without_labels_are_refused():
    with pytest.raises(BadInput, match="on label and the batch has image"):
        MODEL.init(KEY, {"image": BATCH["image"]})


@pytest.mark.parametrize(
    ("shape", "net", "says"),
    [
        ((6, 6, 1), ResNet(2, multipliers=(1, 1, 1)), "side of 6 .* multiple of 4"),
        ((8, 7, 1), ResNet(2), "side of 7 .* multiple of 2, or fewer halvings"),
        ((8, 8, 1), ResNet(2, channels=12), "12 channels .* multiple of 8"),
    ],
)
def test_sides_and_channels_that_do_not_divide_are_refused(shape, net, says):
    with pytest.raises(BadInput, match=says):
        jax.eval_shape(net.init, KEY, jnp.zeros((1, *shape)))


@pytest.mark.parametrize("shape", [(8, 8, 1), (12, 4, 3), (2, 2, 1)])
def test_logits_and_features_have_their_widths_whatever_the_image(shape):
    net = ResNet(7, channels=8, multipliers=(1, 3), blocks=2)
    x = jnp.zeros((5, *shape))
    (logits, seen), weights = jax.eval_shape(net.init_with_output, KEY, x)
    assert logits.shape == (5, 7) and seen.shape == (5, 24)
    assert weights["params"]["Dense_0"]["kernel"].shape == (24, 7)
