"""Consistency models: laws on a Gaussian, whose consistency function is known."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import close

from gengen import presets
from gengen.conditions import Labels
from gengen.diffusion.consistency import (
    ClosingGap,
    EvenSteps,
    consistency_loss,
    ode_jump,
    pseudo_huber,
)
from gengen.diffusion.paths import Linear, VariancePreserving
from gengen.diffusion.process import Noise, Process, V, Velocity, from_data
from gengen.diffusion.sampler import Sampler
from gengen.diffusion.solvers import Euler, Renoise
from gengen.errors import BadInput
from gengen.models.closed_form import gaussian, gaussian_flow
from gengen.models.combinators.consistency import Consistency
from gengen.models.diffusion import Diffusion
from gengen.spaces import Reals
from gengen.types import Variables

KEY, MEAN, STD = jax.random.key(0), 0.7, 0.4
FLOW = Process(Linear(), Velocity())
PATHS = pytest.mark.parametrize("path", [Linear(), VariancePreserving()])


def exact(path, z, t):
    """The end of the path through z: the consistency function of N(MEAN, STD²)."""
    t = jnp.broadcast_to(t, z.shape[:1])
    return gaussian_flow(path, MEAN, STD, z, t, 0 * t)


@pytest.fixture
def points():
    """z [N, 1] at times t, and earlier times s, in float64."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        s, t = np.sort(rng.uniform(0.02, 0.98, (2, 500)), axis=0)
        yield jnp.asarray(rng.normal(size=(500, 1))), jnp.asarray(t), jnp.asarray(s)


@PATHS
def test_the_exact_function_has_no_loss_along_the_exact_path(points, path):
    z, t, s = points
    z_s = gaussian_flow(path, MEAN, STD, z, t, s)

    @jax.jit
    def loss(theta):
        def denoise(z, t):
            return exact(path, z, t) + theta * t[:, None] * z

        return consistency_loss(denoise, path, z, t, z_s, s)

    assert np.max(np.abs(loss(0.0))) < 1e-9
    assert np.min(loss(0.1)) > 0 and np.mean(loss(0.1)) > 1e-3


@PATHS
def test_a_teacher_s_jump_leaves_the_exact_path_by_the_square_of_its_length(
    points, path
):
    z, t, _ = points
    process = Process(path, V())
    r = gaussian(MEAN, STD).predict(process)(z, t)

    def gap(step):
        s = t * (1 - step)
        jumped = ode_jump(process, z, r, t, s)
        return np.asarray(jumped - gaussian_flow(path, MEAN, STD, z, t, s))

    coarse, fine = gap(1e-2), gap(1e-3)
    assert np.max(np.abs(coarse)) > 1e-5
    ratio = np.linalg.norm(coarse) / np.linalg.norm(fine)
    assert 85 < ratio < 115
    close(ode_jump(process, z, r, t, t), z, 1e-12)


def test_at_the_data_the_target_is_the_data(points):
    z, t, _ = points

    def denoise(z, t):
        return jnp.where(t[:, None] == 0, jnp.nan, 2 * z)

    found = consistency_loss(denoise, Linear(), z, t, z / 3, 0 * t)
    sigma = t / (1 - t)
    close(found, pseudo_huber(2 * z, z / 3) / sigma, 1e-12)


def test_the_gap_closes_by_its_factor_and_never_quite():
    sigma = np.array([1e-3, 0.3, 1.0, 50.0], np.float32)
    t, schedule = jnp.asarray(sigma / (1 + sigma)), ClosingGap(10, q=2.0, k=8.0)

    def ratio(step):
        s = np.asarray(schedule.earlier(Linear(), t, jnp.int32(step)))
        return s / (1 - s) / sigma

    close(ratio(9), [0, 0, 0, 0.5], atol=1e-5)  # a denoiser's loss, but where σ > 2
    wide = 1 + 8 / (1 + np.exp(sigma.astype(float)))
    close(ratio(40), np.clip(1 - wide / 32, 0, 1), 1e-4, 1e-5)
    close((1 - ratio(50)) / (1 - ratio(40)), 0.5 * np.ones(4), 1e-3)
    assert np.all(ratio(10_000) < 1)
    s = EvenSteps(4).earlier(Linear(), jnp.array([0.1, 0.75]), 0)
    close(s, [0.0, 0.5])


class Exact(nn.Module):
    """The velocity whose data prediction is the exact consistency function."""

    def __call__(self, z, t, c=None, train=False):
        return from_data(FLOW, z, exact(FLOW.path, z, t), t)


@pytest.mark.parametrize("steps", [1, 3])
def test_samples_of_the_exact_function_are_of_the_data(steps):
    sampler = Sampler(Renoise(), steps=steps)
    model = Diffusion(Exact(), FLOW, Reals((1,)))
    model = Consistency(model, ClosingGap(1), sampler=sampler)
    x = jax.jit(partial(model.sample, num=4_000))({"denoiser": {}}, {}, KEY)
    close(np.mean(x), MEAN, atol=4 * STD / 60)
    close(np.std(x), STD, rtol=0.05)
    assert model.nfe() == steps
    if steps == 1:
        z = np.random.default_rng(1).normal(size=(50, 1)).astype(np.float32)
        found = model.from_latent({"denoiser": {}}, {}, z)
        close(found, MEAN + STD * z, 1e-5, 1e-5)


class Scaled(nn.Module):
    """r̂ = θ z: the smallest network with a parameter."""

    @nn.compact
    def __call__(self, z, t, c=None, train=False):
        return z * self.param("theta", nn.initializers.constant(0.3), ())


def test_the_loss_of_a_student_is_along_its_teacher_s_own_path():
    net, space = Scaled(), Reals((3,))
    model = Diffusion(net, FLOW, space)
    student = Consistency(model, EvenSteps(5), teacher=model)
    teacher = Variables({"denoiser": {"theta": jnp.float32(0.9)}}, {})
    params = {"denoiser": {"theta": jnp.float32(0.3)}}
    batch = {space.key: np.random.default_rng(2).normal(size=(6, 3)).astype("f")}
    state = {"step": jnp.int32(0), "frozen": {"teacher": teacher}}
    found, _ = jax.jit(student.loss)(params, state, batch, KEY)
    key_noise, key_time, *_ = jax.random.split(KEY, 4)
    noise = np.asarray(jax.random.normal(key_noise, (6, 3)))
    t = np.asarray(jax.random.uniform(key_time, (6,), minval=np.finfo("f").tiny))
    s = np.maximum(t - 0.2, 0)
    z = (1 - t)[:, None] * batch[space.key] + t[:, None] * noise
    z_s = z - (t - s)[:, None] * 0.9 * z
    f, target = z - t[:, None] * 0.3 * z, z_s - s[:, None] * 0.3 * z_s
    each = np.asarray(pseudo_huber(f, target)) / (t / (1 - t) - s / (1 - s))
    close(found, np.mean(each), 1e-5)


def test_what_a_consistency_model_refuses():
    model = presets.flow(Exact(), Reals((1,)))
    other = Diffusion(Exact(), Process(Linear(), Noise()), Reals((1,)))
    labelled = presets.flow(Exact(), Reals((1,)), Labels(3))
    for wrong, reason in (
        (lambda: Consistency(model, ClosingGap(0)), "every=0"),
        (lambda: ClosingGap(5, q=1.0), "q=1.0"),
        (lambda: EvenSteps(0), "num=0"),
        (lambda: Consistency(model, ClosingGap(5), other), "is not its teacher's"),
        (lambda: Consistency(model, ClosingGap(5), labelled), "give both the same"),
        (
            lambda: Consistency(model, ClosingGap(5), sampler=Sampler(Euler())),
            r"Euler\(\): it answers with the end of a path",
        ),
    ):
        with pytest.raises(BadInput, match=reason):
            wrong()
    made = Consistency(model, ClosingGap(5))
    with pytest.raises(BadInput, match="with guidance 2.0"):
        made.sample({}, {}, KEY, 1, sampler=made.sampler.replace(scale=2.0))
    with pytest.raises(BadInput, match="has no density"):
        made.log_likelihood({}, {}, {}, KEY)
