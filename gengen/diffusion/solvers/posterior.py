"""Draws from N(mean of q(z_s | z_t, x̂), σ²), and from q(z_s | x̂) itself."""

from collections.abc import Callable

import jax.numpy as jnp

from gengen.diffusion.paths import Path
from gengen.diffusion.posterior import ddim_mean, step_logvar, transition
from gengen.diffusion.process import recover
from gengen.diffusion.solvers.solver import Solver, Traits
from gengen.errors import BadInput
from gengen.types import Array, static


@static
class DDIM(Solver):
    """z_s = a_s x̂ + √(b_s² - τ²) ε̂ + τ w, with w ~ N(0, 1) and

        τ² = η² (b_s/b_t)² (b_t² - (a_t/a_s)² b_s²).

    eta = 0 is DDIM, deterministic, and on the linear path equal to the flow-matching
    Euler step; eta = 1 is DDPM's ancestral step, the exact posterior q(z_s | z_t, x̂).
    Song, Meng and Ermon 2021, arXiv:2010.02502, equations 12 and 16.
    """

    eta: float = 0.0
    """The share η of DDPM's noise, in [0, 1]."""

    def __post_init__(self):
        if not 0 <= self.eta <= 1:
            raise BadInput(f"eta={self.eta} must be in [0, 1]: 0 is DDIM, 1 is DDPM")

    @property
    def traits(self) -> Traits:
        """Deterministic if eta = 0."""
        return Traits(deterministic=self.eta == 0)

    def step(self, noise, predict, process, z, solver_state, t, s):
        x, eps = recover(process, z, predict(z, t), t)
        if self.eta == 0:
            return ddim_mean(process, x, eps, s, jnp.zeros_like(t)), solver_state
        tau2 = self.eta**2 * transition(process.path, t, s)[1]
        mean = ddim_mean(process, x, eps, s, tau2)
        return mean + jnp.sqrt(tau2) * noise, solver_state


def DDPM() -> DDIM:
    """Ancestral sampling: DDIM with eta = 1. Ho et al. 2020, algorithm 2.

    >>> DDPM()
    DDIM(eta=1.0)
    """
    return DDIM(eta=1.0)


def fixed_large(path: Path, t: Array, s: Array, extra: Array) -> Array:
    """log β²: the upper bound, right if the data were N(0, 1). Ho et al., sec. 3.2.

    >>> from gengen.diffusion.paths import VariancePreserving
    >>> round(float(fixed_large(VariancePreserving(), 0.5, 0.4, None)), 3)
    -0.518

    Args:
        path: the path of the process.
        t: the time of z, a scalar.
        s: the time to reach, a scalar below t.
        extra: not read.
    """
    return step_logvar(path, 1.0, t, s)


def learned_range(path: Path, t: Array, s: Array, extra: Array) -> Array:
    """`step_logvar` with the network's v = (extra + 1)/2, clipped to [0, 1].

    >>> from gengen.diffusion.paths import VariancePreserving
    >>> at = VariancePreserving(), 0.5, 0.4
    >>> bool(learned_range(*at, 1.0) == fixed_large(*at, None))
    True

    Args:
        path: the path of the process.
        t: the time of z, a scalar.
        s: the time to reach, a scalar below t.
        extra: the network's channels behind r̂ [B, ...], in [-1, 1].
    """
    return step_logvar(path, jnp.clip((extra + 1.0) / 2.0, 0.0, 1.0), t, s)


@static
class Ancestral(Solver):
    """A draw of N(mean of q(z_s | z_t, x̂), σ²) where σ² is not the posterior's own.

    The posterior's own variance, DDPM's "fixed small", is `DDPM()`. Noise does not
    enter where b_s = 0. Raises BadInput for `learned_range` if the network has no
    channels behind r̂.
    """

    log_variance: Callable = fixed_large
    """(path, t, s, extra) -> log σ²: `fixed_large`, or `learned_range`, which reads v
    from the channels that the network has beyond those of x."""

    @property
    def traits(self) -> Traits:
        """The variances are wanted if they are learned."""
        learned = self.log_variance is learned_range
        return Traits(deterministic=False, wants_variance=learned)

    def step(self, noise, predict, process, z, solver_state, t, s):
        r = predict(z, t)
        r, extra = r[..., : z.shape[-1]], r[..., z.shape[-1] :]
        if self.log_variance is learned_range and extra.shape != r.shape:
            raise BadInput(
                "this network learned no variances: train one with learned_variance, "
                "or take DDPM()"
            )
        _, posterior = transition(process.path, t, s)
        mean = ddim_mean(process, *recover(process, z, r, t), s, posterior)
        std = jnp.exp(0.5 * self.log_variance(process.path, t, s, extra))
        std = jnp.where(process.path.b(s) == 0, 0.0, std)
        return mean + std * noise, solver_state


@static
class Renoise(Solver):
    """z_s = a_s x̂ + b_s w, w ~ N(0, 1): the data, noised anew.

    It is for networks whose x̂ is the end of a path, not the mean of many: of other
    networks no number of steps makes it a sampler of the data. Song et al. 2023,
    arXiv:2303.01469, algorithm 1.
    """

    traits = Traits(deterministic=False)

    def step(self, noise, predict, process, z, solver_state, t, s):
        x, _ = recover(process, z, predict(z, t), t)
        return process.path.a(s) * x + process.path.b(s) * noise, solver_state
