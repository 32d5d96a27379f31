"""Laws of `gengen.diffusion.likelihood`: quadrature, tiny worlds, known densities."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import sigma_points
from quick_keys import quick_key
from scipy import stats

from gengen.diffusion.bound import (
    bound_terms,
    continuous,
    diffusion_loss,
    level_log_probs,
    prior_kl,
    reconstruction_loss,
    squared_error,
    steps,
)
from gengen.diffusion.density import (
    Exact,
    Hutchinson,
    image_log_density,
    log_density,
    with_divergence,
)
from gengen.diffusion.likelihood import sigma_min
from gengen.diffusion.ode import RK4, Adaptive
from gengen.diffusion.paths import Linear, VariancePreserving, snr
from gengen.diffusion.posterior import posterior, posterior_kl, step_logvar
from gengen.diffusion.process import (
    Data,
    Noise,
    Process,
    Score,
    V,
    Velocity,
    corrupt,
    expand,
    recover,
)
from gengen.errors import BadInput
from gengen.images import bin_width, dequantize, log_bin_volume, to_unit
from gengen.losses.divergence import gaussian_kl
from gengen.losses.likelihood import normal_log_prob
from gengen.models.closed_form import Mixture, gaussian, gaussian_variance
from gengen.scan import sample_keys
from gengen.types import static

PATHS = [Linear(), VariancePreserving(0.5, 6.0)]
PREDICTIONS = [Noise(), Data(), V(), Velocity(), Score()]
KEY = quick_key(0)
MEAN, STD = 0.5, 0.4
MIXTURE = Mixture((0.3, 0.7), ((-1.0, 0.5), (1.0, 0.0)), (0.3, 0.5))
FLOW = Process(Linear(), Velocity())
T, S = np.linspace(0.1, 0.95, 7), np.linspace(0.05, 0.6, 7)

paths = pytest.mark.parametrize("path", PATHS, ids=str)
predictions = pytest.mark.parametrize("prediction", PREDICTIONS, ids=str)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def arrays(num, rows=len(T), dim=2):
    return np.random.default_rng(0).normal(size=(num, rows, dim))


def close(actual, desired, rtol=1e-12, atol=1e-12):
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=atol)


def normal_nodes(num=161, end=8.0):
    """Trapezium nodes and weights of N(0, 1): spectrally exact for smooth functions."""
    nodes = np.linspace(-end, end, num)
    weights = np.exp(-(nodes**2) / 2)
    return nodes, weights / weights.sum()


# ---------------------------------------------------------------- terms of the bound


@paths
def test_the_prior_term_is_the_divergence_of_the_last_latent(path):
    (x,), t = arrays(1), np.float64(0.9)
    logvar = jnp.full_like(x, 2 * np.log(path.b(t)))
    expected = gaussian_kl(path.a(t) * x, logvar, 0.0, logvar)
    close(prior_kl(Process(path, Data()), x, t), expected)


@paths
@predictions
def test_errors_of_x_and_steps_are_found_from_every_prediction(path, prediction):
    process, (x, noise) = Process(path, prediction), arrays(2)
    predict = MIXTURE.predict(process)

    @jax.jit
    def pairs(x, noise):
        z, _ = corrupt(process, x, noise, T)
        x_hat, _ = recover(process, z, predict(z, T), T)
        mean, logvar = posterior(process, x_hat, z, T, S)
        kl = posterior_kl(process, x, z, T, S, mean, logvar)
        error = squared_error(predict, process, x, noise, T)
        step = diffusion_loss(predict, process, x, noise, T, S)
        return (error, jnp.sum((x - x_hat) ** 2, axis=1)), (step, kl)

    error, step = pairs(x, noise)
    close(*error, 1e-9)
    close(*step, 1e-9)  # the divergence of two posteriors


@paths
def test_posterior_and_its_divergence_by_quadrature(path):
    t, s, x, z = np.float64(0.6), np.float64(0.4), np.array([[0.7]]), np.array([[-0.2]])
    process = Process(path, Data())
    grid = np.linspace(-8, 8, 4001)
    dz = grid[1] - grid[0]

    def density(z, mean, variance):
        return np.exp(-((z - mean) ** 2) / variance / 2) / np.sqrt(2 * np.pi * variance)

    alpha = path.a(t) / path.a(s)
    forward = density(z[0, 0], alpha * grid, path.b(t) ** 2 - (alpha * path.b(s)) ** 2)
    joint = density(grid, path.a(s) * x[0, 0], path.b(s) ** 2) * forward
    q = joint / (joint.sum() * dz)
    mean, logvar = jax.jit(lambda x, z: posterior(process, x, z, t, s))(x, z)
    close(mean[0, 0], np.sum(q * grid) * dz, 1e-9)
    variance = np.sum(q * (grid - mean[0, 0]) ** 2) * dz
    close(np.exp(logvar[0, 0]), variance, 1e-9)

    other = np.array([[0.1]]), np.array([[-1.2]])
    p = density(grid, 0.1, np.exp(-1.2))
    kl = np.sum(np.where(q > 0, q * (np.log(np.maximum(q, 1e-300)) - np.log(p)), 0))
    close(posterior_kl(process, x, z, t, s, *other)[0], kl * dz, 1e-8)


@paths
def test_learned_variances_lie_between_the_small_and_the_large(path):
    a_t, b_t, a_s, b_s = path.a(T), path.b(T), path.a(S), path.b(S)
    large = b_t**2 - (a_t / a_s * b_s) ** 2
    small = large * (b_s / b_t) ** 2
    close(np.exp(step_logvar(path, 0.0, T, S)), small, 1e-10)
    close(np.exp(step_logvar(path, 1.0, T, S)), large, 1e-10)
    middle = np.sqrt(small * large)
    close(np.exp(step_logvar(path, np.full(7, 0.5), T, S)), middle, 1e-10)


@paths
def test_infinitely_many_steps_share_the_drop_of_one(path):
    nodes, weights = np.polynomial.legendre.leggauss(40)
    t, s, u = np.broadcast_arrays(T[:, None], S[:, None], (nodes + 1) / 2)
    tau, drop = continuous(path, t, s, u)
    close(drop @ weights / 2, steps(path, t, s, 0)[1][:, 0], 1e-6)
    close(tau, s + (nodes + 1) / 2 * (t - s))


@paths
def test_the_bound_of_gaussian_data_closes_with_the_first_power_of_the_step(path):
    # E_x KL(q(z_min | x) ‖ p(z_min)) = ½ log(v/b²) is what an exact model needs; the
    # prior costs KL(p(z_max) ‖ N(0, b²)) more. Errors are linear in (x, ε), so sigma
    # points give their mean square.
    process = Process(path, V())
    x, noise = sigma_points(2).T[:, :, None]
    x = MEAN + STD * x
    predict, low, high = gaussian(MEAN, STD).predict(process), 0.05, np.float64(1)
    v, v_max = (gaussian_variance(path, STD, t) for t in (np.float64(low), high))
    needed = 0.5 * np.log(v / path.b(np.float64(low)) ** 2)
    b2 = path.b(high) ** 2
    kl = 0.5 * (np.log(b2 / v_max) + (v_max + (path.a(high) * MEAN) ** 2) / b2 - 1)

    @functools.partial(jax.jit, static_argnames="limit")
    def bound(grid, u=0.0, limit=steps):
        def term(t, s):
            return diffusion_loss(predict, process, x, noise, t, s, u, limit)

        total = jnp.sum(jax.vmap(term)(grid[:-1], grid[1:]), axis=0)
        return jnp.mean(prior_kl(process, x, grid[0]) + total) - needed - kl

    gaps = [bound(np.linspace(1, low, n + 1)) for n in (200, 400, 800)]
    assert min(gaps) > 0
    assert gaps[0] / gaps[2] == pytest.approx(4, rel=0.1)

    nodes, weights = np.polynomial.legendre.leggauss(8)
    grid = np.linspace(1, low, 41)
    at = [bound(grid, (u + 1) / 2, continuous) for u in nodes]
    close(np.dot(at, weights) / 2, 0, atol=1e-8)


@pytest.mark.parametrize("levels", [3, 17, 256])
def test_levels_have_probabilities(levels):
    process, (z,) = Process(Linear(), V()), arrays(1)
    t = np.float64(sigma_min(levels))
    image = np.random.default_rng(0).integers(levels, size=(4, 2)).astype(np.uint8)
    noise = arrays(1, rows=4)[0]

    @jax.jit
    def everything(z):
        x = to_unit(image, levels)
        loss = reconstruction_loss(process, image, noise, t, levels)
        log_probs = level_log_probs(process, z, t, levels)
        return log_probs, corrupt(process, x, noise, t)[0], loss

    log_probs, seen, loss = jax.device_get(everything(z))
    assert log_probs.shape == (*z.shape, levels)
    close(np.exp(log_probs).sum(-1), np.ones(z.shape))
    values = np.linspace(-1, 1, levels)
    joint = np.exp(-((seen[..., None] - (1 - t) * values) ** 2) / (2 * t**2))
    of_image = np.take_along_axis(joint, image[..., None].astype(int), -1)[..., 0]
    expected = -np.log(of_image / joint.sum(-1)).sum(-1)
    close(loss, expected, 1e-5, 1e-7)


def test_a_flat_network_loses_what_the_docstring_says():
    # Over a flat density ε̂ = 0: the diffusion costs -log σ and a constant.
    levels, (nodes, weights) = 17, normal_nodes()
    process, image = Process(Linear(), V()), np.full((len(nodes), 1), 8, np.uint8)
    for fraction, loss in [(0.2, 0.225), (0.35, 0.008), (0.5, 0.0)]:
        sigma = sigma_min(levels, fraction)
        t = np.float64(sigma / (1 + sigma))
        found = weights @ reconstruction_loss(process, image, nodes[:, None], t, levels)
        found -= math.log(fraction * math.sqrt(2 * math.pi * math.e))
        close(found, loss, atol=6e-4)
    assert sigma_min(levels) == 0.35 * bin_width(levels)


# ---------------------------------------------------------------- a world of 3 levels


@static
class Levels:
    """One pixel of level k with probability p_k: E[x | z] is a softmax."""

    probs: tuple[float, ...]

    def predict(self, process):
        values = jnp.linspace(-1, 1, len(self.probs))

        def predict(z, t):
            a, b, c, d = process.matrix(expand(t, z))
            logits = -0.5 * ((z - a * values) / b) ** 2 + jnp.log(
                jnp.asarray(self.probs)
            )
            x = jnp.sum(jax.nn.softmax(logits) * values, axis=-1, keepdims=True)
            return c * x + d * (z - a * x) / b

        return predict


WORLD = Levels((0.5, 0.2, 0.3))


def sigma_grid(num, low, high=300.0):
    """Times of the linear path whose σ = t/(1 - t) falls geometrically."""
    sigma = np.geomspace(high, low, num + 1)
    return sigma / (1 + sigma)


@functools.cache
def world_bound(world, num, fraction):
    """E bound of each level by quadrature over the noise, [3] nats."""
    nodes, weights = normal_nodes()
    image = np.repeat(np.arange(3, dtype=np.uint8), len(nodes))[:, None]
    noise, predict = np.tile(nodes, 3)[:, None], world.predict(FLOW)
    grid, x = jnp.asarray(sigma_grid(num, sigma_min(3, fraction))), to_unit(image, 3)

    @jax.jit
    def total():
        def term(t_s):
            return diffusion_loss(predict, FLOW, x, noise, *t_s)

        terms = jnp.sum(jax.lax.map(term, (grid[:-1], grid[1:])), axis=0)
        terms += prior_kl(FLOW, x, grid[0])
        return terms + reconstruction_loss(FLOW, image, noise, grid[-1], 3)

    return np.asarray(total()).reshape(3, -1) @ weights


@pytest.mark.parametrize("world", [WORLD, Levels((0.1, 0.8, 0.1))], ids=str)
@pytest.mark.parametrize("num", [5, 30])
def test_the_bounds_of_all_images_sum_to_at_most_one(world, num):
    assert np.exp(-world_bound(world, num, 0.35)).sum() < 1


def test_the_bound_of_an_exact_network_is_tight():
    one, two = world_bound(WORLD, 200, 0.1), world_bound(WORLD, 400, 0.1)
    close(np.exp(-two), WORLD.probs, 0.04)
    # The gap falls with the first power of the step: extrapolated, nothing is left.
    close(np.exp(one - 2 * two), WORLD.probs, 1e-3)


@pytest.mark.parametrize(
    "how", [{}, {"draws": 3}, {"limit": continuous}], ids=["steps", "3", "continuous"]
)
def test_the_estimated_bound_is_unbiased(how):
    rows, grid = 3000, jnp.asarray(sigma_grid(30, sigma_min(3)))
    image = np.full((rows, 1), 2, np.uint8)
    predict = WORLD.predict(FLOW)

    @jax.jit
    def draw():
        keys = sample_keys(KEY, rows)
        return bound_terms(keys, predict, FLOW, image, grid, 3, **how)

    terms = jax.device_get(draw())
    assert terms.diffusion.shape == (how.get("draws", 30), rows)
    close(terms.total, terms.prior + terms.diffusion.sum(0) + terms.reconstruction)
    mean, error = np.mean(terms.total), np.std(terms.total) / np.sqrt(rows)
    expected = world_bound(WORLD, 30, 0.35)[2]
    if "limit" in how:  # extrapolated to infinitely many steps
        expected = (
            2 * world_bound(WORLD, 400, 0.35)[2] - world_bound(WORLD, 200, 0.35)[2]
        )
    assert abs(mean - expected) < 4 * error < 0.3


@pytest.mark.parametrize("limit", [steps, continuous])
def test_drawn_terms_average_to_all_of_them(limit):
    num, draws, rows = 10, 4, 5
    image = np.random.default_rng(0).integers(3, size=(rows, 2)).astype(np.uint8)
    keys, grid = sample_keys(KEY, rows), jnp.asarray(sigma_grid(num, 0.1))
    bound = functools.partial(
        bound_terms, predict=MIXTURE.predict(FLOW), process=FLOW, levels=3, limit=limit
    )
    every = jax.jit(lambda keys, image: bound(keys, image=image, grid=grid))
    all_of_them = every(keys, image)

    @jax.jit
    def drawn(u):
        return bound(keys, image=image, grid=grid, draws=draws, u=u)

    # (k + u) 10/4 passes an integer at multiples of 1/5 only.
    strata = [drawn(np.full(rows, (j + 0.5) / 10)) for j in range(10)]
    mean = np.mean([one.diffusion.sum(0) for one in strata], axis=0)
    close(mean, all_of_them.diffusion.sum(0), 1e-9)
    for one in strata:
        close(one.reconstruction, all_of_them.reconstruction, 1e-9)
        close(one.prior, all_of_them.prior)
    turned = every(keys[::-1], image[::-1])  # a row is a function of its key
    close(turned.total[::-1], all_of_them.total, 1e-9)


def test_a_bound_without_terms_is_refused():
    image, keys = np.zeros((1, 1), np.uint8), sample_keys(KEY, 1)
    predict = WORLD.predict(FLOW)
    with pytest.raises(BadInput, match="at least two"):
        bound_terms(keys, predict, FLOW, image, np.ones(1))
    with pytest.raises(BadInput, match="from t=0.1 to"):
        bound_terms(keys, predict, FLOW, image, np.linspace(0.1, 1, 3))
    with pytest.raises(BadInput, match="leaves|does not fall"):
        jax.jit(lambda x: exact_flow(x, grid=np.array([0.0, 1.0])))(np.ones((1, 2)))
    with pytest.raises(BadInput, match="draws=0"):
        bound_terms(keys, predict, FLOW, image, np.linspace(1, 0.1, 3), draws=0)


# ---------------------------------------------------------------- the density


@paths
@predictions
def test_the_density_is_that_of_the_mixture(path, prediction):
    # Between two interior times: exchange the prior for the mixture's own density.
    process, (x,) = Process(path, prediction), arrays(1, rows=4)
    grid, predict = np.linspace(0.9, 0.1, 41), MIXTURE.predict(process)
    high, low = np.float64(0.9), np.float64(0.1)

    @jax.jit
    def densities(x):
        found = log_density(predict, process, x, grid, integrator=RK4)
        prior = normal_log_prob(found.latent, 0.0, 2 * jnp.log(path.b(high))).sum(-1)
        flow = found.log_prob - prior + MIXTURE.log_density(path, found.latent, high)
        a = path.a(low)
        own = MIXTURE.log_density(path, a * x, low) + 2 * jnp.log(a)
        return flow, own, found.nfe

    flow, own, nfe = densities(x)
    close(flow, own, 1e-5, 1e-5)
    close(nfe, np.full(4, 160))


GRID = np.linspace(1, 0, 65)


def exact_flow(x, **how):
    how = {"grid": GRID, "integrator": RK4} | how
    return log_density(MIXTURE.predict(FLOW), FLOW, x, **how)


def test_the_whole_flow_has_the_density_of_the_data_and_its_score():
    (x,) = arrays(1)

    @jax.jit
    def pairs(x):
        of = jax.value_and_grad(lambda x: exact_flow(x[None]).log_prob[0])
        value, slope = jax.vmap(of)(x)
        at = Linear(), x, np.float64(0)
        return (value, MIXTURE.log_density(*at)), (slope, MIXTURE.score(*at))

    value, slope = pairs(x)
    close(*value, 1e-6, 1e-6)
    close(*slope, 1e-4, 1e-4)


def test_the_adaptive_density_agrees_and_counts():
    (x,) = arrays(1)
    how = {"grid": np.array([1.0, 0.0]), "integrator": Adaptive(rtol=1e-8, atol=1e-8)}

    @jax.jit
    def both(x):
        return exact_flow(x, **how), MIXTURE.log_density(Linear(), x, np.float64(0))

    found, own = both(x)
    close(found.log_prob, own, 1e-6, 1e-6)
    assert np.all(found.nfe > 20) and len(set(found.nfe.tolist())) > 1


def test_hutchinson_is_unbiased():
    (z,) = arrays(1)

    def f(z):
        return jnp.stack([jnp.sin(z[:, 0] * z[:, 1]), z[:, 0] ** 2 * z[:, 1]], axis=-1)

    signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    every = np.broadcast_to(signs, (len(z), 4, 2)) / 2  # four probes: their mean

    @jax.jit
    def of(z):
        probes = Exact().probes(None, z), every, every[:, :1] * 2
        return f(z), [with_divergence(f, z, each) for each in probes]

    own, ((value, exact), (_, mean), (_, one)) = of(z)
    close(value, own)
    close(exact, z[:, 1] * np.cos(z[:, 0] * z[:, 1]) + z[:, 0] ** 2)
    close(mean, exact)
    assert np.max(np.abs(one - exact)) > 0.1


@pytest.mark.parametrize("probe", [jax.random.rademacher, jax.random.normal])
def test_probes_have_unit_covariance(probe):
    probes = Hutchinson(probe, 4).probes
    draw = jax.jit(lambda: probes(sample_keys(KEY, 1000), np.zeros((1000, 3))))
    e = np.asarray(draw())
    assert e.shape == (1000, 4, 3) and len(np.unique(e[..., 0])) > 1
    covariance = np.einsum("bpi,bpj->ij", e, e) / 1000
    close(covariance, np.eye(3), atol=0.1)


def test_one_sign_probe_is_exact_where_the_jacobian_is_a_multiple_of_one():
    (x,) = arrays(1)
    predict = gaussian(MEAN, STD).predict(FLOW)

    @jax.jit
    def found(x):
        keys = sample_keys(KEY, 7)
        return log_density(predict, FLOW, x, GRID, keys, Hutchinson(), RK4).log_prob

    expected = stats.norm.logpdf(x, MEAN, STD).sum(-1)
    close(found(x), expected, 1e-6)


def test_images_are_dequantised_and_their_bins_counted():
    image = np.array([[0, 3], [16, 9]], np.uint8)
    how = MIXTURE.predict(FLOW), FLOW, image, GRID, 17, Exact(), RK4

    @jax.jit
    def both():
        keys = sample_keys(KEY, 2)
        y = jnp.stack([dequantize(keys[i], image[i], 17) for i in range(2)])
        density = MIXTURE.log_density(Linear(), y, np.float64(0))
        own = density + log_bin_volume((2,), 17)
        return image_log_density(keys, *how).log_prob, own

    close(*both(), 1e-5, 1e-5)


def test_random_probes_need_keys_and_a_number():
    with pytest.raises(BadInput, match="give it keys"):
        exact_flow(np.zeros((2, 2)), divergence=Hutchinson())
    with pytest.raises(BadInput, match="num=0"):
        Hutchinson(num=0)


def test_little_noise_keeps_its_digits_in_float32():
    with jax.enable_x64(False):
        t, s = jnp.float32(1.1e-3), jnp.float32(1e-3)
        x, offset = jnp.ones((1, 2)), 1e-2
        process = Process(Linear(), Noise())
        noise = jnp.zeros_like(x)
        found = diffusion_loss(lambda z, t: noise + offset, process, x, noise, t, s)
        drop = float(snr(Linear(), np.float64(s)) - snr(Linear(), np.float64(t)))
        weight = float(t / (1 - t)) ** 2
        close(found[0], 0.5 * drop * weight * 2 * offset**2, 1e-4)
