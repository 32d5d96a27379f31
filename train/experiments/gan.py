"""Generative adversarial network."""

from typing import Literal

from ..cli.bounds import Depth, Steps, Weight, Width
from ..cli.groups import group
from .experiment import takes
from .nets import PrecisionOptions
from .training import TrainingOptions


@group(learning_rate=2e-4, warmup=0, clip=0.0, b1=0.5, steps=3_000)
class GANOptions(TrainingOptions, PrecisionOptions):
    """The game of a GAN, and the networks of both players."""

    loss: Literal["nonsaturating", "minimax"] = "nonsaturating"
    """The generator minimises -log D(G(z)), or log(1 - D(G(z)))."""
    conditional: bool = True
    """Generate a given class, where the data set has labels."""
    latent: Width = 64
    """Dimensions of z."""
    channels: Width = 64
    """Channels next to the image, doubled at each level below."""
    conv_levels: Depth = 2
    """Halvings of the image."""
    r1_weight: Weight = 1.0
    """Gamma of the R1 penalty on real images, for which the critic goes without
    BatchNorm; 0 for no penalty, and BatchNorm."""
    r1_interval: Steps = 4
    """Steps between two penalties, that many times as strong."""


@takes(GANOptions)
def gan(data, o: GANOptions):
    """Generative adversarial network: DCGAN, its players in turn.

    Goodfellow et al. 2014, arXiv:1406.2661; Radford et al. 2016, arXiv:1511.06434. The
    defaults are for digits: Fréchet distance 0.018 in the features of the default
    classifier, 140 s on 2 CPU cores. For Fashion-MNIST: --dataset fashion_mnist
    --batch-size 128 --steps 20000 (on an accelerator).
    """
    from gengen.losses import adversarial
    from gengen.models.gan import GAN
    from gengen.nets.dcgan import DCGANDiscriminator, DCGANGenerator

    condition, sizes = data.condition(o.conditional), (o.channels, o.conv_levels)
    batch_norm = o.r1_weight == 0
    model = GAN(
        DCGANGenerator(data.shape, *sizes, condition, dtype=o.dtype),
        DCGANDiscriminator(*sizes, condition, batch_norm=batch_norm, dtype=o.dtype),
        data.space(),
        o.latent,
        condition,
        getattr(adversarial, f"{o.loss}_generator_loss"),
        o.r1_weight,
        o.r1_interval,
    )
    return o.experiment(model, "discriminator", "generator")
