"""Laws of `gengen.diffusion.ode` against Gaussian data, whose flow is known."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from gengen.diffusion.ode import (
    HEUN,
    RK4,
    Adaptive,
    dopri5,
    integrate,
    largest_rms,
    probability_flow,
    tsit5,
)
from gengen.diffusion.paths import Linear, VariancePreserving
from gengen.diffusion.process import Noise, Process, Velocity, ode_velocity
from gengen.errors import BadInput
from gengen.models.closed_form import Mixture, gaussian, gaussian_flow

MEAN, STD = 1.5, 0.4
MIXTURE = Mixture((0.3, 0.7), ((-1.0, 0.5), (1.0, 0.0)), (0.3, 0.5))
FLOW = Process(Linear(), Velocity())
DDPM = Process(VariancePreserving(), Noise())
Z = np.random.default_rng(0).normal(size=(5, 2))
TIGHT = Adaptive(rtol=1e-10, atol=1e-10)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def close(actual, desired, rtol=1e-12, atol=1e-12):
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=atol)


@functools.cache
def carry(process, integrator=TIGHT, data=MIXTURE):
    """(z, t, s) -> (z, calls) for the data's optimal network, compiled once."""
    predict = data.predict(process)

    def flow(z, t, s):
        return probability_flow(predict, process, z, t, s, integrator)

    return jax.jit(flow)


@pytest.mark.parametrize(("rule", "order"), [(HEUN, 2), (RK4, 4)])
@pytest.mark.parametrize("process", [FLOW, DDPM], ids=str)
def test_fixed_steps_have_their_order(process, rule, order):
    predict = gaussian(MEAN, STD).predict(process)

    def field(z, t, _):
        return ode_velocity(process, z, predict(z, t), t)

    truth = gaussian_flow(process.path, MEAN, STD, Z, np.float64(1), np.float64(0.1))
    run = jax.jit(lambda grid: integrate(rule, field, Z, grid))
    steps, errors = [20, 40, 80], []
    for n in steps:  # one shape: the rest of the grid stands still
        z, calls = run(np.pad(np.linspace(1, 0.1, n + 1), (0, 80 - n), mode="edge"))
        errors.append(np.max(np.abs(z - truth)))
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(order, 0.1)
    close(calls, np.full(len(Z), 80 * len(rule.rows)))


def test_the_error_falls_with_the_tolerance_and_costs_evaluations():
    truth = gaussian_flow(Linear(), MEAN, STD, Z, 1.0, 0.0)
    errors, calls = [], []
    for tol in (1e-4, 1e-8):
        run = carry(FLOW, Adaptive(rtol=tol, atol=tol), gaussian(MEAN, STD))
        z, evaluations = run(Z, 1.0, 0.0)
        errors.append(np.max(np.abs(z - truth)))
        calls.append(np.max(evaluations))
        assert errors[-1] < 30 * tol
    assert errors[0] > 1e3 * errors[1]
    assert calls[0] < calls[1] < 300


def test_adaptive_steps_agree_with_scipy():
    predict = MIXTURE.predict(DDPM)

    @jax.jit
    def velocity(t, z):
        return ode_velocity(DDPM, z[None], predict(z[None], t), t)[0]

    z, calls = carry(DDPM, Adaptive(dopri5, 1e-9, 1e-9))(Z, 1.0, 0.01)
    found = solve_ivp(velocity, (1.0, 0.01), Z[0], rtol=1e-9, atol=1e-9)
    close(z[0], found.y[:, -1], 1e-7)
    assert calls[0] == pytest.approx(found.nfev, rel=0.2)


def test_a_row_does_not_depend_on_its_batch():
    z, calls = carry(FLOW)(Z, 1.0, 0.0)
    others = 10 * Z
    others[2] = Z[2]
    found, found_calls = carry(FLOW)(others, 1.0, 0.0)
    close(found[2], z[2])
    assert calls[2] == found_calls[2] and len(set(np.asarray(found_calls))) > 1


def test_from_noise_to_data_and_back_is_the_identity():
    x, _ = carry(FLOW)(Z, 1.0, 0.0)
    close(carry(FLOW)(x, 0.0, 1.0)[0], Z, 1e-7, 1e-7)
    still, calls = carry(FLOW)(Z, 0.5, 0.5)
    close(still, Z)
    close(calls, np.zeros(len(Z)))


@pytest.mark.parametrize("method", [tsit5, diffrax.Heun])
def test_evaluations_are_the_calls_of_the_network(method):
    predict, seen = MIXTURE.predict(FLOW), []

    def counted(z, t):
        shape = jax.ShapeDtypeStruct(z.shape, z.dtype)

        def host(z, t):
            seen.append(t)
            return np.asarray(z)

        z = jax.pure_callback(host, shape, z, t, vmap_method="sequential")
        return predict(z, t)

    solver = Adaptive(method, 1e-3, 1e-3)
    z, calls = probability_flow(counted, FLOW, Z[:1], 1.0, 0.0, solver)
    jax.block_until_ready(z)
    assert calls[0] == len(seen) > 10


def test_adaptive_is_a_solver():
    assert Adaptive(tsit5, 1e-10, 1e-10) == TIGHT and TIGHT.nfe(3) is None
    step = jax.jit(functools.partial(TIGHT.step, None, MIXTURE.predict(FLOW), FLOW))
    z, memory = Z, TIGHT.init(Z, 2)
    for t, s in [(1.0, 0.4), (0.4, 0.0)]:
        z, memory = step(z, memory, t, s)
    assert memory == ()
    close(z, carry(FLOW)(Z, 1.0, 0.0)[0], 1e-8, 1e-8)


def test_gradients_reach_through_the_steps():
    # The Gaussian flow is linear: its derivative is √(v_s/v_t), here STD.
    run = carry(FLOW, Adaptive(rtol=1e-6, atol=1e-6), gaussian(MEAN, STD))
    slope = jax.jit(jax.grad(lambda z: jnp.sum(run(z, 1.0, 0.0)[0])))(Z)
    close(slope, np.full_like(Z, STD), 1e-3)


def test_too_few_steps_are_an_error():
    with pytest.raises(Exception, match="max_steps"):
        jax.block_until_ready(carry(FLOW, Adaptive(max_steps=2))(Z, 1.0, 0.0))


@pytest.mark.parametrize("bad", [{"rtol": -1.0}, {"rtol": 0, "atol": 0}])
def test_tolerances_that_allow_no_error_are_refused(bad):
    with pytest.raises(BadInput, match="allow no error"):
        Adaptive(**bad)
    with pytest.raises(BadInput, match="max_steps=0"):
        Adaptive(max_steps=0)


def test_labels_bound_to_a_batch_are_refused_and_to_rows_accepted():
    predict, label = MIXTURE.predict(FLOW), np.arange(5.0)[:, None]

    def bound(label):
        return lambda z, t: predict(z, t) + label

    with pytest.raises(BadInput, match="bind labels to rows"):
        probability_flow(bound(label), FLOW, Z, 1.0, 0.0)

    def row(z, label):
        return probability_flow(bound(label[None]), FLOW, z[None], 1.0, 0.0)[0][0]

    assert jax.eval_shape(jax.vmap(row), Z, label).shape == Z.shape


def test_the_norm_sees_every_array():
    y = np.full((2, 8), 1e-3), np.array([4.0])
    close(largest_rms(y), 4.0)
    close(jax.grad(largest_rms)(np.zeros(3)), np.zeros(3))
