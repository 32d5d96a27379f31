"""Denoising diffusion probabilistic models."""

from typing import Literal

from ..cli.groups import group
from ..cli.names import LIKELIHOODS, PATHS, SOLVERS, WEIGHTS
from .diffusion import DiffusionOptions
from .experiment import takes
from .nets import UNetOptions


@group(sampling_steps=100)
class DDPMOptions(DiffusionOptions, UNetOptions):
    """The noise levels, and the variance of a step back."""

    schedule: Literal["table", "cosine"] = "table"
    """1,000 values of beta rising evenly to 0.02, or the cosine."""
    variance: Literal["small", "large", "learned"] = "small"
    """Variance of a sampling step: the posterior's, beta, or one between them that the
    network learns."""


@takes(DDPMOptions)
def ddpm(data, o: DDPMOptions):
    """DDPM: the noise of 1,000 noise levels, taken away step by step.

    Ho et al. 2020, arXiv:2006.11239; cosine schedule and learned variances: Nichol and
    Dhariwal 2021, arXiv:2102.09672. Its bits per dimension are the bound of all 1,000
    steps. The defaults are for digits: 1.983 bits/dim of the validation images given
    their label, 68 s of training on 2 CPU cores. For Fashion-MNIST: --dataset
    fashion_mnist --channels 64 --multipliers 1 2 2 --blocks 2 --attention 14 --dropout
    0.1 --batch-size 128 --ema-decay 0.9995 --steps 50000 (on an accelerator).
    """
    from gengen import presets
    from gengen.diffusion.process import Noise, Process, V

    # Where the cosine ends in pure noise, noise says nothing of x; v does.
    asked = Noise() if o.schedule == "table" else V()
    learned = o.variance == "learned"
    return o.diffusion(
        presets.ddpm,
        data,
        {"learned_variance": learned},
        process=Process(PATHS[o.schedule](0.5), asked),
        weight=WEIGHTS["noise"](0.5),
        vlb_weight=1e-3 if learned else 0.0,
        solver=SOLVERS["ddpm" if o.variance == "small" else f"ddpm-{o.variance}"](),
        likelihood=LIKELIHOODS["vlb-1000"](),
    )
