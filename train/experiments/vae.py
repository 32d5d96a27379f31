"""Variational autoencoder."""

from typing import Literal

from ..data.dataset import Spec
from .experiment import Experiment
from .shared import Precision


def vae(
    data: Spec,
    *,
    architecture: Literal["mlp", "conv"] = "mlp",
    likelihood: Literal["bernoulli", "gaussian", "logistic"] = "logistic",
    conditional: bool = False,
    latent: int = 16,
    hidden: tuple[int, ...] = (128,),
    channels: int = 32,
    conv_levels: int = 2,
    beta: float = 1.0,
    annealing_steps: int | None = None,
    importance_samples: int = 1,
    precision: Precision = "float32",
    learning_rate: float = 1e-3,
    batch_size: int = 128,
    steps: int = 1_500,
    ema_decay: float = 0.999,
) -> Experiment:
    """Variational autoencoder: maximises the evidence lower bound (ELBO).

    Kingma and Welling 2014, arXiv:1312.6114. The defaults are for digits, whose 1,000
    images a larger network memorises; for Fashion-MNIST: --dataset fashion_mnist
    --hidden 512 256 --latent 32 --steps 20000.

    Args:
        architecture: Fully connected, or convolutions with stride 2.
        likelihood: p(x|z) of the pixel levels: binomial (Bernoulli if --levels 2),
            Gaussian with one learned scale, or discretised logistic.
        conditional: Model p(x|y) of a given class, where the data set has labels: what
            python -m train.bayes turns into a classifier that can reject.
        latent: Dimensions of z.
        hidden: Widths of the encoder's layers, reversed in the decoder (mlp).
        channels: Channels at full resolution, doubled at each level (conv); a
            multiple of 8.
        conv_levels: Halvings of the image (conv).
        beta: Weight of the KL term; 1 is the ELBO.
        annealing_steps: Steps over which the weight of the KL term rises from 0.
        importance_samples: K of the bound that evaluation reports (IWAE); 1 is the
            ELBO.
        precision: Of the networks' layers; parameters, losses and the statistics of
            norms are float32 all the same.
        learning_rate: Of Adam, after 100 steps of warm-up.
        batch_size: Images a step.
        steps: Training steps in all.
        ema_decay: Decay of the averaged parameters, from which samples are drawn.
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

    from .shared import adam, dtype

    likelihoods = {
        "bernoulli": Binomial(data.levels),
        "gaussian": Gaussian(),
        "logistic": DiscretizedLogistic(data.levels),
    }
    p_x = likelihoods[likelihood]
    condition = data.condition(conditional)
    height, width, depth = data.shape
    out = (height, width, outputs(p_x, depth))
    if architecture == "mlp":
        encoder = MLPEncoder(latent, hidden, condition, dtype(precision))
        decoder = MLPDecoder(out, hidden[::-1], condition, dtype(precision))
    else:
        more = {"condition": condition, "dtype": dtype(precision)}
        encoder = ConvEncoder(latent, channels, conv_levels, **more)
        decoder = ConvDecoder(out, channels, conv_levels, **more)
    model = VAE(
        encoder,
        decoder,
        p_x,
        data.space(),
        latent,
        condition,
        objective=ELBO(Ramp(0.0, beta, annealing_steps) if annealing_steps else beta),
        importance_samples=importance_samples,
    )
    return Experiment(model, {"vae": adam(learning_rate)}, batch_size, steps, ema_decay)
