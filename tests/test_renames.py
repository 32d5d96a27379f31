"""Checkpoints of older versions: every array comes back under the name it has now."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import train.run.checkpoint
from gengen.conditions import Labels
from gengen.errors import BadInput
from gengen.models.gan import GAN
from gengen.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from gengen.spaces import Images
from gengen.step import init_train_state
from train.run.checkpoint import Checkpoints
from train.run.digests import leaf_names
from train.run.renames import RENAMES, Renames, current_names

OPTIMIZERS = {"p": optax.adam(0.1)}
# A dense layer has come before the one there was, and stands for its embedding.
LAYERS = Renames(
    ".*/Embed_0/embedding",
    (
        ("(.*)/Embed_0/embedding", r"\1/Dense_0/kernel"),
        ("(.*)/Dense_0/(kernel|bias)", r"\1/Dense_1/\2"),
    ),
)
NEWER = Renames(".*/Dense_1/kernel", ((r"(.*)/Dense_1/(.*)", r"\1/last/\2"),))


def train_state(**layers):
    """A train state of one player, in which no two arrays are alike."""
    params = {
        layer: {name: jnp.zeros(shape) for name, shape in leaves.items()}
        for layer, leaves in layers.items()
    }
    made = init_train_state(jax.random.key(3), {"p": params}, {}, OPTIMIZERS)
    flat, structure = jax.tree.flatten(made.replace(key=None))
    flat = [jnp.full(x.shape, i + 1, x.dtype) for i, x in enumerate(flat)]
    return jax.tree.unflatten(structure, flat).replace(key=made.key)


OLD = {
    "Dense_0": {"kernel": (2, 3), "bias": (3,)},
    "Embed_0": {"embedding": (4, 3)},
}
NEW = {
    "Dense_0": {"kernel": (4, 3)},
    "Dense_1": {"kernel": (2, 3), "bias": (3,)},
}
NEWEST = {"Dense_0": NEW["Dense_0"], "last": NEW["Dense_1"]}


def as_of_old(train_state):
    """The tree of a checkpoint from before the counters had optax's names."""
    fields = ("step", "key", "params", "state", "opt_state", "ema")
    seen = train_state.nonfinite
    skipped = {
        "turns": seen.total_notfinite,
        "in_a_row": seen.consecutive_notfinite,
        "player": seen.player,
        "tensor": seen.tensor,
    }
    return {name: getattr(train_state, name) for name in fields} | {"skipped": skipped}


@pytest.fixture
def saved_of_old(tmp_path, monkeypatch):
    """The checkpoints of a workdir, of which the only one is of an older version."""
    with monkeypatch.context() as then:
        then.setattr(train.run.checkpoint, "_as_dict", as_of_old)
        assert Checkpoints(tmp_path, 1).save(train_state(**OLD)) is None
    checkpoints = Checkpoints(tmp_path)
    assert "skipped/turns" in leaf_names(checkpoints.raw()[1])
    return checkpoints


def numbers(train_state):
    """{path: the one number of which the array consists}."""
    flat = leaf_names(train_state.replace(key=jax.random.key_data(train_state.key)[:1]))
    return {name: np.unique(x).item() for name, x in flat.items()}


def test_the_counters_of_skipped_turns_are_found_under_their_old_names(saved_of_old):
    like = jax.tree.map(jnp.zeros_like, train_state(**OLD))
    restored, notes = saved_of_old.restore(like)
    assert notes == []
    assert numbers(restored) == numbers(train_state(**OLD))
    assert jax.tree.structure(restored) == jax.tree.structure(like)


@pytest.mark.parametrize(
    ("changes", "layers"), [((LAYERS,), NEW), ((LAYERS, NEWER), NEWEST)]
)
def test_renamed_layers_are_found_with_their_averages_and_moments(
    saved_of_old, monkeypatch, changes, layers
):
    monkeypatch.setattr(train.run.checkpoint, "RENAMES", (*RENAMES, *changes))
    like = jax.tree.map(jnp.zeros_like, train_state(**layers))
    restored, _ = saved_of_old.restore(like)
    before, after = numbers(train_state(**OLD)), numbers(restored)
    first, second = layers
    now = {"Embed_0/embedding": f"{first}/kernel"}
    now |= {f"Dense_0/{x}": f"{second}/{x}" for x in ("kernel", "bias")}
    for tree in ("params/p", "ema/p", "opt_state/p/0/mu", "opt_state/p/0/nu"):
        for old, new in now.items():
            assert after[f"{tree}/{new}"] == before[f"{tree}/{old}"]
    assert len(after) == len(before)
    assert after["nonfinite/tensor"] == before["nonfinite/tensor"]


def test_a_model_that_still_has_the_old_names_is_left_alone():
    paths = ["params/p/Embed_0/embedding", "params/p/Dense_0/kernel"]
    assert current_names(paths, paths, (LAYERS,)) == {path: path for path in paths}


def test_the_embeddings_of_a_gan_are_found_under_their_old_names():
    nets = DCGANGenerator((4, 4, 1), 4), DCGANDiscriminator(4)
    labels = Labels(3)
    nets = [net.clone(condition=labels) for net in nets]
    model = GAN(*nets, Images((4, 4, 1), 5), latent=2, condition=labels)
    adam = {player: optax.adam(0.1) for player in ("generator", "discriminator")}
    now = jax.eval_shape(
        lambda key: init_train_state(key, *model.init(key), adam), jax.random.key(0)
    )
    now = [*leaf_names(now)]
    then = {path.replace("embed/kernel", "Embed_0/embedding"): path for path in now}
    assert len(then.keys() - now) == 2 * 4  # params, ema and two moments, of two nets
    assert current_names(then, now, RENAMES) == then


def test_an_embedding_of_another_model_keeps_its_name():
    paths = ["params/autoregressive/Embed_0/embedding"]
    assert current_names(paths, [], RENAMES) == {path: path for path in paths}


def test_a_checkpoint_of_another_model_is_still_refused(saved_of_old):
    with pytest.raises(BadInput, match="is of another model: it has .*Dense_0/bias"):
        saved_of_old.restore(train_state(Dense_0={"kernel": (5, 5)}))
