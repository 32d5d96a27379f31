"""The SDE, and steps along the score: Euler-Maruyama, correctors, Langevin."""

import dataclasses

import jax.numpy as jnp

from gengen.diffusion.paths import derivatives
from gengen.diffusion.process import recover
from gengen.diffusion.solvers.solver import Solver, Traits, normal_like
from gengen.errors import BadInput
from gengen.scan import fold_in
from gengen.types import static


@static
class EulerMaruyama(Solver):
    """z_s = z + (s - t) (f z - g² ∇ log p) + g √(t - s) w: weak order 1.

    This is the reverse of dz = f z dt + g dw, which has the path's marginals where
    f = a′/a and g² = 2 b (b′ - f b). Song et al. 2021, arXiv:2011.13456, equations 5
    and 6.
    """

    traits = Traits(divides_by_a=True, deterministic=False)

    def step(self, noise, predict, process, z, solver_state, t, s):
        a, b, da, db = derivatives(process.path, t)
        f = da / a
        g2 = 2.0 * b * (db - f * b)
        score = -recover(process, z, predict(z, t), t)[1] / b
        drift = f * z - g2 * score
        return z + (s - t) * drift + jnp.sqrt(g2 * (t - s)) * noise, solver_state


@static
class NoPredictor(Solver):
    """z_s = (a_s/a_t) z: only the change of level, for `annealed_langevin`."""

    traits = Traits(divides_by_a=True)

    def nfe(self, steps):
        return 0

    def step(self, noise, predict, process, z, solver_state, t, s):
        return process.path.a(s) / process.path.a(t) * z, solver_state


@static
class PredictorCorrector(Solver):
    """A predictor's step from t to s, then `corrections` Langevin steps at s:

        z ← z + (δ/2) ∇ log p_s(z) + √δ w,  δ = rate² b_s²

    Song et al. 2021, algorithms 2 and 4, choose δ by the norms of a batch so that
    signal and noise stand in the ratio `snr`. Here δ = (2 snr)² b_s² is that choice for
    a score of norm √D/b, and a sample does not depend on its batch. Raises BadInput for
    values out of range.
    """

    predictor: Solver
    """The solver that takes the step."""
    corrections: int = 1
    """The number of Langevin steps after it, at least 1."""
    snr: float = 0.16
    """The ratio of signal to noise of a Langevin step, above 0."""

    def __post_init__(self):
        if self.corrections < 1 or not self.snr > 0:
            raise BadInput(
                f"corrections={self.corrections} and snr={self.snr}: at least one, and "
                "above 0"
            )

    @property
    def traits(self) -> Traits:
        """The predictor's, but with noise."""
        return dataclasses.replace(self.predictor.traits, deterministic=False)

    def nfe(self, steps):
        predicted = self.predictor.nfe(steps)
        return None if predicted is None else predicted + self.corrections * steps

    def init(self, z, steps):
        return self.predictor.init(z, steps)

    def draw(self, keys, z):
        """(the predictor's noise, one array [B, ...] per correction)."""
        own = (fold_in(keys, i + 1) for i in range(self.corrections))
        return self.predictor.draw(keys, z), tuple(normal_like(k, z) for k in own)

    def step(self, noise, predict, process, z, solver_state, t, s):
        first, corrections = noise
        z, solver_state = self.predictor.step(
            first, predict, process, z, solver_state, t, s
        )
        rate, b = 2.0 * self.snr, process.path.b(s)
        for fresh in corrections:
            eps = recover(process, z, predict(z, s)[..., : z.shape[-1]], s)[1]
            z = z - 0.5 * rate**2 * b * eps + rate * b * fresh
        return z, solver_state


def annealed_langevin(corrections: int = 5, snr: float = 0.16) -> PredictorCorrector:
    """Langevin steps at every level of noise, from much to little.

    Song and Ermon 2019, arXiv:1907.05600, algorithm 1.

    >>> annealed_langevin(5).nfe(steps=10)
    50

    Args:
        corrections: the number of Langevin steps at each level, at least 1.
        snr: the ratio of signal to noise of a step, above 0.
    """
    return PredictorCorrector(NoPredictor(), corrections, snr)
