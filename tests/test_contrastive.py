"""Laws of contrastive losses, and of the model that learns by them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax

from gengen.conditions import Text
from gengen.diffusion.paths import Linear
from gengen.errors import BadInput
from gengen.losses.contrastive import equal_rows, infonce, sigmoid
from gengen.models.clip import CLIP, InfoNCE, PairwiseSigmoid, temperature
from gengen.nets.resnet import ResNet
from gengen.spaces import Images
from gengen.tasks.retrieval import Recall, recall_at_one

RHO = 0.9


@pytest.mark.parametrize(("num", "wanted"), [(8, 0.679), (64, 0.806)])
def test_the_bound_on_a_gaussian_pair_is_the_known_one(num, wanted):
    """With the critic log p(c|x)/p(c): log N - L, below I = -½ log(1 - ρ²) = 0.830.

    NumPy alone gives 0.6791 ± 0.0009 and 0.8056 ± 0.0009 for 800,000 pairs.
    """
    rng = np.random.default_rng(0)
    batches = 60_000 // num
    x = rng.normal(size=(batches, num))
    c = RHO * x + np.sqrt(1 - RHO**2) * rng.normal(size=(batches, num))
    logits = -((c[:, None] - RHO * x[..., None]) ** 2) / (2 * (1 - RHO**2))
    logits += c[:, None] ** 2 / 2
    each = jax.jit(jax.vmap(lambda rows: infonce(rows, jnp.eye(num)).mean()))(
        jnp.asarray(logits, jnp.float32)
    )
    bound = np.log(num) - np.mean(each)
    np.testing.assert_allclose(bound, wanted, atol=0.012)
    assert bound < -0.5 * np.log(1 - RHO**2)


@pytest.mark.parametrize("num", [2, 5])
def test_constant_embeddings_know_nothing_and_orthonormal_ones_all(num):
    eye = jnp.eye(num)
    np.testing.assert_allclose(infonce(0 * eye + 3.0, eye), np.log(num), rtol=1e-6)
    np.testing.assert_allclose(infonce(60.0 * eye, eye), 0, atol=1e-6)
    np.testing.assert_allclose(sigmoid(60.0 * (2 * eye - 1), eye), 0, atol=1e-6)


@pytest.mark.parametrize("loss", [infonce, sigmoid])
def test_equal_captions_do_not_move_the_optimum(loss):
    """The gradient is zero where equal captions have equal images' similarity.

    With the diagonal alone as the targets it is not: that asks for a difference.
    """
    tokens = jnp.array([[1, 0], [2, 0], [1, 0]])
    same = equal_rows(tokens)

    def total(logits, targets):
        return loss(logits, targets).sum()

    right = jnp.where(same, 40.0, -40.0)
    assert np.abs(jax.grad(total)(right, same)).max() < 1e-6
    assert np.abs(jax.grad(total)(right, jnp.eye(3))).max() > 0.3
    order = jnp.array([2, 0, 1])
    shuffled = loss(right[order][:, order] / 40, same[order][:, order])
    np.testing.assert_allclose(shuffled, loss(right / 40, same)[order], rtol=1e-6)


# ---------------------------------------------------------------- temperature


def test_a_temperature_stops_at_100_and_comes_back():
    """e^s below; beyond, only a gradient that lowers s passes.

    By `minimum` alone nothing passes, and s stays where it is for ever.
    """
    slope = jax.jit(jax.vmap(jax.grad(lambda s, w: w * temperature(s)), (0, 0)))
    s = jnp.array([1.0, 1.0, 5.0, 5.0])
    np.testing.assert_allclose(temperature(s), [np.e, np.e, 100, 100], rtol=1e-6)
    found = slope(s, jnp.array([-1.0, 1.0, -1.0, 1.0]))
    np.testing.assert_allclose(found, [-np.e, np.e, 0.0, 100.0], rtol=1e-6)


@pytest.mark.parametrize("contrast", [InfoNCE(), PairwiseSigmoid()])
def test_the_gradient_of_the_temperature_is_the_one_by_hand(contrast):
    """Softmax or sigmoid minus the targets, times the similarities."""
    rng = np.random.default_rng(0)
    cosine, same = rng.uniform(-1, 1, (5, 5)), np.eye(5, dtype=bool)
    same[1, 3] = same[3, 1] = True
    own = contrast.init()
    gradient = jax.jit(jax.grad(lambda own: contrast.loss(own, cosine, same).sum()))(
        own
    )
    logits = float(np.exp(own["log_scale"])) * cosine
    if isinstance(contrast, InfoNCE):
        share = same / same.sum(1, keepdims=True)
        wrong = (softmax(logits, 1) - share + softmax(logits, 0) - share.T) / 2
    else:
        wrong = expit(logits + float(own["bias"])) - same
        np.testing.assert_allclose(gradient["bias"], wrong.sum(), rtol=1e-4)
    by_hand = np.sum(wrong * logits)
    np.testing.assert_allclose(gradient["log_scale"], by_hand, rtol=1e-4)


# ---------------------------------------------------------------- the model

TEXT = Text(9, 6, width=8)
TOKENS = [
    [1, 2, 3, 0, 0, 0],
    [4, 5, 0, 0, 0, 0],
    [1, 2, 3, 0, 0, 0],
    [6, 0, 0, 0, 0, 0],
]


def model(**more):
    return CLIP(ResNet(5, 4, (1,), groups=2), Images((4, 4, 1), 9), TEXT, 5, **more)


@pytest.fixture(scope="module")
def clip():
    """A CLIP of noisy images, its parameters, a batch, and what it says of that."""
    made = model(path=Linear())
    image = np.random.default_rng(0).integers(0, 9, (4, 4, 4, 1)).astype(np.uint8)
    batch = {"image": image, "text": np.array(TOKENS, np.int32)}
    params, _ = jax.jit(made.init)(jax.random.key(0), batch)

    @jax.jit
    def say(batch):
        x, c = made.space.read(batch), made.condition.read(batch)
        said = {
            "score": made.score(params, {}, batch),
            "log_p": made.log_prob_at(params, {}, x, 0.0, c),
        }
        u, v = made.embeddings(params, {}, batch)
        return {**said, "u": u, "v": v}

    return made, params, batch, say


def test_padding_and_order_do_not_change_an_embedding(clip):
    """A mutant without the mask fails, and one that takes the mean of all tokens."""
    made, params, batch, say = clip
    said, turned = say(batch), say({k: x[::-1] for k, x in batch.items()})
    for name in ("u", "v", "score", "log_p"):
        np.testing.assert_allclose(turned[name][::-1], said[name], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(said["v"], axis=1), 1, rtol=1e-5)
    short = jax.jit(made.embed_text)(params, {"text": batch["text"][:, :3]})
    np.testing.assert_allclose(short, said["v"], atol=1e-5)
    assert np.abs(said["v"][1] - said["v"][0]).max() > 1e-3


def test_a_score_is_the_cosine_and_a_guide_the_temperature_times_it(clip):
    _, params, batch, say = clip
    said = say(batch)
    np.testing.assert_allclose(said["score"], np.sum(said["u"] * said["v"], 1), 1e-5)
    tau = np.exp(params["clip"]["contrast"]["log_scale"])
    np.testing.assert_allclose(said["log_p"], tau * said["score"], rtol=1e-4)


def test_equal_captions_of_a_batch_are_no_negatives(clip):
    """Rows 0 and 2 of TOKENS are equal: the loss of the embeddings, by these targets.

    With the diagonal as the targets it fails, by the sigmoid. (By InfoNCE, where equal
    captions are one vector, the mean over the batch is the same.)
    """
    batch, plain = clip[2], model(contrast=PairwiseSigmoid())
    same = np.eye(4, dtype=bool)
    same[0, 2] = same[2, 0] = True

    @jax.jit
    def both():
        params, _ = plain.init(jax.random.key(0))
        u, v = plain.embeddings(params, {}, batch)
        loss, (_, said) = plain.loss(params, {}, batch, jax.random.key(1))
        own, cosine = plain.contrast.init(), u @ v.T
        by = [plain.contrast.loss(own, cosine, x).mean() for x in (same, np.eye(4))]
        return cosine, loss, said["right"], by

    cosine, loss, right, (wanted, other) = both()
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    assert abs(loss - other) > 0.01
    assert right == np.mean(same[range(4), np.argmax(cosine, axis=1)])


def test_what_makes_no_clip_is_refused():
    with pytest.raises(BadInput, match="has seen clean images only"):
        model().log_prob_at({}, {}, 0, 0, {})
    with pytest.raises(BadInput, match="of captions are 6 long"):
        jax.eval_shape(replace(model(), dim=6).init, jax.random.key(0))
    with pytest.raises(BadInput, match="draws no samples"):
        model().sample({}, {}, jax.random.key(0), 1)
    deaf = replace(model(), condition=replace(TEXT, blocks=0))
    with pytest.raises(BadInput, match="take a Text of one block"):
        jax.eval_shape(deaf.init, jax.random.key(0))


# ---------------------------------------------------------------- retrieval


@pytest.mark.parametrize("gallery", [3, 10])
def test_recall_is_that_of_a_search(gallery):
    """A loop over galleries; chance; and 0 where all are equally near."""
    rng = np.random.default_rng(0)
    similarity, text = rng.normal(size=(10, 10)), rng.integers(0, 6, 10)
    same = text[:, None] == text
    recall = jax.jit(recall_at_one, static_argnums=2)
    found = recall(jnp.asarray(similarity), jnp.asarray(same), gallery)
    for i in range(10):
        places = [(i + j) % 10 for j in range(gallery)]
        of_image = places[np.argmax(similarity[i, places])]
        of_text = places[np.argmax(similarity[places, i])]
        wanted = [text[of_image] == text[i], text[of_text] == text[i]]
        np.testing.assert_array_equal(found[i], wanted)
    assert not recall(jnp.zeros((10, 10)), jnp.asarray(same), gallery).any()
    everywhere = recall(jnp.eye(10) + same, jnp.asarray(same), gallery)
    assert everywhere.all()
    with pytest.raises(BadInput, match="among two at least"):
        Recall(model(), 1)
