"""Data of known modes: what stands in them, and what counts a model's own."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from gengen.errors import BadInput
from gengen.metrics.modes import mode_kl, modes_found, nearest_mode
from train.data.gaussians import modes
from train.data.load import load
from train.measure.game_watch import diagnose, variety
from train.measure.known_modes import channel_probs
from train.run.report import read_rows

KINDS = pytest.mark.parametrize("kind", ["ring", "grid"])


@KINDS
def test_points_are_from_gaussians_around_the_modes(kind):
    dataset, (centers, std) = load(f"gaussians:{kind}"), modes(f"gaussians:{kind}")
    points = dataset.fetch(np.arange(dataset.size))["latent"]
    assert points.dtype == np.float32 and points.shape == (100_000, 2)
    mode = nearest_mode(points, centers, np.inf)
    assert np.ptp(np.bincount(mode)) <= 1  # each mode as often
    noise = ((points - centers[mode]) / std).ravel()
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    # Three standard deviations hold 1 - exp(-9/2) of a Gaussian of the plane.
    good = nearest_mode(points, centers, 3 * std) >= 0
    assert stats.binomtest(int(good.sum()), len(good), 1 - np.exp(-4.5)).pvalue > 1e-3
    assert modes_found(mode, len(centers)) == len(centers)
    assert mode_kl(mode, len(centers)) < 1e-6
    np.testing.assert_allclose(dataset.spec.std, 10 * std)
    other = load(f"gaussians:{kind}", split="test").fetch(np.arange(2_500))["latent"]
    assert not {*map(tuple, other.tolist())} & {*map(tuple, points.tolist())}


def test_neighbours_of_the_grid_are_2_apart_and_those_of_the_ring_on_a_circle():
    grid, ring = modes("gaussians:grid")[0], modes("gaussians:ring")[0]
    assert len(grid) == 25 and len(ring) == 8
    for points, apart in ((grid, 2.0), (ring, 2 * np.sin(np.pi / 8))):
        distances = np.linalg.norm(points[:, None] - points, axis=-1)
        np.testing.assert_allclose(distances[distances > 0].min(), apart)
    np.testing.assert_allclose(np.linalg.norm(ring, axis=1), 1)


def test_channels_of_a_stacked_image_are_images_of_the_set():
    plain, three = load("digits"), load("stacked:digits")
    assert three.spec.shape == (8, 8, 3) and three.spec.num_classes == 0
    images = three.fetch(np.arange(200))["image"]
    known = {x.tobytes() for x in plain.fetch(np.arange(1000))["image"][..., 0]}
    for channel in np.moveaxis(images, -1, 1).reshape(-1, 8, 8):
        assert np.ascontiguousarray(channel).tobytes() in known
    assert len(np.unique(images.reshape(200, -1), axis=0)) == 200
    again = three.fetch(np.array([7, 3]))["image"]
    np.testing.assert_array_equal(again, images[[7, 3]])
    assert load("stacked:digits", split="test").size == 10_000


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gaussians:cube", "write gaussians:ring or :grid"),
        ("stacked:gaussians:ring", "works on images"),
        ("stacked:stacked:digits", "has 3 channels and 0 classes"),
    ],
)
def test_what_has_no_known_modes_is_refused(name, words):
    with pytest.raises(BadInput, match=words):
        load(name)
    with pytest.raises(BadInput, match="--levels 3 says nothing"):
        load("gaussians:ring", levels=3)


# ------------------------------------------------------------------ a game that fails


def game_rows(losses, right=0.7):
    return [
        {"step": i, "generator/loss": float(loss), "discriminator/right": right}
        for i, loss in enumerate(losses)
    ]


CALM, SWINGS = np.linspace(0.7, 0.9, 10), 1 + np.sin(2.1 * np.arange(10))


@pytest.mark.parametrize(
    ("rows", "share", "words"),
    [
        (game_rows(CALM), 1.0, ""),
        (game_rows(CALM), None, ""),
        (game_rows(SWINGS)[:4], 1.0, ""),
        (game_rows(np.linspace(0, 5, 10)), 1.0, ""),
        (game_rows(CALM, right=1.0), 1.0, "right on 100.0% of real examples for 8"),
        (game_rows(SWINGS), 1.0, "the players circle; regularise the critic"),
        ([{"game/variety": 0.1}] * 2, 0.2, "samples vary 0.20 times as much as data"),
        ([{"game/variety": 0.1}], 0.2, ""),  # it has just begun
        ([{"game/variety": 0.9}] * 2, 0.2, ""),
    ],
)
def test_a_failing_game_is_named_in_a_sentence(rows, share, words):
    told = diagnose(rows, share)
    assert words in told and bool(words) == bool(told)
    assert not told or "--" in told  # the remedy is an option


def test_variety_is_half_of_the_mean_squared_distance_of_pairs():
    x = np.random.default_rng(0).normal(size=(50, 2, 3))
    pairs = np.sum((x[:, None] - x) ** 2, axis=(2, 3))
    assert variety(x) == pytest.approx(np.mean(pairs) / 2)


def test_a_run_on_points_counts_its_modes_and_draws_them(cli, tmp_path):
    workdir = tmp_path / "w"
    line = f"train gan --dataset gaussians:ring --workdir {workdir} --hidden 4"
    status, out, err = cli(f"{line} --steps 2 --batch-size 16 --sample-every 1")
    assert status == 0, err
    row = read_rows(workdir / "metrics.jsonl")[-1]
    assert 0 <= row["modes/good_samples"] <= 1 and row["game/variety"] > 0
    for name in ("samples.png", "drawn.png"):
        if name == "drawn.png":
            assert cli(f"train.sample --workdir {workdir} --num 8")[0] == 0
        assert Image.open(workdir / name).size[0] > 300
    status, out, err = cli(f"train.evaluate --workdir {workdir} --num 10")
    assert status == 0, err
    modes = json.loads((workdir / "evaluation.json").read_text())["modes"]
    assert modes["known"] == 8 and modes["num"] == 2_500
    assert "modes found by 2,500 samples" in out


def test_modes_of_stacked_images_are_the_classes_of_their_channels():
    plain = load("digits")
    known = {x.tobytes(): i for i, x in enumerate(plain.fetch(np.arange(9))["image"])}

    def extractor(x):
        levels = np.round((x + 1) * 8).astype(np.uint8)
        return None, np.eye(10)[[known.get(image.tobytes(), 9) for image in levels]]

    images = plain.fetch(np.array([4, 0, 7, 1, 1, 1]))["image"]
    stack = np.moveaxis(images.reshape(2, 3, 8, 8), 1, -1) / 8.0 - 1
    probs = channel_probs(extractor, stack)
    np.testing.assert_array_equal(probs.argmax(-1), [[4, 0, 7], [1, 1, 1]])
