"""Laws of inverse problems, against Gaussian data whose posterior is known."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import FAR_PATHS, MEAN, MIXTURE, PREDICTIONS, STD, arrays, close, named

from gengen.conditions import Labels, Nothing
from gengen.diffusion.grids import starting_at, uniform_grid
from gengen.diffusion.guidance import Guidance
from gengen.diffusion.inverse import Inpainting, Posterior, Projection, pinv_residual
from gengen.diffusion.ode import Adaptive, tsit5
from gengen.diffusion.operators import Average, Observed
from gengen.diffusion.paths import DDPMSchedule, Linear, VariancePreserving
from gengen.diffusion.process import Noise, Process, Velocity, expand, score
from gengen.diffusion.solve import solve
from gengen.diffusion.solvers import DDPM, DPMSolver, Euler, Heun
from gengen.errors import BadInput
from gengen.models.classifier import ClassifierGuide
from gengen.models.closed_form import Mixture, gaussian
from gengen.models.diffusion import Diffusion
from gengen.presets import changed
from gengen.scan import fold_in, normal, sample_keys
from gengen.spaces import Images
from gengen.tasks.inverse import edit
from gengen.types import Variables, static

KEY = jax.random.key(0)
T = np.linspace(0.02, 0.98, 7)
A = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 2.0, -1.0]])  # orthogonal, not normal
far_paths = pytest.mark.parametrize("path", FAR_PATHS, ids=named)
VALUES = {"posterior": Posterior, "projection": Projection}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def operator(x):
    return x @ A.T


def posterior(y, noise_std):
    """Mean [B, 4] and covariance of x | y for x ~ N(MEAN, STD²), by Bayes' rule."""
    gain = STD**2 * A.T @ np.linalg.inv(STD**2 * A @ A.T + noise_std**2 * np.eye(2))
    return MEAN + (y - MEAN * A.sum(1)) @ gain.T, STD**2 * (np.eye(4) - gain @ A)


# ---------------------------------------------------------------- by the score


@far_paths
@pytest.mark.parametrize("guide", VALUES.values(), ids=VALUES)
def test_scores_are_those_of_the_posterior_of_white_data(path, guide):
    (z,), y = arrays(1, 4), arrays(1, 2, seed=1)[0]
    prior = gaussian(MEAN, STD)

    @jax.jit
    def scores(z, noise_std):
        processes = [Process(path, prediction) for prediction in PREDICTIONS]
        guides = guide(operator, y, noise_std, data_std=STD)
        guided = [(p, guides(prior.predict(p), p, {})) for p in processes]
        return jnp.stack([score(p, z, predict(z, T), T) for p, predict in guided])

    for noise_std in (0.0, 0.3):
        mean, covariance = posterior(y, noise_std)
        a, b = path.a(T)[:, None, None], path.b(T)[:, None, None]
        precision = np.linalg.inv(a**2 * covariance + b**2 * np.eye(4))
        exact = np.einsum("bij,bj->bi", precision, a[..., 0] * mean - z)
        found = scores(z, noise_std)
        close(found, np.broadcast_to(exact, found.shape), 1e-6, 1e-7)


@pytest.mark.parametrize("guide", VALUES.values(), ids=VALUES)
def test_samples_are_those_of_the_posterior(guide):
    # The flow is affine: its values at 0 and at e_i are the mean and a root.
    process, y = Process(Linear(), Velocity()), arrays(1, 2, batch=1)[0]
    high = 1.0 - 1e-3 if guide.divides_by_a else 1.0
    z = jnp.concatenate([jnp.zeros((1, 4)), jnp.eye(4)])
    predict = gaussian(MEAN, STD).predict(process)
    predict = guide(operator, y, 0.3, data_std=STD)(predict, process, {})
    keys = sample_keys(KEY, len(z))
    grid = uniform_grid(100, (0, high))
    found = jax.jit(lambda z: solve(Heun(), keys, predict, process, z, grid))(z)
    mean, covariance = posterior(y, 0.3)
    close(found[0], mean[0], 2e-3, 2e-3)
    root = found[1:] - found[0]
    close(root.T @ root, covariance, 3e-3, 3e-3)


def test_scales_say_how_much_the_observation_weighs():
    process, (z,), y = Process(Linear(), Velocity()), arrays(1, 4), np.ones((7, 2))
    prior = gaussian(MEAN, STD).predict(process)
    r = [Posterior(operator, y, 0.3, s)(prior, process, {})(z, T) for s in (0, 1, 3)]
    close(r[0], prior(z, T))
    close(r[2] - r[0], 3 * (r[1] - r[0]), 1e-9)


def test_the_residual_is_the_gradient_of_the_normal_density_of_any_operator():
    (x,), y = arrays(1, 4), arrays(1, 2, seed=1)[0]

    def log_normal(x):
        gap, spread = y - operator(x), 0.7 * (A**2).sum(1) + 0.04
        return -0.5 * jnp.sum(gap**2 / spread)

    close(pinv_residual(operator, x, y, 0.7, 0.2), jax.grad(log_normal)(x), 1e-9)
    image, pool = jnp.reshape(x[:4], (4, 2, 2, 1)), Average(2)
    found = image + pinv_residual(pool, image, jnp.full((4, 1, 1, 1), 2.0), 1.0, 0.0)
    close(pool(found), np.full((4, 1, 1, 1), 2.0))  # the nearest image that fits
    close(found - image, np.broadcast_to((found - image)[:, :1, :1], image.shape))
    mask = Observed(np.arange(4) < 2)
    close(pinv_residual(mask, x, 1 + 0 * x, 1.0, 0.0)[:, 2:], np.zeros((7, 2)))
    with pytest.raises(BadInput, match="factor 3"):
        Average(3)(image)


# ---------------------------------------------------------------- after each step

RHO = 0.9
SEEN = np.array([True, False])


def correlated(process):
    """E[r | z] of N(0, [[1, ρ], [ρ, 1]])."""
    values, vectors = np.linalg.eigh([[1.0, RHO], [RHO, 1.0]])

    def predict(z, t):
        m = process.matrix(expand(t, z))
        v = m.a**2 * values + m.b**2
        along = z @ vectors
        x, noise = m.a * values / v * along, m.b / v * along
        return (m.c * x + m.d * noise) @ vectors.T

    return predict


def inpaint(solver, repeats, num=2_000, steps=100, first=0):
    process, keys = Process(VariancePreserving(), Noise()), sample_keys(KEY, num, first)
    x = jnp.broadcast_to(jnp.array([1.2, 0.0]), (num, 2))
    solver, grid = Inpainting(solver, x, SEEN, repeats), uniform_grid(steps)
    z, predict = normal(fold_in(keys, 99), (2,)), correlated(process)
    return jax.jit(lambda z: solve(solver, keys, predict, process, z, grid))(z)


@pytest.mark.parametrize("solver", [DDPM(), Euler()], ids=named)
def test_repeated_steps_draw_from_the_posterior_and_replacement_does_not(solver):
    # x₂ | x₁ = 1.2 is N(ρ 1.2, 1 - ρ²); a finer grid takes the variance there, too.
    wrong = []
    for repeats in (1, 20):
        x = inpaint(solver, repeats)
        close(x[:, 0], np.full(len(x), 1.2))
        errors = np.mean(x[:, 1]) - RHO * 1.2, np.var(x[:, 1]) - (1 - RHO**2)
        wrong.append(np.abs(errors))
    assert wrong[0][0] > 0.3
    assert wrong[1][0] < 0.04 and wrong[1][1] < 0.08


def test_an_inpainted_sample_is_its_own():
    whole = inpaint(DDPM(), 2, num=4, steps=3)
    close(inpaint(DDPM(), 2, num=2, steps=3, first=2), whole[2:])


@pytest.mark.parametrize(
    ("solver", "repeats", "words"),
    [(DPMSolver(), 1, "without memory"), (Euler(), 0, "repeats=0")],
    ids=["memory", "repeats"],
)
def test_what_cannot_inpaint_is_refused(solver, repeats, words):
    with pytest.raises(BadInput, match=words):
        inpaint(solver, repeats, num=1, steps=2)


# ---------------------------------------------------------------- at the start


def test_a_grid_starts_anywhere_along_the_path():
    grid = uniform_grid(4)
    close(starting_at(grid, 0.6, Linear()), [0.6, 0.5, 0.25, 0.0])
    close(starting_at(grid, 0.5, Linear()), [0.5, 0.25, 0.0])
    close(starting_at(grid, 1.0, Linear()), grid)
    close(starting_at(grid, 0.6004, DDPMSchedule()), [0.6, 0.5, 0.25, 0.0])
    with pytest.raises(BadInput, match="two times"):
        starting_at(grid, 0.0, Linear())


def test_partial_noising_moves_data_towards_the_model_by_its_noise():
    # By the flow from t to the data: linear in x, with slope a s/√(a² s² + b²).
    path, process = Linear(), Process(Linear(), Velocity())
    keys, x = sample_keys(KEY, 2), jnp.array([[0.0], [1.0]])
    for t in (0.3, 0.8):
        grid = starting_at(uniform_grid(200), t, path)
        z = path.a(grid[0]) * x  # both with noise 0: the difference is the slope
        predict = gaussian(MEAN, STD).predict(process)
        found = solve(Heun(), keys, predict, process, z, grid)
        slope = path.a(t) * STD / np.hypot(path.a(t) * STD, path.b(t))
        close(found[1] - found[0], [slope], 1e-3)


# ---------------------------------------------------------------- other networks


class Optimal(nn.Module):
    """The conditional mean itself: of a component where there is a label."""

    process: Process
    std: float = 0.0  # above 0: of data that are wider by so much

    def __call__(self, z, t, c=None, train=False):
        stds = tuple(s + self.std for s in MIXTURE.stds)
        data = Mixture(MIXTURE.weights, MIXTURE.means, stds)
        label = (c or {}).get("label")
        if label is None:
            return data.predict(self.process)(z, t)
        r = jnp.stack([data.predict(self.process, k)(z, t) for k in (0, 1)])
        return r[jnp.clip(label, 0, 1), jnp.arange(len(z))]


@static
class Exact:
    """p(k | z) of the mixture."""

    path: Linear = Linear()
    target: ClassVar[Labels] = Labels(2)

    def log_prob_at(self, params, state, z, t, c):
        log_p = MIXTURE.log_prob_labels(self.path, z, t)[:, 0, 0]
        return jnp.take_along_axis(log_p, c["label"][:, None], axis=-1)[:, 0]


PROCESS = Process(Linear(), Velocity())
NOTHING = {"denoiser": {}}


def optimal(condition=Nothing(), std=0.0, levels=256, **values):
    net, space = Optimal(PROCESS, std), Images((1, 1, 2), levels)
    model = Diffusion(net, PROCESS, space, condition)
    return changed(model, **{"solver": Heun(), "steps": 8, **values})


def test_an_exact_classifier_makes_the_optimal_network_conditional():
    model = optimal(guides=(ClassifierGuide(Exact()),))
    label, state = (
        jnp.array([0, 1, 0, 1]),
        {"frozen": {"classifier": Variables({}, {})}},
    )
    assert model.sampling_condition() == Labels(2)
    assert model.nfe() == optimal().nfe()
    found = model.sample(NOTHING, state, KEY, 4, label=label)
    grid = model.sampler.plan(PROCESS).times
    assert grid[0] < 1  # it divides by a
    conditional = optimal(Labels(2), grid=Fixed(tuple(map(float, grid))))
    close(found, conditional.sample(NOTHING, {}, KEY, 4, label=label), 1e-6)
    with pytest.raises(BadInput, match="along the sampler's path"):
        other = optimal(guides=(ClassifierGuide(Exact(VariancePreserving())),))
        other.sample(NOTHING, state, KEY, 4, label=label)
    with pytest.raises(BadInput, match="holds nothing and no classifier"):
        model.sample(NOTHING, {}, KEY, 4, label=label)
    with pytest.raises(BadInput, match="two conditions are called label"):
        optimal(Labels(3), guides=model.sampler.guides).sampling_condition()


@static
class Fixed:
    """A grid of known times."""

    times: tuple

    def __call__(self, path, steps, span):
        return jnp.array(self.times)


def test_a_worse_network_takes_the_place_of_the_null_label():
    # r̂ = worse + 3 (r̂ - worse), of an unconditional model, too.
    worse = optimal(std=0.3)
    model = optimal(guidance=Guidance(3.0, model=worse))
    state = {"frozen": {"guide": Variables(NOTHING, {})}}
    predict = model.guided_predictor(NOTHING, state)
    z = jnp.reshape(arrays(1)[0], (7, 1, 1, 2))
    both = [m.predictor(NOTHING)(z, T, {}) for m in (model, worse)]
    close(predict(z, T, {}), both[1] + 3 * (both[0] - both[1]))
    assert model.nfe() == 2 * optimal().nfe()
    assert model.sample(NOTHING, state, KEY, 2).shape == (2, 1, 1, 2)
    with pytest.raises(BadInput, match="one path and prediction"):
        process = Process(Linear(), Noise())
        other = Diffusion(Optimal(process), process, Images((1, 1, 2)))
        optimal(guidance=Guidance(3.0, model=other)).nfe()


@pytest.mark.parametrize("method", ["repaint", "replace", "posterior", "projection"])
def test_a_model_completes_images_and_keeps_what_is_seen(method):
    model = optimal(levels=3, steps=3)
    batch = {"image": np.array([[[[0, 1]]], [[[2, 1]]]], np.uint8)}
    seen = np.array([True, False])
    asked = {"method": method, "repeats": 2}
    x, effective = model.complete(NOTHING, {}, KEY, batch, seen, **asked)
    close(x[:, 0, 0, 0], [-1.0, 1.0])
    close(effective, np.ones(2))
    second = {"image": batch["image"][1:]}
    again = model.complete(NOTHING, {}, KEY, second, seen, start_index=1, **asked).x
    close(again, x[1:], 1e-6)


def test_restorations_are_refused_what_they_cannot_be():
    model, batch = optimal(), {"image": np.zeros((1, 1, 1, 2), np.uint8)}
    for method in ("repaint", "posterior"):
        with pytest.raises(BadInput, match=r"fixed steps"):
            adaptive = model.sampler.replace(solver=Adaptive(tsit5))
            asked = {"method": method, "sampler": adaptive}
            model.complete(NOTHING, {}, KEY, batch, SEEN, **asked)
    with pytest.raises(BadInput, match="there are repaint, replace"):
        model.complete(NOTHING, {}, KEY, batch, SEEN, method="guess")
    with pytest.raises(BadInput, match="strength=0"):
        edit(model, NOTHING, {}, KEY, np.zeros((1, 1, 1, 2)), 0.0)


def test_editing_with_all_strength_is_sampling_and_with_little_changes_little():
    model, x = optimal(steps=10), jnp.array([[[[0.9, 0.1]]], [[[-1.0, 0.5]]]])
    all_new = edit(model, NOTHING, {}, KEY, x, 1.0)
    close(all_new, model.sample(NOTHING, {}, KEY, 2))
    gaps = [edit(model, NOTHING, {}, KEY, x, s) - x for s in (0.1, 0.6)]
    assert np.abs(gaps[0]).mean() < 0.2 < np.abs(gaps[1]).mean()
