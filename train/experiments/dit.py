"""The diffusion transformer."""

from ..cli.groups import group
from ..cli.names import PATHS
from .diffusion import MatchingOptions
from .experiment import takes
from .nets import DiTOptions


@group(steps=2_000)
class DiTFlowOptions(MatchingOptions, DiTOptions):
    """Flow matching by a transformer."""


@takes(DiTFlowOptions)
def dit(data, o: DiTFlowOptions):
    """DiT: flow matching by a transformer over patches, adaLN-zero.

    Peebles and Xie 2023, arXiv:2212.09748; Ma et al. 2024, arXiv:2401.08740 (SiT). The
    defaults are for digits: 2.045 bits/dim of the validation images given their label
    (VLB), 165 s of training on 2 CPU cores. For Fashion-MNIST: --dataset fashion_mnist
    --width 256 --blocks 8 --heads 8 --learning-rate 5e-4 --batch-size 128 --ema-decay
    0.9995 --steps 50000 (on an accelerator).
    """
    from gengen import presets

    return o.diffusion(presets.flow, data, **o.matched(PATHS["linear"](0.5)))
