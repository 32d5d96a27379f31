"""EDM: the design space of diffusion models, as its authors chose it."""

from ..cli.groups import group
from .diffusion import DataStdOptions, SolvedOptions
from .experiment import takes
from .nets import UNetOptions


@group(solver="edm", sampling_steps=18)
class EDMOptions(SolvedOptions, DataStdOptions, UNetOptions):
    """EDM."""


@takes(EDMOptions)
def edm(data, o: EDMOptions):
    """EDM: preconditioned network, log-normal noise, Heun's steps.

    Karras et al. 2022, arXiv:2206.00364; each of its solver's steps takes two network
    evaluations, and edm-stochastic adds noise on the way. The defaults are for digits:
    1.920 bits/dim of the validation images given their label (VLB), 103 s of training
    on 2 CPU cores. For Fashion-MNIST: --dataset fashion_mnist --data-std 0.71
    --channels 64 --multipliers 1 2 2 --blocks 2 --batch-size 128 --ema-decay 0.9995
    --steps 50000 (on an accelerator).
    """
    from gengen import presets

    return o.diffusion(presets.edm, data, data_std=o.data_std, **o.solved())
