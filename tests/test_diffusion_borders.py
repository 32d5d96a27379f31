"""Wrong shapes and types are errors at the border of every function, not broadcasts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gengen.diffusion import bound, density, grids, ode, posterior, process, times
from gengen.diffusion.matching import matching_loss
from gengen.diffusion.parallel import solve_parallel
from gengen.diffusion.paths import Linear, derivatives
from gengen.diffusion.process import Process, Velocity
from gengen.diffusion.solve import denoise, invert, solve, solve_to_data, trajectory
from gengen.diffusion.solvers import DDIM, Heun, adams_bashforth_weights
from gengen.models.closed_form import Mixture, gaussian, gaussian_flow

P = Process(Linear(), Velocity())
MIX = Mixture((0.3, 0.7), ((-1.0, 0.5), (1.0, 0.0)), (0.3, 0.5))
X, NOISE = np.random.default_rng(0).normal(size=(2, 3, 2)).astype(np.float32)
T, S = np.full(3, 0.6, np.float32), np.full(3, 0.3, np.float32)
IMAGE, GRID = np.ones((3, 2), np.uint8), np.array([0.9, 0.5, 0.1], np.float32)
KEYS = jax.random.split(jax.random.key(0), 3)
LOGVAR = np.zeros((3, 1), np.float32)


def predict(z, t):
    return z


# Function -> its arguments, and which of them are rows x, times t, or images.
CALLS = {
    "corrupt": (lambda x, e, t: process.corrupt(P, x, e, t), (X, NOISE, T)),
    "recover": (lambda z, r, t: process.recover(P, z, r, t), (X, NOISE, T)),
    "convert": (lambda z, r, t: process.convert(P, P, z, r, t), (X, NOISE, T)),
    "from_data": (lambda z, x, t: process.from_data(P, z, x, t), (X, NOISE, T)),
    "ode_velocity": (lambda z, r, t: process.ode_velocity(P, z, r, t), (X, NOISE, T)),
    "score": (lambda z, r, t: process.score(P, z, r, t), (X, NOISE, T)),
    "matching_loss": (
        lambda x, e, t: matching_loss(predict, P, x, e, t),
        (X, NOISE, T),
    ),
    "squared_error": (
        lambda x, e, t: bound.squared_error(predict, P, x, e, t),
        (X, NOISE, T),
    ),
    "diffusion_loss": (
        lambda x, e, t, s: bound.diffusion_loss(predict, P, x, e, t, s),
        (X, NOISE, T, S),
    ),
    "posterior": (
        lambda x, z, t, s: posterior.posterior(P, x, z, t, s),
        (X, NOISE, T, S),
    ),
    "posterior_kl": (
        lambda x, z, t, s, m: posterior.posterior_kl(P, x, z, t, s, m, LOGVAR),
        (X, NOISE, T, S, X),
    ),
    "with_divergence": (
        lambda z, e: density.with_divergence(jnp.sin, z, e[:, None]),
        (X, NOISE),
    ),
    "Mixture.predict": (
        lambda z, t: MIX.predict(P, np.array([0, 1, 0]))(z, t),
        (X, T),
    ),
    "Mixture.log_density": (lambda z, t: MIX.log_density(P.path, z, t), (X, T)),
}
calls = pytest.mark.parametrize("name", CALLS)


def wrong(value):
    """Values of other shapes that NumPy would broadcast, and integers."""
    yield from (value[:1], value[None], value[..., None])
    if value.ndim > 1:
        yield value[:, :1]
        yield value.astype(int)


@calls
def test_no_argument_is_broadcast(name):
    function, arguments = CALLS[name]
    assert jax.tree.leaves(jax.eval_shape(function, *arguments))
    for i, value in enumerate(arguments):
        for bad in wrong(value):
            asked = [*arguments[:i], bad, *arguments[i + 1 :]]
            with pytest.raises((AssertionError, TypeError)):
                jax.eval_shape(function, *asked)
                raise RuntimeError(f"argument {i} of shape {bad.shape} {bad.dtype}")


@calls
def test_one_time_serves_all_rows(name):
    function, arguments = CALLS[name]
    if name == "matching_loss":  # each row has a time of its own
        return
    scalars = [x[0] if x.ndim == 1 else x for x in arguments]
    rows, one = (jax.eval_shape(function, *each) for each in (arguments, scalars))
    assert jax.tree.leaves(rows)[0].shape == jax.tree.leaves(one)[0].shape


def narrow(z, t):
    return z[..., :1]


REFUSED = {
    "an answer of one channel": lambda: matching_loss(narrow, P, X, NOISE, T),
    "an answer of one channel, bound": lambda: bound.squared_error(
        narrow, P, X, NOISE, T
    ),
    "a step's answer": lambda: solve(DDIM(), None, narrow, P, X, GRID),
    "integer z": lambda: solve(DDIM(), None, predict, P, IMAGE, GRID),
    "integer z, to the data": lambda: solve_to_data(
        DDIM(), None, predict, P, IMAGE, GRID
    ),
    "integer z, on the way": lambda: trajectory(DDIM(), None, predict, P, IMAGE, GRID),
    "integer x": lambda: invert(Heun(), predict, P, IMAGE, GRID),
    "integer z, at once": lambda: solve_parallel(DDIM(), None, predict, P, IMAGE, GRID),
    "a grid of rows": lambda: jax.eval_shape(
        lambda g: solve(DDIM(), None, predict, P, X, g), GRID[None]
    ),
    "times for E[x | z]": lambda: denoise(predict, P, X, T),
    "integer times": lambda: derivatives(Linear(), np.array([1, 0])),
    "two spacings": lambda: adams_bashforth_weights(GRID, GRID),
    "rows of a start": lambda: grids.starting_at(GRID[None], 0.5, Linear()),
    "a table of masses": lambda: times.histogram_quantile(T, np.full((1, 3), 0.3)),
    "a table of moments": lambda: times.importance(np.ones((2, 2), np.float32)),
    "rows of the prior's time": lambda: bound.prior_kl(P, X, T),
    "float levels": lambda: bound.reconstruction_loss(P, X, NOISE, 0.1),
    "noise of one channel": lambda: bound.reconstruction_loss(
        P, IMAGE, NOISE[:, :1], 0.1
    ),
    "float levels, bound": lambda: bound.bound_terms(KEYS, predict, P, X, GRID),
    "two keys": lambda: bound.bound_terms(KEYS[:2], predict, P, IMAGE, GRID),
    "two places": lambda: bound.bound_terms(
        KEYS, predict, P, IMAGE, GRID, draws=1, u=T[:2]
    ),
    "three masses": lambda: bound.bound_terms(
        KEYS, predict, P, IMAGE, GRID, draws=1, mass=T
    ),
    "intervals": lambda: bound.steps(Linear(), T, S[:, None], 0.0),
    "parts of intervals": lambda: bound.continuous(Linear(), T, S, T[:2]),
    "variances of rows": lambda: posterior.transition(Linear(), T, S[:, None]),
    "integer data": lambda: density.log_density(predict, P, IMAGE, GRID),
    "keys of the density": lambda: density.log_density(
        predict, P, X, GRID, KEYS[:1], density.Hutchinson()
    ),
    "float images": lambda: density.image_log_density(KEYS, predict, P, X, GRID),
    "times of the flow": lambda: ode.probability_flow(predict, P, X, T, 0.0),
    "times of Gaussian flow": lambda: gaussian_flow(
        Linear(), 0.0, 1.0, X, T[:, None], 0.5
    ),
    "three dimensions": lambda: MIX.predict(P)(np.ones((3, 3), np.float32), 0.5),
    "two labels": lambda: MIX.predict(P, np.array([0, 1]))(X, 0.5),
    "a table of labels": lambda: MIX.predict(P, np.zeros((3, 1), int)),
    "float labels": lambda: gaussian(0.0, 1.0).predict(P, 0.5),
}


@pytest.mark.parametrize("what", REFUSED)
def test_wrong_shapes_and_types_are_refused(what):
    with pytest.raises((AssertionError, TypeError)):
        REFUSED[what]()
