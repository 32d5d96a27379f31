"""What the experiments of diffusion share: the names of its values."""

from typing import Literal

PathName = Literal[
    "linear",
    "variance-preserving",
    "sub-variance-preserving",
    "variance-exploding",
    "cosine",
    "trigonometric",
    "karras",
    "table",
]
Prediction = Literal["noise", "data", "v", "velocity", "score", "edm"]
WeightName = Literal[
    "plain",
    "min-snr",
    "truncated-snr",
    "likelihood",
    "sigmoid",
    "noise",
    "data",
    "v",
    "velocity",
    "score",
    "edm",
]
TimesName = Literal["uniform", "logit-normal", "log-normal", "steps"]
DrawName = Literal["independent", "antithetic", "stratified"]
CouplingName = Literal["independent", "optimal-transport", "sinkhorn"]
SolverName = Literal[
    "euler",
    "heun",
    "ab2",
    "ab3",
    "ddim",
    "ddpm",
    "ddpm-large",
    "ddpm-learned",
    "dpmpp-2m",
    "dpmpp-2m-sde",
    "edm",
    "edm-stochastic",
    "euler-maruyama",
    "predictor-corrector",
    "langevin",
    "tsit5",
    "dopri5",
]
GridName = Literal["even", "shifted", "leading", "quadratic", "karras", "log-snr"]
LikelihoodName = Literal["vlb", "vlb-1000", "pf-ode"]


def paths(data_std: float = 0.5) -> dict:
    """Name -> path; data_std is the Karras path's."""
    from gengen.diffusion.paths import (
        Cosine,
        DDPMSchedule,
        Karras,
        Linear,
        SubVariancePreserving,
        Trigonometric,
        VarianceExploding,
        VariancePreserving,
    )

    rows = (Linear(), VariancePreserving(), SubVariancePreserving())
    rows += (
        VarianceExploding(),
        Cosine(),
        Trigonometric(),
        Karras(data_std),
        DDPMSchedule(),
    )
    return dict(zip(PathName.__args__, rows, strict=True))


def predictions(data_std: float = 0.5) -> dict:
    """Name -> row of the diffusion matrix; data_std is EDM's."""
    from gengen.diffusion.process import EDM, Data, Noise, Score, V, Velocity

    rows = (Noise(), Data(), V(), Velocity(), Score(), EDM(data_std))
    return dict(zip(Prediction.__args__, rows, strict=True))


def weights(data_std: float = 0.5) -> dict:
    """Name -> weight of the squared error; a prediction's name is its space."""
    from gengen.diffusion.weights import (
        ELBOWeight,
        ErrorIn,
        MinSNR,
        Sigmoid,
        TruncatedSNR,
        Unweighted,
    )

    rows = Unweighted(), MinSNR(), TruncatedSNR(), ELBOWeight(), Sigmoid()
    rows += tuple(ErrorIn(row) for row in predictions(data_std).values())
    return dict(zip(WeightName.__args__, rows, strict=True))


def times() -> dict:
    """Name -> distribution of training times."""
    from gengen.diffusion.times import LogitNormal, LogNormal, Steps, Uniform

    rows = Uniform(), LogitNormal(), LogNormal(), Steps()
    return dict(zip(TimesName.__args__, rows, strict=True))


def draws() -> dict:
    """Name -> how the uniforms behind the times are drawn."""
    from gengen.diffusion.times import antithetic, independent, stratified

    rows = independent, antithetic, stratified
    return dict(zip(DrawName.__args__, rows, strict=True))


def couplings() -> dict:
    """Name -> coupling of noise with images."""
    from gengen.diffusion.couplings import Independent, OptimalTransport, Sinkhorn

    rows = Independent(), OptimalTransport(), Sinkhorn()
    return dict(zip(CouplingName.__args__, rows, strict=True))


def solvers() -> dict:
    """Name -> solver."""
    from gengen.diffusion.ode import Adaptive, dopri5, tsit5
    from gengen.diffusion.solvers import (
        DDIM,
        DDPM,
        AdamsBashforth,
        Ancestral,
        DPMSolver,
        EDMSampler,
        Euler,
        EulerMaruyama,
        Heun,
        PredictorCorrector,
        annealed_langevin,
        fixed_large,
        learned_range,
    )

    rows = (Euler(), Heun(), AdamsBashforth(2), AdamsBashforth(3))
    rows += (DDIM(), DDPM(), Ancestral(fixed_large), Ancestral(learned_range))
    rows += (DPMSolver(), DPMSolver(1.0), EDMSampler())
    rows += (EDMSampler(churn=40.0, low=0.05, high=50.0, noise=1.003),)
    rows += (EulerMaruyama(), PredictorCorrector(EulerMaruyama()), annealed_langevin())
    rows += (Adaptive(tsit5), Adaptive(dopri5))
    return dict(zip(SolverName.__args__, rows, strict=True))


def grids() -> dict:
    """Name -> grid of sampling times."""
    from gengen.diffusion.grids import (
        Even,
        KarrasGrid,
        Leading,
        LogSNR,
        Quadratic,
        ShiftedGrid,
    )

    rows = Even(), ShiftedGrid(), Leading(), Quadratic(), KarrasGrid(), LogSNR()
    return dict(zip(GridName.__args__, rows, strict=True))


def likelihoods(path: PathName = "linear") -> dict:
    """Name -> what bits per dimension are; of no name, what the path has."""
    from gengen.diffusion.density import FlowDensity
    from gengen.diffusion.likelihood import VariationalBound

    rows = VariationalBound(), VariationalBound(1000), FlowDensity()
    named = dict(zip(LikelihoodName.__args__, rows, strict=True))
    return named | {None: named["vlb-1000" if path == "table" else "vlb"]}


def network(kind: Literal["unet", "dit"], condition, *, precision, **options):
    """A U-Net or a DiT with its own keywords."""
    from gengen.nets.dit import DiT
    from gengen.nets.unet import UNet

    from .shared import dtype

    net = {"unet": UNet, "dit": DiT}[kind]
    return net(condition=condition, dtype=dtype(precision), **options)


def experiment(
    data,
    process,
    network,
    condition,
    *,
    guidance_scale: float | None,
    label_dropout: float,
    learning_rate: float,
    batch_size: int,
    steps: int,
    ema_decay: float,
    sampling_steps: int,
    **values,
):
    """The Experiment of a Diffusion with these values; refuses before any compute."""
    from gengen.models.diffusion import Diffusion
    from gengen.presets import changed

    from .experiment import Experiment
    from .shared import adam

    if guidance_scale is None:
        guided = condition.droppable and label_dropout > 0
        guidance_scale = 1.5 if guided else 1.0
    model = changed(
        Diffusion(network, process, data.space(), condition),
        condition_dropout=label_dropout,
        steps=sampling_steps,
        scale=guidance_scale,
        **values,
    )
    model.refuse()
    optimizers = {"denoiser": adam(learning_rate)}
    return Experiment(model, optimizers, batch_size, steps, ema_decay)
