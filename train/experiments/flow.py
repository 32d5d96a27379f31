"""Flow matching, and with other values of its keywords, diffusion."""

from typing import Literal

from train.data import Spec
from train.experiment import Experiment
from train.experiments.shared import Precision

Prediction = Literal["noise", "data", "v", "velocity", "score"]
SolverName = Literal["euler", "heun", "ddim", "ddpm"]


def predictions() -> dict:
    """Name -> row of the diffusion matrix."""
    from gengen.diffusion.process import Data, Noise, Score, V, Velocity

    rows = (Noise(), Data(), V(), Velocity(), Score())
    return dict(zip(Prediction.__args__, rows, strict=True))


def solvers() -> dict:
    """Name -> solver."""
    from gengen.diffusion.solvers import DDIM, DDPM, Euler, Heun

    rows = (Euler(), Heun(), DDIM(), DDPM())
    return dict(zip(SolverName.__args__, rows, strict=True))


def flow(
    data: Spec,
    *,
    path: Literal["linear", "variance-preserving"] = "linear",
    prediction: Prediction = "velocity",
    loss_space: Prediction | None = None,
    times: Literal["uniform", "logit-normal"] = "logit-normal",
    solver: SolverName = "euler",
    sampling_steps: int = 50,
    guidance_scale: float | None = None,
    conditional: bool = True,
    label_dropout: float = 0.1,
    channels: int = 32,
    multipliers: tuple[int, ...] = (1, 2),
    blocks: int = 1,
    dropout: float = 0.0,
    precision: Precision = "float32",
    remat: bool = False,
    learning_rate: float = 2e-3,
    batch_size: int = 64,
    steps: int = 1_200,
    ema_decay: float = 0.995,
) -> Experiment:
    """Flow matching (any path, prediction, times and solver of the diffusion matrix).

    Lipman et al. 2023, arXiv:2210.02747; DDPM is --path variance-preserving
    --prediction noise --times uniform --solver ddpm. The defaults are for digits; for
    Fashion-MNIST: --dataset fashion_mnist --channels 64 --multipliers 1 2 2 --blocks 2
    --batch-size 128 --ema-decay 0.9995 --steps 50000 (on an accelerator).

    Args:
        path: z = (1 - t) x + t noise, or a(t)² + b(t)² = 1 with linear beta.
        prediction: What the network is asked for.
        loss_space: The prediction whose squared error is the loss; by default the
            one that is predicted.
        times: Distribution of training times.
        solver: Default solver of the sampler.
        sampling_steps: Default steps of the sampler.
        guidance_scale: Default classifier-free guidance of the sampler; 1 is none. By
            default 1.5 where the model can be guided.
        conditional: Generate a given class, where the data set has labels.
        label_dropout: Share of labels dropped in training, for guidance.
        channels: Channels of the U-Net's first level, a multiple of 8.
        multipliers: Channels of each level over the first's; each level after the
            first halves the image.
        blocks: Residual blocks a level.
        dropout: Dropout in the residual blocks.
        precision: Of the networks' layers; parameters, losses and the statistics of
            norms are float32 all the same.
        remat: Recompute each block in the backward pass: less memory, more time.
        learning_rate: Of Adam, after 100 steps of warm-up.
        batch_size: Images a step.
        steps: Training steps in all.
        ema_decay: Decay of the averaged parameters, from which samples are drawn.
    """
    from gengen.diffusion.paths import Linear, VariancePreserving
    from gengen.diffusion.process import Process, usable_times
    from gengen.diffusion.times import LogitNormal, Uniform
    from gengen.models.diffusion import Diffusion
    from gengen.nets.unet import UNet
    from train.experiments.shared import adam, dtype

    curve = Linear() if path == "linear" else VariancePreserving()
    process = Process(curve, predictions()[prediction])
    usable_times(process)  # refuses before anything is computed
    space = None if loss_space is None else Process(curve, predictions()[loss_space])
    classes = data.num_classes if conditional else 0
    if guidance_scale is None:
        guidance_scale = 1.5 if classes and label_dropout > 0 else 1.0
    model = Diffusion(
        UNet(
            channels,
            multipliers,
            blocks,
            classes,
            dropout=dropout,
            dtype=dtype(precision),
            remat=remat,
        ),
        process,
        data.shape,
        data.levels,
        Uniform() if times == "uniform" else LogitNormal(),
        space,
        classes,
        label_dropout,
        solvers()[solver],
        sampling_steps,
        guidance_scale,
    )
    model.evaluations()  # refuses guidance without a null label
    optimizers = {"denoiser": adam(learning_rate)}
    return Experiment(model, optimizers, batch_size, steps, ema_decay)
