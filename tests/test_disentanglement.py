"""Codes that are made: gaps of one and of zero; the data whose factors are known."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from exact import close
from sklearn.metrics import mutual_info_score

from gengen.errors import BadInput
from gengen.metrics.disentanglement import (
    attribute_predictability,
    binned,
    mutual_information,
    mutual_information_gap,
)
from gengen.models.vae import VAE
from gengen.nets.mlp import MLPDecoder, MLPEncoder
from gengen.observations.binomial import Binomial
from gengen.spaces import Images
from train.data.load import load
from train.data.shapes import FACTORS, drawn
from train.measure.disentangling import disentanglement

DRAW = np.random.default_rng(0)
EVERY = np.stack(np.meshgrid(*map(np.arange, (3, 4, 5)), indexing="ij"), -1).reshape(
    -1, 3
)
CENTRED = EVERY - EVERY.mean(0)
NOISE = DRAW.normal(size=(len(EVERY), 1))


def rotated(angle):
    turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return CENTRED[:, :2] / CENTRED[:, :2].std(0) @ np.array(turn)


def test_a_factor_for_each_coordinate_is_one_and_a_copy_of_it_is_zero():
    code = np.concatenate([3.0 - 2.0 * CENTRED[:, [2, 0, 1]], 0 * NOISE], 1)
    for gap in (mutual_information_gap, attribute_predictability):
        close(gap(code, EVERY), np.ones(3), 1e-9, 1e-9)
        copied = np.concatenate([code, code[:, [0]]], 1)  # of the third factor
        close(gap(copied, EVERY), [1, 1, 0], 1e-9, 1e-9)


def test_by_45_degrees_two_coordinates_know_as_much_of_either_factor():
    half = attribute_predictability(rotated(np.pi / 4), EVERY[:, :2])
    close(half, np.zeros(2), 1e-9, 1e-9)
    close(attribute_predictability(rotated(np.pi / 6), EVERY[:, :2]), [0.5, 0.5], 1e-9)
    straight, turned = (
        mutual_information_gap(rotated(a), EVERY[:, :2]) for a in (0, np.pi / 4)
    )
    assert np.all(straight > 0.999) and np.all(turned < 0.2)


def test_mutual_information_is_scikit_learns():
    code = binned(CENTRED + DRAW.normal(size=EVERY.shape), 6)
    expected = [[mutual_info_score(z, v) for v in EVERY.T] for z in code.T]
    close(mutual_information(code, EVERY), expected, 1e-9, 1e-9)


def test_codes_that_have_no_gap_are_refused():
    with pytest.raises(BadInput, match="at least 2 coordinates"):
        mutual_information_gap(NOISE, EVERY)
    with pytest.raises(BadInput, match="a factor is constant"):
        attribute_predictability(CENTRED, 0 * EVERY)


def test_shapes_are_a_function_of_their_factors():
    every = load("shapes", split="all")
    assert every.size == np.prod([*FACTORS.values()])
    images, places = every.fetch(np.arange(every.size)), np.arange(every.size)
    assert len(np.unique(images["image"].reshape(every.size, -1), axis=0)) == every.size
    factors = every.factors(places)
    np.testing.assert_array_equal(images["label"], factors[:, 0])
    for i in (0, 777, 2303):
        np.testing.assert_array_equal(images["image"][i], drawn(factors[i]))
    parts = [load("shapes", split=s) for s in ("train", "validation", "test")]
    rows = [part.factors(np.arange(part.size)) for part in parts]
    whole = np.concatenate(rows)
    assert len(np.unique(whole, axis=0)) == len(whole) == every.size
    # A shape that moves by a place moves its middle of mass so, and keeps its mass.
    mass = images["image"].astype(float).sum((1, 2, 3)).reshape(3, 4, 8, 8, 3)
    assert np.all(mass.std((2, 3)) < 0.06 * mass.mean((2, 3)))
    middle = (images["image"][..., 0].sum(2) * np.arange(16)).sum(1) / mass.ravel()
    step = np.diff(middle.reshape(3, 4, 8, 8, 3), axis=2)
    assert np.all(np.abs(step - 6 / 7) < 0.3)
    with pytest.raises(BadInput, match="image-size 32 says nothing about shapes"):
        load("shapes", image_size=32)


def test_an_evaluation_knows_the_factors_of_its_data():
    """A posterior whose means are three of the factors, read off the image's number."""
    data = load("shapes", split="test")
    code = data.factors(np.arange(data.size))[:, [2, 3, 4]].astype(np.float32)
    known = {data.fetch(np.array([i]))["image"].tobytes(): i for i in range(data.size)}

    def features(params, state, batch, key):
        def look_up(images):
            return code[[known[image.tobytes()] for image in np.asarray(images)]]

        shape = jax.ShapeDtypeStruct((len(batch["image"]), 3), np.float32)
        return jax.pure_callback(look_up, shape, batch["image"])

    net = MLPEncoder(3, ()), MLPDecoder((16, 16, 1), ())
    model = VAE(*net, Binomial(256), Images((16, 16, 1), 256), 3)
    run = SimpleNamespace(model=Stub(model, features), params={}, state={})
    options = SimpleNamespace(likelihood_num=0, seed=0, batch_size=100)
    result = disentanglement(run, data, options)["disentanglement"]
    for name in ("mig", "sap"):
        gap = result[name]
        assert min(gap["row"], gap["column"], gap["grey"]) > 0.7
        assert max(gap["kind"], gap["size"]) < 0.1
        assert gap["value"] == pytest.approx(np.mean([gap[f] for f in FACTORS]))
    assert disentanglement(run, load("digits"), options) == {}


class Stub(VAE):
    """A VAE with other features."""

    def __init__(self, model, features):
        for name, value in {**vars(model), "features": features}.items():
            object.__setattr__(self, name, value)
