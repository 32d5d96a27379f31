"""The names of values on the command line: one row each, name -> its value.

A row is called where the value is needed, so that nothing heavy is imported before;
what knows the standard deviation of the data takes it as an argument. The `Literal`
types are made of the rows, so that a name stands once.
"""

import importlib
from collections.abc import Callable
from typing import Any, Literal


class Lazy:
    """A module that is imported when it is first read."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str):
        return getattr(importlib.import_module(self._name), attribute)


couplings = Lazy("gengen.diffusion.couplings")
density = Lazy("gengen.diffusion.density")
grids = Lazy("gengen.diffusion.grids")
likelihood = Lazy("gengen.diffusion.likelihood")
ode = Lazy("gengen.diffusion.ode")
paths = Lazy("gengen.diffusion.paths")
process = Lazy("gengen.diffusion.process")
solvers = Lazy("gengen.diffusion.solvers")
times = Lazy("gengen.diffusion.times")
weights = Lazy("gengen.diffusion.weights")

Rows = dict[str, Callable[..., Any]]

PATHS: Rows = {
    "linear": lambda std: paths.Linear(),
    "variance-preserving": lambda std: paths.VariancePreserving(),
    "sub-variance-preserving": lambda std: paths.SubVariancePreserving(),
    "variance-exploding": lambda std: paths.VarianceExploding(),
    "cosine": lambda std: paths.Cosine(),
    "trigonometric": lambda std: paths.Trigonometric(),
    "karras": lambda std: paths.Karras(std),
    "table": lambda std: paths.DDPMSchedule(),
}
PREDICTIONS: Rows = {
    "noise": lambda std: process.Noise(),
    "data": lambda std: process.Data(),
    "v": lambda std: process.V(),
    "velocity": lambda std: process.Velocity(),
    "score": lambda std: process.Score(),
    "edm": lambda std: process.EDM(std),
}
# A prediction's name measures the error in that prediction.
WEIGHTS: Rows = {
    "plain": lambda std: weights.Unweighted(),
    "min-snr": lambda std: weights.MinSNR(),
    "truncated-snr": lambda std: weights.TruncatedSNR(),
    "likelihood": lambda std: weights.ELBOWeight(),
    "sigmoid": lambda std: weights.Sigmoid(),
    **{
        name: lambda std, row=row: weights.ErrorIn(row(std))
        for name, row in PREDICTIONS.items()
    },
}
TIMES: Rows = {
    "uniform": lambda: times.Uniform(),
    "logit-normal": lambda: times.LogitNormal(),
    "log-normal": lambda: times.LogNormal(),
    "steps": lambda: times.Steps(),
}
DRAWS: Rows = {
    "independent": lambda: times.independent,
    "antithetic": lambda: times.antithetic,
    "stratified": lambda: times.stratified,
}
COUPLINGS: Rows = {
    "independent": lambda: couplings.Independent(),
    "optimal-transport": lambda: couplings.OptimalTransport(),
    "sinkhorn": lambda: couplings.Sinkhorn(),
}
SOLVERS: Rows = {
    "euler": lambda: solvers.Euler(),
    "heun": lambda: solvers.Heun(),
    "ab2": lambda: solvers.AdamsBashforth(2),
    "ab3": lambda: solvers.AdamsBashforth(3),
    "ddim": lambda: solvers.DDIM(),
    "ddpm": lambda: solvers.DDPM(),
    "ddpm-large": lambda: solvers.Ancestral(solvers.fixed_large),
    "ddpm-learned": lambda: solvers.Ancestral(solvers.learned_range),
    "dpmpp-2m": lambda: solvers.DPMSolver(),
    "dpmpp-2m-sde": lambda: solvers.DPMSolver(1.0),
    "edm": lambda: solvers.EDMSampler(),
    "edm-stochastic": lambda: solvers.EDMSampler(
        churn=40.0, low=0.05, high=50.0, noise=1.003
    ),
    "euler-maruyama": lambda: solvers.EulerMaruyama(),
    "predictor-corrector": lambda: solvers.PredictorCorrector(solvers.EulerMaruyama()),
    "langevin": lambda: solvers.annealed_langevin(),
    "tsit5": lambda: ode.Adaptive(ode.tsit5),
    "dopri5": lambda: ode.Adaptive(ode.dopri5),
}
GRIDS: Rows = {
    "even": lambda: grids.Even(),
    "shifted": lambda: grids.ShiftedGrid(),
    "leading": lambda: grids.Leading(),
    "quadratic": lambda: grids.Quadratic(),
    "karras": lambda: grids.KarrasGrid(),
    "log-snr": lambda: grids.LogSNR(),
}
LIKELIHOODS: Rows = {
    "vlb": lambda: likelihood.VariationalBound(),
    "vlb-1000": lambda: likelihood.VariationalBound(1000),
    "pf-ode": lambda: density.FlowDensity(),
}

PathName = Literal[tuple(PATHS)]
Prediction = Literal[tuple(PREDICTIONS)]
WeightName = Literal[tuple(WEIGHTS)]
TimesName = Literal[tuple(TIMES)]
DrawName = Literal[tuple(DRAWS)]
CouplingName = Literal[tuple(COUPLINGS)]
SolverName = Literal[tuple(SOLVERS)]
GridName = Literal[tuple(GRIDS)]
LikelihoodName = Literal[tuple(LIKELIHOODS)]
