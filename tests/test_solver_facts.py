"""What solvers say of themselves is so; noise, keys and conditions are arguments."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import MIXTURE, arrays, close, said

from gengen.diffusion.grids import uniform_grid
from gengen.diffusion.inverse import Inpainting
from gengen.diffusion.noise import step_noise
from gengen.diffusion.ode import Adaptive
from gengen.diffusion.parallel import solve_parallel
from gengen.diffusion.paths import (
    DDPMSchedule,
    Karras,
    Linear,
    VarianceExploding,
    VariancePreserving,
)
from gengen.diffusion.process import EDM, Data, Noise, Process, V, Velocity, recover
from gengen.diffusion.solve import (
    check_start,
    denoise,
    invert,
    solve,
    solve_to_data,
    trajectory,
)
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
    NoPredictor,
    PredictorCorrector,
    Renoise,
    annealed_langevin,
)
from gengen.errors import BadInput
from gengen.scan import sample_keys

KEY = jax.random.key(0)
SOLVERS = [Euler(), Heun(), AdamsBashforth(2), AdamsBashforth(3), NoPredictor()]
SOLVERS += [DDIM(), DDIM(0.5), DDPM(), Ancestral(), DPMSolver(), DPMSolver(0.5)]
SOLVERS += [Renoise()]
SOLVERS += [EDMSampler(), EDMSampler(2.0), EulerMaruyama(), annealed_langevin(2)]
SOLVERS += [PredictorCorrector(DDIM()), PredictorCorrector(DPMSolver(1.0), 2)]
SOLVERS += [Inpainting(DDIM(), np.ones((3, 2)), np.array([True, False]), 2)]
SOLVERS += [Inpainting(PredictorCorrector(DDPM()), np.ones((3, 2)), np.ones(2, bool))]


def name(solver):
    own = solver.solver if isinstance(solver, Inpainting) else solver
    return f"{type(solver).__name__}-{said(own)}"


solvers = pytest.mark.parametrize("solver", SOLVERS, ids=name)
PROCESS = Process(VariancePreserving(), V())
GRID = (0.9, 0.6, 0.3, 0.1)
Z = arrays(1, batch=3)[0]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def predict(z, t):
    """Any function of both that is not affine in z."""
    return jnp.tanh(z + t)


def draws(solver):
    keys = sample_keys(KEY, 3)
    return jax.eval_shape(lambda z: solver.draw(keys, z), jnp.zeros((3, 2)))


# ---------------------------------------------------------------- traits


@solvers
def test_traits_are_what_a_solver_does(solver):
    traits, keys = solver.traits, sample_keys(KEY, 3)
    assert traits.deterministic == (not jax.tree.leaves(draws(solver)))

    @jax.jit
    def after(noise, state, t, s):
        return solver.step(noise, predict, PROCESS, jnp.asarray(Z), state, t, s)[1]

    first = solver.init(jnp.asarray(Z), 3)
    noise = solver.draw(keys, jnp.asarray(Z))
    later = after(noise, after(noise, first, 0.9, 0.6), 0.6, 0.3)
    same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), first, later)
    assert traits.has_memory == (not all(jax.tree.leaves(same)))


def test_only_solvers_that_say_so_divide_by_a():
    process, seen = Process(Linear(), Velocity()), np.array([True, False])
    ends = jnp.asarray(1.0), jnp.asarray(0.6)
    for solver in SOLVERS:
        if isinstance(solver, Inpainting):
            solver = solver._replace(observed=seen)

        def step(noise, solver=solver):
            z, state = jnp.asarray(Z), solver.init(jnp.asarray(Z), 3)
            predict = MIXTURE.predict(process)
            return solver.step(noise, predict, process, z, state, *ends)[0]

        z = jax.jit(step)(solver.draw(sample_keys(KEY, 3), jnp.asarray(Z)))
        assert bool(jnp.all(jnp.isfinite(z))) != solver.traits.divides_by_a, solver


def test_a_wrapper_has_the_facts_of_what_it_wraps():
    for inner in (DDIM(), EulerMaruyama(), DPMSolver(), Adaptive()):
        outer, own = PredictorCorrector(inner, 3).traits, inner.traits
        assert not outer.deterministic
        for fact in ("divides_by_a", "wants_variance", "has_memory", "adaptive"):
            assert getattr(outer, fact) == getattr(own, fact)
    assert Adaptive().nfe(5) is PredictorCorrector(Adaptive()).nfe(5) is None
    assert Inpainting(Adaptive(), Z, Z > 0).nfe(5) is None
    assert PredictorCorrector(AdamsBashforth(), 2).nfe(5) == 6 + 10


# ---------------------------------------------------------------- noise


@solvers
def test_noise_is_that_of_the_keys_and_calls_are_as_many_as_it_says(solver):
    keys, grid, calls = sample_keys(KEY, 3), jnp.array(GRID), []

    def counted(z, t):
        jax.debug.callback(lambda: calls.append(1))
        return predict(z, t)

    @jax.jit
    def both(z):
        ask = PROCESS, z, grid
        in_hand = {}
        if not solver.traits.deterministic:
            in_hand["noise"] = step_noise(solver, keys, z, 3)
        by_keys = solve(solver, keys, counted, *ask)
        return by_keys, solve(solver, None, predict, *ask, **in_hand)

    by_keys, by_hand = jax.block_until_ready(both(Z))
    close(by_keys, by_hand)  # to rounding: the two are compiled differently
    jax.effects_barrier()
    assert len(calls) == solver.nfe(3)
    assert not solver.traits.adaptive


def test_a_solver_that_draws_wants_keys_or_noise():
    ask = MIXTURE.predict(PROCESS), PROCESS, Z, jnp.array(GRID)
    for go in (solve, trajectory, solve_parallel):
        with pytest.raises(BadInput, match=r"DDIM\(eta=1.0\) draws noise: give it"):
            go(DDPM(), None, *ask)
    keys = sample_keys(KEY, 3)
    noise = step_noise(DDPM(), keys, jnp.asarray(Z), 3)
    with pytest.raises(BadInput, match="keys and noise"):
        solve(DDPM(), keys, *ask, noise=noise)
    for bad in (noise[:2], noise[:, :1], noise[..., :1], (noise,), noise[0]):
        with pytest.raises(BadInput, match="noise of shapes"):
            solve(DDPM(), None, *ask, noise=bad)
    with pytest.raises(BadInput, match="noise of shapes"):
        solve(DDIM(), None, *ask, noise=noise)
    with pytest.raises(AssertionError):
        solve(DDPM(), keys[:2], *ask)


@pytest.mark.parametrize("bad", ["heun", Heun, None, 3], ids=str)
def test_a_solver_is_a_value(bad):
    grid = uniform_grid(3)
    for go in (
        lambda: solve(bad, None, None, PROCESS, Z, grid),
        lambda: invert(bad, None, PROCESS, Z, grid),
        lambda: check_start(bad, PROCESS, grid),
    ):
        with pytest.raises(BadInput, match=r"solver=.* such as Heun\(\)"):
            go()


# ---------------------------------------------------------------- conditions, the end


@pytest.mark.parametrize("solver", [DDPM(), Adaptive(rtol=0.1, atol=0.1)], ids=said)
def test_a_condition_goes_with_its_row(solver):
    label, keys, grid = np.array([0, 1, 1]), sample_keys(KEY, 3), jnp.array(GRID)

    def conditional(z, t, c):
        return MIXTURE.predict(PROCESS, c["label"])(z, t)

    def run(go, keys, z, label):
        return go(solver, keys, conditional, PROCESS, z, grid, {"label": label})

    def known(z, t):
        return MIXTURE.predict(PROCESS, label)(z, t)

    @jax.jit
    def by_itself(keys, z):  # the third row has a condition of its own
        predict = MIXTURE.predict(PROCESS, 1)
        return solve_to_data(solver, keys, predict, PROCESS, z, grid)

    found = jax.jit(partial(run, solve_to_data))(keys, Z, label)
    close(found[2:], by_itself(keys[2:], Z[2:]), 1e-9, 1e-9)
    if not solver.traits.adaptive:
        states = jax.jit(partial(run, trajectory))(keys, Z, label)
        own = jax.jit(lambda z: trajectory(solver, keys, known, PROCESS, z, grid))(Z)
        close(states, own, 1e-9, 1e-9)
        close(states[-1], jax.jit(partial(run, solve))(keys, Z, label), 1e-9, 1e-9)


def test_a_condition_goes_the_way_back():
    label, grid = np.array([0, 1, 1]), uniform_grid(40, (0.1, 0.9))

    def conditional(z, t, c):
        return MIXTURE.predict(PROCESS, c)(z, t)

    @jax.jit
    def there_and_back(z):
        x = solve(Heun(), None, conditional, PROCESS, z, grid, label)
        return invert(Heun(), conditional, PROCESS, x, grid, label)

    close(there_and_back(Z), Z, 2e-3, 2e-3)


@pytest.mark.parametrize("path", [VarianceExploding(), Karras(), Linear()], ids=said)
def test_samples_reach_the_data_on_every_path(path):
    process, grid = Process(path, Data()), jnp.array([0.9, 0.4, 0.0])
    predict = MIXTURE.predict(process)

    def twice(z, t):  # learned variances behind r̂
        return jnp.concatenate([predict(z, t)] * 2, axis=-1)

    @jax.jit
    def ways(start, t):
        z = solve(DDIM(), None, predict, process, start, grid)
        x = solve_to_data(DDIM(), None, predict, process, start, grid)
        ends = [denoise(f, process, z, t) for f in (predict, twice)]
        return z, recover(process, z, predict(z, 0.0), 0.0)[0], x, *ends

    z, expected, x, *ends = ways(Z, 0.0)
    close(x, expected if path.b(np.float64(0)) > 0 else z)
    for end in ends:
        close(end, x)


# ---------------------------------------------------------------- EDM


def algorithm_2(denoiser, y, sigmas, noise, churn, low, high, scale):
    """Karras et al. 2022, algorithm 2, in their symbols and NumPy."""
    steps = len(sigmas) - 1
    for i in range(steps):
        t, after = sigmas[i], sigmas[i + 1]
        gamma = min(churn / steps, math.sqrt(2) - 1) if low <= t <= high else 0.0
        hat = t + gamma * t
        y_hat = y + math.sqrt(hat**2 - t**2) * scale * noise[i]
        d = (y_hat - denoiser(y_hat, hat)) / hat
        y = y_hat + (after - hat) * d
        if after != 0:
            d_after = (y - denoiser(y, after)) / after
            y = y_hat + (after - hat) * (d / 2 + d_after / 2)
    return y


def mixture_denoiser(y, sigma):
    """E[x | y] of the mixture at y = x + σ ε, in NumPy."""
    m, s = np.array(MIXTURE.means), np.array(MIXTURE.stds)[:, None]
    gap, v = y[:, None] - m, s**2 + sigma**2
    log_p = np.log(MIXTURE.weights) - 0.5 * np.sum(gap**2 / v + np.log(v), -1)
    share = np.exp(log_p - log_p.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    return np.sum(share[..., None] * (m + s**2 / v * gap), axis=1)


CHURNS = {
    "all": (3.0, 0.0, math.inf, 1.0),
    "most": (40.0, 0.0, math.inf, 1.003),
    "between": (2.0, 0.05, 50.0, 1.003),
    "none": (0.0, 0.0, math.inf, 1.0),
}


@pytest.mark.parametrize("values", CHURNS.values(), ids=CHURNS)
@pytest.mark.parametrize(
    ("path", "prediction"),
    [
        (Karras(), EDM(0.5)),  # these end at a σ, above which the first churn goes
        (VarianceExploding(), Noise()),
        (VariancePreserving(), V()),
        (Linear(), Velocity()),
    ],
    ids=said,
)
def test_the_edm_sampler_is_algorithm_2(path, prediction, values):
    process, high = Process(path, prediction), 0.999 if path == Linear() else 1.0
    grid = np.linspace(high, 0.0, 6)
    solver, steps = EDMSampler(*values), 5
    a, b = np.asarray(path.a(grid)), np.asarray(path.b(grid))
    noise = np.random.default_rng(1).normal(size=(steps, *Z.shape))
    y = Z * b[0] / a[0]
    handed = noise if values[0] else None

    @jax.jit
    def run(z, handed):
        predict = MIXTURE.predict(process)
        return solve(solver, None, predict, process, z, grid, noise=handed)

    z = run(a[0] * y, handed)
    expected = algorithm_2(mixture_denoiser, y, b / a, noise, *values)
    close(z / a[-1], expected, 1e-7, 1e-7)
    if values is not CHURNS["most"]:
        return
    with jax.enable_x64(False):
        single = None if handed is None else handed.astype(np.float32)
        found = run((a[0] * y).astype(np.float32), single)
    close(found, z, 2e-4, 2e-4)


def test_on_a_table_the_edm_sampler_takes_the_nearest_step():
    # The authors' round_sigma: σ̂ is a σ of the table, and above the last there is none.
    table = DDPMSchedule(20, 0.01, 0.3)
    process, grid = Process(table, Noise()), np.array([20, 12, 6, 0]) / 20
    sigmas = np.asarray(table.b(np.arange(21) / 20) / table.a(np.arange(21) / 20))
    noise = np.random.default_rng(1).normal(size=(3, *Z.shape))
    a, y, churn = np.asarray(table.a(grid)), 0 * Z, 1.0
    y = Z * sigmas[20]
    handed, asked = jnp.asarray(noise), y
    predict = MIXTURE.predict(process)
    z = solve(EDMSampler(churn), None, predict, process, a[0] * y, grid, noise=handed)
    for i, (number, after) in enumerate([(20, 12), (12, 6), (6, 0)]):
        hat = sigmas[np.abs(np.log(sigmas[1:] / (4 / 3 * sigmas[number]))).argmin() + 1]
        t, s = sigmas[number], sigmas[after]
        assert hat > t or number == 20
        asked = asked + math.sqrt(hat**2 - t**2) * noise[i]
        d = (asked - mixture_denoiser(asked, hat)) / hat
        new = asked + (s - hat) * d
        if s > 0:
            after_d = (new - mixture_denoiser(new, s)) / s
            new = asked + (s - hat) * (d + after_d) / 2
        asked = new
    close(z / a[-1], asked, 1e-5, 1e-5)
