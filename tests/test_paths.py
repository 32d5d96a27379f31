"""Laws of paths, of training times and of grids. In float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import PATHS, close, named
from scipy import special, stats

from gengen.diffusion.grids import (
    Even,
    KarrasGrid,
    Leading,
    LogSNR,
    Quadratic,
    ShiftedGrid,
    check_grid,
    times_of,
)
from gengen.diffusion.paths import (
    Cosine,
    DDPMSchedule,
    Karras,
    Linear,
    Shifted,
    VarianceExploding,
    VariancePreserving,
    derivatives,
    resolution_shift,
)
from gengen.diffusion.times import (
    LogitNormal,
    LogNormal,
    Steps,
    Uniform,
    antithetic,
    histogram_quantile,
    importance,
    independent,
    sample_times,
    stratified,
)
from gengen.errors import BadInput

T = np.linspace(0.02, 0.98, 7)
KEY = jax.random.key(0)
paths = pytest.mark.parametrize("path", PATHS, ids=str)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


# ---------------------------------------------------------------- paths


@paths
def test_noise_over_signal_rises_from_little_to_much(path):
    t = np.linspace(0, 1, 101)
    a, b = path.a(t), path.b(t)
    assert np.all(np.diff(b / np.maximum(a, 1e-300)) > 0)
    assert b[0] / a[0] < 0.02
    if path != VariancePreserving(0.5, 3.0):
        assert b[-1] > 40 * a[-1]
    if not isinstance(path, VarianceExploding | Karras):
        close([a[0], b[0]], [1, 0])


@paths
def test_time_inverts_the_proportion_of_data_and_noise(path):
    t = np.linspace(0.001, 1, 50)
    close(path.time_of_ratio(path.a(t), path.b(t)), t, 1e-9)
    close(path.time_of_ratio(3 * path.a(t), 3 * path.b(t)), t, 1e-9)


@paths
def test_derivatives_are_those_of_finite_differences(path):
    h = 1e-6
    a, b, da, db = derivatives(path, T)
    close([a, b], [path.a(T), path.b(T)])
    close(da, (path.a(T + h) - path.a(T - h)) / (2 * h), 1e-6, 1e-7)
    close(db, (path.b(T + h) - path.b(T - h)) / (2 * h), 1e-6, 1e-7)


def test_variance_preserving_has_the_beta_it_says():
    path = VariancePreserving(0.5, 3.0)  # a² + b² = 1 and d log a = -½ β dt
    a, b, da, db = derivatives(path, T)
    beta = path.beta_min + T * (path.beta_max - path.beta_min)
    close(a**2 + b**2, np.ones_like(T))
    close([da, db], [-beta * a / 2, beta * a**2 / b / 2])


def test_the_cosine_schedule_is_the_published_one():
    def f(t):
        return np.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    close(Cosine().a(T) ** 2, f(T) / f(0))
    close(Cosine().a(T) ** 2 + Cosine().b(T) ** 2, np.ones_like(T))
    assert Cosine().a(np.float64(1.0)) == 0


def test_the_table_is_that_of_ddpm_and_the_continuous_path_its_limit():
    beta = np.linspace(1e-4, 0.02, 1000)
    bars = np.append(1.0, np.cumprod(1 - beta))
    t = np.arange(1001) / 1000
    with jax.enable_x64(False):
        close(DDPMSchedule().a(t) ** 2, bars, 1e-5)
        close(DDPMSchedule().b(t) ** 2, 1 - bars, 1e-5)
        close(
            DDPMSchedule().time_of_ratio(DDPMSchedule().a(t), DDPMSchedule().b(t)),
            t,
            atol=1e-6,
        )
    # In the limit log (1 - β) is -β, and the sum of β, linear in t, its integral.
    log_bars = np.log(bars) + np.append(0.0, np.cumsum(-np.log1p(-beta) - beta))
    log_bars -= 1000 * (0.02 - 1e-4) / 2 * (t - t**2) / 999
    close(2 * np.log(VariancePreserving().a(t)), log_bars, atol=1e-9)


def test_a_shift_multiplies_noise_over_signal_on_every_path():
    for path in PATHS[:4] + PATHS[5:8]:
        shifted = Shifted(path, 3.0)
        inside = T[:5]  # the Karras path ends
        ratio = path.b(inside) / path.a(inside)
        close(shifted.b(inside) / shifted.a(inside), 3 * ratio, 1e-9)
    close(Shifted(Linear(), 3.0).b(T), 3 * T / (1 + 2 * T))
    assert resolution_shift(64 * 64, 32 * 32) == 2
    with pytest.raises(BadInput, match="cannot be shifted"):
        Shifted(DDPMSchedule(), 3.0)
    with pytest.raises(BadInput, match="shift=0"):
        Shifted(Linear(), 0.0)


def test_little_noise_keeps_its_digits_in_float32():
    t = np.float32(10) ** -np.arange(2, 8, dtype=np.float32)
    for path in (VariancePreserving(), Cosine()):
        exact = np.asarray(path.b(t.astype(np.float64)))
        with jax.enable_x64(False):
            close(path.b(t), exact, 1e-6)


# ---------------------------------------------------------------- training times


@pytest.mark.parametrize("law", [(0.0, 1.0), (-0.8, 0.5), (1.0, 2.0)])
def test_logit_normal_times_have_a_normal_logit(law):
    u = np.linspace(0.001, 0.999, 41)
    t = LogitNormal(*law).quantile(u, Linear())
    close(stats.norm(*law).cdf(special.logit(t)), u, 1e-9)
    close(LogNormal(*law).quantile(u, Linear()), t, 1e-9)


def test_log_normal_times_have_a_normal_log_sigma():
    u = np.linspace(0.001, 0.999, 41)
    for path in (Karras(), VariancePreserving()):
        t = LogNormal(-0.4, 0.8).quantile(u, path)
        log_sigma = np.log(path.b(t) / path.a(t))
        close(stats.norm(-0.4, 0.8).cdf(log_sigma), u, 1e-9)


def test_steps_are_those_of_the_table():
    u = np.linspace(0, 1, 1001)
    t = np.asarray(Steps(4).quantile(u, DDPMSchedule(4)))
    assert set(np.unique(t)) == {0.25, 0.5, 0.75, 1.0}
    close([np.mean(t == v) for v in np.unique(t)], np.full(4, 0.25), atol=2e-3)


@pytest.mark.parametrize("uniforms", [independent, antithetic, stratified])
@pytest.mark.parametrize("times", [Uniform(), LogitNormal(0.0, 4.0)], ids=named)
@pytest.mark.parametrize("x64", [False, True])
def test_drawn_times_follow_their_law_within_the_span(times, uniforms, x64):
    low, high = span = (0.2, 0.7)
    with jax.enable_x64(x64):
        t = sample_times(times, Linear(), KEY, 4001, span, uniforms)
        t = np.asarray(t, np.float64)
    assert t.shape == (4001,) and low <= t.min() and t.max() <= high
    quantile = np.linspace(0.05, 0.95, 10)
    expected = low + (high - low) * np.asarray(times.quantile(quantile, Linear()))
    # A share of n = 4000 below a quantile: standard error at most 0.008.
    close([np.mean(t <= q) for q in expected], quantile, atol=0.032)


def test_strata_hold_one_time_each_and_pairs_mirror_each_other():
    u = np.sort(stratified(KEY, 8))
    assert set(np.floor(u * 8)) == set(range(8))
    u = antithetic(KEY, 6)
    close(u[:3] + u[3:], np.ones(3))


def test_times_drawn_by_importance_leave_the_mean_unbiased():
    mass = importance(jnp.array([1.0, 16.0, 0.0, 9.0]), floor=0.2)
    close(mass, 0.8 * np.array([1, 4, 0, 3]) / 8 + 0.05)
    u = (np.arange(4000) + 0.5) / 4000
    t, index, weight = histogram_quantile(u, mass)
    np.testing.assert_array_equal(index, np.floor(np.asarray(t) * 4))
    close([np.mean(index == k) for k in range(4)], mass, atol=1e-3)
    close(np.mean(weight * np.cos(3 * t)), np.sin(3) / 3, atol=1e-3)


# ---------------------------------------------------------------- grids


def test_even_grids_fall_evenly_from_end_to_end():
    for span in ((0.0, 1.0), (1e-3, 1.0)):
        grid = np.asarray(times_of(Even(), Linear(), 7, span))
        assert grid.shape == (8,) and (grid[-1], grid[0]) == span
        close(np.diff(grid), np.full(7, (span[0] - span[1]) / 7))


def test_leading_grids_are_those_of_ddim():
    grid = times_of(Leading(1000), DDPMSchedule(), 10)
    close(
        grid, [0.901, 0.801, 0.701, 0.601, 0.501, 0.401, 0.301, 0.201, 0.101, 0.001, 0]
    )
    assert len(times_of(Leading(1000), VariancePreserving(), 10, (1e-3, 1.0))) == 10


def test_shifted_grids_are_the_even_times_of_the_shifted_path():
    grid = times_of(ShiftedGrid(3.0), Linear(), 5)
    even = np.linspace(1, 0, 6)
    close(grid, 3 * even / (1 + 2 * even), atol=1e-9)
    vp, span = VariancePreserving(), (1e-3, 1.0)
    grid = np.asarray(times_of(ShiftedGrid(0.5), vp, 5, span))[1:-1]
    even = Shifted(vp, 0.5)
    ratio = even.b(np.linspace(1, 1e-3, 6)) / even.a(np.linspace(1, 1e-3, 6))
    close(vp.b(grid) / vp.a(grid), ratio[1:-1], 1e-6)


def test_quadratic_grids_are_even_in_the_square_root():
    grid = times_of(Quadratic(), Linear(), 5, (0.04, 1.0))
    close(np.diff(np.sqrt(grid)), np.full(5, -0.8 / 5))


@paths
@pytest.mark.parametrize("grid", [KarrasGrid(), LogSNR()], ids=named)
def test_grids_of_sigma_are_the_same_noise_on_every_path(grid, path):
    times = times_of(grid, path, 9, (1e-3, 1.0))
    sigma = np.asarray(path.b(times) / path.a(times))
    even = np.log(sigma) if grid == LogSNR() else sigma ** (1 / 7)
    close(np.diff(even), np.full(9, (even[-1] - even[0]) / 9), 1e-6)
    assert sigma[0] <= 80.001 and sigma[-1] >= 0.001999
    if path in (Linear(), Karras()):
        assert sigma[0] == pytest.approx(80, rel=1e-3)


def test_an_even_grid_on_the_karras_path_is_the_karras_grid():
    span = (0.0, 1.0)
    even = times_of(Even(), Karras(), 9, span)
    close(times_of(KarrasGrid(), Karras(), 9, span), even, atol=1e-9)


def test_the_times_of_a_table_are_its_step_numbers():
    grid = np.asarray(times_of(Even(), DDPMSchedule(), 7)) * 1000
    close(grid, np.rint(grid), 1e-9)
    with pytest.raises(BadInput, match="steps=20.*table of 10 steps"):
        times_of(Even(), DDPMSchedule(10), 20)


@pytest.mark.parametrize("steps", [10, 50, 350])
@pytest.mark.parametrize(
    "grid",
    [Even(), ShiftedGrid(), Leading(), Quadratic(), KarrasGrid(), LogSNR()],
    ids=named,
)
def test_times_that_coincide_on_a_table_are_one_step(grid, steps):
    # As in the authors' programs: each number once, none is left out, none is new.
    table = DDPMSchedule()
    found = np.asarray(times_of(grid, table, steps)) * 1000
    asked = np.rint(np.asarray(grid(table, steps, (0.0, 1.0))) * 1000)
    np.testing.assert_array_equal(np.rint(found), np.unique(asked)[::-1])
    close(found, np.rint(found), 1e-9)
    assert len(found) <= steps + 1


@paths
@pytest.mark.parametrize("x64", [False, True])
def test_times_of_a_ratio_are_times(path, x64):
    # `matrix` refuses others, and 1.0000001 is one; nor has a path more than its noise.
    with jax.enable_x64(x64):
        t = jnp.linspace(0, 1, 41)
        found = np.asarray(path.time_of_ratio(path.a(t), path.b(t)))
        assert found.dtype == t.dtype and np.all((found >= 0) & (found <= 1))
        close(found[1:-1], t[1:-1], *((1e-9, 1e-9) if x64 else (1e-3, 2e-5)))
        assert path.time_of_ratio(jnp.ones(()), jnp.full((), 1e-30)) <= 1e-6
        last = path.time_of_ratio(jnp.ones(()), jnp.full((), 1e15))
        assert last == pytest.approx(1, abs=1e-6)
        last = path.time_of_ratio(jnp.zeros(()), jnp.ones(()))
        assert 1 - 1e-6 < last <= 1


def test_a_time_above_1_has_the_noise_that_was_asked_for():
    for path in (VariancePreserving(), VarianceExploding(), Karras()):
        sigma = 1.4 * path.b(np.float64(1)) / path.a(np.float64(1))
        t = path.extended_time(1.0, sigma)
        assert t > 1 and path.time_of_ratio(1.0, sigma) == 1
        close(path.b(t) / path.a(t), sigma, 1e-9)


@pytest.mark.parametrize("steps", [0, -3])
def test_no_steps_are_refused(steps):
    for grid in (Even(), ShiftedGrid(), Leading(), Quadratic(), KarrasGrid(), LogSNR()):
        with pytest.raises(BadInput, match=f"steps={steps}"):
            times_of(grid, Linear(), steps)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ([1.0, 0.5, 0.5], "does not fall from t=0.5 to 0.5"),
        ([0.0, 1.0], "does not fall"),
        ([1.2, 0.0], r"leaves \[0, 1\]"),
        ([1.0], "at least two"),
    ],
)
def test_grids_that_do_not_fall_within_the_path_are_refused(grid, words):
    with pytest.raises(BadInput, match=words):
        check_grid(jnp.array(grid))
