"""Laws of the buffer, of CycleGAN and of data of two domains."""

import io

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from PIL import Image

from gengen import buffer
from gengen.errors import BadInput
from gengen.models.cyclegan import CycleGAN
from gengen.nets.patch import PatchGAN
from gengen.nets.translator import Translator, reflected
from gengen.spaces import Images
from train.data import emoji, emoji_styles
from train.data.load import load
from train.data.pairs import CHANGES, change_of
from train.measure.game_watch import watch_of
from train.measure.translation import LEVEL, class_figures, figures, ranks

KEY = jax.random.key(0)
SPACE = Images((8, 8, 1), 17)
RNG = np.random.default_rng(0)


# ------------------------------------------------------------------ the buffer


def test_the_buffer_returns_what_was_put_in_and_keeps_the_rest():
    # Each example is returned, or kept, at every moment: nothing is lost or made up.
    held, exchange = buffer.empty(5, (1,)), jax.jit(buffer.exchanged)
    given, returned, swapped = [], [], 0
    for i in range(40):
        x = np.float32(i * 3 + np.arange(3))[:, None] / 7.0
        out, held = exchange(held, jnp.asarray(x), jax.random.fold_in(KEY, i))
        given += x.ravel().tolist()
        out = np.asarray(out).ravel().tolist()
        swapped += sum(a != b for a, b in zip(x.ravel().tolist(), out, strict=True))
        returned += out
    kept = jax.lax.bitcast_convert_type(held["bits"], jnp.float32).ravel().tolist()
    assert set(returned) <= set(given) and set(kept) <= set(given)
    assert len(set(kept)) == 5 and int(held["num"]) == 5
    # After the first 5, each is exchanged with probability 1/2: 115 tosses.
    assert abs(swapped - 115 / 2) < 3 * np.sqrt(115) / 2
    # An example is returned twice only as one of the first 5, which are also kept.
    assert set(given) == set(returned) | set(kept)


# ------------------------------------------------------------------ the model


class Sum(nn.Module):
    """x + a, with a parameter a."""

    first: float = 0.25

    @nn.compact
    def __call__(self, x):
        return x + self.param("a", nn.initializers.constant(self.first), ())


class Mean(nn.Module):
    """The mean of x times a parameter, one patch."""

    @nn.compact
    def __call__(self, x):
        return self.param("w", nn.initializers.ones, ()) * x.mean((1, 2, 3))[:, None]


def batch():
    images = RNG.integers(0, 17, (2, 4, 8, 8, 1)).astype(np.uint8)
    return {"image": images[0], "partner": images[1]}


def test_the_losses_are_the_papers_equations():
    model, data = CycleGAN(Sum(), Mean(), SPACE, buffer=8), batch()
    params, state = model.init(KEY, data)
    a, b = (np.asarray(SPACE.to_model(x)) for x in data.values())
    losses = model.losses()
    value, (state, _) = losses["discriminator"](params, state, data, KEY)
    fake_b, fake_a = a + 0.25, b + 0.25  # the buffer is not yet full

    def mean(x):
        return x.mean((1, 2, 3))

    wanted = sum(
        np.mean((mean(real) - 1) ** 2 + mean(fake) ** 2) / 2
        for real, fake in ((a, fake_a), (b, fake_b))
    )
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    assert int(state["buffer"]["a"]["num"]) == 4
    value, (_, metrics) = losses["generator"](params, state, data, KEY)
    game = sum(np.mean((mean(fake) - 1) ** 2) for fake in (fake_a, fake_b))
    np.testing.assert_allclose(metrics["cycle"], 2 * 0.5, rtol=1e-5)
    np.testing.assert_allclose(metrics["identity"], 2 * 0.25, rtol=1e-5)
    np.testing.assert_allclose(value, game + 10.0 * 1.0 + 5.0 * 0.5, rtol=1e-5)


def test_each_player_learns_its_own_parameters():
    model, data = CycleGAN(Sum(), Mean(), SPACE), batch()
    params, state = model.init(KEY, data)
    for player, loss in model.losses().items():
        gradient = jax.grad(lambda p, loss=loss: loss(p, state, data, KEY)[0])(params)
        for name, tree in gradient.items():
            moved = [bool(jnp.any(x != 0)) for x in jax.tree.leaves(tree)]
            assert all(moved) if name == player else not any(moved)


def test_translating_there_and_back_is_the_maps_composition():
    nets = Translator(4, 1, 1), PatchGAN(4, 1)
    model, data = CycleGAN(*nets, SPACE), batch()
    params, state = jax.jit(model.init)(KEY, data)
    x = SPACE.read(data)
    y = jax.jit(model.translate)(params, state, x)
    direct = jax.jit(nets[0].apply)({"params": params["generator"]["b"]}, x)
    np.testing.assert_array_equal(y, direct)
    assert y.shape == x.shape and float(jnp.abs(y).max()) <= 1
    score = jax.jit(nets[1].apply)({"params": params["discriminator"]["a"]}, x)
    assert score.shape == (4, 4, 4)
    with pytest.raises(BadInput, match="to='c': the domains are a and b"):
        model.translate(params, state, x, "c")


def test_no_game_is_watched_whose_generator_draws_nothing():
    assert watch_of(None, CycleGAN(Sum(), Mean(), SPACE), None) == []


def test_padding_by_reflection_is_numpys():
    x = RNG.normal(size=(1, 4, 5, 2)).astype(np.float32)
    wanted = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(reflected(jnp.asarray(x), 2), wanted)


def test_domains_of_different_shapes_are_refused():
    model, data = CycleGAN(Sum(), Mean(), SPACE), batch()
    with pytest.raises(BadInput, match=r"domain a has .* \[8, 8, 1\] and .* \[4, 8, 1"):
        model.init(KEY, {**data, "partner": data["partner"][:, :4]})
    with pytest.raises(BadInput, match="no partner"):
        model.init(KEY, {"image": data["image"]})


# ------------------------------------------------------------------ data


@pytest.mark.parametrize("change", CHANGES)
def test_pairs_are_known_in_tests_and_unpaired_in_training(change):
    name = f"pair:{change}:digits"
    train, test = load(name), load(name, split="test")
    digits = load("digits")
    assert train.size == 500 and test.size == 447
    every = digits.fetch(np.arange(1000))["image"]
    channels = train.spec.shape[2]
    batch = train.fetch(np.arange(500))
    np.testing.assert_array_equal(batch["image"][..., :1], every[:500])
    known = change_of(name)
    other = known(every[500:].repeat(channels, axis=-1), 17)
    np.testing.assert_array_equal(batch["partner"], other)
    pairs = test.fetch(np.arange(447))
    np.testing.assert_array_equal(pairs["partner"], known(pairs["image"], 17))
    assert pairs["partner"].max() <= 16 and np.any(pairs["partner"] != pairs["image"])
    shapes = {k: (v.shape[1:], v.dtype) for k, v in train.spec.example(1).items()}
    assert shapes == {k: (v.shape[1:], v.dtype) for k, v in batch.items()}


def test_two_sets_are_two_domains(tmp_path):
    both = load("unpaired:digits,pair:thick:digits", split="validation")
    assert both.spec.num_classes == 0 and both.size == 350
    np.savez(tmp_path / "x.npz", image=np.zeros((20, 4, 4), np.uint8))
    with pytest.raises(BadInput, match="digits has .* 17 levels and npz.* 256"):
        load(f"unpaired:digits,npz:{tmp_path}/x.npz")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pair:blue:digits", "one of inverted, thick, tinted"),
        ("pair:thick", "write pair:CHANGE:NAME"),
        ("unpaired:digits", "names no two data sets"),
    ],
)
def test_names_of_domains_are_checked(name, words):
    with pytest.raises(BadInput, match=words):
        load(name)


# ------------------------------------------------------------------ measuring


def digits_of(split, change="inverted"):
    batch = load(f"pair:{change}:digits", split=split).fetch(np.arange(300))
    a, b = (np.asarray(SPACE.to_model(batch[key])) for key in ("image", "partner"))
    return a, b, batch["label"]


def test_the_true_map_has_no_error_and_a_permuted_one_is_found_out():
    (_, learned, label), (a, b, true) = digits_of("validation"), digits_of("test")
    told = figures(a, b, lambda x: -x, lambda y: -y)
    assert told["error"] < 1e-6 and told["mean_rank"] == 1.0
    assert told["cycle_error"] < 1e-6 and told["error_of_a_copy"] > 0.5
    np.testing.assert_allclose(told["cycle_error_under_noise"], LEVEL, rtol=0.02)
    known = (learned, label)
    right = class_figures(known, b, b, true, 10)
    assert right["accuracy"] == right["accuracy_of_partners"] > 0.85
    assert right["becomes"] == list(range(10))
    # Every image becomes the partner of one of the next class: no loss can tell.
    moved = {k: np.flatnonzero(true == (k + 1) % 10) for k in range(10)}
    permuted = np.stack([b[moved[k][i % len(moved[k])]] for i, k in enumerate(true)])
    found = class_figures(known, permuted, b, true, 10)
    assert found["diagonal"] < 0.1
    assert found["becomes"] == [*range(1, 10), 0]


def test_what_is_hidden_in_low_bits_is_lost_to_noise():
    a, b, _ = digits_of("test")
    secret = 1e-3 * np.roll(a, 1, axis=0)  # another image, under the translation

    def back(y):
        return (y - b) / 1e-3

    told = figures(np.roll(a, 1, axis=0), b, lambda x: b + secret, back)
    assert told["cycle_error"] < 1e-3 and told["cycle_error_under_noise"] > 2.0


def test_ranks_are_scipys_of_the_distances():
    y, partner = RNG.normal(size=(2, 20, 3))
    distance = scipy.spatial.distance.cdist(y, partner)
    wanted = scipy.stats.rankdata(distance, axis=1)
    np.testing.assert_allclose(ranks(y, partner), np.diagonal(wanted))


def test_emoji_without_their_font_are_refused_in_words(tmp_path):
    with pytest.raises(BadInput, match="apt-get install fonts-noto-color-emoji"):
        load("emoji", data_dir=tmp_path)
    (tmp_path / emoji.FONT.name).write_bytes(b"no font")
    with pytest.raises(BadInput, match="cannot be read as a font"):
        load("emoji", data_dir=tmp_path)


def test_two_styles_of_emoji_are_unpaired_in_training_alone(tmp_path, monkeypatch):
    # 40 emoji, the red of Noto's being the number, the green of the others'.
    def png(colour):
        file = io.BytesIO()
        Image.new("RGB", (64, 64), colour).save(file, "PNG")
        return file.getvalue()

    ours = {(0x1F600 + i, 0xFE0F): png((i, 0, 0)) for i in range(40)}
    monkeypatch.setattr(emoji_styles, "font_at", lambda *_: None)
    monkeypatch.setattr(emoji_styles, "noto", lambda _: ours)
    folder = tmp_path / "package" / "img" / "twitter" / "64"
    folder.mkdir(parents=True)
    for i in range(40):
        (folder / f"{0x1F600 + i:x}.png").write_bytes(png((0, i, 0)))
    seen = []
    for split in ("train", "validation", "test"):
        data = load(f"emoji-styles:{tmp_path}", split=split)
        batch = data.fetch(np.arange(data.size))
        a, b = batch["image"][:, 0, 0, 0], batch["partner"][:, 0, 0, 1]
        assert batch["image"].shape[1:] == (32, 32, 3)
        seen += [*a, *b] if split == "train" else [*a]
        assert split == "train" or np.array_equal(a, b)
    assert len(set(seen)) == len(seen) >= 39  # one may be left over
    with pytest.raises(BadInput, match="no such folder; unpack emoji-datasource"):
        load("emoji-styles:/nowhere")


def test_an_emoji_stands_on_white_in_the_middle_of_a_square():
    file = io.BytesIO()
    Image.new("RGBA", (4, 2), (255, 0, 0, 255)).save(file, "PNG")
    small = emoji.on_white(file.getvalue(), 2)
    np.testing.assert_array_equal(small[..., 0], 255)
    np.testing.assert_array_equal(small[..., 1], 128)  # half of each is white
