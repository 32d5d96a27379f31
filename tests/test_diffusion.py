"""Laws of `gengen.diffusion` against Gaussian data, whose every answer is known.

In float64, so that a law holds to its last digits and an order of convergence shows.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import Mixture, gaussian, gaussian_flow, gaussian_variance, sigma_points
from scipy import special, stats

from gengen.diffusion.guidance import from_paper_w, guided
from gengen.diffusion.matching import matching_loss
from gengen.diffusion.paths import Linear, VariancePreserving, derivatives
from gengen.diffusion.process import (
    Data,
    Noise,
    Process,
    Score,
    V,
    Velocity,
    convert,
    corrupt,
    loss_weight,
    ode_velocity,
    recover,
    score,
    usable_times,
)
from gengen.diffusion.solvers import DDIM, DDPM, Euler, Heun, solve
from gengen.diffusion.times import LogitNormal, Uniform, draw, uniform_grid
from gengen.scan import normal, sample_keys
from gengen.types import BadInput, static

PATHS = [Linear(), VariancePreserving(), VariancePreserving(0.5, 3.0)]
PREDICTIONS = [Noise(), Data(), V(), Velocity(), Score()]
PAIRS = list(itertools.product(PREDICTIONS, PREDICTIONS))
MEAN, STD = 1.5, 0.4
MIXTURE = Mixture((0.3, 0.7), ((-1.0, 0.5), (1.0, 0.0)), (0.3, 0.5))
T = np.linspace(0.02, 0.98, 7)


def named(value):
    return type(value).__name__ if not isinstance(value, float | int) else None


paths = pytest.mark.parametrize("path", PATHS, ids=str)
predictions = pytest.mark.parametrize("prediction", PREDICTIONS, ids=named)
pairs = pytest.mark.parametrize(("one", "other"), PAIRS, ids=named)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def arrays(num, dim=2, seed=0):
    """`num` arrays [len(T), dim] of standard normals."""
    return np.random.default_rng(seed).normal(size=(num, len(T), dim))


def close(actual, desired, rtol=1e-12, atol=1e-12):
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=atol)


# ---------------------------------------------------------------- the matrix


@paths
@predictions
def test_recover_inverts_corrupt(path, prediction):
    process, (x, noise) = Process(path, prediction), arrays(2)
    z, r = corrupt(process, x, noise, T)
    found = recover(process, z, r, T)
    close(found[0], x)
    close(found[1], noise)


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
    for prediction, det in table.items():
        close(Process(path, prediction).matrix(T).det, det)


@paths
@predictions
def test_target_is_what_the_table_says(path, prediction):
    x, noise = arrays(2)
    z, r = corrupt(Process(path, prediction), x, noise, T)
    a, b = path.a(T)[:, None], path.b(T)[:, None]
    eps = 1e-6
    later, earlier = (
        corrupt(Process(path, Data()), x, noise, t)[0] for t in (T + eps, T - eps)
    )
    target = {
        Noise(): noise,
        Data(): x,
        V(): a * noise - b * x,
        Velocity(): (later - earlier) / (2 * eps),
        Score(): (a * x - z) / b**2,
    }[prediction]
    close(r, target, 1e-7 if prediction == Velocity() else 1e-12, 1e-8)


@paths
@pairs
def test_convert_is_corrupting_with_the_other_prediction(path, one, other):
    source, target, (x, noise) = Process(path, one), Process(path, other), arrays(2)
    z, r = corrupt(source, x, noise, T)
    close(convert(source, target, z, r, T), corrupt(target, x, noise, T)[1], 1e-10)


@paths
@pairs
def test_weighted_error_is_the_error_in_the_other_prediction(path, one, other):
    process, space, (x, noise, wrong) = (
        Process(path, one),
        Process(path, other),
        arrays(3),
    )
    z, r = corrupt(process, x, noise, T)
    moved = convert(process, space, z, wrong, T) - corrupt(space, x, noise, T)[1]
    weight = loss_weight(process, space, T)[:, None]
    close(weight * (wrong - r) ** 2, moved**2, 1e-8)


# ---------------------------------------------------------------- the loss


def test_matching_loss_is_the_mean_squared_error_of_each_example():
    process = Process(Linear(), Velocity())
    x, noise, offset = np.random.default_rng(0).normal(size=(3, len(T), 2, 3, 1))
    loss = matching_loss(lambda z, t: noise - x + offset, process, x, noise, T)
    assert loss.shape == T.shape
    close(loss, np.mean(offset**2, axis=(1, 2, 3)))


@pairs
def test_loss_in_a_space_is_the_loss_of_the_converted_network(one, other):
    path, (x, noise) = VariancePreserving(), arrays(2)
    process, space = Process(path, one), Process(path, other)

    def wrong(z, t):
        return jnp.sin(z) + t[:, None]

    def converted(z, t):
        return convert(process, space, z, wrong(z, t), t)

    loss = matching_loss(wrong, process, x, noise, T, space)
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
    denoise = gaussian(MEAN, std).denoise(process)
    loss = matching_loss(denoise, process, x, noise, t)
    close(weights / 2 @ loss.reshape(len(nodes), -1).mean(axis=1), math.pi * std / 2)


# ---------------------------------------------------------------- score and velocity


@paths
@predictions
def test_score_of_the_optimal_network_is_the_gradient_of_the_log_density(
    path, prediction
):
    process, (z,) = Process(path, prediction), arrays(1)
    r = MIXTURE.denoise(process)(z, T)
    close(score(process, z, r, T), MIXTURE.score(path, z, T), 1e-9, 1e-9)


@paths
@predictions
def test_velocity_of_the_optimal_network_is_that_of_the_gaussian_flow(path, prediction):
    process, (z,) = Process(path, prediction), arrays(1)
    r = gaussian(MEAN, STD).denoise(process)(z, T)
    t = T[:, None]

    def flow(s):
        return gaussian_flow(path, MEAN, STD, z, t, s)

    velocity = jax.jvp(flow, (t,), (np.ones_like(t),))[1]
    close(ode_velocity(process, z, r, T), velocity, 1e-9, 1e-9)


# ---------------------------------------------------------------- solvers


def carry(solver, process, data, z, grid, key=0):
    keys = sample_keys(jax.random.key(key), len(z))
    return solve(solver, keys, data.denoise(process), process, z, grid)


@pytest.mark.parametrize("solver", [Euler(), Heun(), DDIM(), DDIM(0.5), DDPM()])
@pytest.mark.parametrize("path", PATHS[:2], ids=named)
def test_every_prediction_gives_the_same_samples(path, solver):
    (start,), grid = arrays(1), np.linspace(0.95, 0.05, 4)
    keys, samples = sample_keys(jax.random.key(0), len(start)), []
    for prediction in PREDICTIONS:
        process, z = Process(path, prediction), start
        for t, s in itertools.pairwise(grid):
            z = solver.step(keys, MIXTURE.denoise(process), process, z, t, s)
        samples.append(z)
    for other in samples[1:]:
        close(other, samples[0], 1e-8, 1e-9)


@predictions
def test_ddim_is_the_flow_matching_euler_step_on_the_linear_path(prediction):
    process, (z, answer) = Process(Linear(), prediction), arrays(2)
    steps = [
        solver.step(None, lambda z, t: answer, process, z, np.float64(t), np.float64(s))
        for solver in (Euler(), DDIM())
        for t, s in [(0.9, 0.4)]
    ]
    close(steps[0], steps[1])


@paths
@predictions
def test_ddpm_step_draws_from_the_posterior_of_z_s_given_z_t_and_x(path, prediction):
    # q(z_s | z_t, x) by Bayes' rule: prior N(a_s x, b_s²), z_t ~ N(α z_s, β²).
    process, (x, noise) = Process(path, prediction), arrays(2)
    keys = sample_keys(jax.random.key(0), len(x))
    for t, s in [(0.98, 0.9), (0.8, 0.1), (0.5, 0.49)]:
        t, s = np.float64(t), np.float64(s)
        z, r = corrupt(process, x, noise, t)
        (a_t, b_t), (a_s, b_s) = ((path.a(u), path.b(u)) for u in (t, s))
        alpha, beta2 = a_t / a_s, b_t**2 - (a_t / a_s * b_s) ** 2
        variance = 1 / (1 / b_s**2 + alpha**2 / beta2)
        mean = variance * (a_s * x / b_s**2 + alpha * z / beta2)
        drawn = DDPM().step(keys, lambda z, t, r=r: r, process, z, t, s)
        fresh = normal(keys, z.shape[1:])
        close(drawn, mean + np.sqrt(variance) * fresh, 1e-9, 1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@paths
def test_ddim_keeps_the_marginals_when_data_are_known(path, eta):
    # With the true (x, ε) every η draws z_s with mean a_s x and variance b_s².
    process, (x, noise) = Process(path, Noise()), arrays(2)
    keys, t, s = (
        sample_keys(jax.random.key(0), len(x)),
        np.float64(0.7),
        np.float64(0.3),
    )

    def step(noise):
        z, r = corrupt(process, x, noise, t)
        return DDIM(eta).step(keys, lambda z, t: r, process, z, t, s)

    along = step(noise + 1) - step(noise)
    fresh = step(0 * noise) - path.a(s) * x
    tau2 = (fresh / normal(keys, x.shape[1:])) ** 2
    close(along**2 + tau2, np.full_like(x, path.b(s) ** 2), 1e-9)
    assert (np.max(tau2) > 1e-9) == (eta > 0)


def moments(step, grid, mean, variance):
    """Mean and variance after the grid, from steps z_s = A + B z + τ w, exactly."""
    k0, k1 = sample_keys(jax.random.key(0), 2)
    keys, z = jnp.stack([k0, k0, k1]), np.array([[0.0], [1.0], [0.0]])
    w0, _, w1 = np.asarray(normal(keys, (1,)))[:, 0]
    outcomes = jax.vmap(lambda t, s: step(keys, z, t, s))(grid[:-1], grid[1:])
    for zero, one, other in np.asarray(outcomes)[..., 0]:
        b, tau = one - zero, (other - zero) / (w1 - w0)
        mean, variance = zero - tau * w0 + b * mean, b**2 * variance + tau**2
    return mean, variance


def padded(steps, low, high, most):
    """A grid of `most` steps: `steps` from high to low, the rest from low to low."""
    return np.pad(uniform_grid(steps, (low, high)), (0, most - steps), mode="edge")


def order(errors, steps):
    """The slope of -log error over log steps."""
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("path", [Linear(), VariancePreserving(0.5, 3.0)], ids=named)
def test_sampling_has_the_mean_of_the_data_and_a_variance_exact_to_first_order(
    path, eta
):
    process, data = Process(path, Data()), gaussian(MEAN, STD)
    low, high = 0.1, 1.0
    start = MEAN * path.a(high), gaussian_variance(path, STD, high)

    def step(keys, z, t, s):
        return DDIM(eta).step(keys, data.denoise(process), process, z, t, s)

    steps, errors = [40, 80, 160, 320], []
    for n in steps:
        mean, variance = moments(step, padded(n, low, high, 320), *start)
        close(mean, MEAN * path.a(low), 1e-11)
        errors.append(abs(variance - gaussian_variance(path, STD, low)))
    assert order(errors, steps) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("solver", "expected"), [(Euler(), 1), (DDIM(), 1), (Heun(), 2)]
)
@pytest.mark.parametrize("path", PATHS, ids=str)
def test_order_of_convergence_to_the_exact_flow(path, solver, expected):
    process, data = Process(path, V()), gaussian(MEAN, STD)
    z = np.linspace(-2, 2, 5)[:, None]
    low, high = np.float64(0.1), np.float64(1.0)
    truth = gaussian_flow(path, MEAN, STD, z, high, low)
    run = jax.jit(lambda grid: carry(solver, process, data, z, grid))
    steps, errors = [10, 20, 40, 80, 160], []
    for n in steps:
        found = run(padded(n, low, high, 160))
        errors.append(np.max(np.abs(found - truth)))
    assert order(errors, steps) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("solver", [Euler(), DDIM(0.5)], ids=str)
def test_a_sample_does_not_depend_on_its_batch(solver):
    (z,), grid = arrays(1), uniform_grid(5, (0.05, 0.95))
    process = Process(Linear(), Velocity())
    all_of_them = carry(solver, process, MIXTURE, z, grid)
    close(carry(solver, process, MIXTURE, z[:2], grid), all_of_them[:2])


@static
class Recorder:
    """A solver whose state is the noise of its last steps, one a column."""

    def init(self, z):
        return z

    def step(self, keys, denoise, process, state, t, s):
        return jnp.concatenate([state[:, 1:], normal(keys, (1,))], axis=1)


def test_fresh_noise_differs_between_steps_samples_and_keys():
    process, data = Process(Linear(), Data()), gaussian(MEAN, STD)
    z, grid = np.zeros((500, 3)), uniform_grid(3)
    noise = [carry(Recorder(), process, data, z, grid, key) for key in (0, 1)]
    noise = np.concatenate(noise, axis=1)  # [samples, keys and steps]
    assert len(np.unique(noise)) == noise.size
    correlation = np.corrcoef(noise, rowvar=False) - np.eye(6)
    assert np.max(np.abs(correlation)) < 4 / np.sqrt(500)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_outside_of_the_unit_interval_is_refused(eta):
    with pytest.raises(BadInput, match="eta="):
        DDIM(eta)


# ---------------------------------------------------------------- guidance


def test_guidance_scales_mean_what_they_say():
    (z,), w = arrays(1), 2.5
    conditional, unconditional = (lambda z, t: jnp.sin(z)), (lambda z, t: t * z)
    y, none = jnp.sin(z), 0.3 * z

    def at(scale):
        return guided(conditional, unconditional, scale)(z, 0.3)

    close(at(1.0), y)
    close(at(0.0), none)
    close(at(from_paper_w(w)), (1 + w) * y - w * none)


@paths
def test_guidance_is_the_same_for_every_prediction(path):
    (z,) = arrays(1)
    answers = []
    for prediction in PREDICTIONS:
        process = Process(path, prediction)
        y, none = gaussian(MEAN, STD).denoise(process), MIXTURE.denoise(process)
        answers.append(recover(process, z, guided(y, none, 3.0)(z, T), T))
    for other in answers[1:]:
        close(other, answers[0], 1e-8, 1e-9)


# ---------------------------------------------------------------- times and paths

M = 1e-3
USABLE = {
    (Linear(), Noise()): (0, 1 - M),
    (Linear(), Data()): (M, 1),
    (Linear(), V()): (0, 1),
    (Linear(), Velocity()): (0, 1),
    (Linear(), Score()): (M, 1 - M),
    **{(VariancePreserving(), p): (M, 1) for p in PREDICTIONS},  # b′ = ∞ at 0
}


@pytest.mark.parametrize(("pair", "expected"), USABLE.items(), ids=str)
@pytest.mark.parametrize("x64", [False, True])
def test_usable_times_leave_out_the_singular_ends(pair, expected, x64):
    with jax.enable_x64(x64):
        assert usable_times(Process(*pair)) == expected
        assert jax.jit(lambda: usable_times(Process(*pair)))() == expected


@static
class Seen:
    """r = z, from which nothing can be recovered."""

    def row(self, path, t):
        return path.a(t), path.b(t)


def test_a_matrix_that_is_never_invertible_is_refused():
    with pytest.raises(BadInput, match="singular"):
        usable_times(Process(Linear(), Seen()))


@paths
def test_paths_start_at_the_data_and_end_near_noise(path):
    assert (path.a(np.float64(0)), path.b(np.float64(0))) == (1, 0)
    t = np.linspace(0, 1, 101)
    assert np.all(np.diff(path.a(t)) < 0) and np.all(np.diff(path.b(t)) > 0)
    if path in PATHS[:2]:
        close([path.a(t[-1]), path.b(t[-1])], [0, 1], atol=0.01)


@paths
def test_derivatives_are_those_of_the_closed_form(path):
    a, b, da, db = derivatives(path, T)
    close([a, b], [path.a(T), path.b(T)])
    if path == Linear():
        close([da, db], [-np.ones_like(T), np.ones_like(T)])
    else:  # a² + b² = 1 and d log a = -½ β dt
        beta = path.beta_min + T * (path.beta_max - path.beta_min)
        close(a**2 + b**2, np.ones_like(T))
        close([da, db], [-beta * a / 2, beta * a**2 / b / 2])


def test_little_noise_keeps_its_digits_in_float32():
    t = np.float32(10) ** -np.arange(2, 8, dtype=np.float32)
    path = VariancePreserving()
    exact = np.sqrt(-np.expm1(2 * np.asarray(path.log_a(t.astype(np.float64)))))
    with jax.enable_x64(False):
        close(path.b(t), exact, 1e-6)


@pytest.mark.parametrize("law", [(0.0, 1.0), (-0.8, 0.5), (1.0, 2.0)])
def test_logit_normal_times_have_a_normal_logit(law):
    u = np.linspace(0.001, 0.999, 41)
    t = LogitNormal(*law).quantile(u)
    close(stats.norm(*law).cdf(special.logit(t)), u, 1e-9)


def test_uniform_times_are_uniform():
    u = np.linspace(0, 1, 5)
    close(Uniform().quantile(u), stats.uniform.ppf(u))


@pytest.mark.parametrize("times", [Uniform(), LogitNormal(0.0, 4.0)], ids=named)
@pytest.mark.parametrize("x64", [False, True])
def test_drawn_times_follow_their_law_within_the_span(times, x64):
    low, high = span = (0.2, 0.7)
    with jax.enable_x64(x64):
        t = np.asarray(draw(times, jax.random.key(0), 4000, span), np.float64)
    assert t.shape == (4000,) and low <= t.min() and t.max() <= high
    quantile = np.linspace(0.05, 0.95, 10)
    expected = low + (high - low) * np.asarray(times.quantile(quantile))
    # A share of n = 4000 below a quantile: standard error at most 0.008.
    close([np.mean(t <= q) for q in expected], quantile, atol=0.032)


@pytest.mark.parametrize("span", [(0.0, 1.0), (1e-3, 1.0)])
def test_grid_falls_evenly_from_end_to_end(span):
    grid = np.asarray(uniform_grid(7, span))
    assert grid.shape == (8,) and (grid[-1], grid[0]) == span
    close(np.diff(grid), np.full(7, (span[0] - span[1]) / 7))


@pytest.mark.parametrize("steps", [0, -3])
def test_no_steps_are_refused(steps):
    with pytest.raises(BadInput, match=f"steps={steps}"):
        uniform_grid(steps)
