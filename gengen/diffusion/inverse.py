"""Inverse problems: an image of which a part, a blur or a sketch is known.

A model of x is enough: nothing is trained for the task. What is known enters

    replacement, RePaint   after each step, into z        `Inpainting`, a solver
    posterior sampling     the score, + ∇ log p(y | z)    `Posterior`, a guide
    projection             x̂, which is made to fit y      `Projection`, a guide
    partial noising        at the start, z at time t₀     `times.starting_at`

where y = A x + noise for a function A of images: see `diffusion.operators`. For
data of one variance v₀ in all directions, x given z has variance

    v_t = v₀ b²/(a² v₀ + b²),  so  log p(y | z) = log N(y; A x̂(z), v_t AAᵀ + σ²),

which is exact for white Gaussian data and a linear A of orthogonal rows, and elsewhere
what the papers assume. At the start of a path, a = 0, x̂ does not depend on z, and the
change of x̂ is (b²/a) ∂x̂/∂z Aᵀ …: 0/0 with a limit, of a network mostly its error, so
a grid begins a little later.

Replacement: Song et al. 2021, arXiv:2011.13456, appendix I.2. RePaint: Lugmayr et al.
2022, arXiv:2201.09865. Posterior: Chung et al. 2023, arXiv:2209.14687 (DPS); Song et
al. 2023, "Pseudoinverse-guided diffusion models". Projection: Wang, Yu and Zhang 2023,
arXiv:2212.00490 (DDNM). Partial noising: Meng et al. 2022, arXiv:2108.01073 (SDEdit).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from gengen.conditions import Maps, Nothing
from gengen.diffusion.guidance import classifier_guided, map_denoised
from gengen.diffusion.operators import Observed
from gengen.diffusion.posterior import transition
from gengen.diffusion.process import Process, expand, recover
from gengen.diffusion.solvers import Traits, normal_like
from gengen.errors import BadInput
from gengen.scan import fold_in
from gengen.types import Array, static


class Inpainting(NamedTuple):
    """A solver whose every step ends with z_s = a_s x + b_s ε where x is observed.

    x [B, ...] is exact there at the data; `observed` is bool and broadcasts to it.
    repeats = 1 is replacement; more is RePaint (algorithm 1): back to t by q(z_t | z_s)
    and again to s, so that what is drawn comes to agree with what is observed. The
    last step is repeated like the others, which the paper's is not. The solver must
    have no memory, and steps that are known beforehand.
    """

    solver: Any
    x: Array
    observed: Array
    repeats: int = 1

    @property
    def traits(self) -> Traits:
        """The solver's, but with noise."""
        return dataclasses.replace(self.solver.traits, deterministic=False)

    def nfe(self, steps: int) -> int | None:
        """The solver's, `repeats` times; None of an adaptive one (refused)."""
        once = self.solver.nfe(steps)
        return None if once is None else self.repeats * once

    def init(self, z, steps):
        if self.repeats < 1:
            raise BadInput(f"repeats={self.repeats}: it must be at least 1")
        if self.solver.traits.has_memory or self.solver.traits.adaptive:
            raise BadInput(
                f"{self.solver} cannot inpaint, which needs fixed steps without memory:"
                " take Euler, Heun, DDIM or DDPM"
            )
        return self.solver.init(z, steps)

    def draw(self, keys, z):
        """(the solver's noise, that of z_s, that of z_t), each [repeats, ...]."""

        def once(i):
            own, seen, back = (fold_in(keys, 3 * i + j) for j in (0, 1, 2))
            return self.solver.draw(own, z), normal_like(seen, z), normal_like(back, z)

        return jax.vmap(once)(jnp.arange(self.repeats))

    def step(self, noise, predict, process, z, solver_state, t, s):
        path = process.path
        back, spread = path.a(t) / path.a(s), transition(path, t, s)[0]

        def once(z_t_z_s, noise):
            own, of_seen, of_back = noise
            z, _ = self.solver.step(
                own, predict, process, z_t_z_s[0], solver_state, t, s
            )
            seen = path.a(s) * self.x + path.b(s) * of_seen
            z = jnp.where(self.observed, seen, z)
            return (back * z + jnp.sqrt(spread) * of_back, z), None

        return jax.lax.scan(once, (z, z), noise)[0][1], solver_state


def pinv_residual(
    operator: Callable, x: Array, y: Array, variance: Array, noise_std: float
) -> Array:
    """Aᵀ (v AAᵀ + σ²)⁻¹ (y - A x), the gradient in x of log N(y; A x, v AAᵀ + σ²).

    AAᵀ is taken for the diagonal of its row sums, which it is where A's rows are
    orthogonal; A is linearised at x where it is not linear. variance: v [] or [B].

    >>> from gengen.diffusion.operators import Average
    >>> x, y = jnp.zeros((1, 2, 2, 1)), jnp.ones((1, 1, 1, 1))
    >>> pinv_residual(Average(2), x, y, jnp.array(1.0), 0.0).ravel().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    seen, transpose = jax.vjp(operator, x)
    _, rows = jax.jvp(operator, (x,), transpose(jnp.ones_like(seen)))
    spread = expand(variance, seen) * rows + noise_std**2
    known = spread > 0
    return transpose(jnp.where(known, (y - seen) / jnp.where(known, spread, 1), 0))[0]


def data_variance(process: Process, t: Array, data_std: float = 1.0) -> Array:
    """v_t = v₀ b²/(a² v₀ + b²), of x given z where the data have v₀ = data_std².

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Noise
    >>> process = Process(Linear(), Noise())
    >>> data_variance(process, jnp.array([0.5, 1.0])).tolist()
    [0.5, 1.0]
    """
    a, b = process.path.a(t), process.path.b(t)
    return (data_std * b) ** 2 / ((data_std * a) ** 2 + b**2)


def posterior_guided(
    predict: Callable,
    process: Process,
    operator: Callable,
    y: Array,
    noise_std: float = 0.0,
    scale: Array | float = 1.0,
    data_std: float = 1.0,
) -> Callable:
    """The score plus scale ∇ log N(y; A x̂(z), v_t AAᵀ + σ²): through the network.

    operator: A, images [B, ...] -> [B, ...] like y. noise_std: σ. Divides by a(t).

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Score
    >>> process = Process(Linear(), Score())
    >>> white, known = (lambda z, t: -2.0 * z), (lambda x: x)  # -z/(a² + b²)
    >>> guided = posterior_guided(white, process, known, jnp.ones((1, 1)), 1.0)
    >>> round(guided(jnp.zeros((1, 1)), jnp.array(0.5)).item(), 4)
    0.6667
    """

    def log_prob(z, t, *c):
        x, _ = recover(process, z, predict(z, t, *c)[..., : z.shape[-1]], t)
        variance = data_variance(process, t, data_std)
        slope = pinv_residual(
            operator, jax.lax.stop_gradient(x), y, variance, noise_std
        )
        return slope * x  # of which only the gradient is asked

    return classifier_guided(predict, process, log_prob, scale)


def projected(
    predict: Callable,
    process: Process,
    operator: Callable,
    y: Array,
    noise_std: float = 0.0,
    data_std: float = 1.0,
) -> Callable:
    """x̂ ← x̂ + v_t Aᵀ (v_t AAᵀ + σ²)⁻¹ (y - A x̂): at σ = 0 the nearest x̂ that fits y.

    `posterior_guided` with the ∂x̂/∂z of white Gaussian data in the place of the
    network's own: no gradient of the network, and defined where a = 0.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Data
    >>> process = Process(Linear(), Data())
    >>> fitted = projected(lambda z, t: z, process, lambda x: x, jnp.ones((1, 1)))
    >>> fitted(jnp.zeros((1, 1)), jnp.array(0.5)).tolist()
    [[1.0]]
    """

    def change(x, z, t):
        variance = data_variance(process, t, data_std)
        slope = pinv_residual(operator, x, y, variance, noise_std)
        return x + expand(variance, x) * slope

    return map_denoised(predict, process, change)


class Posterior(NamedTuple):
    """`posterior_guided` as a sampler's guide."""

    operator: Callable
    y: Array
    noise_std: float = 0.0
    scale: Array | float = 1.0
    data_std: float = 1.0

    divides_by_a = True
    condition = Nothing()
    extra_calls = 1  # and a gradient through each

    def __call__(self, predict, process, state):
        return posterior_guided(predict, process, *self)


class Projection(NamedTuple):
    """`projected` as a sampler's guide."""

    operator: Callable
    y: Array
    noise_std: float = 0.0
    data_std: float = 1.0

    divides_by_a = False
    condition = Nothing()
    extra_calls = 0

    def __call__(self, predict, process, state):
        return projected(predict, process, *self)


@static
class Measured:
    """`projected` as a guide whose y is an entry of c.

    It is a static value and goes row by row, so that any solver can use it, and its
    measurements are the caller's: `sample(measured=y)`.
    """

    operator: Callable
    """A: images [B, ...] -> [B, ...] like y, at module scope or a static value."""
    shape: tuple[int, int, int]
    """The shape of one y."""
    noise_std: float = 0.0
    """σ of the noise of y."""
    data_std: float = 1.0
    """The data's standard deviation."""
    key: str = "measured"
    """The name of y in c."""
    divides_by_a: ClassVar[bool] = False
    extra_calls: ClassVar[int] = 0

    @property
    def condition(self):
        """A map: y."""
        return Maps(self.shape, self.key)

    def __call__(self, predict, process, state):
        def guided(z, t, c):
            values = self.operator, c[self.key], self.noise_std, self.data_std
            return projected(lambda z, t: predict(z, t, c), process, *values)(z, t)

        return guided


METHODS = {"posterior": Posterior, "projection": Projection}


def inverse_solver(
    method: str, solver: Any, x: Array, observed: Array, repeats: int
) -> tuple[Any, tuple]:
    """(solver, guides) of a sampler of the rest of x.

    method: "repaint", "replace" (which is repaint without repeats) or one of METHODS.

    >>> from gengen.diffusion.solvers import Euler
    >>> x = jnp.ones((1, 2, 2, 1))
    >>> solver, guides = inverse_solver("projection", Euler(), x, x > 0, 1)
    >>> type(guides[0]).__name__
    'Projection'
    """
    if method in METHODS:
        mask = Observed(observed)
        return solver, (METHODS[method](mask, mask(x)),)
    if method not in ("repaint", "replace"):
        names = ", ".join(("repaint", "replace", *METHODS))
        raise BadInput(f"method={method!r}: there are {names}")
    return Inpainting(solver, x, observed, repeats if method == "repaint" else 1), ()
