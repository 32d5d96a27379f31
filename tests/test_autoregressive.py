"""Every autoregressive network: two views of one set of weights, one exact density.

One table of networks on images so small that all of them can be enumerated. Weights are
drawn at random, biases too: what starts at zero hides what it depends on.
"""

import itertools
from functools import cache, partial
from typing import NamedTuple

import flax.linen as nn
import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gengen.autoregressive.tempering import Tempering
from gengen.conditions import Labels, Nothing, Scalar, Sequence, Text, both
from gengen.errors import BadInput
from gengen.models.autoregressive import Autoregressive
from gengen.nets.gated_pixelcnn import GatedPixelCNN
from gengen.nets.lstm import LSTM
from gengen.nets.pixelcnn import PixelCNN
from gengen.nets.pixelcnnpp import PixelCNNPP
from gengen.nets.pixelrnn import PixelRNN
from gengen.nets.recurrence import DiagonalBiLSTM, RowLSTM
from gengen.nets.transformer import Transformer
from gengen.nets.wavenet import WaveNet
from gengen.observations.categorical import Categorical
from gengen.observations.gaussian import Gaussian
from gengen.observations.logistic_mixture import LogisticMixture
from gengen.spaces import Images, Reals, Symbols, tokens

KEY = jax.random.key(3)
KEYS = jax.random.split(KEY, 3)
CLASSES = 3
LABELS = Labels(CLASSES)


class Row(NamedTuple):
    """A network: (shape, levels, condition) -> model.

    dense: it promises that every symbol sees all before it. colours: it is one of
    images, whose channels are its business.
    """

    model: callable
    dense: bool = True
    colours: bool = True


def model_of(net, head, shape, condition=Nothing(), **kwargs):
    """A model of images, of tokens or of codes."""
    levels = head.levels
    space = Images(shape, levels) if len(shape) == 3 else Symbols(shape, levels)
    space = tokens(shape[0], levels) if len(shape) == 1 else space
    return Autoregressive(net, head, space, condition, **kwargs)


def transformer(shape, levels, condition=Nothing(), **kwargs):
    length, sizes = int(np.prod(shape)), (8, 2, 2)
    how = {"condition": condition, "segment": 4}
    net = Transformer(levels, length, levels, *sizes, **how)
    return model_of(net, Categorical(levels), shape, condition, **kwargs)


def pixelcnn(shape, levels, condition=Nothing()):
    net = PixelCNN(levels, shape, levels, 12, 1, condition)
    return model_of(net, Categorical(levels), shape, condition)


def gated(shape, levels, condition=Nothing()):
    net = GatedPixelCNN(levels, shape, levels, 48, 2, condition)
    return model_of(net, Categorical(levels), shape, condition)


def pixelcnnpp(shape, levels, condition=Nothing(), resolutions=1):
    head = LogisticMixture(levels, shape[2], 2)
    net = PixelCNNPP(head.features, shape, levels, 6, 1, resolutions, condition)
    return model_of(net, head, shape, condition)


def pixelrnn(kind, shape, levels, condition=Nothing()):
    net = PixelRNN(levels, shape, levels, 12, 1, kind, condition)
    return model_of(net, Categorical(levels), shape, condition)


def lstm(shape, levels, condition=Nothing()):
    net = LSTM(levels, levels, 8, 2, condition=condition)
    return model_of(net, Categorical(levels), shape, condition)


def wavenet(shape, levels, condition=Nothing()):
    net = WaveNet(levels, levels, 8, 6, 4, condition=condition)
    return model_of(net, Categorical(levels), shape, condition)


ROWS = {
    "transformer": Row(transformer, colours=False),
    "pixelcnn": Row(pixelcnn, dense=False),
    "gated": Row(gated),
    "pixelcnnpp": Row(pixelcnnpp),
    "row LSTM": Row(partial(pixelrnn, RowLSTM), dense=False),
    "diagonal BiLSTM": Row(partial(pixelrnn, DiagonalBiLSTM)),
    "lstm": Row(lstm, colours=False),
    "wavenet": Row(wavenet, colours=False),
}

EVERY = pytest.mark.parametrize("name", ROWS)
COLOURED = pytest.mark.parametrize(
    "name", [n for n, row in ROWS.items() if row.colours]
)


GREY = pytest.mark.parametrize(
    "name", [n for n, row in ROWS.items() if not row.colours]
)
# What asks for either view, whatever the network, asks for a few.
HEADS = pytest.mark.parametrize("name", ["transformer", "pixelcnnpp"])


def random_batch(shape, levels, num=3):
    image = np.random.default_rng(0).integers(0, levels, (num, *shape))
    return {
        "image": image.astype(np.uint8),
        "label": np.arange(num, dtype=np.int32) % CLASSES,
    }


def random_params(model, batch):
    """Parameters from N(0, 1/inputs), none of them zero; biases from N(0, 1)."""
    params, _ = jax.eval_shape(model.init, KEY, batch)
    rng = np.random.default_rng(0)

    def draw(leaf):
        scale = np.prod(leaf.shape[:-1]) ** -0.5
        return (scale * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return jax.device_put(jax.tree.map(draw, params))


@cache
def binary(name, condition=Nothing()):
    """(model, parameters) of a 3×3 image with two levels."""
    model = ROWS[name].model((3, 3, 1), 2, condition)
    return model, random_params(model, random_batch((3, 3, 1), 2))


@cache
def coloured(name):
    """(model, parameters) of a 2×3 image with three channels of three levels."""
    model = ROWS[name].model((2, 3, 3), 3, LABELS)
    return model, random_params(model, random_batch((2, 3, 3), 3))


@partial(jax.jit, static_argnums=(0, 3, 4))
def generate(model, params, keys, cached=True, sampler=Tempering(), c=None):
    return model.generate(params, keys, c, sampler=sampler, cached=cached)


@partial(jax.jit, static_argnums=0)
def features_of(model, params, x, c=None):
    return model.features_of(params, x, c)


def assert_drawn_from(probs, images, x):
    """χ² of binary samples x in {-1, 1} against all images and their probabilities.

    Images that are rare count together.
    """
    bits = 1 << np.arange(images[0].size)
    place = np.zeros(len(images), int)
    place[images.reshape(len(images), -1) @ bits] = np.arange(len(images))
    seen = (np.asarray(x).reshape(len(x), -1) > 0) @ bits
    found = np.bincount(place[seen], minlength=len(images))
    expected = len(x) * probs
    often = expected > 5
    found, expected = (np.append(a[often], a[~often].sum()) for a in (found, expected))
    possible = expected > 1e-9
    assert found[~possible].sum() == 0
    found, expected = found[possible], expected[possible]
    chi2 = np.sum((found - expected) ** 2 / expected)
    assert chi2 < stats.chi2.ppf(1 - 1e-5, max(len(found) - 1, 1))


@partial(jax.jit, static_argnums=0)
def forced(model, params, x, c):
    """log p of the symbols by one pass over all of them."""
    return model.log_prob(model.features_of(params, x, c), x)


def check_views(model, params, c=None, atol=2e-5, rtol=1e-7):
    """What is drawn step by step has the parallel pass' log p; x."""
    x, log_p = generate(model, params, KEYS, True, Tempering(), c)
    np.testing.assert_allclose(log_p, forced(model, params, x, c), rtol, atol)
    return x


def numbers(name):
    """What `golden` keeps of a network."""
    model, params = binary(name)
    _, log_p = generate(model, params, KEYS, True, Tempering(), None)
    numbers = {"log p": log_p}
    return {"shapes": golden.shapes(params), "numbers": jax.device_get(numbers)}


@EVERY
def test_step_by_step_is_the_parallel_pass(name):
    check_views(*binary(name))
    golden.check(numbers(name), name)


@HEADS
def test_a_parallel_pass_for_every_symbol_draws_the_same(name):
    model, params = binary(name)
    naive, log_p = generate(model, params, KEYS, False)
    np.testing.assert_array_equal(check_views(model, params), naive)
    np.testing.assert_allclose(log_p, forced(model, params, naive, None), atol=2e-5)


VECTORS = both(LABELS, Scalar("r"))
SEQUENCE = both(LABELS, Sequence(5))
TEXT = both(Scalar("r"), Text(vocabulary=7, length=4, width=4))
CONDITION = {
    "label": np.arange(3, dtype=np.int32),
    "r": np.array([0.5, -1.0, 2.0], np.float32),
    "context": np.random.default_rng(3).normal(size=(3, 4, 5)).astype(np.float32),
    "text": np.array([[1, 2, 3, 0], [4, 0, 0, 0], [5, 6, 1, 2]], np.int32),
}


def conditional(make, condition, shape=(3, 3, 1), levels=2):
    """(model, parameters, c) of three rows."""
    model = make(shape, levels, condition)
    params = random_params(model, {**random_batch(shape, levels), **CONDITION})
    return model, params, {name: CONDITION[name] for name in condition.names}


def assert_heard_everywhere(model, params, c):
    """Another row's condition moves the features at every position."""
    x = model.read(random_batch(model.space.shape, model.space.size))
    other = jax.tree.map(lambda a: a[::-1], c)
    one, other = (features_of(model, params, x, each) for each in (c, other))
    one, other = jax.device_get((one, other))
    assert np.all(np.any(one[0] != other[0], axis=-1))


@pytest.mark.parametrize("condition", [SEQUENCE, TEXT], ids=["sequence", "text"])
def test_step_by_step_is_the_parallel_pass_given_tokens(condition):
    """A sequence beside a label, or a text beside a number, attended to."""
    model, params, c = conditional(transformer, condition)
    check_views(model, params, c)
    assert_heard_everywhere(model, params, c)
    for name in c:  # each part alone
        assert_heard_everywhere(model, params, {**c, name: c[name][::-1]})


@pytest.mark.parametrize("condition", [SEQUENCE, TEXT], ids=["sequence", "text"])
@pytest.mark.parametrize("cached", [True, False])
def test_padding_changes_nothing(condition, cached):
    """Neither tokens of zeros after a sequence, nor the rows beside it."""
    model, params, c = conditional(transformer, condition)
    key = "context" if "context" in c else "text"
    short = {**c, key: c[key][:, :2]}
    c = {**c, key: np.concatenate([short[key], np.zeros_like(short[key])], axis=1)}
    alone = {name: value[:1] for name, value in short.items()}
    x = model.read(random_batch((3, 3, 1), 2))

    @jax.jit
    def ways(params, keys, x):
        def of(num, c):
            if not cached:
                return model.features_of(params, x[:num], c)
            seen = np.ones(x[:num].shape, bool)
            return model.generate(params, keys[:num], c, x[:num], seen)[1]

        return of(1, alone), of(3, c)

    one, all_ = ways(params, KEYS, x)
    np.testing.assert_allclose(one, all_[:1], atol=2e-6)


@GREY
def test_step_by_step_is_the_parallel_pass_given_a_class(name):
    check_views(*binary(name, LABELS), {"label": CONDITION["label"]})


@COLOURED
def test_step_by_step_is_the_parallel_pass_in_colour_and_given_a_class(name):
    check_views(*coloured(name), {"label": CONDITION["label"]})


def test_resolutions_step_by_step_are_the_parallel_pass():
    """Three of them, each remembered until its next pixel."""
    model = pixelcnnpp((8, 8, 1), 3, LABELS, resolutions=3)
    params = random_params(model, random_batch((8, 8, 1), 3))
    check_views(model, params, {"label": CONDITION["label"]})


@EVERY
def test_all_images_together_have_probability_one(name):
    model, params = binary(name)
    images = np.array(list(itertools.product((0, 1), repeat=9)), np.uint8)
    batch = {"image": images.reshape(-1, 3, 3, 1)}
    log_p = np.asarray(jax.jit(model.log_likelihood)(params, {}, batch, KEY))
    assert abs(special.logsumexp(log_p)) < 1e-5
    assert np.std(log_p) > 0.1


def sees(model, params, levels):
    """bool [T, T]: whether the distribution of t (row) changes with symbol s (column).

    The discrete Jacobian: every subpixel in turn goes to every other level.
    """
    x = np.array(random_batch(model.space.shape, levels, 1)["image"], np.int32)
    size = x.size
    moved = np.repeat(x.reshape(1, size), 1 + size * (levels - 1), axis=0)
    for s, step in itertools.product(range(size), range(1, levels)):
        row = s * (levels - 1) + step  # row 0 is x
        moved[row, s] = (moved[row, s] + step) % levels

    @jax.jit
    def log_table(x):  # log p of every level of every subpixel, the rest as in x
        def at(level):
            def one(t):
                y = x.reshape(len(x), -1).at[:, t].set(level)
                z = model.in_order(y.reshape(len(x), *model.space.shape))
                c = model.condition.zeros(len(z))
                log_p = model.log_prob(model.features_of(params, z, c), z)
                return log_p.reshape(len(x), -1)[:, t]

            return jax.vmap(one)(jnp.arange(size))

        return jax.vmap(at)(jnp.arange(levels))  # [levels, T, B]

    table = np.asarray(log_table(moved.reshape(-1, *model.space.shape)))
    change = np.abs(table[:, :, 1:] - table[:, :, :1]).max(0)
    # Rows of one product may be summed in other orders: that much is no dependence.
    return change.reshape(size, size, levels - 1).max(-1) > 1e-5


def check_triangular(model, params, levels, dense):
    seen = sees(model, params, levels)
    before = np.tril(np.ones_like(seen), -1)
    assert not np.any(seen & ~before), np.argwhere(seen & ~before)
    if dense:
        assert np.all(seen[before]), np.argwhere(before & ~seen)


@EVERY
def test_a_symbol_depends_on_those_before_it_alone(name):
    check_triangular(*binary(name), 2, ROWS[name].dense)


@COLOURED
def test_a_channel_depends_on_those_before_it_alone(name):
    check_triangular(*coloured(name), 3, ROWS[name].dense)


@HEADS
def test_jacobi_sweeps_end_at_the_sequential_sample(name):
    model, params = binary(name)
    x = jax.jit(model.sample, static_argnums=3)(params, {}, KEY, 4)
    swept, sweeps = jax.jit(model.sample_jacobi, static_argnums=3)(params, {}, KEY, 4)
    np.testing.assert_array_equal(x, swept)
    assert 2 <= sweeps <= 10


def test_what_is_observed_stays_and_the_rest_is_the_posterior():
    """Two pixels seen, one of them late: importance resampling against enumeration."""
    model, params = binary("pixelcnnpp")  # the others' weights differ little
    images = np.array(list(itertools.product((0, 1), repeat=9)), np.uint8)
    images = images.reshape(-1, 3, 3, 1)
    log_p = jax.jit(model.log_likelihood)(params, {}, {"image": images}, KEY)
    observed = np.zeros((3, 3, 1), bool)
    observed[0, 1] = observed[2, 0] = True
    agrees = (images[:, 0, 1, 0] == 1) & (images[:, 2, 0, 0] == 0)
    posterior = np.where(agrees, np.exp(log_p), 0.0)
    posterior /= posterior.sum()
    num, seen = 2000, np.zeros((1, 3, 3, 1), np.uint8)
    seen[0, 0, 1] = 1

    @jax.jit
    def complete(params, key, image):
        return model.complete(params, {}, key, {"image": image}, observed, particles=16)

    x, effective = jax.device_get(complete(params, KEY, seen.repeat(num, axis=0)))
    assert np.all(x[:, 0, 1] == 1) and np.all(x[:, 2, 0] == -1)
    assert np.all((effective >= 1) & (effective <= 16 + 1e-3))
    assert_drawn_from(posterior, images, x)


def test_a_beginning_is_clamped_without_particles():
    model, params = binary("transformer")
    batch = random_batch((3, 3, 1), 2)
    observed = np.arange(9).reshape(3, 3, 1) < 4
    x, effective = jax.jit(partial(model.complete, observed=observed))(
        params, {}, KEY, batch
    )
    np.testing.assert_array_equal(x[:, observed], 2.0 * batch["image"][:, observed] - 1)
    np.testing.assert_allclose(effective, 1.0)
    with pytest.raises(BadInput, match="take 64 particles or more"):
        model.complete(params, {}, KEY, batch, ~observed)


def test_what_tempering_makes_impossible_has_no_particles():
    """top_k = 1 allows one image: the other value of its last pixel is never seen."""
    model, params = binary("transformer")
    batch = {"image": np.zeros((1, 3, 3, 1), np.uint8)}
    observed = np.arange(9).reshape(3, 3, 1) == 8
    greedy = Tempering(top_k=1)
    sample = jax.jit(partial(model.sample, num=1, sampler=greedy))
    last = int(sample(params, {}, KEY)[0, 2, 2, 0] > 0)
    options = {"observed": observed, "particles": 4, "sampler": greedy}
    complete = jax.jit(partial(model.complete, **options))
    batch["image"][0, 2, 2] = 1 - last
    none = complete(params, {}, KEY, batch)
    batch["image"][0, 2, 2] = last
    all_ = complete(params, {}, KEY, batch)
    assert none.effective[0] == 0.0 and all_.effective[0] == 4.0


def test_any_order_is_the_chain_rule():
    """Probabilities sum to one in a permuted order, and its beginning can be seen."""
    order = tuple(int(i) for i in np.random.default_rng(1).permutation(9))
    model = transformer((3, 3, 1), 2, order=order)
    params = random_params(model, random_batch((3, 3, 1), 2))
    images = np.array(list(itertools.product((0, 1), repeat=9)), np.uint8)
    batch = {"image": images.reshape(-1, 3, 3, 1)}
    log_p = np.asarray(jax.jit(model.log_likelihood)(params, {}, batch, KEY))
    assert abs(special.logsumexp(log_p)) < 1e-5
    raster = transformer((3, 3, 1), 2)
    reordered = {"image": batch["image"].reshape(-1, 9)[:, list(order)]}
    reordered["image"] = reordered["image"].reshape(-1, 3, 3, 1)
    same = jax.jit(raster.log_likelihood)(params, {}, reordered, KEY)
    np.testing.assert_allclose(log_p, same, atol=1e-5)
    observed = np.zeros(9, bool)
    observed[list(order[:3])] = True
    one = {"image": batch["image"][300:301]}
    complete = jax.jit(partial(model.complete, observed=observed.reshape(3, 3, 1)))
    x, seen = complete(params, {}, KEY, one).x, observed.reshape(1, 3, 3, 1)
    np.testing.assert_array_equal(x[seen], 2.0 * one["image"][seen] - 1)


@pytest.mark.parametrize("cached", [True, False])
def test_samples_are_numbered(cached):
    model, params = binary("transformer", LABELS)
    sample = jax.jit(partial(model.sample, num=4, cached=cached))
    x, more = (np.asarray(sample(params, {}, KEY, start_index=n)) for n in (0, 2))
    np.testing.assert_array_equal(x[2:], more[:2])


def test_tempering_makes_another_model():
    """At temperature ½ squares of probabilities; top_k = 1 leaves one sequence."""
    model, params = binary("transformer")
    x, log_p = generate(model, params, KEYS, True, Tempering(0.5))
    features = np.asarray(features_of(model, params, x))
    squared = special.log_softmax(2.0 * special.log_softmax(features, -1), -1)
    expected = np.take_along_axis(squared, np.asarray(x)[..., None], -1)[..., 0]
    np.testing.assert_allclose(log_p, expected, atol=2e-5)
    greedy, log_p = jax.device_get(
        generate(model, params, KEYS, True, Tempering(top_k=1))
    )
    np.testing.assert_array_equal(greedy, np.broadcast_to(greedy[0], greedy.shape))
    np.testing.assert_allclose(log_p, 0.0)


class Plain(nn.Module):
    """A network of one's own that says nothing of itself."""

    @nn.compact
    def __call__(self, x, c=None, train=False):
        return nn.Dense(3)(x[..., None].astype(jnp.float32))


def test_mistakes_are_sentences():
    model, params = binary("transformer")
    batch = random_batch((3, 3, 1), 4)
    with pytest.raises(BadInput, match="image 3 is out of range: the model knows 0"):
        model.log_likelihood(params, {}, batch, KEY)
    with pytest.raises(BadInput, match="give a permutation of 0 … 8"):
        transformer((3, 3, 1), 2, order=(0, 1, 2, 3, 4, 5, 6, 7, 7))
    longer = transformer((4, 4, 1), 2)
    assert longer.length == 16
    with pytest.raises(BadInput, match="16 symbols is longer than the 9 positions"):
        net = {"params": params["autoregressive"]}
        model.net.apply(net, jnp.zeros((1, 16), jnp.int32))
    for other, reason in (
        (longer, "a network of length=9 in a model of length=16"),
        (pixelcnn((3, 3, 1), 3), "a network of vocabulary=2 in a model of"),
        (pixelcnn((3, 3, 1), 2, LABELS), "the Transformer is conditioned on nothing"),
    ):
        with pytest.raises(BadInput, match=reason):
            Autoregressive(model.net, other.head, other.space, other.condition)
    with pytest.raises(BadInput, match=r"image has shape \[3, 3, 1\] and"):
        model.log_likelihood(params, {}, {"image": batch["image"][0]}, KEY)
    with pytest.raises(BadInput, match="image is of type float"):
        model.log_likelihood(params, {}, {"image": np.zeros((1, 3, 3, 1))}, KEY)
    with pytest.raises(BadInput, match="image is of type float"):
        model.init(KEY, {"image": np.zeros((1, 3, 3, 1))})
    labelled, of_labels = binary("gated", LABELS)
    unlabelled = {"image": batch["image"] % 2}
    for asked in (labelled.init, partial(labelled.log_likelihood, of_labels, {})):
        with pytest.raises(BadInput, match="conditioned on label and the batch has"):
            asked(*(KEY, unlabelled) if asked == labelled.init else (unlabelled, KEY))
    with pytest.raises(BadInput, match="context: the model is conditioned on label"):
        labelled.sample(of_labels, {}, KEY, 1, context=jnp.ones((1, 2)))
    with pytest.raises(BadInput, match="guidence: the model is unconditional"):
        model.sample(params, {}, KEY, 1, guidence=2.0)
    of_tokens, weights, c = conditional(transformer, SEQUENCE)
    with pytest.raises(BadInput, match="the model is conditional: give context"):
        of_tokens.sample(weights, {}, KEY, 3, label=c["label"])
    with pytest.raises(BadInput, match="the model is conditional: give context"):
        of_tokens.sample_jacobi(weights, {}, KEY, 3)
    with pytest.raises(BadInput, match="an LSTM does not read Sequence"):
        lstm((3, 3, 1), 2, Sequence(3)).init(KEY)
    two = random_batch((3, 3, 1), 2)
    small, tiny = pixelrnn(RowLSTM, (2, 2, 1), 5), random_batch((2, 2, 1), 5)
    with pytest.raises(BadInput, match="of features=5 in a model of features=30"):
        Autoregressive(small.net, LogisticMixture(5, 1), small.space)
    plain = Autoregressive(Plain(), Categorical(5), small.space)
    with pytest.raises(BadInput, match="a head of its own symbols"):
        plain.loss(*plain.init(KEY), tiny, KEY)
    with pytest.raises(BadInput, match="a head of 4 levels in a space of 5"):
        Autoregressive(small.net, Categorical(4), small.space)
    for head, space in ((Gaussian(), small.space), (Categorical(5), Reals((2, 2, 1)))):
        with pytest.raises(BadInput, match="an autoregressive model draws symbols"):
            Autoregressive(small.net, head, space)
    with pytest.raises(BadInput, match=r"observed has shape \(2, 2, 1\)"):
        model.complete(params, {}, KEY, two, np.ones((2, 2, 1), bool))
    with pytest.raises(BadInput, match="which one particle cannot know of"):
        model.complete(params, {}, KEY, two, np.arange(9).reshape(3, 3, 1) == 8)


def test_codes_above_255_survive_everything():
    """A prior of 512 codes given a label: loss, likelihood, samples, completion."""
    model = transformer((2, 2), 512, LABELS)
    batch = {"codes": np.full((3, 2, 2), 300, np.int32), "label": np.arange(3)}
    params = random_params(model, batch)
    likely = jax.tree.map(np.array, jax.device_get(params))
    likely["autoregressive"]["out"]["bias"][300] = 60.0

    @jax.jit
    def loss_and_log_p(params):
        log_p = model.log_likelihood(params, {}, batch, KEY)
        return model.loss(params, {}, batch, KEY)[0], log_p

    loss, log_p = jax.device_get(loss_and_log_p(likely))
    assert 0 <= loss < 1e-3  # 300 is 300; as 255 or 44 it had cost 60 nats
    np.testing.assert_allclose(-log_p.mean() / 4, loss, rtol=1e-5)
    sample = jax.jit(partial(model.sample, num=64))
    x, other = (np.asarray(sample(p, {}, KEY)) for p in (likely, params))
    assert x.dtype == np.int32 and np.all(x == 300)
    assert 256 < other.max() < 512 and other.min() >= 0
    observed = np.array([[True, False], [False, False]])
    complete = jax.jit(partial(model.complete, observed=observed))
    x = np.asarray(complete(params, {}, KEY, batch).x)
    assert x.dtype == np.int32 and np.all(x[:, 0, 0] == 300)


def test_known_values_are_checked_under_a_trace():
    """Batches of NumPy and of JAX arrays that are closed over."""
    model, params = binary("transformer")
    good, bad = random_batch((3, 3, 1), 2), random_batch((3, 3, 1), 4)
    for kind in (np.asarray, jnp.asarray):
        batch, other = (jax.tree.map(kind, b) for b in (good, bad))
        run = jax.jit(lambda p, b=batch: model.log_likelihood(p, {}, b, KEY))
        assert np.all(np.isfinite(run(params)))
        with pytest.raises(BadInput, match="image 3 is out of range"):
            jax.jit(lambda p, b=other: model.log_likelihood(p, {}, b, KEY))(params)


@EVERY
def test_networks_keep_the_precision_of_the_parameters_given_any_vector(name):
    """In float64 both views agree to 1e-12: no cache is of another type.

    And nothing is float32 in the middle, or a difference of 1e-6 would be full of its
    rounding: it has the derivative's value to 1e-5.
    """
    with jax.enable_x64():
        model, params, c = conditional(ROWS[name].model, VECTORS)
        params = jax.tree.map(np.float64, jax.device_get(params))
        c = {**c, "r": np.float64(c["r"])}
        other = {name: value[::-1] for name, value in c.items()}
        x = model.read(random_batch((3, 3, 1), 2))
        weight = np.random.default_rng(1).normal(size=(*x.shape[:2], 1))

        def at(step, x, c):
            moved = jax.tree.map(lambda a: a * (1 + step), params)
            features = model.features_of(moved, x, c)
            assert features.dtype == jnp.float64
            return jnp.sum(weight * features), features

        @jax.jit
        def along(step, x, c):
            """A sum of features, the features, and log p of x."""
            value, features = at(step, x, c)
            return value, features, model.log_prob(features, x)

        h = 1e-6
        _, one, _ = jax.device_get(along(0.0, x, c))
        _, two, _ = jax.device_get(along(0.0, x, other))
        assert np.all(np.any(one[0] != two[0], axis=-1))
        slope, _ = jax.jit(jax.grad(at, has_aux=True))(0.0, x, c)
        difference = (along(h, x, c)[0] - along(-h, x, c)[0]) / (2 * h)
        np.testing.assert_allclose(slope, difference, rtol=1e-5)
        drawn, log_p = generate(model, params, KEYS, True, Tempering(), c)
        forced = along(0.0, drawn, c)[2]
        np.testing.assert_allclose(log_p, forced, rtol=0, atol=1e-12)
