"""Flow matching, and with other values of its keywords, all of diffusion."""

from ..data.dataset import Spec
from .diffusion import (
    CouplingName,
    DrawName,
    GridName,
    LikelihoodName,
    PathName,
    Prediction,
    SolverName,
    TimesName,
    WeightName,
)
from .experiment import Experiment
from .shared import Precision


def flow(
    data: Spec,
    *,
    path: PathName = "linear",
    shift: float = 1.0,
    prediction: Prediction = "velocity",
    data_std: float = 0.75,
    weight: WeightName = "plain",
    times: TimesName = "logit-normal",
    draw: DrawName = "independent",
    importance_bins: int = 0,
    coupling: CouplingName = "independent",
    solver: SolverName = "euler",
    grid: GridName = "even",
    sampling_steps: int = 50,
    guidance_scale: float | None = None,
    likelihood: LikelihoodName | None = None,
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
    """Flow matching (any path, prediction, times and solver of the diffusion matrix).

    Lipman et al. 2023, arXiv:2210.02747. The defaults are for digits; for
    Fashion-MNIST: --dataset fashion_mnist --channels 64 --multipliers 1 2 2 --blocks 2
    --batch-size 128 --ema-decay 0.9995 --steps 50000 (on an accelerator).

    Args:
        path: z = a(t) x + b(t) noise: (1 - t) x + t noise, or another of
            gengen.diffusion.paths.
        shift: Noise over signal at every time, times this: above 1 for large images.
        prediction: What the network is asked for.
        data_std: Standard deviation of the data in [-1, 1], which the karras path and
            the edm prediction know: 0.75 of digits, 0.71 of Fashion-MNIST.
        weight: Of the squared error at a time; a prediction's name measures the error
            in that prediction.
        times: Distribution of training times.
        draw: The times of a batch: independent, in pairs t and 1 - t, or one a stratum.
        importance_bins: Above 0, times are drawn by the loss in so many bins.
        coupling: Which noise goes with which image of a batch.
        solver: Default solver of the sampler.
        grid: Default grid of the sampler's times.
        sampling_steps: Default steps of the sampler.
        guidance_scale: Default classifier-free guidance of the sampler; 1 is none. By
            default 1.5 where the model can be guided.
        likelihood: What bits per dimension are: the variational bound (of infinitely
            many steps, or 1000), or the density of the probability-flow ODE. By
            default vlb, and vlb-1000 of a table.
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
    from gengen.diffusion.paths import Shifted
    from gengen.diffusion.process import Process

    from . import diffusion

    curve = diffusion.paths(data_std)[path]
    curve = curve if shift == 1 else Shifted(curve, shift)
    process = Process(curve, diffusion.predictions(data_std)[prediction])
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
        weight=diffusion.weights(data_std)[weight],
        times=diffusion.times()[times],
        uniforms=diffusion.draws()[draw],
        importance_bins=importance_bins,
        coupling=diffusion.couplings()[coupling],
        solver=diffusion.solvers()[solver],
        grid=diffusion.grids()[grid],
        likelihood=diffusion.likelihoods(path)[likelihood],
    )
