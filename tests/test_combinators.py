"""Laws of what Space and Condition make short: latents, mean flows, students, texts.

Each is held against Gaussian data, whose flows and averages are known, or against the
model that it must equal.
"""

import dataclasses
from functools import cache, partial

import flax.linen as nn
import golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gengen import presets
from gengen.conditions import Labels, Nothing, Scalar, Sequence, Text, both
from gengen.diffusion.flow_maps import (
    SECOND_TIME,
    DyadicTimes,
    SortedTimes,
    improved_meanflow_loss,
    meanflow_loss,
    shortcut_loss,
)
from gengen.diffusion.guidance import Guidance
from gengen.diffusion.inverse import Measured, Projection
from gengen.diffusion.ode import Adaptive
from gengen.diffusion.operators import Average
from gengen.diffusion.paths import Karras, Linear, VarianceExploding
from gengen.diffusion.process import Data, Noise, Process, Velocity, corrupt, expand
from gengen.diffusion.sampler import Sampler
from gengen.diffusion.solvers import Heun
from gengen.errors import BadInput
from gengen.models.closed_form import gaussian, gaussian_flow
from gengen.models.combinators.distilled import DistilledGuidance
from gengen.models.combinators.latent import Latent
from gengen.models.diffusion import Diffusion
from gengen.models.flow_map import FlowMap, Jumps
from gengen.nets.dit import DiT
from gengen.nets.unet import UNet
from gengen.spaces import Images, Reals, Symbols, standardised
from gengen.step import init_train_state, make_train_step
from gengen.tasks.inverse import edit
from gengen.types import Variables, frozen, static

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
FLOW = Process(Linear(), Velocity())
SPACE, TEN = Images((4, 4, 1), 17), Labels(10)
BATCH = {
    "image": RNG.integers(0, 17, (8, 4, 4, 1)).astype(np.uint8),
    "label": np.arange(8, dtype=np.int32),
    "context": RNG.normal(size=(8, 3, 6)).astype(np.float32),
    "text": np.pad(RNG.integers(1, 20, (8, 3)), ((0, 0), (0, 2))).astype(np.int32),
}
LONGER = {
    "context": np.pad(BATCH["context"], ((0, 0), (0, 4), (0, 0))),
    "text": np.pad(BATCH["text"], ((0, 0), (0, 2))),
}


def stirred(params, size=0.2):
    """Parameters none of which is zero: zeros hide what they depend on.

    params: arrays, which are changed, or their shapes.
    """
    rng = np.random.default_rng(1)

    def change(x):
        old = 0.0 if isinstance(x, jax.ShapeDtypeStruct) else np.asarray(x)
        return (old + size * rng.normal(size=x.shape)).astype(x.dtype)

    return jax.device_put(jax.tree.map(change, params))


def initial(model, *batch):
    """The shapes of its parameters."""
    return jax.eval_shape(model.init, KEY, *batch)[0]


def close(actual, desired, rtol=1e-6, atol=1e-6):
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=atol)


def dit(condition=Nothing()):
    return DiT(2, 16, 1, 2, condition=condition)


def unet(condition=Nothing()):
    return UNet(8, (1,), groups=4, condition=condition)


# ---------------------------------------------------------------- models of latents


@static
class Identity:
    """An autoencoder whose latents are x."""

    space: object

    @property
    def latent_shape(self):
        return self.space.shape

    def to_latent(self, params, state, x):
        return x

    def from_latent(self, params, state, z):
        return z


def test_a_model_of_the_identity_s_latents_is_the_plain_model_bit_for_bit():
    plain = presets.flow(dit(TEN), SPACE, TEN, steps=2, scale=1.5)
    inner = dataclasses.replace(plain, space=Reals(SPACE.shape))
    latent = Latent(inner, Identity(SPACE))
    params = stirred(initial(plain))
    held = {"frozen": {"autoencoder": Variables({}, {})}}

    @partial(jax.jit, static_argnums=0)
    def numbers(model, params):
        loss = model.losses()["denoiser"]
        value, grads = jax.value_and_grad(lambda p: loss(p, held, BATCH, KEY)[0])(
            params
        )
        return value, grads, model.sample(params, held, KEY, 3, label=3)

    one, other = numbers(plain, params), numbers(latent, params)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert latent.space == plain.space and latent.condition == TEN
    assert latent.nfe() == plain.nfe() + 1


@static
class Plane:
    """x = W z + m with orthonormal W: an autoencoder of data on a plane."""

    space: object
    latent_shape: tuple

    def to_latent(self, params, state, x):
        return (x - params["m"]) @ params["w"]

    def from_latent(self, params, state, z):
        return z @ params["w"].T + params["m"]


class OfGaussian(nn.Module):
    """The exact velocity of standard normal data."""

    def __call__(self, z, t, c=None, train=False):
        return gaussian(0.0, 1.0).predict(FLOW)(z, t)


def test_a_flow_in_the_latents_of_gaussian_data_has_their_mean_and_covariance():
    # Latents of deviations 7 and 0.02: only `Reals.to_model` makes both of them 1, and
    # the exact flow of N(0, 1) is then the exact flow of the data.
    scale, mean = np.array([7.0, 0.02]), np.array([5.0, -0.1])
    w = np.linalg.qr(RNG.normal(size=(6, 2)))[0]
    m = 3 * RNG.normal(size=6)
    z = RNG.normal(size=(20_000, 2))
    z = (z - z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T, bias=True))).T
    data = ((scale * z + mean) @ w.T + m).astype(np.float32)
    space = Reals((6,), key="vector")
    plane = Plane(space, (2,))
    own = Variables({"w": jnp.float32(w), "m": jnp.float32(m)}, {})
    latents = plane.to_latent(*own, space.read({"vector": data}))
    inner = standardised(Reals((2,)), latents)
    close(inner.std, scale, 1e-3)
    sampler = Sampler(Heun(), steps=40)
    model = Latent(Diffusion(OfGaussian(), FLOW, inner, sampler=sampler), plane)
    state = {"frozen": {"autoencoder": own}}
    seen = inner.read(model.encoded(state, {"vector": data}))
    close(np.mean(seen, 0), np.zeros(2), atol=2e-4)
    close(np.std(seen, 0), np.ones(2), 2e-4)
    # The flow is affine in the noise: its values at 0 and at ±e_i are mean and root.
    noise = jnp.concatenate([jnp.zeros((1, 2)), jnp.eye(2)])
    x = np.asarray(jax.jit(model.from_latent)({"denoiser": {}}, state, noise), float)
    close(x[0], data.mean(0), atol=2e-3)
    root = x[1:] - x[0]
    covariance = np.cov(data.T, bias=True)
    assert np.linalg.norm(root.T @ root - covariance) < 2e-3 * np.linalg.norm(
        covariance
    )
    small = w.T @ (root.T @ root) @ w  # also where the deviation is 0.02
    close(np.sqrt(np.diag(small)), scale, 5e-3)


def test_no_gradient_and_no_step_moves_the_autoencoder():
    plane = Plane(Reals((6,), key="vector"), (2,))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, z, t, c=None, train=False):
            return nn.Dense(2)(jnp.concatenate([z, t[:, None]], -1))

    model = Latent(presets.flow(Net(), Reals((2,))), plane)
    w = jnp.asarray(RNG.normal(size=(6, 2)), jnp.float32)
    batch = {"vector": RNG.normal(size=(8, 6)).astype(np.float32)}
    params, state = jax.jit(model.init)(KEY, batch)
    assert set(params) == {"denoiser"} and state == {}

    @jax.jit
    def loss(own):
        held = {"frozen": {"autoencoder": Variables({"w": own, "m": 0.0}, {})}}
        return model.losses()["denoiser"](params, held, batch, KEY)[0]

    assert loss(w) != loss(2 * w)
    assert not np.any(jax.jit(jax.grad(loss))(w))


def test_models_of_other_latents_and_missing_arrays_are_refused():
    inner = presets.flow(dit(), Reals((4, 4, 1)))
    with pytest.raises(
        BadInput, match=r"a model of \(4, 4, 1\) over latents of \(2,\)"
    ):
        Latent(inner, Plane(Reals((6,)), (2,)))
    model = Latent(inner, Identity(SPACE))
    params = stirred(initial(model))
    with pytest.raises(BadInput, match="holds nothing and no autoencoder"):
        model.sample(params, {}, KEY, 2)
    with pytest.raises(BadInput, match="has no density"):
        model.log_likelihood(params, {}, BATCH, KEY)
    with pytest.raises(BadInput, match="without order"):
        presets.flow(dit(), Symbols((4, 4, 1), 512))


# ---------------------------------------------------------------- mean flows

MEAN, STD = 0.7, 0.4


def exact_average(z, t, c):
    """(z_t - z_r)/(t - r) of the flow of N(MEAN, STD²), whose solution is known."""
    t, r = (jnp.broadcast_to(x, z.shape[:1]) for x in (t, c["r"]))
    gap = jnp.where(t > r, t - r, 1.0)[:, None]
    mean = (z - gaussian_flow(FLOW.path, MEAN, STD, z, t, r)) / gap
    velocity = gaussian(MEAN, STD).predict(FLOW)(z, t)
    return jnp.where((t > r)[:, None], mean, velocity)


@pytest.fixture
def times():
    """x, noise [N, 1] and times r < t [N] in float64."""
    with jax.enable_x64(True):
        num, rng = 4_000, np.random.default_rng(2)
        r, t = np.sort(rng.uniform(0.02, 0.98, (2, num)), axis=0)
        yield MEAN + STD * rng.normal(size=(num, 1)), rng.normal(size=(num, 1)), r, t


def test_the_exact_average_obeys_the_identity(times):
    x, noise, r, t = times
    z, _ = corrupt(FLOW, x, noise, t)
    v = gaussian(MEAN, STD).predict(FLOW)(z, t)

    def u(z, t):
        return exact_average(z, t, {"r": r})

    value, slope = jax.jit(lambda *tangents: jax.jvp(u, (z, t), tangents))(v, 1 + 0 * t)
    close(value, v - (t - r)[:, None] * slope, 1e-10, 1e-10)


@pytest.mark.parametrize(
    "objective", [meanflow_loss, improved_meanflow_loss, shortcut_loss]
)
def test_no_gradient_at_the_exact_average_and_one_elsewhere(times, objective):
    x, noise, r, t = map(jnp.asarray, times)
    if objective is shortcut_loss:  # of which a share of rows is flow matching
        r = jnp.where(jnp.arange(len(t)) % 2 == 0, r, t)

    def each(theta):
        def predict(z, t, c):
            t, r = t[:, None], c["r"][:, None]
            rows = [z, t * z, r * z, 1 + 0 * z, jnp.tanh(z) * (t - r)]
            return exact_average(z, t[:, 0], c) + jnp.stack(rows, -1) @ theta

        z, v = corrupt(FLOW, x, noise, t)
        return objective(lambda z, t, r: predict(z, t, {"r": r}), z, v, r, t)

    @jax.jit
    def z_scores(theta):
        groups = jax.jacrev(lambda theta: each(theta).reshape(100, -1).mean(1))(theta)
        return groups.mean(0) / (groups.std(0) / 10)

    assert np.max(np.abs(z_scores(jnp.zeros(5)))) < 4
    assert np.max(np.abs(z_scores(0.1 * jnp.ones(5)))) > 20


class Average1D(nn.Module):
    """The exact average velocity as a network."""

    def __call__(self, z, t, c=None, train=False):
        flat = z.reshape(len(z), -1)
        return exact_average(flat, t, c).reshape(z.shape)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_jumps_of_the_exact_average_end_at_the_flow_s_own_end(steps):
    model = FlowMap(Average1D(), FLOW, Reals((1,)), sampler=Jumps(steps))
    z = np.random.default_rng(3).normal(size=(50, 1)).astype(np.float32)
    x = jax.jit(model.from_latent)({"denoiser": {}}, {}, z)
    close(x, MEAN + STD * z, 1e-5, 1e-5)
    assert model.nfe() == steps


def test_at_equal_times_a_mean_flow_is_flow_matching():
    x, noise = RNG.normal(size=(2, 8, 4, 4, 1)).astype(np.float32)
    t = np.linspace(0.1, 0.9, 8, dtype=np.float32)
    net = dit(SECOND_TIME)
    params = stirred(jax.eval_shape(net.init, KEY, x, t, {"r": t})["params"])

    @jax.jit
    def losses(params):
        def predict(z, t, r):
            return net.apply({"params": params}, z, t, {"r": r})

        z, v = corrupt(FLOW, x, noise, t)
        own = jnp.mean((predict(z, t, t) - v) ** 2, axis=(1, 2, 3))
        objectives = meanflow_loss, improved_meanflow_loss, shortcut_loss
        return own, [objective(predict, z, v, t, t) for objective in objectives]

    own, found = losses(params)
    for loss in found:
        close(loss, own, 1e-5)


def test_pairs_of_times_are_ordered_and_of_the_shares_they_say():
    r, t = np.asarray(SortedTimes(equal=0.6).draw(KEY, Linear(), 4_000))
    assert np.all(r <= t) and r.min() > 0 and t.max() < 1
    close(np.mean(r == t), 0.6, atol=0.03)
    r, t = np.asarray(DyadicTimes(16, equal=0.25).draw(KEY, Linear(), 4_000))
    close(np.mean(r == t), 0.25, atol=0.03)
    gap = (t - r)[r < t]
    assert set(gap.tolist()) == {1.0, 0.5, 0.25, 0.125}  # halves end at 1/16
    places = t[r < t] / gap
    assert np.all(places == np.round(places)) and r.min() == 0 and t.min() > 0
    assert set((t[r == t] * 16).tolist()) == set(range(1, 17))
    for wrong in (lambda: SortedTimes(equal=2.0), lambda: DyadicTimes(12)):
        with pytest.raises(BadInput, match="equal=2.0|finest=12"):
            wrong()


def test_a_learned_guidance_regresses_the_guided_velocity():
    model = FlowMap(
        dit(both(TEN, SECOND_TIME)),
        FLOW,
        SPACE,
        TEN,
        pairs=SortedTimes(equal=1.0),
        power=0.0,
        scale=3.0,
        condition_dropout=1e-6,
    )
    params = stirred(initial(model))

    @jax.jit
    def losses(params):
        key_noise, key_times, *_ = jax.random.split(KEY, 4)
        x, c = SPACE.read(BATCH), TEN.read(BATCH)
        t = model.pairs.draw(key_times, Linear(), 8)[1]
        z, v = corrupt(FLOW, x, jax.random.normal(key_noise, x.shape), t)
        own, null = (
            model.predictor(params)(z, t, {**each, "r": t}) for each in (c, TEN.null(c))
        )
        expected = jnp.mean((own - (null + 3 * (v - null))) ** 2)
        return model.loss(params, {}, BATCH, KEY)[0], expected

    close(*losses(params), 1e-5)
    with pytest.raises(BadInput, match=r"scale=2.0: guidance is away from"):
        FlowMap(dit(SECOND_TIME), FLOW, SPACE, scale=2.0)


def test_a_mean_flow_refuses_what_it_cannot_be():
    net = dit(SECOND_TIME)
    with pytest.raises(BadInput, match="averages are of the velocity"):
        FlowMap(net, Process(Linear(), Noise()), SPACE)
    with pytest.raises(BadInput, match="give both the same condition"):
        FlowMap(dit(), FLOW, SPACE)
    half = DiT(2, 16, 1, 2, condition=SECOND_TIME, dtype=jnp.bfloat16)
    with pytest.raises(BadInput, match="through layers of bfloat16"):
        FlowMap(half, FLOW, SPACE)
    FlowMap(half, FLOW, SPACE, objective=shortcut_loss)
    with pytest.raises(BadInput, match="steps=0: a sample takes one jump or more"):
        Jumps(0)
    model = FlowMap(net, FLOW, SPACE)
    params = stirred(initial(model, BATCH))
    with pytest.raises(BadInput, match="reads r, which has no null"):
        model.predictor(params)(jnp.zeros((2, 4, 4, 1)), 0.5, {})
    with pytest.raises(BadInput, match="has no density"):
        model.log_likelihood(params, {}, BATCH, KEY)


# ---------------------------------------------------------------- guidance in c


def test_a_scale_in_the_condition_is_a_number_per_row():
    model = presets.flow(dit(TEN), SPACE, TEN, steps=3, scale=None)
    params = stirred(initial(model))

    @jax.jit
    def traced(guidance):
        return model.sample(params, {}, KEY, 2, label=1, guidance=guidance)

    rows = traced(np.array([1.5, 3.0], np.float32))
    fixed = partial(
        model.sample, num=2, label=1, sampler=model.sampler.replace(scale=3.0)
    )
    close(rows[1], jax.jit(fixed)(params, {}, KEY)[1], 1e-5, 1e-5)
    assert np.max(np.abs(rows[0] - jax.jit(fixed)(params, {}, KEY)[0])) > 1e-2
    assert model.nfe() == 6
    with pytest.raises(BadInput, match="give guidance"):
        model.sample(params, {}, KEY, 2, label=1)


class GuidedItself(nn.Module):
    """A student's network that guides its teacher's by its own condition."""

    net: nn.Module

    @nn.compact
    def __call__(self, z, t, c, train=False):
        null = self.net(z, t, TEN.null({"label": c["label"]}))
        return null + expand(c["guidance"], z) * (self.net(z, t, c) - null)


def test_a_student_that_guides_itself_has_no_loss_and_its_guided_teacher_s_samples():
    teacher = presets.flow(dit(TEN), SPACE, TEN, steps=3, scale=None)
    wide = both(TEN, Scalar("guidance"))
    inner = presets.flow(GuidedItself(dit(TEN)), SPACE, wide, steps=3)
    sampler = teacher.sampler.replace(scale=2.0)
    student = DistilledGuidance(inner, teacher, sampler=sampler)
    params = stirred(initial(teacher), 0.1)
    own = {"denoiser": {"net": params["denoiser"]}}
    held = {"frozen": {"teacher": Variables(params, {})}}
    loss = jax.jit(lambda own: student.loss(own, held, BATCH, KEY)[0])
    assert loss(own) < 1e-10
    assert loss(jax.tree.map(lambda x: 1.1 * np.asarray(x), own)) > 1e-4
    assert 2 * student.nfe() == teacher.nfe() and student.condition == TEN
    x, y = (
        jax.jit(partial(model.sample, num=2, label=1, **how))(p, {}, KEY)
        for model, p, how in (
            (teacher, params, {"guidance": 3.0}),
            (student, own, {"sampler": sampler.replace(scale=3.0)}),
        )
    )
    close(x, y, 1e-4, 1e-5)
    with pytest.raises(BadInput, match="guidance 9.0: this student has learned"):
        student.sample(own, {}, KEY, 2, sampler=sampler.replace(scale=9.0))


def test_students_that_do_not_fit_their_teacher_are_refused():
    teacher = presets.flow(dit(TEN), SPACE, TEN, scale=None)
    wide = both(TEN, Scalar("guidance"))
    student = presets.flow(dit(wide), SPACE, wide)
    with pytest.raises(BadInput, match="give it Guidance"):
        DistilledGuidance(student, presets.flow(dit(TEN), SPACE, TEN))
    with pytest.raises(BadInput, match=r"conditioned on Labels.*: it must be"):
        DistilledGuidance(teacher, teacher)
    with pytest.raises(BadInput, match="is not its teacher's"):
        DistilledGuidance(
            dataclasses.replace(student, space=Images((4, 4, 1))), teacher
        )
    with pytest.raises(BadInput, match="two rising scales"):
        DistilledGuidance(student, teacher, (2.0, 1.0))


def test_two_scales_guide_in_two_parts_and_equal_ones_in_both():
    condition = both(TEN, Sequence(6), together=False)
    model = presets.flow(dit(condition), SPACE, condition, steps=2)
    params = stirred(initial(model))
    given = {"label": np.arange(2), "context": BATCH["context"][:2]}

    scales = (("label", 2.0), ("context", 5.0)), (("label", 3.0), ("context", 3.0)), 3.0
    z = np.linspace(-1, 1, 32, dtype="f4").reshape(2, 4, 4, 1)

    @jax.jit
    def predicted(z):
        c = condition.given(given, 2)
        null, predict = condition.null(c), model.predictor(params)
        asked = (
            null,
            c,
            {**null, "label": c["label"]},
            {**c, "context": 0 * c["context"]},
        )
        samplers = (
            model.sampler.replace(scale=scale) for scale in (*scales, scales[0][1:])
        )
        guided = [model.guided_predictor(params, {}, s)(z, 0.5, c) for s in samplers]
        return [predict(z, 0.5, each) for each in asked], guided

    (r0, rc, r1, kept), (found, equal, one, context) = predicted(z)
    close(found, r0 + 2 * (r1 - r0) + 5 * (rc - r1), 1e-4, 1e-4)
    close(equal, one, 1e-4, 1e-4)
    close(context, kept + 5 * (rc - kept), 1e-4, 1e-4)
    both_scales = model.sampler.replace(scale=(("label", 2.0), ("context", 5.0)))
    assert model.nfe(both_scales) == 3 * model.nfe()
    with pytest.raises(BadInput, match="not conditioned on text"):
        model.nfe(model.sampler.replace(scale=(("text", 2.0),)))
    joint = both(TEN, Sequence(6))
    other = presets.flow(dit(joint), SPACE, joint, steps=2)
    with pytest.raises(BadInput, match="together=False"):
        other.nfe(both_scales)


def test_at_scale_zero_the_null_condition_alone_is_asked():
    model = presets.flow(dit(TEN), SPACE, TEN, steps=2)
    zero = model.sampler.replace(scale=0.0)
    assert model.nfe(zero) == model.nfe()
    params = stirred(initial(model))
    one, other = (
        jax.jit(partial(model.sample, num=2, label=label, sampler=zero))(
            params, {}, KEY
        )
        for label in (1, 2)
    )
    np.testing.assert_array_equal(one, other)


# ---------------------------------------------------------------- text and sequences


ROWS = {
    "DiT, label and sequence": (dit, both(TEN, Sequence(6))),
    "U-Net, text": (unet, Text(20, 7, 8)),
}


@cache
def conditioned(name):
    """A model of what it is conditioned on, its parameters, and both its losses."""
    net, condition = ROWS[name]
    model = presets.flow(net(condition), SPACE, condition, steps=2)
    params = stirred(initial(model, BATCH))

    @jax.jit
    def losses(batch):
        """Where the condition is dropped never, and always."""
        models = (presets.changed(model, condition_dropout=p) for p in (0.0, 1.0))
        return [other.loss(params, {}, batch, KEY)[0] for other in models]

    return model, params, losses


def numbers(name):
    """What `golden` keeps of a network that attends."""
    _, params, losses = conditioned(name)
    return {"shapes": golden.shapes(params), "numbers": {"losses": losses(BATCH)}}


@pytest.mark.parametrize("name", ROWS)
def test_sequences_and_texts_reach_the_network_inside_a_diffusion(name):
    model, params, losses = conditioned(name)
    golden.check(numbers(name), name)
    seen, dropped = losses(BATCH)
    for each in model.condition.names:
        other = losses({**BATCH, each: np.roll(BATCH[each], 1, axis=0)})
        assert abs(other[0] - seen) > 1e-4  # it is seen
        assert other[1] == dropped  # and null where it is dropped

    @jax.jit
    def ways(z):
        predict, read = model.predictor(params), model.condition.read
        batches = ({n: x[:1] for n, x in BATCH.items()}, BATCH, {**BATCH, **LONGER})
        return [predict(z[: len(b["label"])], 0.3, read(b)) for b in batches]

    alone, all_, padded = ways(model.space.read(BATCH))
    close(alone, all_[:1], 1e-4, 1e-5)  # a row alone is the row in its batch
    close(padded, all_, 1e-5)  # padding is nothing


def test_what_is_missing_is_null_where_it_was_trained_and_else_refused():
    text = Text(20, 7, 8)
    model = presets.flow(dit(text), SPACE, text, steps=2)
    params = stirred(initial(model))
    x = jax.jit(partial(model.sample, num=2))(params, {}, KEY)
    null = jax.jit(partial(model.sample, num=2, text=np.zeros((2, 7), int)))
    close(x, null(params, {}, KEY))
    always = presets.changed(model, condition_dropout=0.0)
    with pytest.raises(BadInput, match="give text"):
        always.sample(params, {}, KEY, 2)
    for given, words in (
        ({"label": 3}, "label: the model is conditioned on text"),
        ({"text": np.full((2, 7), 20)}, "vocabulary is 0"),
        ({"text": np.zeros((3, 7), int)}, "for 2 examples"),
    ):
        with pytest.raises(BadInput, match=words):
            model.sample(params, {}, KEY, 2, **given)
    with pytest.raises(BadInput, match="give both the same condition"):
        presets.flow(dit(), SPACE, TEN)  # a network that would ignore its label
    with pytest.raises(BadInput, match="num_steps=3: neither the model"):
        presets.flow(dit(), SPACE, num_steps=3)
    with pytest.raises(BadInput, match="solver='heun'"):
        presets.flow(dit(), SPACE, solver="heun")


def test_measurements_in_the_condition_are_those_in_the_guide():
    y = RNG.normal(size=(2, 2, 2, 1)).astype(np.float32)
    model = presets.flow(dit(), SPACE, steps=4)
    params = stirred(initial(model), 0.1)
    guides = Projection(Average(2), y), Measured(Average(2), (2, 2, 1))
    samplers = [model.sampler.replace(guides=(guide,)) for guide in guides]
    held = jax.jit(partial(model.sample, num=2, sampler=samplers[0]))(params, {}, KEY)
    static = partial(model.sample, num=2, sampler=samplers[1])
    np.testing.assert_array_equal(held, jax.jit(static)(params, {}, KEY, measured=y))
    with pytest.raises(BadInput, match="give measured"):
        static(params, {}, KEY)
    # A value of known shape goes with adaptive steps, which go row by row.
    adaptive = Adaptive(rtol=0.01, atol=0.01)
    sampler = samplers[1].replace(solver=adaptive, steps=1)
    x = jax.jit(partial(model.sample, num=2, sampler=sampler))(
        params, {}, KEY, measured=y
    )
    assert np.sqrt(np.mean((Average(2)(x) - y) ** 2)) < 0.2
    with pytest.raises(BadInput, match="takes all at once"):
        samplers[0].replace(solver=adaptive)
    assert Guidance().scales == ()


def test_a_run_s_step_trains_a_model_of_frozen_latents():
    model = Latent(presets.flow(dit(), Reals(SPACE.shape), steps=2), Identity(SPACE))
    optimizers = {"denoiser": optax.sgd(0.1)}
    params, state = jax.jit(model.init)(KEY, BATCH)
    train_state = init_train_state(KEY, params, state, optimizers)
    step = jax.jit(make_train_step(model.losses(), optimizers, ema_decay=0.9))
    held = {"autoencoder": Variables({"unused": jnp.ones(7)}, {})}
    for _ in range(2):
        train_state, metrics = step(train_state, BATCH, held)
    assert train_state.state == {} and np.isfinite(metrics["denoiser/loss"])


# ---------------------------------------------------------------- refused


def test_what_would_be_wrong_without_a_word_is_refused():
    """Found by use: each gave numbers, and they were those of another question."""
    for path in (VarianceExploding(), Karras(0.5)):
        with pytest.raises(BadInput, match="which does not go from the data to noise"):
            FlowMap(Average1D(), Process(path, Velocity()), Reals((1,)))
    with pytest.raises(BadInput, match="two conditions are called r"):
        FlowMap(Average1D(), FLOW, Reals((1,)), Scalar("r"))
    product = both(Labels(3), Text(20, 5), Scalar("s"))
    apart = both(Labels(3), Text(20, 5), Scalar("s"), together=False)
    for condition, scale, reason in (
        (product, (("label", 2.0),), "dropped together"),
        (apart, (("s", 2.0),), "s has no null"),
        (apart, (("label", 2.0), ("label", 4.0)), "each part has one scale"),
    ):
        model = presets.flow(Average1D(), Reals((1,)), condition, scale=scale)
        with pytest.raises(BadInput, match=reason):
            model.nfe()
    for scale in ({"label": 2.0}, [("label", 2.0)], "2", ("label", 2.0)):
        with pytest.raises(BadInput, match="a number, or pairs such as"):
            Guidance(scale)
    model = presets.flow(Average1D(), Reals((4,)))
    with pytest.raises(BadInput, match=r"a latent is float32\[2, 3\]"):
        model.from_latent({}, {}, jnp.zeros((2, 3)))
    with pytest.raises(BadInput, match="x is int32"):
        model.to_latent({}, {}, jnp.zeros((2, 4), int))
    with pytest.raises(BadInput, match="observed is int32: give bool"):
        batch = {"latent": np.zeros((2, 4), np.float32)}
        model.complete({}, {}, jax.random.key(0), batch, jnp.array([3]))
    with pytest.raises(BadInput, match="labels are integers"):
        jax.jit(lambda y: Labels(3).given({"label": y}, 2))(0.5)
    with pytest.raises(BadInput, match="num=0: give at least 1"):
        model.sample({}, {}, jax.random.key(0), 0)
    with pytest.raises(BadInput, match=r"frozen\['guide'\] is a dict: make it"):
        frozen({"frozen": {"guide": {}}}, "guide")


class Heard(nn.Module):
    """x̂ says which class and whether a text it hears, one number each."""

    def __call__(self, z, t, c=None, train=False):
        label = jnp.broadcast_to(c.get("label", -1), (len(z),))
        text = jnp.any(c["text"] > 0, axis=-1) if "text" in c else jnp.zeros(len(z))
        return z - jnp.stack([label, text], axis=-1).astype(z.dtype)


@static
class Asks:
    """A guide that changes nothing and reads labels, which no training dropped."""

    condition: Labels = TEN
    divides_by_a = False
    extra_calls = 0

    def __call__(self, predict, process, state):
        return predict


def test_only_the_model_s_own_parts_are_null_together():
    """What a guide reads was not dropped with them, nor parts that drop apart."""
    text = Text(20, 5)
    key, words = jax.random.key(0), np.ones((1, 5), np.int32)

    def heard(condition, guides=(), **given):
        process, sampler = Process(Linear(), Data()), Sampler(steps=1, guides=guides)
        values = {"condition": condition, "sampler": sampler}
        model = Diffusion(Heard(), process, Reals((2,)), **values)
        c = model.sampling_c(sampler, given, 2, jax.random.split(key, 2))
        return {name: np.asarray(value) for name, value in c.items()}

    alone = heard(text, (Asks(),), label=3)
    assert alone["label"].tolist() == [3, 3] and not np.any(alone["text"] > 0)
    apart = heard(both(TEN, text, together=False), label=3)
    assert apart["label"].tolist() == [3, 3] and not np.any(apart["text"] > 0)
    none = heard(both(TEN, text))
    assert none["label"].tolist() == [10, 10] and not np.any(none["text"] > 0)
    with pytest.raises(BadInput, match="give text, too: it was dropped together with"):
        heard(both(TEN, text), label=3)
    whole = heard(both(TEN, text), label=3, text=words)
    assert whole["label"].tolist() == [3, 3] and np.all(whole["text"] == 1)


def test_images_are_edited_by_a_model_whose_parts_are_null_together():
    """What is drawn null is carried as it is: the null label is no class to give."""
    values = {"condition": both(TEN, Text(20, 5)), "sampler": Sampler(steps=2)}
    model = Diffusion(Heard(), Process(Linear(), Data()), Reals((2,)), **values)
    x = jnp.ones((3, 2))
    changed = jax.jit(lambda x: edit(model, {"denoiser": {}}, {}, KEY, x, 0.5))
    out = np.asarray(changed(x))
    assert out.shape == x.shape and np.all(np.isfinite(out))
    with pytest.raises(BadInput, match="x is float32"):
        edit(model, {"denoiser": {}}, {}, jax.random.key(0), x[:, :1], 0.5)
