"""Variational autoencoder."""

from typing import Literal

from ..cli.bounds import Width
from ..cli.groups import group
from .experiment import takes
from .latent import (
    ConditionalOptions,
    ObjectiveOptions,
    PixelOptions,
    PriorOptions,
)
from .nets import CoderOptions
from .training import TrainingOptions


@group(learning_rate=1e-3, batch_size=128, steps=1_500, ema_decay=0.999)
class VAEOptions(
    TrainingOptions,
    CoderOptions,
    ConditionalOptions,
    PixelOptions,
    PriorOptions,
    ObjectiveOptions,
):
    """The latent and the networks of a VAE."""

    architecture: Literal["mlp", "conv"] = "mlp"
    """Fully connected, or convolutions with stride 2."""
    latent: Width = 16
    """Dimensions of z."""


@takes(VAEOptions)
def vae(data, o: VAEOptions):
    """Variational autoencoder: maximises a lower bound of the density.

    Kingma and Welling 2014, arXiv:1312.6114. The defaults are for digits, whose 1,000
    images a larger network memorises: ELBO 2.150 bits/dim of the validation images, 8 s
    on 2 CPU cores. For Fashion-MNIST: --dataset fashion_mnist --hidden 512 256 --latent
    32 --steps 20000, which reached 3.42 bits/dim in 336 s there.
    """
    from gengen.models.vae import VAE
    from gengen.nets.conv import ConvDecoder, ConvEncoder
    from gengen.nets.mlp import MLPDecoder, MLPEncoder
    from gengen.observations.observation import outputs

    p_x, condition = o.observation(data), data.condition(o.conditional)
    height, width, depth = data.shape
    out = (height, width, outputs(p_x, depth))
    if o.architecture == "mlp":
        encoder = MLPEncoder(o.latent, o.hidden, condition, o.dtype)
        decoder = MLPDecoder(out, o.hidden[::-1], condition, o.dtype)
    else:
        more = {"condition": condition, "dtype": o.dtype}
        encoder = ConvEncoder(o.latent, o.channels, o.conv_levels, **more)
        decoder = ConvDecoder(out, o.channels, o.conv_levels, **more)
    model = VAE(
        encoder,
        decoder,
        p_x,
        data.space(),
        o.latent,
        condition,
        objective=o.objective(),
        importance_samples=o.importance_samples,
        **o.distributions(),
    )
    return o.experiment(model, "vae")
