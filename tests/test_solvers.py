"""Laws of solvers against Gaussian data, whose flow is known. In float64."""

import itertools
import math
from functools import cache, partial

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
    said,
)

from gengen.diffusion.grids import (
    Even,
    LogSNR,
    times_of,
    uniform_grid,
)
from gengen.diffusion.parallel import solve_parallel
from gengen.diffusion.paths import (
    DDPMSchedule,
    Linear,
    VarianceExploding,
    VariancePreserving,
)
from gengen.diffusion.posterior import transition
from gengen.diffusion.process import EDM, Data, Noise, Process, V, Velocity, corrupt
from gengen.diffusion.solve import invert, solve, trajectory
from gengen.diffusion.solvers import (
    DDIM,
    DDPM,
    AdamsBashforth,
    Ancestral,
    DPMSolver,
    EDMSampler,
    Euler,
    EulerMaruyama,
    Heun,
    PredictorCorrector,
    Solver,
    Traits,
    adams_bashforth_weights,
    annealed_langevin,
    fixed_large,
    learned_range,
)
from gengen.errors import BadInput
from gengen.models.closed_form import gaussian, gaussian_flow, gaussian_variance
from gengen.scan import fold_in, normal, sample_keys
from gengen.types import static

KEY = jax.random.key(0)
paths = pytest.mark.parametrize("path", PATHS, ids=said)
far_paths = pytest.mark.parametrize("path", FAR_PATHS, ids=named)

SOLVERS = [Heun(), DDIM(0.5), EulerMaruyama(), EDMSampler(1.0), Ancestral()]
SOLVERS += [PredictorCorrector(DDIM()), DPMSolver(1.0), AdamsBashforth(3)]
solvers = pytest.mark.parametrize("solver", SOLVERS, ids=said)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def carry(solver, process, data, z, grid, key=0):
    keys = sample_keys(jax.random.key(key), len(z))
    return solve(solver, keys, data.predict(process), process, z, grid)


def order(errors, steps):
    """The slope of -log error over log steps."""
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


# ---------------------------------------------------------------- one formula


@solvers
def test_every_prediction_gives_the_same_samples(solver):
    (start,), keys = arrays(1), sample_keys(KEY, 7)
    times = np.linspace(0.95, 0.05, 4)
    path = VariancePreserving()
    ways = [Process(path, prediction) for prediction in (Noise(), Velocity(), EDM(0.6))]

    @jax.jit
    def advance(zs, memories, t, s):
        asked = zip(ways, zs, memories, strict=True)
        answers = [
            solver.step(
                solver.draw(keys, z), MIXTURE.predict(way), way, z, memory, t, s
            )
            for way, z, memory in asked
        ]
        return [z for z, _ in answers], [memory for _, memory in answers]

    zs, memories = [start] * 3, [solver.init(start, 3)] * 3
    for t, s in itertools.pairwise(times):
        zs, memories = advance(zs, memories, t, s)
    for other in zs[1:]:
        close(other, zs[0], 1e-7, 1e-8)


def test_ddim_is_the_flow_matching_euler_step_on_the_linear_path():
    z, answer = arrays(2)
    t, s = np.float64(0.9), np.float64(0.4)
    for prediction in PREDICTIONS:
        process = Process(Linear(), prediction)
        steps = [
            solver.step((), lambda z, t: answer, process, z, (), t, s)[0]
            for solver in (Euler(), DDIM())
        ]
        close(steps[0], steps[1])


@far_paths
def test_first_steps_of_higher_solvers_are_those_of_ddim_and_ddpm(path):
    process, (z,) = Process(path, Noise()), arrays(1)
    keys, grid = sample_keys(KEY, len(z)), np.array([0.8, 0.3])
    predict = MIXTURE.predict(process)

    @jax.jit
    def ends(z):
        pairs = (DPMSolver(), DDIM()), (DPMSolver(1.0), DDPM())
        ask = keys, predict, process, z, grid
        return [[solve(solver, *ask) for solver in pair] for pair in pairs]

    for one, other in ends(z):
        close(one, other, 1e-9, 1e-9)


@paths
def test_ddpm_step_draws_from_the_posterior_of_z_s_given_z_t_and_x(path):
    # q(z_s | z_t, x) by Bayes' rule: prior N(a_s x, b_s²), z_t ~ N(α z_s, β²).
    process, (x, noise) = Process(path, V()), arrays(2)
    keys = sample_keys(KEY, len(x))
    fresh = normal(keys, x.shape[1:])
    for t, s in [(0.98, 0.9), (0.8, 0.1), (0.5, 0.49)]:
        t, s = np.float64(t), np.float64(s)
        z, r = corrupt(process, x, noise, t)
        (a_t, b_t), (a_s, b_s) = ((path.a(u), path.b(u)) for u in (t, s))
        alpha, beta2 = a_t / a_s, b_t**2 - (a_t / a_s * b_s) ** 2
        variance = 1 / (1 / b_s**2 + alpha**2 / beta2)
        close(transition(path, t, s), [beta2, variance], 1e-7)
        mean = variance * (a_s * x / b_s**2 + alpha * z / beta2)
        means = []
        for solver, var in [(DDPM(), variance), (Ancestral(fixed_large), beta2)]:
            drawn, _ = solver.step(fresh, lambda z, t, r=r: r, process, z, (), t, s)
            means.append(drawn - np.sqrt(var) * fresh)
            close(means[-1], mean, 1e-6, 1e-7)
        v = np.random.default_rng(0).uniform(-1, 1, r.shape)

        def both(z, t, r=r, v=v):
            return np.concatenate([r, v], -1)

        drawn, _ = Ancestral(learned_range).step(fresh, both, process, z, (), t, s)
        share = (v + 1) / 2
        std = np.exp(0.5 * (share * np.log(beta2) + (1 - share) * np.log(variance)))
        close(drawn, mean + std * fresh, 1e-6, 1e-7)


def test_learned_variances_of_a_network_without_them_are_refused():
    process, (z,) = Process(Linear(), V()), arrays(1)
    for solver in (
        Ancestral(learned_range),
        PredictorCorrector(Ancestral(learned_range)),
    ):
        assert solver.traits.wants_variance
    with pytest.raises(BadInput, match="learned no variances"):
        carry(Ancestral(learned_range), process, MIXTURE, z, uniform_grid(3))


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@far_paths
def test_ddim_keeps_the_marginals_when_data_are_known(path, eta):
    # With the true (x, ε) every η draws z_s with mean a_s x and variance b_s².
    process, (x, noise) = Process(path, Noise()), arrays(2)
    keys, t, s = sample_keys(KEY, len(x)), np.float64(0.7), np.float64(0.3)

    def step(noise):
        z, r = corrupt(process, x, noise, t)
        drawn = DDIM(eta).draw(keys, x)
        return DDIM(eta).step(drawn, lambda z, t: r, process, z, (), t, s)[0]

    along = step(noise + 1) - step(noise)
    fresh = step(0 * noise) - path.a(s) * x
    tau2 = (fresh / normal(keys, x.shape[1:])) ** 2
    close(along**2 + tau2, np.full_like(x, path.b(s) ** 2), 1e-8)
    assert (np.max(tau2) > 1e-9) == (eta > 0)


# ---------------------------------------------------------------- convergence


@pytest.mark.parametrize(
    ("solver", "expected"),
    [
        (Euler(), 1),
        (DDIM(), 1),
        (Heun(), 2),
        (EDMSampler(), 2),
        (DPMSolver(), 2),
        (AdamsBashforth(2), 2),
        (AdamsBashforth(3), 3),
    ],
    ids=said,
)
@pytest.mark.parametrize(
    "path",
    [Linear(), VariancePreserving(), VarianceExploding(0.3, 5.0)],
    ids=said,
)
def test_order_of_convergence_to_the_exact_flow(path, solver, expected):
    process, data = Process(path, V()), gaussian(MEAN, STD)
    z = np.linspace(-2, 2, 5)[:, None]
    low, high = np.float64(0.1), np.float64(1.0)
    truth = gaussian_flow(path, MEAN, STD, z, high, low)
    run = jax.jit(lambda grid: carry(solver, process, data, z, grid))
    steps, errors = [512, 1024], []
    for n in steps:
        found = run(uniform_grid(n, (low, high)))
        errors.append(np.max(np.abs(found - truth)))
    assert order(errors, steps) == pytest.approx(expected, abs=0.1)


def test_adams_bashforth_weights_are_the_published_ones_where_steps_are_even():
    even = jnp.array([0.0, -1.0, -2.0, -3.0])
    close(adams_bashforth_weights(even[:2], 1.0), np.array([3, -1]) / 2)
    close(adams_bashforth_weights(even[:3], 1.0), np.array([23, -16, 5]) / 12)
    close(adams_bashforth_weights(even, 1.0), np.array([55, -59, 37, -9]) / 24)
    times, s = jnp.array([0.7, 0.9, 1.0]), 0.4  # uneven, and of falling time
    w = adams_bashforth_weights(times, s)
    for k in range(3):
        close(w @ times**k, (s ** (k + 1) - 0.7 ** (k + 1)) / (k + 1), 1e-10)


@cache
def noise_of(n, corrections):
    """Keys [M] of samples, and all the noise they may draw in n steps [M, columns]."""
    keys = sample_keys(KEY, 2 * n * (1 + corrections))

    def drawn(i):
        own = fold_in(keys, i)
        more = [fold_in(own, j + 1) for j in range(corrections)]
        return jnp.concatenate([normal(keys, (1,)) for keys in (own, *more)], axis=1)

    return keys, jnp.concatenate(jax.lax.map(drawn, jnp.arange(n)), axis=1)


def moments(solver, process, data, grid, mean, variance):
    """Mean and variance after the grid, exactly: what solve returns is affine in z and
    its noise, with coefficients that as many samples tell.
    """
    corrections = getattr(solver, "corrections", 0)
    keys, noise = noise_of(len(grid) - 1, corrections)
    z = normal(keys, (1,))
    ask = solver, keys, data.predict(process), process
    columns = np.concatenate([np.ones_like(z), z, noise], axis=1)
    out = jax.jit(partial(solve, *ask))(z, grid)
    found, *_ = np.linalg.lstsq(columns, out)
    close(columns @ found, out, 1e-9, 1e-9)  # there is no other noise
    a, b, *c = found[:, 0]
    return a + b * mean, b**2 * variance + np.sum(np.square(c))


# As functions of the number of steps: in the limit a diffusion, as S_churn is.
STOCHASTIC = {
    "DDIM(0.5)": (lambda n: DDIM(0.5), 1),
    "DDPM": (lambda n: DDPM(), 1),
    "Ancestral": (lambda n: Ancestral(), 1),
    "EulerMaruyama": (lambda n: EulerMaruyama(), 1),
    "Corrected(DDIM)": (lambda n: PredictorCorrector(DDIM(), 1, (0.2 / n) ** 0.5), 1),
    "Corrected(DDPM)": (lambda n: PredictorCorrector(DDPM(), 2, (0.2 / n) ** 0.5), 1),
    "EDMSampler": (lambda n: EDMSampler(2.0), 2),
    "DPMSolver(0.5)": (lambda n: DPMSolver(0.5), 2),
    "DPMSolver(1)": (lambda n: DPMSolver(1.0), 2),
}


# On the linear path only those that read more of a path than a and b.
CASES = [(VariancePreserving(0.5, 3.0), 0.2, name) for name in STOCHASTIC]
CASES += [(Linear(), 0.1, name) for name in ("EulerMaruyama", "DPMSolver(1)")]


@pytest.mark.parametrize(
    ("path", "low", "name"), CASES, ids=[f"{named(p)}-{name}" for p, _, name in CASES]
)
def test_stochastic_samplers_have_the_moments_of_the_data(path, low, name):
    make, expected = STOCHASTIC[name]
    process, data = Process(path, Data()), gaussian(MEAN, STD)
    low, high = np.float64(low), np.float64(0.98)
    start = MEAN * path.a(high), gaussian_variance(path, STD, high)
    steps, errors = [32, 64], []
    for n in steps:
        grid = uniform_grid(n, (low, high))
        mean, variance = moments(make(n), process, data, grid, *start)
        if name == "EulerMaruyama":  # its drift is not exact in z
            assert mean == pytest.approx(float(MEAN * path.a(low)), abs=0.2 / n)
        else:
            close(mean, MEAN * path.a(low), 1e-11)
        errors.append(abs(variance - gaussian_variance(path, STD, low)))
    assert order(errors, steps) == pytest.approx(expected, abs=0.1)


def test_annealed_langevin_walks_along_the_score_to_the_data():
    path, data, n = VarianceExploding(0.05, 20.0), gaussian(MEAN, STD), 2500
    process = Process(path, Noise())
    z = np.random.default_rng(0).normal(0.0, 20.0, (n, 1))
    grid = uniform_grid(60)
    solver = annealed_langevin(20, 0.2)
    assert solver.nfe(1) == 20
    out = jax.jit(partial(carry, solver, process, data))(z, grid)
    exact = gaussian_variance(path, STD, 0.0)
    assert np.mean(out) == pytest.approx(MEAN, abs=0.05)
    assert np.var(out) == pytest.approx(float(exact), rel=0.1)


def test_noise_and_image_are_the_same_point_of_the_flow():
    process, (x,) = Process(Linear(), Velocity()), arrays(1)
    grid = times_of(Even(), Linear(), 400, (0.0, 1.0))
    predict = MIXTURE.predict(process)
    for solver in (DDIM(), Heun(), DPMSolver(), EDMSampler()):
        z = invert(solver, predict, process, x, grid)
        back = solve(solver, sample_keys(KEY, len(x)), predict, process, z, grid)
        close(back, x, atol=0.02)
    data = gaussian(MEAN, STD)
    z = invert(Heun(), data.predict(process), process, x, grid)
    close(z, gaussian_flow(Linear(), MEAN, STD, x, 0.0, 1.0), atol=1e-4)


def test_a_trajectory_has_what_solve_returns_on_a_shorter_grid():
    process, (z,) = Process(VariancePreserving(), Noise()), arrays(1)
    grid, solver = uniform_grid(3, (0.1, 1.0)), PredictorCorrector(DPMSolver())
    ask = sample_keys(KEY, len(z)), MIXTURE.predict(process), process, z
    states = trajectory(solver, *ask, grid)
    assert np.array_equal(states[0], z)
    close(states[2], solve(solver, *ask, grid[:3]))


@pytest.mark.parametrize(
    "solver",
    [DDPM(), Ancestral(), DPMSolver(1.0), PredictorCorrector(DDIM()), EulerMaruyama()],
    ids=said,
)
def test_solvers_that_draw_noise_have_no_way_back(solver):
    process, (x,) = Process(Linear(), Velocity()), arrays(1)
    with pytest.raises(BadInput, match="no way back"):
        invert(solver, None, process, x, uniform_grid(3))


# ---------------------------------------------------------------- ends of time


@pytest.mark.parametrize(
    "solver",
    [
        DDIM(),
        DDPM(),
        Ancestral(),
        DPMSolver(),
        DPMSolver(1.0),
        EDMSampler(),
        AdamsBashforth(),
    ],
    ids=said,
)
def test_steps_from_pure_noise_and_to_clean_data_are_finite(solver):
    process, (z,) = Process(Linear(), Velocity()), arrays(1)
    data = gaussian(MEAN, STD)
    for dtype, x64 in ((np.float64, True), (np.float32, False)):
        with jax.enable_x64(x64):
            run = jax.jit(partial(carry, solver, process, data))
            out = run(z.astype(dtype), uniform_grid(100))
        assert np.all(np.isfinite(out)) and out.dtype == dtype
        assert np.mean(out) == pytest.approx(MEAN, abs=0.8)


def test_solvers_that_divide_by_a_do_not_begin_where_it_is_zero():
    process, (z,) = Process(Linear(), Velocity()), arrays(1)
    for solver in (
        EulerMaruyama(),
        annealed_langevin(),
        PredictorCorrector(EulerMaruyama()),
    ):
        with pytest.raises(BadInput, match="divides by a"):
            carry(solver, process, MIXTURE, z, uniform_grid(3))


def test_no_solver_begins_where_the_prediction_says_nothing():
    # At t = 1 all of z is noise: to know it is to know nothing of x.
    process, (z,) = Process(Linear(), Noise()), arrays(1)
    for solver in (DDIM(), Euler()):
        with pytest.raises(BadInput, match="t=1 .* determinant is 0.* 0.999"):
            carry(solver, process, MIXTURE, z, uniform_grid(3))


@pytest.mark.parametrize("make", [solve, solve_parallel])
def test_a_grid_of_any_kind_is_checked_where_it_is_known(make):
    process, (z,) = Process(Linear(), Noise()), arrays(1, batch=2)
    keys = jax.random.split(KEY, 2)
    for grid in ([1.0, 0.5], np.array([1.0, 0.5]), jnp.array([1.0, 0.5])):
        for wrap in (jax.jit, lambda f: f):
            go = wrap(lambda z, g=grid: make(DDIM(), keys, MIXTURE, process, z, g))
            with pytest.raises(BadInput, match="determinant is 0"):
                go(z)


def test_solvers_without_derivatives_walk_along_a_table():
    process, data = Process(DDPMSchedule(), Noise()), gaussian(MEAN, STD)
    z = arrays(1, batch=2000)[0]
    for solver in (DDIM(), DDPM(), DPMSolver(), EDMSampler()):
        grid = times_of(Even(), DDPMSchedule(), 100)
        out = jax.jit(partial(carry, solver, process, data))(z, grid)
        assert np.mean(out) == pytest.approx(MEAN, abs=0.05)
        assert np.std(out) == pytest.approx(STD, rel=0.1)
    with pytest.raises(BadInput, match="no velocity"):
        carry(Euler(), process, data, z, grid)


@solvers
def test_a_sample_does_not_depend_on_its_batch(solver):
    (z,), grid = arrays(1), uniform_grid(5, (0.05, 0.95))
    process = Process(Linear(), Velocity())
    run = jax.jit(lambda *zs: [carry(solver, process, MIXTURE, z, grid) for z in zs])
    two, all_of_them = run(z[:2], z)
    close(two, all_of_them[:2], 1e-9)


# ---------------------------------------------------------------- parallel in time


@pytest.mark.parametrize(
    ("solver", "window"),
    [(DDIM(), None), (DDPM(), None), (DDPM(), 5), (Heun(), 5)],
    ids=said,
)
def test_picards_iteration_finds_the_sequential_sample(solver, window):
    process, (z,) = Process(VariancePreserving(), Noise()), arrays(1)
    keys, grid = sample_keys(KEY, len(z)), times_of(Even(), Linear(), 16, (1e-3, 1.0))
    ask = MIXTURE.predict(process), process, z, grid

    @jax.jit
    def ways():
        own = partial(solve_parallel, solver, keys, *ask, window)
        return solve(solver, keys, *ask), own(1e-9), own(0.05)

    one, found, loose = ways()
    close(found.z, one, 1e-6, 1e-6)
    assert found.sweeps <= 16 + 1
    assert loose.sweeps < found.sweeps
    close(loose.z, one, 0.0, 0.05)


def test_many_small_steps_take_few_sweeps():
    process, (z,) = Process(Linear(), Velocity()), arrays(1)
    keys, grid = sample_keys(KEY, len(z)), uniform_grid(200)
    ask = MIXTURE.predict(process), process, z, grid
    one = solve(Euler(), keys, *ask)
    found = jax.jit(lambda: solve_parallel(Euler(), keys, *ask, None, 1e-3))()
    assert found.sweeps < 40
    close(found.z, one, atol=0.02)


def test_a_solver_with_memory_has_no_parallel_form():
    process, (z,) = Process(Linear(), Velocity()), arrays(1)
    with pytest.raises(BadInput, match="without memory"):
        solve_parallel(DPMSolver(), None, None, process, z, uniform_grid(4))


# ---------------------------------------------------------------- keys, mistakes


@static
class Recorder(Solver):
    """A solver whose memory is the noise of its steps, one a column."""

    traits = Traits(deterministic=False)

    def draw(self, keys, z):
        return normal(keys, (1,))

    def step(self, noise, predict, process, z, memory, t, s):
        return jnp.concatenate([z[:, 1:], noise], axis=1), memory


def test_fresh_noise_differs_between_steps_samples_and_keys():
    process, data = Process(Linear(), Data()), gaussian(MEAN, STD)
    z, grid = np.zeros((500, 3)), uniform_grid(3)
    noise = [carry(Recorder(), process, data, z, grid, key) for key in (0, 1)]
    noise = np.concatenate(noise, axis=1)  # [samples, keys and steps]
    assert len(np.unique(noise)) == noise.size
    correlation = np.corrcoef(noise, rowvar=False) - np.eye(6)
    assert np.max(np.abs(correlation)) < 4 / np.sqrt(500)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_values_out_of_range_are_refused(eta):
    for make in (DDIM, DPMSolver):
        with pytest.raises(BadInput, match="eta="):
            make(eta)
    for churn in (-0.1, math.nan, math.inf):
        with pytest.raises(BadInput, match="churn="):
            EDMSampler(churn)
    with pytest.raises(BadInput, match="snr=-1"):
        PredictorCorrector(DDIM(), 1, -1.0)
    with pytest.raises(BadInput, match="corrections=0"):
        PredictorCorrector(DDIM(), 0)
    with pytest.raises(BadInput, match="order=5"):
        AdamsBashforth(5)
    assert LogSNR() == LogSNR()
