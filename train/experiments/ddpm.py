"""Denoising diffusion probabilistic models."""

from typing import Literal

from ..data.dataset import Spec
from .experiment import Experiment
from .shared import Precision


def ddpm(
    data: Spec,
    *,
    schedule: Literal["table", "cosine"] = "table",
    variance: Literal["small", "large", "learned"] = "small",
    sampling_steps: int = 100,
    guidance_scale: float | None = None,
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
    """DDPM: the noise of 1,000 noise levels, taken away step by step.

    Ho et al. 2020, arXiv:2006.11239; cosine schedule and learned variances: Nichol and
    Dhariwal 2021, arXiv:2102.09672. Its bits per dimension are the bound of all 1,000
    steps. The defaults are for digits; for Fashion-MNIST: --dataset fashion_mnist
    --channels 64 --multipliers 1 2 2 --blocks 2 --attention 14 --dropout 0.1
    --batch-size 128 --ema-decay 0.9995 --steps 50000 (on an accelerator).

    Args:
        schedule: 1,000 values of beta rising evenly to 0.02, or the cosine.
        variance: Of a sampling step: the posterior's, beta, or one between them that
            the network learns.
        sampling_steps: Default steps of the sampler, of the 1,000.
        guidance_scale: Default classifier-free guidance of the sampler; 1 is none. By
            default 1.5 where the model can be guided.
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
    from gengen.diffusion.likelihood import VariationalBound
    from gengen.diffusion.process import Noise, Process, V

    from . import diffusion

    # Where the cosine ends in pure noise, noise says nothing of x; v does.
    asked = Noise() if schedule == "table" else V()
    process = Process(diffusion.paths()[schedule], asked)
    condition = data.condition(conditional)
    learned = variance == "learned"
    network = diffusion.network(
        "unet",
        condition,
        learned_variance=learned,
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        attention=attention,
        heads=heads,
        dropout=dropout,
        precision=precision,
        remat=remat,
    )
    solver = {"small": "ddpm"}.get(variance, f"ddpm-{variance}")
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
        weight=diffusion.weights()["noise"],
        times=diffusion.times()["steps"],
        vlb_weight=1e-3 if learned else 0.0,
        solver=diffusion.solvers()[solver],
        likelihood=VariationalBound(1000),
    )
