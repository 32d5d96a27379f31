"""Laws of Gaussian mixtures with any covariance: finite differences, Bayes, scipy."""

import jax
import numpy as np
import pytest
from exact import FAR_PATHS, MIXTURE, PREDICTIONS, arrays, close, named
from scipy import stats

from gengen.diffusion.paths import Linear
from gengen.diffusion.process import Process, Velocity, recover, score
from gengen.errors import BadInput
from gengen.models.closed_form import Mixture, with_covariances

COVARIANCES = (((1.0, 0.6), (0.6, 0.5)), ((0.2, -0.1), (-0.1, 0.3)))
FULL = with_covariances(MIXTURE.weights, MIXTURE.means, COVARIANCES)
DIAGONAL = Mixture(MIXTURE.weights, MIXTURE.means, ((0.3, 0.9), (0.5, 0.2)))
MIXTURES = {"isotropic": MIXTURE, "diagonal": DIAGONAL, "full": FULL}
mixtures = pytest.mark.parametrize("data", MIXTURES.values(), ids=MIXTURES)
T = np.linspace(0.1, 0.9, 7)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def covariances(data):
    if data is FULL:
        return np.array(COVARIANCES)
    s = np.array(data.stds)
    s = s if s.ndim == 2 else np.repeat(s[:, None], 2, 1)
    return s[:, :, None] ** 2 * np.eye(2)


@mixtures
@pytest.mark.parametrize("path", FAR_PATHS, ids=named)
def test_the_density_of_noisy_data_is_that_of_scipy(data, path):
    (z,), t = arrays(1), np.float64(0.4)
    a, b = float(path.a(t)), float(path.b(t))
    parts = [
        w
        * stats.multivariate_normal(a * np.array(m), a**2 * c + b**2 * np.eye(2)).pdf(z)
        for w, m, c in zip(data.weights, data.means, covariances(data), strict=True)
    ]
    close(data.log_density(path, z, t), np.log(np.sum(parts, axis=0)), 1e-9)
    labels = np.log(parts / np.sum(parts, axis=0)).T
    close(data.log_prob_labels(path, z, t), labels, 1e-8, 1e-8)


@mixtures
@pytest.mark.parametrize("path", FAR_PATHS, ids=named)
def test_the_optimal_network_has_the_score_of_finite_differences(data, path):
    (z,), h, axes = arrays(1), 1e-5, np.eye(2)
    density = jax.jit(lambda z: data.log_density(path, z, T))
    slope = [(density(z + h * e) - density(z - h * e)) / (2 * h) for e in axes]
    for prediction in PREDICTIONS:
        process = Process(path, prediction)
        predict = data.predict(process)
        close(score(process, z, predict(z, T), T), np.stack(slope, -1), 1e-6, 1e-6)
    # z = a E[x | z] + b E[ε | z] for every component, too.
    _, x, noise = data.components(path, z, T)
    a, b = (np.asarray(f(T))[:, None, None] for f in (path.a, path.b))
    close(a * x + b * noise, np.broadcast_to(z[:, None], x.shape), 1e-9, 1e-9)


@mixtures
def test_samples_have_the_covariances(data):
    for k, covariance in enumerate(covariances(data)):
        x = np.asarray(data.sample(jax.random.key(k), 4000, label=k))
        close(x.mean(0), np.array(data.means[k]), 0, 4 * np.sqrt(1 / 4000))
        close(np.cov(x.T), covariance, 0, 4 * np.sqrt(2 / 4000))


@mixtures
def test_labels_are_one_per_row_or_one_for_all(data):
    process, (z,) = Process(Linear(), Velocity()), arrays(1)
    label = np.array([0, 1, 1, 0, 1, 0, 0])
    found = jax.jit(lambda label: data.predict(process, label)(z, T))(label)
    each = np.stack([data.predict(process, k)(z, T) for k in (0, 1)])
    close(found, each[label, np.arange(7)])
    deep = np.broadcast_to(z[:, None], (7, 3, 2))
    found = data.predict(process, label)(deep, T)
    expected = np.broadcast_to(each[label, np.arange(7)][:, None], deep.shape)
    close(found, expected)


def test_the_same_gaussian_said_in_three_ways():
    process, (z,) = Process(Linear(), Velocity()), arrays(1)
    wide = Mixture((1.0,), ((0.5, 0.5),), ((0.7, 0.7),))
    full = with_covariances((1.0,), ((0.5, 0.5),), (((0.49, 0.0), (0.0, 0.49)),))
    one = Mixture((1.0,), ((0.5, 0.5),), (0.7,))
    answers = [data.predict(process)(z, T) for data in (one, wide, full)]
    for other in answers[1:]:
        close(other, answers[0], 1e-9, 1e-9)
    x, _ = recover(process, z, answers[0], T)
    assert x.shape == z.shape and hash(full) == hash(full)


@pytest.mark.parametrize(
    "values",
    [
        ((1.0,), ((0.0,), (1.0,)), (1.0, 1.0)),
        ((1.0,), ((0.0, 1.0),), ((1.0,),)),
        ((1.0,), (0.0,), (1.0,)),
        ((1.0,), ((0.0, 1.0),), ((1.0, 1.0),), (((1.0, 0.0),),)),
    ],
)
def test_mixtures_of_other_sizes_are_refused(values):
    with pytest.raises(BadInput, match="a mixture of K components"):
        Mixture(*values)


def test_matrices_that_are_no_covariances_are_refused():
    for bad in (((1.0, 0.5), (0.4, 1.0)), ((1.0, 2.0), (2.0, 1.0)), (1.0, 1.0)):
        with pytest.raises(BadInput, match="covariances"):
            with_covariances((1.0,), ((0.0, 0.0),), (bad,))
