"""From noise to data, one step at a time; a file per variable in which a step is exact.

    time        the ODE in t, ż = a′x̂ + b′ε̂            Euler, Heun, AdamsBashforth
    sigma       the ODE in σ = b/a, d(z/a)/dσ = ε̂      EDMSampler (DDIM is its Euler)
    log_ratio   the ODE and SDE in λ = log(a/b), by x̂  DPMSolver(eta)
    posterior   draws from N(mean of q(z_s | z_t, x̂))  DDIM(eta), DDPM, Ancestral;
                of consistency models                  Renoise
    sde         the SDE; steps along the score         EulerMaruyama, annealed_langevin,
                                                       PredictorCorrector

`solver` says what a solver is; `diffusion.solve` takes all the steps of a grid, and
`diffusion.ode.Adaptive` chooses them itself.
"""

from gengen.diffusion.solvers.log_ratio import DPMSolver
from gengen.diffusion.solvers.posterior import (
    DDIM,
    DDPM,
    Ancestral,
    Renoise,
    fixed_large,
    learned_range,
)
from gengen.diffusion.solvers.sde import (
    EulerMaruyama,
    NoPredictor,
    PredictorCorrector,
    annealed_langevin,
)
from gengen.diffusion.solvers.sigma import EDMSampler
from gengen.diffusion.solvers.solver import Solver, Traits, check_solver, normal_like
from gengen.diffusion.solvers.time import (
    AdamsBashforth,
    Euler,
    Heun,
    adams_bashforth_weights,
)

__all__ = [
    "DDIM",
    "DDPM",
    "AdamsBashforth",
    "Ancestral",
    "DPMSolver",
    "EDMSampler",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "NoPredictor",
    "PredictorCorrector",
    "Renoise",
    "Solver",
    "Traits",
    "adams_bashforth_weights",
    "annealed_langevin",
    "check_solver",
    "fixed_large",
    "learned_range",
    "normal_like",
]
