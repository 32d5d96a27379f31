"""Score-based models through stochastic differential equations."""

from typing import Literal

from ..data.dataset import Spec
from .diffusion import LikelihoodName, SolverName
from .experiment import Experiment
from .shared import Precision


def score_sde(
    data: Spec,
    *,
    sde: Literal["ve", "vp", "sub-vp"] = "vp",
    weight: Literal["noise", "likelihood"] = "noise",
    solver: SolverName = "predictor-corrector",
    sampling_steps: int = 100,
    guidance_scale: float | None = None,
    likelihood: LikelihoodName = "vlb",
    conditional: bool = True,
    label_dropout: float = 0.1,
    channels: int = 32,
    multipliers: tuple[int, ...] = (1, 2),
    blocks: int = 1,
    attention: tuple[int, ...] = (),
    heads: int = 1,
    dropout: float = 0.0,
    precision: Precision = "float32",
    remat: bool = False,
    learning_rate: float = 2e-3,
    batch_size: int = 64,
    steps: int = 1_200,
    ema_decay: float = 0.995,
) -> Experiment:
    """Score SDE: the gradient of log p at every level of noise, and walks along it.

    Song et al. 2021, arXiv:2011.13456. The network says the noise (the score is
    -noise/b), on a continuous path. The defaults are for digits; for Fashion-MNIST:
    --dataset fashion_mnist --channels 64 --multipliers 1 2 2 --blocks 2 --batch-size
    128 --ema-decay 0.9995 --steps 50000 (on an accelerator).

    Args:
        sde: Variance exploding, variance preserving, or sub-variance-preserving.
        weight: The error of the noise, or its integral's, the likelihood.
        solver: Default solver of the sampler; langevin is annealed Langevin dynamics.
        sampling_steps: Default steps of the sampler.
        guidance_scale: Default classifier-free guidance of the sampler; 1 is none. By
            default 1.5 where the model can be guided.
        likelihood: What bits per dimension are: the variational bound (of infinitely
            many steps, or 1000), or the density of the probability-flow ODE.
        conditional: Generate a given class, where the data set has labels.
        label_dropout: Share of labels dropped in training, for guidance.
        channels: Channels of the U-Net's first level, a multiple of 8.
        multipliers: Channels of each level over the first's; each level after the
            first halves the image.
        blocks: Residual blocks a level.
        attention: Heights of images at which the U-Net attends to itself, such as 7.
        heads: Attention heads.
        dropout: Dropout in the residual blocks.
        precision: Of the networks' layers; parameters, losses and the statistics of
            norms are float32 all the same.
        remat: Recompute each block in the backward pass: less memory, more time.
        learning_rate: Of Adam, after 100 steps of warm-up.
        batch_size: Images a step.
        steps: Training steps in all.
        ema_decay: Decay of the averaged parameters, from which samples are drawn.
    """
    from gengen.diffusion.process import Noise, Process

    from . import diffusion

    names = "variance-exploding", "variance-preserving", "sub-variance-preserving"
    name = dict(zip(("ve", "vp", "sub-vp"), names, strict=True))[sde]
    process = Process(diffusion.paths()[name], Noise())
    condition = data.condition(conditional)
    network = diffusion.network(
        "unet",
        condition,
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        attention=attention,
        heads=heads,
        dropout=dropout,
        precision=precision,
        remat=remat,
    )
    return diffusion.experiment(
        data,
        process,
        network,
        condition,
        guidance_scale=guidance_scale,
        label_dropout=label_dropout,
        learning_rate=learning_rate,
        batch_size=batch_size,
        steps=steps,
        ema_decay=ema_decay,
        sampling_steps=sampling_steps,
        weight=diffusion.weights()[weight],
        solver=diffusion.solvers()[solver],
        likelihood=diffusion.likelihoods()[likelihood],
    )
