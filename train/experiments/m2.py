"""Semi-supervised VAE: a few labels, and every image."""

from typing import Annotated

from gengen.errors import BadInput

from ..cli.bounds import NonEmpty, Share, Weight, Width
from ..cli.groups import group
from .experiment import takes
from .latent import ObjectiveOptions, ObservationOptions
from .nets import PrecisionOptions
from .training import TrainingOptions


@group(learning_rate=1e-3, batch_size=200, steps=1_200, ema_decay=0.99)
class M2Options(
    TrainingOptions,
    PrecisionOptions,
    ObservationOptions,
    ObjectiveOptions,
):
    """The latent, and the networks of p(x|y), q(z|x, y) and q(y|x)."""

    latent: Width = 16
    """Dimensions of z."""
    hidden: Annotated[tuple[Width, ...], NonEmpty()] = (128,)
    """Widths of the encoder's layers, reversed in the decoder."""
    channels: Width = 32
    """Channels of the first level of q(y|x), a residual network, a multiple of 8."""
    dropout: Share = 0.2
    """Dropout of the features of q(y|x), in training."""
    label_weight: Weight = 100.0
    """α, the weight of -log q(y|x) of the labelled images, in nats like the bound."""


@takes(M2Options)
def m2(data, o: M2Options):
    """Semi-supervised VAE (M2): p(x|y), and a q(y|x) that learns from every image.

    Kingma et al. 2014, arXiv:1406.5298. An image without a label is explained by all
    classes. Hide labels with --dataset few-labels:10:digits. The defaults are for
    digits: with --augment shift 93 % of the test images from 100 labels, of which a
    classifier makes 87 %; 110 s on a CPU core. For Fashion-MNIST: --dataset
    few-labels:10:fashion_mnist --hidden 512 256 --latent 32 --steps 20000 (on an
    accelerator).
    """
    from gengen.models.combinators.semisupervised import SemiSupervised
    from gengen.models.vae import VAE
    from gengen.nets.mlp import MLPDecoder, MLPEncoder
    from gengen.nets.resnet import ResNet
    from gengen.observations.observation import outputs

    if not data.num_classes:
        raise BadInput(
            f"{data.name} has no labels, of which m2 needs some: take a labelled data "
            "set, or the experiment vae"
        )
    p_x, condition = o.observation(data), data.labels()
    out = (*data.shape[:2], outputs(p_x, data.shape[-1]))
    generative = VAE(
        MLPEncoder(o.latent, o.hidden, condition, o.dtype),
        MLPDecoder(out, o.hidden[::-1], condition, o.dtype),
        p_x,
        data.space(),
        o.latent,
        condition,
        objective=o.objective(),
        importance_samples=o.importance_samples,
    )
    sizes = (o.channels, (1, 2), 1, o.dropout)
    net = ResNet(data.num_classes, *sizes, dtype=o.dtype)
    return o.experiment(SemiSupervised(generative, net, o.label_weight), "m2")
