"""Laws of guidance and couplings, against mixtures whose labels are known."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import FAR_PATHS, MEAN, MIXTURE, PREDICTIONS, STD, arrays, close, named
from scipy.optimize import linear_sum_assignment

from gengen.diffusion.couplings import (
    Independent,
    OptimalTransport,
    Sinkhorn,
    squared_distances,
)
from gengen.diffusion.guidance import (
    Guidance,
    classifier_guided,
    from_paper_w,
    guided,
    map_denoised,
    rescaled,
    thresholded,
)
from gengen.diffusion.paths import Linear
from gengen.diffusion.process import Data, Process, Velocity, recover, score
from gengen.errors import BadInput
from gengen.models.closed_form import gaussian

T = np.linspace(0.02, 0.98, 7)
KEY = jax.random.key(0)
far_paths = pytest.mark.parametrize("path", FAR_PATHS, ids=named)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


# ---------------------------------------------------------------- classifier-free


def test_guidance_scales_mean_what_they_say():
    (z,), w = arrays(1), 2.5
    conditional, unconditional = (lambda z, t: jnp.sin(z)), (lambda z, t: t * z)
    y, none = jnp.sin(z), 0.3 * z

    def at(scale):
        return guided(conditional, unconditional, scale)(z, 0.3)

    close(at(1.0), y)
    close(at(0.0), none)
    close(at(from_paper_w(w)), (1 + w) * y - w * none)


@far_paths
def test_guidance_is_the_same_for_every_prediction(path):
    (z,) = arrays(1)
    answers = []

    def clean(process, predict, z):
        return recover(process, z, predict(z, T), T)

    for prediction in PREDICTIONS:
        process = Process(path, prediction)
        y, none = gaussian(MEAN, STD).predict(process), MIXTURE.predict(process)
        predict = Guidance(3.0, (0.1, 0.9), 0.7, 0.9)(process, [none, y])
        answers.append(jax.jit(partial(clean, process, predict))(z))
    for other in answers[1:]:
        close(other, answers[0], 1e-7, 1e-7)


@far_paths
def test_guided_scores_are_those_of_the_closed_form(path):
    (z,) = arrays(1)
    for prediction, scale in itertools.product(PREDICTIONS, (1.0, 2.5)):
        process = Process(path, prediction)
        exact = MIXTURE.guided_score(path, z, T, 1, scale)
        none = MIXTURE.predict(process)
        free = guided(MIXTURE.predict(process, 1), none, scale)
        close(score(process, z, free(z, T), T), exact, 1e-7, 1e-7)

        def log_prob(z, t):
            return MIXTURE.log_prob_labels(path, z, t)[:, 1]

        by_classifier = classifier_guided(none, process, log_prob, scale)
        close(score(process, z, by_classifier(z, T), T), exact, 1e-7, 1e-7)


def test_outside_of_the_interval_one_network_is_called():
    calls = []

    def y(z, t):
        return 2 * z

    def none(z, t):
        jax.debug.callback(lambda: calls.append(1))
        return z

    z = arrays(1)[0]
    predict = jax.jit(guided(y, none, 3.0, (0.3, 0.6)))
    for t, inside in [(0.2, False), (0.3, True), (0.5, True), (0.7, False)]:
        calls.clear()
        close(predict(z, t), (4 if inside else 2) * z)
        jax.effects_barrier()
        assert len(calls) == inside
    close(predict(z, T)[:, 0] / z[:, 0], np.where((T >= 0.3) & (T <= 0.6), 4, 2))


def test_rescaling_costs_no_network_call():
    calls = []

    def y(z, t):
        jax.debug.callback(lambda: calls.append(1))
        return 2 * z

    predict = Guidance(3.0, (0.3, 0.6), 0.7)(Process(Linear(), Data()), [y, y])
    jax.jit(predict)(arrays(1)[0], 0.5)
    jax.effects_barrier()
    assert len(calls) == 2


def test_learned_variances_stay_the_conditional_ones():
    z = arrays(1)[0]

    def both(value, v):
        return lambda z, t: jnp.concatenate([value * z, 0 * z + v], -1)

    r = guided(both(2, 0.5), both(1, -0.5), 3.0)(z, 0.5)
    close(r, np.concatenate([4 * z, 0 * z + 0.5], -1))
    process = Process(Linear(), Data())
    same = map_denoised(both(2, 0.5), process, lambda x, z, t: x)
    close(same(z, 0.5), both(2, 0.5)(z, 0.5))


# ---------------------------------------------------------------- on the data


def test_thresholding_clips_to_the_quantile_and_never_stretches():
    x = np.array([[0.5, -0.2, 0.1, 0.3], [4.0, -2.0, 1.0, 0.0]])
    found = thresholded(x, 0.75)
    close(found[0], x[0])
    s = np.quantile(np.abs(x[1]), 0.75)
    close(found[1], np.clip(x[1], -s, s) / s)


def test_rescaling_gives_the_conditional_deviation_back():
    x, y = arrays(2)
    x = 5 * x
    close(np.std(rescaled(x, y, 1.0), -1), np.std(y, -1))
    close(rescaled(x, y, 0.0), x)
    half = rescaled(x, y, 0.5)
    close(half, 0.5 * (rescaled(x, y, 1.0) + x))


@far_paths
def test_a_change_of_data_leaves_z_what_it_is(path):
    (z,) = arrays(1)
    for prediction in PREDICTIONS:
        process = Process(path, prediction)
        predict = map_denoised(MIXTURE.predict(process), process, lambda x, z, t: x / 2)
        x, noise = recover(process, z, predict(z, T), T)
        before = recover(process, z, MIXTURE.predict(process)(z, T), T)[0]
        close(x, before / 2, 1e-7, 1e-7)
        a, b = path.a(T)[:, None], path.b(T)[:, None]
        close(a * x + b * noise, z, 1e-7, 1e-7)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((2.0, (0.5, 0.2)), "interval"),
        ((2.0, (0.0, 1.5)), "interval"),
        ((2.0, (0.0, 1.0), 1.5), "rescale 1.5"),
        ((2.0, (0.0, 1.0), 0.0, 0.0), "threshold 0"),
    ],
)
def test_guidance_out_of_range_is_refused(values, words):
    with pytest.raises(BadInput, match=words):
        Guidance(*values)


# ---------------------------------------------------------------- couplings


def pairs(num=12, dim=(3, 1)):
    rng = np.random.default_rng(1)
    return rng.normal(size=(num, *dim)), rng.normal(size=(num, *dim))


def test_optimal_transport_is_the_best_assignment():
    x, noise = pairs()
    cost = np.sum((x[:, None] - noise[None]) ** 2, axis=(2, 3))
    close(squared_distances(x, noise), cost, 1e-9)
    _, columns = linear_sum_assignment(cost)
    found = jax.jit(OptimalTransport())(KEY, x, noise)
    close(found, noise[columns])
    assert np.sum((x - found) ** 2) < np.sum((x - noise) ** 2)
    close(Independent()(KEY, x, noise), noise)


@pytest.mark.parametrize("coupling", [OptimalTransport(), Sinkhorn()], ids=named)
def test_noise_is_coupled_within_the_classes(coupling):
    x, noise = pairs()
    label = np.arange(12) % 3
    found = np.asarray(jax.jit(coupling)(KEY, x, noise, {"label": label}))
    for k in range(3):
        own = label == k
        same = np.all(found[own][:, None] == noise[own][None], axis=(2, 3))
        assert np.all(same.any(1))
        if coupling == OptimalTransport():
            close(found[own], coupling(KEY, x[own], noise[own]))


def test_the_plan_of_sinkhorn_has_the_right_marginals_and_sharpens_to_the_best():
    x, noise = pairs()
    plan = np.exp(Sinkhorn(0.1, 300).plan(x, noise))
    close(plan.sum(0), np.ones(12), 1e-9)
    close(plan.sum(1), np.ones(12), 1e-3)
    cost = squared_distances(x, noise)
    kernel = np.exp(-cost / (0.1 * np.mean(cost)))
    ratio = plan / kernel  # of rank one: u_i v_j
    close(ratio * ratio[0, 0], ratio[:, :1] * ratio[:1], 1e-6)
    sharp = jax.jit(Sinkhorn(0.003, 2000))(KEY, x, noise)
    best = OptimalTransport()(KEY, x, noise)
    assert np.mean(np.all(np.isclose(sharp, best), axis=(1, 2))) > 0.8


def test_transport_straightens_the_flow():
    # Of paths that do not cross the velocity is nearly a function of z.
    x = np.asarray(MIXTURE.sample(KEY, 256))
    noise = np.asarray(jax.random.normal(jax.random.key(1), x.shape))
    paired = OptimalTransport()(KEY, x, noise)
    assert np.mean((x - paired) ** 2) < 0.5 * np.mean((x - noise) ** 2)
    assert Process(Linear(), Velocity()) == Process(Linear(), Velocity())
