"""CycleGAN: two domains without pairs."""

from typing import Annotated

from ..cli.bounds import AtLeast, AtMost, Count, Depth, Weight, Width
from ..cli.groups import group
from .experiment import takes
from .nets import PrecisionOptions
from .training import TrainingOptions


@group(
    learning_rate=2e-4,
    b1=0.5,
    warmup=0,
    clip=0.0,
    batch_size=16,
    steps=4_000,
    rate_schedule="late-linear",
)
class CycleGANOptions(TrainingOptions, PrecisionOptions):
    """The two generators, the two critics and their losses."""

    channels: Width = 32
    """Channels of a generator next to the image, doubled at each level below."""
    conv_levels: Annotated[int, AtLeast(0), AtMost(1_000)] = 0
    """Halvings of the image in a generator; of 32 pixels 1, of 128 and more 2."""
    blocks: Depth = 3
    """Residual blocks of a generator."""
    critic_channels: Width = 32
    """Channels of a critic's first level, doubled at each level below."""
    critic_levels: Depth = 1
    """Halvings of the image in a critic: the more, the larger are its patches."""
    cycle: Weight = 10.0
    """Weight of coming back to the image."""
    identity: Weight = 5.0
    """Weight of leaving alone an image of the domain."""
    buffer: Count = 50
    """Translations of each domain that are kept for its critic."""


@takes(CycleGANOptions)
def cyclegan(data, o: CycleGANOptions):
    """CycleGAN: maps between two domains, learned without pairs.

    Zhu et al. 2017, arXiv:1703.10593. The data set has two domains: --dataset
    pair:CHANGE:NAME, whose pairs are known and not shown in training, or unpaired:A,B.
    """
    from gengen.models.cyclegan import CycleGAN
    from gengen.nets.patch import PatchGAN
    from gengen.nets.translator import Translator

    data.two_domains("cyclegan")
    model = CycleGAN(
        Translator(o.channels, o.conv_levels, o.blocks, o.dtype),
        PatchGAN(o.critic_channels, o.critic_levels, o.dtype),
        data.space(),
        cycle=o.cycle,
        identity=o.identity,
        buffer=o.buffer,
    )
    return o.experiment(model, "discriminator", "generator")
