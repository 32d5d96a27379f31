"""Data of known modes: what stands in them, and what counts a model's own."""

import numpy as np
import pytest
from scipy import stats

from gengen.errors import BadInput
from gengen.metrics.modes import mode_kl, modes_found, nearest_mode
from train.data.gaussians import modes
from train.data.load import load

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
    np.testing.assert_allclose(points.mean(0), dataset.spec.mean, atol=0.02)
    np.testing.assert_allclose(points.std(0), dataset.spec.std, rtol=0.01)
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
