"""Laws of the diffusion matrix against Gaussian data, whose every answer is known.

In float64, so that a law holds to its last digits.
"""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import (
    FAR_PATHS,
    MEAN,
    MIXTURE,
    PATHS,
    PREDICTIONS,
    STD,
    arrays,
    close,
    named,
    sigma_points,
)

from gengen.diffusion.matching import matching_loss
from gengen.diffusion.paths import (
    DDPMSchedule,
    Karras,
    Linear,
    VariancePreserving,
    derivatives,
    snr,
)
from gengen.diffusion.process import (
    EDM,
    Data,
    Noise,
    Process,
    Score,
    V,
    Velocity,
    convert,
    corrupt,
    from_data,
    loss_weight,
    ode_velocity,
    recover,
    score,
    usable_times,
)
from gengen.diffusion.weights import (
    ELBOWeight,
    ErrorIn,
    MinSNR,
    Sigmoid,
    TruncatedSNR,
    Unweighted,
)
from gengen.errors import BadInput
from gengen.models.closed_form import gaussian, gaussian_flow
from gengen.types import static

PAIRS = list(itertools.product(PREDICTIONS, PREDICTIONS))
T = np.linspace(0.02, 0.98, 7)

paths = pytest.mark.parametrize("path", PATHS, ids=str)
far_paths = pytest.mark.parametrize("path", FAR_PATHS, ids=named)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


# ---------------------------------------------------------------- the matrix


@paths
def test_recover_inverts_corrupt(path):
    x, noise = arrays(2)
    for prediction in PREDICTIONS:
        process = Process(path, prediction)
        z, r = corrupt(process, x, noise, T)
        found = recover(process, z, r, T)
        close(found[0], x, atol=1e-10)
        close(found[1], noise, atol=1e-10)
        close(from_data(process, z, x, T), r, 1e-9, 1e-9)


@paths
def test_corrupted_data_and_noise_follow_the_path(path):
    (x, noise), one = arrays(2), T[3]
    mixed = path.a(T)[:, None] * x + path.b(T)[:, None] * noise
    close(corrupt(Process(path, Data()), x, noise, T)[0], mixed)
    close(corrupt(Process(path, Data()), x, noise, one)[0][3], mixed[3])  # t scalar


@paths
def test_determinants_are_those_of_the_table(path):
    a, b, da, db = derivatives(path, T)
    table = {Noise(): a, Data(): -b, V(): a**2 + b**2, Score(): -a / b}
    table[Velocity()] = a * db - b * da
    table[EDM(0.6)] = -np.sqrt(b**2 + 0.36 * a**2) / 0.6
    for prediction, det in table.items():
        close(Process(path, prediction).matrix(T).det, det)


@paths
def test_targets_are_what_the_table_says(path):
    x, noise = arrays(2)
    a, b = path.a(T)[:, None], path.b(T)[:, None]
    eps = 1e-6
    later, earlier = (
        corrupt(Process(path, Data()), x, noise, t)[0] for t in (T + eps, T - eps)
    )
    # D = c_skip y + c_out F of y = x + σ ε, solved for F (Karras et al., table 1).
    sigma, s = b / a, 0.6
    skip, out = s**2 / (sigma**2 + s**2), sigma * s / np.sqrt(sigma**2 + s**2)
    targets = {
        Noise(): noise,
        Data(): x,
        V(): a * noise - b * x,
        Velocity(): (later - earlier) / (2 * eps),
        Score(): (a * x - (a * x + b * noise)) / b**2,
        EDM(s): (x - skip * (x + sigma * noise)) / out,
    }
    for prediction, target in targets.items():
        r = corrupt(Process(path, prediction), x, noise, T)[1]
        close(r, target, 1e-6 if prediction == Velocity() else 1e-9, 1e-8)


def test_the_paths_of_the_literature_are_normalised_as_they_say():
    karras = Process(Karras(0.6), EDM(0.6)).matrix(T)
    close(karras.det, np.full_like(T, -1 / 0.6))
    close((0.6 * karras.a) ** 2 + karras.b**2, np.ones_like(T))
    vp = VariancePreserving()
    close(Process(vp, V()).matrix(T).det, np.ones_like(T))
    minus_v = Process(vp, EDM(1.0)).matrix(T)
    v = Process(vp, V()).matrix(T)
    close([minus_v.c, minus_v.d], [-v.c, -v.d])


@far_paths
def test_convert_is_corrupting_with_the_other_prediction(path):
    x, noise = arrays(2)
    for one, other in PAIRS:
        source, target = Process(path, one), Process(path, other)
        z, r = corrupt(source, x, noise, T)
        close(convert(source, target, z, r, T), corrupt(target, x, noise, T)[1], 1e-8)


@far_paths
def test_weighted_error_is_the_error_in_the_other_prediction(path):
    x, noise, wrong = arrays(3)
    for one, other in PAIRS:
        process, space = Process(path, one), Process(path, other)
        z, r = corrupt(process, x, noise, T)
        moved = convert(process, space, z, wrong, T) - corrupt(space, x, noise, T)[1]
        weight = loss_weight(process, space, T)[:, None]
        close(weight * (wrong - r) ** 2, moved**2, 1e-7)


@pytest.mark.parametrize("t", [-0.1, 1.5, np.nan])
def test_times_outside_of_the_path_are_refused(t):
    with pytest.raises(BadInput, match=f"{t}.*must be in"):
        corrupt(Process(Linear(), Velocity()), *arrays(2), np.full(7, t))


def test_times_known_within_a_jit_are_checked_too():
    process, t = Process(Linear(), Noise()), np.linspace(0.0, 1.0, 3)

    def seen(noise, t):
        return process.matrix(t).b * noise

    close(jax.jit(partial(seen, t=t))(1.0), t)
    with pytest.raises(BadInput, match="must be in"):
        jax.jit(partial(seen, t=t + 0.5))(1.0)


# ---------------------------------------------------------------- the loss


def test_matching_loss_is_the_mean_squared_error_of_each_example():
    process = Process(Linear(), Velocity())
    x, noise, offset = np.random.default_rng(0).normal(size=(3, len(T), 2, 3, 1))
    loss = matching_loss(lambda z, t: noise - x + offset, process, x, noise, T)
    assert loss.shape == T.shape
    close(loss, np.mean(offset**2, axis=(1, 2, 3)))


def test_loss_in_a_space_is_the_loss_of_the_converted_network():
    path, (x, noise) = VariancePreserving(), arrays(2)
    for one, other in PAIRS:
        process, space = Process(path, one), Process(path, other)

        def wrong(z, t):
            return jnp.sin(z) + t[:, None]

        def converted(z, t, process=process, space=space):
            return convert(process, space, z, wrong(z, t), t)

        loss = matching_loss(wrong, process, x, noise, T, ErrorIn(other))
        close(loss, matching_loss(converted, space, x, noise, T), 1e-8)


@pytest.mark.parametrize("std", [0.2, 1.0, 3.0])
def test_irreducible_flow_matching_loss_is_half_pi_s_per_dimension(std):
    # ∫ Var(r | z) dt = ∫ s²/((1-t)² s² + t²) dt = πs/2. The optimal error is linear in
    # (x, ε), so sigma points take its mean, and Gauss-Legendre nodes the integral.
    process = Process(Linear(), Velocity())
    nodes, weights = np.polynomial.legendre.leggauss(80)
    x, noise = sigma_points(2).T[:, :, None]
    t = np.repeat((nodes + 1) / 2, len(x))
    x, noise = (np.tile(one, (len(nodes), 1)) for one in (MEAN + std * x, noise))
    predict = gaussian(MEAN, std).predict(process)
    loss = matching_loss(predict, process, x, noise, t)
    close(weights / 2 @ loss.reshape(len(nodes), -1).mean(axis=1), math.pi * std / 2)


@far_paths
def test_weights_are_the_published_ones_whatever_is_predicted(path):
    # Each as its paper has it, on the error of x or of ε.
    ratio = path.a(T) ** 2 / path.b(T) ** 2
    slope = -np.asarray(jax.vmap(jax.grad(lambda t: jnp.log(snr(path, t))))(T))
    of_x = {
        MinSNR(3.0): np.minimum(ratio, 3),
        TruncatedSNR(): np.maximum(ratio, 1),
        ErrorIn(Noise()): ratio,
        ELBOWeight(): 0.5 * slope * ratio,
        Sigmoid(1.0): 0.5 * slope * ratio / (1 + ratio * np.exp(-1)),
    }
    for prediction, (weight, expected) in itertools.product(PREDICTIONS, of_x.items()):
        process = Process(path, prediction)
        on_x = ErrorIn(Data())(process, T)
        close(weight(process, T), expected * on_x, 1e-8)
    close(Unweighted()(Process(path, V()), T), np.ones_like(T))


def test_weights_are_finite_wherever_a_network_can_be_trained():
    process = Process(Linear(), Velocity())
    weights = [Unweighted(), MinSNR(), ErrorIn(V()), ErrorIn(Noise())]
    for weight in weights:
        assert usable_times(process, weight=weight) == (0, 1)
    for weight in (ELBOWeight(), TruncatedSNR()):  # infinite at the data
        assert usable_times(process, weight=weight) == (M, 1)


# ---------------------------------------------------------------- score and velocity


@far_paths
def test_score_of_the_optimal_network_is_the_gradient_of_the_log_density(path):
    (z,) = arrays(1)
    for prediction in PREDICTIONS:
        process = Process(path, prediction)
        r = MIXTURE.predict(process)(z, T)
        close(score(process, z, r, T), MIXTURE.score(path, z, T), 1e-8, 1e-8)


@far_paths
def test_velocity_of_the_optimal_network_is_that_of_the_gaussian_flow(path):
    (z,), t = arrays(1), T

    def flow(s):
        return gaussian_flow(path, MEAN, STD, z, t, s)

    velocity = jax.jvp(flow, (t,), (np.ones_like(t),))[1]
    data = gaussian(MEAN, STD)
    for prediction in PREDICTIONS:
        process = Process(path, prediction)
        r = data.predict(process)(z, T)
        close(ode_velocity(process, z, r, T), velocity, 1e-8, 1e-8)
        close(data.velocity(process, z, T), velocity, 1e-8, 1e-8)


def test_a_component_of_a_mixture_is_its_conditional():
    (z,), path = arrays(1), Linear()
    for label in (0, 1):
        alone = type(MIXTURE)((1.0,), (MIXTURE.means[label],), (MIXTURE.stds[label],))
        process = Process(path, Data())
        given = MIXTURE.predict(process, label)(z, T)
        close(given, alone.predict(process)(z, T))
        bayes = MIXTURE.guided_score(path, z, T, label, 1.0)
        close(bayes, alone.score(path, z, T), 1e-9, 1e-9)
    close(MIXTURE.guided_score(path, z, T, 0, 0.0), MIXTURE.score(path, z, T))
    shares = np.exp(MIXTURE.log_prob_labels(path, z, T))
    close(shares.sum(-1), np.ones(len(z)))


def test_samples_of_a_mixture_follow_its_weights():
    x = MIXTURE.sample(jax.random.key(0), 4000)
    assert np.mean(x[:, 0] < 0) == pytest.approx(0.3, abs=0.05)
    only = MIXTURE.sample(jax.random.key(0), 4000, label=1)
    close(np.mean(only, 0), MIXTURE.means[1], atol=4 * 0.5 / 4000**0.5)
    assert np.std(only) > 0.4


# ---------------------------------------------------------------- the usable times

M = 1e-3
USABLE = {
    (Linear(), Noise()): (0, 1 - M),
    (Linear(), Data()): (M, 1),
    (Linear(), V()): (0, 1),
    (Linear(), Velocity()): (0, 1),
    (Linear(), Score()): (M, 1 - M),
    (Karras(), EDM()): (0, 1),
    (DDPMSchedule(), Noise()): (0, 1),
    (DDPMSchedule(), Data()): (M, 1),
    **{(VariancePreserving(), p): (M, 1) for p in PREDICTIONS},  # b′ = ∞ at 0
}


@pytest.mark.parametrize("x64", [False, True])
def test_usable_times_leave_out_the_singular_ends(x64):
    with jax.enable_x64(x64):
        for pair, expected in USABLE.items():
            assert usable_times(Process(*pair)) == expected, pair
        assert jax.jit(lambda: usable_times(Process(*pair)))() == expected


def test_a_table_has_no_velocity():
    process = Process(DDPMSchedule(), Velocity())
    with pytest.raises(BadInput, match="DDPMSchedule.*no derivatives"):
        usable_times(process)
    noise = Process(DDPMSchedule(), Noise())
    with pytest.raises(BadInput, match="no velocity"):
        ode_velocity(noise, *arrays(2), T)


@static
class Seen:
    """r = z, from which nothing can be recovered."""

    def row(self, path, t):
        return path.a(t), path.b(t)


def test_a_matrix_that_is_never_invertible_is_refused():
    with pytest.raises(BadInput, match="singular"):
        usable_times(Process(Linear(), Seen()))
