"""The density of the probability-flow ODE: a continuous normalising flow, in nats.

Along ż the density obeys d log p(z)/dt = -div ż, so that the network that draws also
measures, exactly or by random probes, with derivatives, under jit and vmap.

Chen et al. 2018, arXiv:1806.07366; Grathwohl et al. 2019, arXiv:1810.01367; Song et al.
2021, arXiv:2011.13456, appendix D.2.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp

from gengen.diffusion.grids import LogSNR, check_grid, times_of
from gengen.diffusion.likelihood import lower_end
from gengen.diffusion.ode import RK4, Adaptive, Integrator, integrate
from gengen.diffusion.process import Process, ode_velocity, usable_times
from gengen.diffusion.solve import by_row
from gengen.errors import BadInput
from gengen.images import dequantize, log_bin_volume
from gengen.losses.likelihood import normal_log_prob, per_example
from gengen.scan import fold_in
from gengen.types import Array, static


class Divergence(Protocol):
    """div f = Σ_p ⟨e_p, J e_p⟩ with the probes e [B, P, ...], exact or in the mean."""

    def probes(self, keys: Array, z: Array) -> Array:
        """The probes e [B, P, ...] of z [B, ...], of its type, from keys [B]."""
        ...


@static
class Exact:
    """The trace of the Jacobian, by one tangent per dimension."""

    def probes(self, keys: Array, z: Array) -> Array:
        dims = z[0].size
        basis = jnp.eye(dims, dtype=z.dtype).reshape(dims, *z.shape[1:])
        return jnp.broadcast_to(basis, (len(z), *basis.shape))


@static
class Hutchinson:
    """An unbiased estimate from `num` random probes with E[e eᵀ] = 1.

    Hutchinson 1990; Grathwohl et al. 2019, arXiv:1810.01367, section 3.1; Song et al.
    2021, equation 40.
    """

    probe: Callable = jax.random.rademacher
    """`jax.random.normal`, or `jax.random.rademacher` (no variance of the diagonal)."""
    num: int = 1
    """The number of probes, at least 1."""

    def __post_init__(self):
        if self.num < 1:
            raise BadInput(f"num={self.num}: at least 1 probe is needed")

    def probes(self, keys: Array, z: Array) -> Array:
        shape = (self.num, *z.shape[1:])
        drawn = jax.vmap(lambda key: self.probe(key, shape, z.dtype))(keys)
        return drawn / jnp.sqrt(self.num).astype(z.dtype)


def with_divergence(f: Callable, z: Array, probes: Array) -> tuple[Array, Array]:
    """(f(z), Σ_p ⟨e_p, J e_p⟩ [B]) for a function f whose rows do not depend on others.

    f is linearised once, and its tangents are taken together.

    >>> z = jnp.array([[1.0, 2.0]])
    >>> value, divergence = with_divergence(jnp.square, z, Exact().probes(None, z))
    >>> value.tolist(), divergence.tolist()
    ([[1.0, 4.0]], [6.0])

    Args:
        f: [B, ...] -> [B, ...], row by row.
        z: the point [B, ...], floats.
        probes: e [B, P, ...], of z's type.
    """
    chex.assert_shape(probes, (z.shape[0], None, *z.shape[1:]))
    chex.assert_type([z, probes], float)
    value, jacobian = jax.linearize(f, z)
    tangents = jax.vmap(jacobian, 1, 1)(probes)
    return value, per_example(probes * tangents)


class FlowLogDensity(NamedTuple):
    """What the flow says of each row."""

    log_prob: Array
    """[B] nats."""
    latent: Array
    """z at t_max [B, ...]."""
    nfe: Array
    """The number of calls of the network [B]."""


def log_density(
    predict: Callable,
    process: Process,
    x: Array,
    grid: Array,
    keys: Array | None = None,
    divergence: Divergence = Exact(),
    integrator: Integrator = Adaptive(),
) -> FlowLogDensity:
    """log p(x) [B] nats of x [B, ...], by the instantaneous change of variables:

        log p(x) = log N(z_{t_max}; 0, b²) + ∫ div ż dt + D log a(t_min),

    from z_{t_min} = a x up the falling times of the grid [n + 1] to t_max.

    It is the exact density of a sampler: noise, the ODE down to t_min, division by
    a(t_min). Where the path lets the grid reach t_min = 0 that is the whole flow; else
    it is the density of the data blurred by σ = b/a at t_min, without any correction: a
    correction would be the density of no model. Song et al. take z = x and leave
    D log a out.

    Each evaluation is one call of `predict` and as many tangents as there are probes.
    Measured on `sigma_min`'s U-Net: 1.922 bits per dimension by RK4 on 16 intervals
    even in log SNR (64 evaluations), the same as by Adaptive at 1e-5 (640).
    Chen et al. 2018, arXiv:1806.07366, theorem 1; Song et al. 2021, equation 39.

    >>> from gengen.diffusion.grids import uniform_grid
    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> from gengen.models.closed_form import gaussian
    >>> data, process = gaussian(mean=1.5, std=0.5), Process(Linear(), Velocity())
    >>> ask = data.predict(process), process, jnp.array([[1.5]]), uniform_grid(16)
    >>> found = log_density(*ask, integrator=RK4)
    >>> round(float(found.log_prob[0]), 2)  # -½ log 2π - log 0.5
    -0.23

    Args:
        predict: the network, (z, t) -> r̂ of the shape of x.
        process: a continuous path, and what the network predicts.
        x: data [B, ...], floats.
        grid: n + 1 times falling from t_max to t_min; two suffice for `Adaptive`.
        keys: one key per row [B], for `Hutchinson`.
        divergence: `Exact()` or `Hutchinson()`.
        integrator: fixed steps per interval, or `Adaptive`.
    """
    chex.assert_type(x, float)
    if keys is not None:
        chex.assert_shape(keys, x.shape[:1])
    if keys is None and divergence != Exact():
        raise BadInput(f"{divergence} is random: give it keys [{x.shape[0]}]")
    probes = divergence.probes(keys, x)

    def field(state, t, probes):
        def velocity(z):
            return ode_velocity(process, z, predict(z, t), t)

        return with_divergence(velocity, state[0], probes)

    grid = jnp.asarray(check_grid(grid), x.dtype)
    scale, width = process.path.a(grid[-1]), process.path.b(grid[0])
    state = scale * x, jnp.zeros(x.shape[0], x.dtype)
    (z, gained), calls = integrate(integrator, field, state, grid[::-1], probes)
    log_prob = per_example(normal_log_prob(z, 0.0, 2 * jnp.log(width)))
    return FlowLogDensity(log_prob + gained + x[0].size * jnp.log(scale), z, calls)


def image_log_density(
    keys: Array,
    predict: Callable,
    process: Process,
    image: Array,
    grid: Array,
    levels: int = 256,
    divergence: Divergence = Hutchinson(),
    integrator: Integrator = Adaptive(),
) -> FlowLogDensity:
    """`log_density` of dequantised levels, as nats of the *discrete* image.

    In expectation this is a lower bound on the log-probability of the image: log p(y) +
    D log(bin width), y uniform in the bins (Theis et al. 2016, arXiv:1511.01844,
    equation 5). A network that was trained on levels bends towards them below
    `sigma_min`, where y is not: its U-Net has 1.92 bits from there, 2.14 from t = 0.01
    and 2.25 from t = 0.001.

    >>> from gengen.diffusion.grids import uniform_grid
    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> from gengen.models.closed_form import gaussian
    >>> keys, image = jax.random.split(jax.random.key(0), 2), jnp.array([[0], [2]])
    >>> process = Process(Linear(), Velocity())
    >>> predict, grid = gaussian(0.0, 1.0).predict(process), uniform_grid(16)
    >>> found = image_log_density(
    ...     keys, predict, process, image, grid, levels=3, integrator=RK4
    ... )
    >>> found.log_prob.shape
    (2,)

    Args:
        keys: one key per row [B], for the dequantisation and the probes.
        predict: the network, (z, t) -> r̂ of the shape of the image.
        process: a continuous path, and what the network predicts.
        image: levels [B, ...], integers.
        grid: n + 1 times falling from t_max to t_min; two suffice for `Adaptive`.
        levels: the number of levels of a dimension.
        divergence: `Exact()` or `Hutchinson()`.
        integrator: fixed steps per interval, or `Adaptive`.
    """
    chex.assert_type(image, int)
    chex.assert_shape(keys, image.shape[:1])

    def one(key, image):
        return dequantize(key, image, levels)

    y = jax.vmap(one)(keys, image)
    keys = fold_in(keys, 1)
    found = log_density(predict, process, y, grid, keys, divergence, integrator)
    volume = log_bin_volume(image.shape[1:], levels)
    return found._replace(log_prob=found.log_prob + volume)


@static
class FlowDensity:
    """`log_density` of dequantised levels, or of real numbers, as nats of the data.

    The ODE starts where σ is `sigma_min`, of real numbers at t = 0.001.
    """

    divergence: Divergence = Hutchinson()
    """How the divergence is found: in the mean, or exactly."""
    integrator: Integrator = RK4
    """How each interval is crossed; `Adaptive` crosses all of them at once."""
    intervals: int = 16
    """Intervals of time, even in log SNR."""
    kind: ClassVar[str] = "PF-ODE, uniform dequantisation"

    def __call__(self, keys, predict, process, data, space, c):
        low, high = usable_times(process)
        # Real numbers have no bins: the density is that of a sampler which ends here.
        low = max(low, 1e-3) if space.size is None else lower_end(process, space.size)
        adaptive = isinstance(self.integrator, Adaptive)
        intervals = 1 if adaptive else self.intervals
        grid = times_of(LogSNR(), process.path, intervals, (low, high))

        def nats(keys, data, c):
            y = jax.vmap(space.dequantize)(keys, data)
            found = log_density(
                lambda z, t: predict(z, t, c),
                process,
                y,
                grid,
                fold_in(keys, 1),
                self.divergence,
                self.integrator,
            )
            return found.log_prob + space.log_volume

        rows = keys, data, c
        return by_row(nats, *rows) if adaptive else nats(*rows)
