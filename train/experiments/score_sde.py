"""Score-based models through stochastic differential equations."""

from typing import Literal

from ..cli.groups import group
from ..cli.names import PATHS, WEIGHTS
from .diffusion import SolvedOptions
from .experiment import takes
from .nets import UNetOptions

PATH_OF = {
    "ve": "variance-exploding",
    "vp": "variance-preserving",
    "sub-vp": "sub-variance-preserving",
}


@group(solver="predictor-corrector", sampling_steps=100)
class ScoreSDEOptions(SolvedOptions, UNetOptions):
    """The stochastic differential equation, and the loss."""

    sde: Literal[tuple(PATH_OF)] = "vp"
    """Variance exploding, variance preserving, or sub-variance-preserving."""
    weight: Literal["noise", "likelihood"] = "noise"
    """Loss weighting: `noise` (DDPM's simple loss) or `likelihood` (maximum
    likelihood)."""


@takes(ScoreSDEOptions)
def score_sde(data, o: ScoreSDEOptions):
    """Score SDE: the gradient of log p at every level of noise.

    Song et al. 2021, arXiv:2011.13456. The network says the noise (the score is
    -noise/b), on a continuous path; the solver langevin is annealed Langevin dynamics.
    The defaults are for digits: 1.986 bits/dim of the validation images given their
    label (VLB), 203 s of training on 2 CPU cores. For Fashion-MNIST: --dataset
    fashion_mnist --channels 64 --multipliers 1 2 2 --blocks 2 --batch-size 128
    --ema-decay 0.9995 --steps 50000 (on an accelerator).
    """
    from gengen import presets
    from gengen.diffusion.process import Noise, Process

    return o.diffusion(
        presets.score_sde,
        data,
        process=Process(PATHS[PATH_OF[o.sde]](0.5), Noise()),
        weight=WEIGHTS[o.weight](0.5),
        **o.solved(),
    )
