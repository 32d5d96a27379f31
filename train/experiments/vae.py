"""Variational autoencoder."""

from typing import Annotated, Literal

from ..cli.bounds import Count, Depth, NonEmpty, Steps, Weight, Width
from ..cli.groups import group
from .experiment import takes
from .nets import PrecisionOptions
from .training import TrainingOptions


@group(learning_rate=1e-3, batch_size=128, steps=1_500, ema_decay=0.999)
class VAEOptions(TrainingOptions, PrecisionOptions):
    """The observation model, the latent and the networks of a VAE."""

    architecture: Literal["mlp", "conv"] = "mlp"
    """Fully connected, or convolutions with stride 2."""
    likelihood: Literal["bernoulli", "gaussian", "logistic"] = "logistic"
    """p(x|z) of the pixel levels: binomial (Bernoulli if --levels 2), Gaussian with one
    learned scale, or discretised logistic."""
    conditional: bool = False
    """Model p(x|y) of a given class, where the data set has labels: what the command
    `bayes` turns into a classifier that can reject."""
    latent: Width = 16
    """Dimensions of z."""
    hidden: Annotated[tuple[Width, ...], NonEmpty()] = (128,)
    """Widths of the encoder's layers, reversed in the decoder (mlp)."""
    channels: Width = 32
    """Channels at full resolution, doubled at each level (conv); a multiple of 8."""
    conv_levels: Depth = 2
    """Halvings of the image (conv)."""
    beta: Weight = 1.0
    """Weight of the KL term; 1 is the ELBO."""
    annealing_steps: Steps | None = None
    """Steps over which the weight of the KL term rises from 0."""
    importance_samples: Count = 1
    """K of the bound that evaluation reports (IWAE); 1 is the ELBO."""


@takes(VAEOptions)
def vae(data, o: VAEOptions):
    """Variational autoencoder: maximises a lower bound of the density.

    Kingma and Welling 2014, arXiv:1312.6114. The defaults are for digits, whose 1,000
    images a larger network memorises: ELBO 2.150 bits/dim of the validation images, 8 s
    on 2 CPU cores. For Fashion-MNIST: --dataset fashion_mnist --hidden 512 256 --latent
    32 --steps 20000, which reached 3.42 bits/dim in 336 s there.
    """
    from gengen.latent.objectives import ELBO
    from gengen.models.vae import VAE
    from gengen.nets.conv import ConvDecoder, ConvEncoder
    from gengen.nets.mlp import MLPDecoder, MLPEncoder
    from gengen.objective import Ramp
    from gengen.observations.binomial import Binomial
    from gengen.observations.discretized_logistic import DiscretizedLogistic
    from gengen.observations.gaussian import Gaussian
    from gengen.observations.observation import outputs

    p_x = {
        "bernoulli": Binomial(data.levels),
        "gaussian": Gaussian(),
        "logistic": DiscretizedLogistic(data.levels),
    }[o.likelihood]
    condition = data.condition(o.conditional)
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
        objective=ELBO(
            Ramp(0.0, o.beta, o.annealing_steps) if o.annealing_steps else o.beta
        ),
        importance_samples=o.importance_samples,
    )
    return o.experiment(model, "vae")
