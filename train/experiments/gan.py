"""Generative adversarial network."""

from typing import Literal

from ..data.dataset import Spec
from .experiment import Experiment
from .shared import Precision


def gan(
    data: Spec,
    *,
    loss: Literal["nonsaturating", "minimax"] = "nonsaturating",
    conditional: bool = True,
    latent: int = 64,
    channels: int = 64,
    conv_levels: int = 2,
    r1_weight: float = 1.0,
    r1_interval: int = 4,
    precision: Precision = "float32",
    learning_rate: float = 2e-4,
    batch_size: int = 64,
    steps: int = 3_000,
    ema_decay: float = 0.995,
) -> Experiment:
    """Generative adversarial network: DCGAN, one turn a player and step.

    Goodfellow et al. 2014, arXiv:1406.2661; Radford et al. 2016, arXiv:1511.06434. The
    defaults are for digits; for Fashion-MNIST: --dataset fashion_mnist --batch-size 128
    --steps 20000 (on an accelerator).

    Args:
        loss: The generator minimises -log D(G(z)), or log(1 - D(G(z))).
        conditional: Generate a given class, where the data set has labels.
        latent: Dimensions of z.
        channels: Channels next to the image, doubled at each level below.
        conv_levels: Halvings of the image.
        r1_weight: Gamma of the R1 penalty on real images, for which the critic goes
            without BatchNorm; 0 for no penalty, and BatchNorm.
        r1_interval: Steps between two penalties, that many times as strong.
        precision: Of the networks' layers; parameters, losses and the statistics of
            norms are float32 all the same.
        learning_rate: Of both players' Adam (beta1 = 0.5).
        batch_size: Images a step.
        steps: Training steps in all.
        ema_decay: Decay of the averaged parameters, from which samples are drawn.
    """
    import optax

    from gengen.losses.adversarial import (
        minimax_generator_loss,
        nonsaturating_generator_loss,
    )
    from gengen.models.gan import GAN
    from gengen.nets.dcgan import DCGANDiscriminator, DCGANGenerator

    from .shared import dtype

    losses = {
        "nonsaturating": nonsaturating_generator_loss,
        "minimax": minimax_generator_loss,
    }
    condition = data.condition(conditional)
    kind = dtype(precision)
    model = GAN(
        DCGANGenerator(data.shape, channels, conv_levels, condition, dtype=kind),
        DCGANDiscriminator(
            channels, conv_levels, condition, batch_norm=r1_weight == 0, dtype=kind
        ),
        data.space(),
        latent,
        condition,
        losses[loss],
        r1_weight,
        r1_interval,
    )
    players = ("discriminator", "generator")
    optimizers = {player: optax.adam(learning_rate, b1=0.5) for player in players}
    return Experiment(model, optimizers, batch_size, steps, ema_decay)
