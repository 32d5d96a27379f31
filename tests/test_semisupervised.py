"""Few labels: the bounds of M2 by enumeration, and which labels are hidden."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import close

from gengen.conditions import Labels, Nothing
from gengen.errors import BadInput
from gengen.models.combinators.semisupervised import SemiSupervised
from gengen.objective import loss
from gengen.spaces import Images
from gengen.types import static
from train.data import more as data_more
from train.data.few_labels import parse
from train.data.load import load
from train.experiments import EXPERIMENTS

KEY = jax.random.key(0)
SPACE, THREE = Images((1, 1, 1), 4), Labels(3)
TABLE = np.random.default_rng(0).dirichlet(np.ones(4), 3)  # p(x|y), [y, x]
EVERY = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)


@static
class Tabulated:
    """p(x|y) from a table; an exact conditional density."""

    space: Images = SPACE
    condition: Labels = THREE
    density: ClassVar[str] = "exact"

    def init(self, key, batch=None):
        return {"table": {"log_p": jnp.log(jnp.asarray(TABLE, jnp.float32))}}, {}

    def losses(self):
        return {"table": self.loss}

    def log_likelihood(self, params, state, batch, key):
        x, y = batch["image"].reshape(-1).astype(int), batch["label"]
        return params["table"]["log_p"][y, x]

    @loss
    def loss(self, params, state, batch, key):
        return -jnp.mean(self.log_likelihood(params, state, batch, key)), (state, {})


class Net(nn.Module):
    """Free logits of every x."""

    @nn.compact
    def __call__(self, x, train=False):
        logits = self.param("logits", nn.initializers.normal(), (4, 3))
        h = logits[jnp.rint((x.reshape(-1) + 1) * 1.5).astype(int)]
        return h, h


MODEL = SemiSupervised(Tabulated(), Net(), weight=2.0)
JOINT = TABLE.T / 3  # p(x, y), [x, y]


def params_with(logits):
    params = MODEL.init(KEY)[0]
    return {"m2": {**params["m2"], "labels": {"logits": jnp.asarray(logits)}}}


def value(params, label, weight=2.0):
    model = SemiSupervised(Tabulated(), Net(), weight)
    batch = {"image": EVERY, "label": np.asarray(label, np.int32)}
    return jax.jit(model.loss)(params, {}, batch, KEY)


@pytest.mark.parametrize("label", [[-1, -1, -1, -1], [0, 2, 1, 0], [-1, 1, -1, 2]])
def test_the_loss_is_the_enumerated_bound(label):
    logits = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    q = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected, surprise = [], []
    for x, y in enumerate(label):
        if y < 0:  # log p(x) - KL(q ‖ p(y|x))
            posterior = JOINT[x] / JOINT[x].sum()
            kl = np.sum(q[x] * np.log(q[x] / posterior))
            expected.append(np.log(JOINT[x].sum()) - kl)
        else:
            expected.append(np.log(JOINT[x, y]))
            surprise.append(-np.log(q[x, y]))
    more = 2.0 * np.mean(surprise) if surprise else 0.0
    found, (_, metrics) = value(params_with(logits), label)
    close(found, more - np.mean(expected), 1e-5, 1e-5)
    right = [q[x].argmax() == y for x, y in enumerate(label) if y >= 0]
    close(metrics["accuracy"], np.mean(right) if right else 0.0, 1e-6, 1e-6)


def test_at_the_posterior_the_bound_is_the_evidence_and_q_rests():
    posterior = params_with(np.log(JOINT).astype(np.float32))
    unknown = [-1] * 4
    found = value(posterior, unknown)[0]
    close(found, -np.mean(np.log(JOINT.sum(1))), 1e-5, 1e-5)
    slope = jax.grad(lambda p: value(p, unknown)[0])(posterior)["m2"]
    close(slope["labels"]["logits"], np.zeros((4, 3)), 1e-6, 1e-6)
    assert np.any(slope["generative"]["table"]["log_p"] != 0)


def test_without_alpha_labels_teach_q_nothing():
    params = params_with(np.ones((4, 3), np.float32) + np.eye(4, 3, dtype=np.float32))
    known = [0, 1, 2, 0]
    for weight, moves in ((0.0, False), (2.0, True)):
        slope = jax.grad(lambda p, w=weight: value(p, known, w)[0])(params)["m2"]
        assert np.any(slope["labels"]["logits"] != 0) == moves


def test_the_first_labels_of_each_class_are_known_in_training_alone():
    full, few = load("digits"), load("few-labels:3:digits")
    label, kept = (x.fetch(np.arange(1000))["label"] for x in (full, few))
    assert few.spec.labelled == 3 and few.spec.name == "few-labels:3:digits"
    assert np.bincount(kept + 1)[1:].tolist() == [3] * 10
    assert np.all((kept == label) | (kept == -1))
    for each in range(10):
        assert np.all(np.flatnonzero(kept == each) == np.flatnonzero(label == each)[:3])
    test = load("few-labels:3:digits", split="test").fetch(np.arange(9))
    assert np.all(test["label"] >= 0)
    both = load("few-labels:3:binarised:digits")
    np.testing.assert_array_equal(both.feed(np.arange(50))["label"], kept[:50])


def test_images_are_left_out_and_others_come_behind(tmp_path):
    few, full = load("few-images:3:digits"), load("digits")
    label = full.fetch(np.arange(1000))["label"]
    first = np.sort(np.concatenate([np.flatnonzero(label == i)[:3] for i in range(10)]))
    own = few.fetch(np.arange(30))
    np.testing.assert_array_equal(own["image"], full.fetch(first)["image"])
    file = tmp_path / "drawn.npz"
    drawn = {"image": np.full((5, 8, 8, 1), 16, np.uint8), "label": np.arange(5)}
    np.savez(file, **drawn)
    more = load(f"more:{file}:few-images:3:digits")
    assert more.size == 35 and more.digest() != few.digest() != full.digest()
    batch = more.fetch(np.array([34, 0, 31]))
    assert batch["image"].dtype == np.uint8 and batch["label"].dtype == np.int32
    assert batch["label"].tolist() == [4, own["label"][0], 1]
    np.testing.assert_array_equal(batch["image"][1], own["image"][0])
    assert np.all(batch["image"][[0, 2]] == 16)
    assert load(f"more:{file}:digits", split="test").size == 447
    # A set that says itself what it contains does not say it of the larger one.
    told = dataclasses.replace(full, contents=lambda: {"all": "told"})
    for whole in (
        data_more.more(lambda _: told, f"{file}:digits", "train"),
        data_more.few_images(lambda _: told, "3:digits", "train"),
    ):
        assert whole.digest() != told.digest()
    for change, words in (
        ({"label": np.arange(6)}, "5 images and 6 labels"),
        ({"image": drawn["image"] + 1}, "image goes from 17 to 17, beyond 0 to 16"),
        ({"image": drawn["image"][:, 1:]}, "an array image of integers"),
    ):
        np.savez(file, **drawn | change)
        with pytest.raises(BadInput, match=words):
            load(f"more:{file}:digits")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: load("few-images:no:digits"), "write few-images:N:NAME, N images of"),
        (lambda: load("more:a.npz:digits"), "there is no file a.npz: train.sample"),
        (lambda: load("more:digits"), "write more:FILE.npz:NAME"),
        (lambda: SemiSupervised(Tabulated(condition=Nothing()), Net()), "no p.x.y."),
        (lambda: SemiSupervised(Tabulated(), Net(), -1.0), "weight=-1.0"),
        (lambda: parse("few-labels:ten:digits"), "write few-labels:N:NAME"),
        (lambda: load("few-labels:2000:digits"), "digits: class 0 has 99 training"),
        (
            lambda: load("few-labels:3:digits").spec.condition(True),
            "hides most labels.*take the experiment m2",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(BadInput, match=words):
        make()


def test_m2_without_labels_is_refused():
    spec = dataclasses.replace(load("digits").spec, num_classes=0, class_names=())
    with pytest.raises(BadInput, match="digits has no labels, of which m2 needs some"):
        EXPERIMENTS["m2"](spec)
