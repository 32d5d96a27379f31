"""Few steps: laws of consistency, of distillation and of drifting in closed form."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import close
from scipy import stats

from gengen import presets
from gengen.conditions import Labels, Scalar
from gengen.diffusion.consistency import (
    ClosingGap,
    EvenSteps,
    consistency_loss,
    ode_jump,
    pseudo_huber,
)
from gengen.diffusion.distillation import halved_steps, matching_direction
from gengen.diffusion.paths import DDPMSchedule, Linear, VariancePreserving
from gengen.diffusion.process import Noise, Process, V, Velocity, from_data, recover
from gengen.diffusion.sampler import Sampler
from gengen.diffusion.solvers import DDPM, Euler, Renoise
from gengen.errors import BadInput
from gengen.losses.drifting import drift
from gengen.models.closed_form import gaussian, gaussian_flow
from gengen.models.combinators.consistency import Consistency
from gengen.models.combinators.drifting import Drifting
from gengen.models.combinators.matching import DistributionMatching
from gengen.models.combinators.progressive import Progressive
from gengen.models.combinators.reflow import Reflow
from gengen.models.diffusion import Diffusion
from gengen.nets.dit import DiT
from gengen.nets.unet import UNet
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


# ---------------------------------------------------------------- distillation


@PATHS
@pytest.mark.parametrize("prediction", [V(), Velocity()])
def test_one_step_of_the_answer_is_two_of_the_teacher(points, path, prediction):
    z, t, s = points
    process = Process(path, prediction)
    predict = gaussian(MEAN, STD).predict(process)
    m = (t + s) / 2
    z_m = ode_jump(process, z, predict(z, t), t, m)
    z_s = ode_jump(process, z_m, predict(z_m, m), m, s)
    r = halved_steps(process, predict, z, t, s)
    close(ode_jump(process, z, r, t, s), z_s, 1e-9, 1e-9)
    assert np.max(np.abs(ode_jump(process, z, predict(z, t), t, s) - z_s)) > 0.01


def scaled(theta):
    return {"denoiser": {"theta": jnp.float32(theta)}}


def halved(theta, step):
    """The θ whose step of `step` is two of θ along r̂ = θ z: 1 - step θ′ = (1 - …)²."""
    return theta - step * theta**2 / 4


SPACE, NET = Reals((3,)), Scaled()
TEACHER = Diffusion(NET, FLOW, SPACE)
ROWS = {"latent": np.random.default_rng(2).normal(size=(6, 3)).astype("f")}


def state_of(step, **more):
    held = {"teacher": Variables(scaled(0.9), {})}
    return {"step": jnp.int32(step), "frozen": held, "ema": scaled(0.5), **more}


def test_a_student_becomes_the_teacher_of_the_next_round():
    model = Progressive(TEACHER, TEACHER, every=10, rounds=2)
    _, state = model.init(KEY)
    assert set(state) == {"round"}
    loss = jax.jit(lambda theta, s: model.loss(scaled(theta), s, ROWS, KEY))
    first = state_of(3, **state)  # four steps become two
    assert loss(halved(0.9, 0.5), first)[0] < 1e-12 < 1e-4 < loss(0.9, first)[0]
    value, (state, metrics) = loss(halved(0.5, 1.0), state_of(10, **state))
    assert value < 1e-12 and metrics["steps"] == 1 and state["round"]["theta"] == 0.5
    later = state_of(15, round={"theta": jnp.float32(0.7)})  # the average moves on
    assert loss(halved(0.7, 1.0), later)[0] < 1e-12
    assert loss(halved(0.5, 1.0), state_of(30, round=later["round"]))[0] > 1e-4


class Straight(nn.Module):
    """The velocity of the pairs (ε, k ε), on the linear path."""

    k: float

    def __call__(self, z, t, c=None, train=False):
        t = t[:, None]
        return (1 - self.k) * z / ((1 - t) * self.k + t)


def test_a_reflowed_linear_field_is_straight():
    k = (1 - 0.9 / 4) ** 4  # four steps of r̂ = 0.9 z
    teacher = presets.changed(TEACHER, steps=4)
    flow = Diffusion(Straight(k), FLOW, SPACE)
    model = Reflow(flow, teacher, num=40, batch_size=20)
    made = jax.jit(model.prepared)(KEY, state_of(0))
    pairs = made["pairs"].params
    close(pairs["x"], k * pairs["noise"], 1e-5, 1e-6)
    assert len(np.unique(pairs["noise"][:, 0])) == 40
    state = state_of(0)
    state["frozen"] |= made
    none = {"denoiser": {}}
    assert jax.jit(model.loss)(none, state, ROWS, KEY)[0] < 1e-10
    other = Reflow(TEACHER, teacher, num=40, batch_size=20)
    assert jax.jit(other.loss)(scaled(0.9), state, ROWS, KEY)[0] > 1e-3
    z = np.random.default_rng(3).normal(size=(5, 3)).astype("f")
    close(model.from_latent(none, {}, z), k * z, 1e-5, 1e-6)  # one step
    assert model.nfe() == 1


@PATHS
def test_the_direction_of_matching_is_the_difference_of_scores(points, path):
    z, t, _ = points
    process = Process(path, V())
    p, q = gaussian(MEAN, STD), gaussian(MEAN + 1.0, 0.6)
    real, fake = (recover(process, z, x.predict(process)(z, t), t)[0] for x in (p, q))
    a, b = (f(t)[:, None] for f in (path.a, path.b))
    scores = b**2 / a * (q.score(path, z, t) - p.score(path, z, t))
    close(matching_direction(z, real, fake) * np.abs(z - real), scores, 1e-8, 1e-8)
    assert not np.any(matching_direction(z, real, real))


def test_a_generator_whose_density_is_the_teacher_s_stays():
    model = DistributionMatching(TEACHER, TEACHER)
    assert list(model.losses()) == ["fake", "denoiser"]
    params, _ = model.init(KEY)

    @jax.jit
    def gradient(fake):
        def loss(own):
            both = {**scaled(own), "fake": {"theta": fake}}
            return model.play_generator(both, state_of(0), ROWS, KEY)[0]

        return jax.grad(loss)(jnp.float32(0.3))

    assert params["fake"] == params["denoiser"]
    assert abs(gradient(jnp.float32(0.9))) < 1e-6  # the teacher's own θ
    assert gradient(jnp.float32(0.5)) < 0 < gradient(jnp.float32(1.3))


def test_drift_is_the_difference_of_smoothed_scores_and_zero_at_equality():
    with jax.enable_x64(True):
        rng = np.random.default_rng(4)
        x, y = rng.normal(size=(5, 2)), rng.normal(size=(7, 2)) + 0.5
        other, h = rng.normal(size=(9, 2)), 0.6

        def log_density(at, samples):
            square = jnp.sum((at - samples) ** 2, axis=-1)
            return jax.nn.logsumexp(-square / (2 * h**2))

        def score(samples):
            return jax.vmap(jax.grad(lambda at: log_density(at, samples)))(x)

        field = jax.jit(drift)
        close(field(x, y, other, h), h**2 * (score(y) - score(other)), 1e-10)
        close(field(x, y, y[::-1], h), 0 * x, atol=1e-12)
        among = np.zeros((5, 7), bool)
        among[0, 2] = True  # one sample draws a whole way, none not at all
        found = field(x, y, other, h, among, np.zeros((5, 9), bool))
        close(found, np.concatenate([y[2:3] - x[:1], 0 * x[1:]]), 1e-12, 1e-12)
        # Gaussians p and q: the field is linear in x.
        u = (np.arange(1_000) + 0.5) / 1_000
        p, q = (stats.norm(m, s).ppf(u)[:, None] for m, s in ((0.5, 0.4), (-0.2, 0.7)))
        at = np.linspace(-1, 1, 5)[:, None]
        exact_p, exact_q = (
            (m - at) / (s**2 + h**2) for m, s in ((0.5, 0.4), (-0.2, 0.7))
        )
        close(field(at, p, q, h), h**2 * (exact_p - exact_q), 2e-3, 2e-3)


def test_samples_drift_to_data_of_their_own_class_alone():
    labels = Labels(3)
    model = Drifting(Diffusion(Wide(), FLOW, SPACE, labels), (1e3,))
    batch = {**ROWS, "label": np.array([0, 0, 1, 1, 2, 2])}
    params = {"denoiser": {}}
    c = {"label": jnp.asarray(batch["label"])}
    fake = np.asarray(model.generate(params, c, 6, KEY))
    found, (_, metrics) = model.loss(params, {}, batch, KEY)
    # At so wide a kernel: the class's mean, from the other fake of the class.
    means = ROWS["latent"].reshape(3, 2, 3).mean(1).repeat(2, axis=0)
    swapped = fake.reshape(3, 2, 3)[:, ::-1].reshape(6, 3)
    close(found, np.mean((means - swapped) ** 2), 1e-3)
    close(metrics["drift"] ** 2, found, 1e-5)


class Wide(nn.Module):
    """A network of noise alone."""

    def __call__(self, z, t, c=None, train=False):
        return 0.1 * z


@pytest.mark.parametrize("kind", ["U-Net", "DiT"])
def test_a_derivative_through_a_network_is_that_of_finite_differences(kind):
    with jax.enable_x64(True):
        one = jnp.float64
        if kind == "DiT":
            net = DiT(2, 8, 1, 2, condition=Scalar("r"), dtype=one)
        else:
            net = UNet(8, (1,), attention=(4,), condition=Scalar("r"), groups=4)
        rng = np.random.default_rng(5)
        z, v = rng.normal(size=(2, 2, 4, 4, 1))
        t, r = jnp.array([0.4, 0.9]), jnp.array([0.1, 0.3])
        shapes = jax.eval_shape(net.init, KEY, z, t, {"r": r})["params"]
        params = jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape), shapes)

        @jax.jit
        def along(h):
            def u(h):
                return net.apply({"params": params}, z + h * v, t + h, {"r": r})

            return jax.jvp(u, (h,), (jnp.ones_like(h),))

        step = 1e-6
        _, slope = along(0.0)
        ends = [along(h)[0] for h in (step, -step)]
        finite = (ends[0] - ends[1]) / (2 * step)
        close(slope, finite, 1e-4, 1e-4 * np.max(np.abs(finite)))
        assert np.max(np.abs(slope)) > 0.01


def test_what_a_student_refuses():
    table = Diffusion(NET, Process(DDPMSchedule(), Noise()), SPACE)
    other = Diffusion(NET, Process(Linear(), V()), SPACE)
    for wrong, reason in (
        (lambda: Progressive(table, table, 1), "whose times are a table's"),
        (lambda: Progressive(TEACHER, TEACHER, 0), "every=0, rounds=5"),
        (
            lambda: Progressive(other, TEACHER, 1),
            "is not its teacher's",
        ),
        (lambda: Reflow(TEACHER, TEACHER, 30, 20), "30 pairs, 20 at a time"),
        (
            lambda: Reflow(TEACHER, presets.changed(TEACHER, solver=DDPM())),
            "draws noise of its own",
        ),
        (
            lambda: DistributionMatching(TEACHER, TEACHER, span=(0.5, 0.5)),
            "two rising shares",
        ),
        (lambda: Drifting(TEACHER, (0.1, 0.0)), "one or more, above 0"),
    ):
        with pytest.raises(BadInput, match=reason):
            wrong()
