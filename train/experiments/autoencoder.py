"""Autoencoder: what a code has to keep, and no density."""

from typing import Literal

from ..cli.bounds import Weight, Width
from ..cli.groups import group
from .experiment import takes
from .nets import CoderOptions
from .training import TrainingOptions


@group(learning_rate=1e-3, batch_size=128, steps=1_500)
class AutoencoderOptions(TrainingOptions, CoderOptions):
    """The code and the networks of an autoencoder."""

    architecture: Literal["mlp", "conv"] = "mlp"
    """Fully connected, whose code is a vector, or convolutions with stride 2, whose
    code is a map."""
    latent: Width = 16
    """Numbers of the code (mlp), or of each of its places (conv)."""
    denoise: Weight = 0.0
    """Standard deviation of the noise that is added to the images, in [-1, 1], before
    they are encoded; the clean ones are to be restored."""


@takes(AutoencoderOptions)
def autoencoder(data, o: AutoencoderOptions):
    """Autoencoder: restores images from a code, by the squared error.

    Hinton and Salakhutdinov 2006; denoising: Vincent et al. 2008. It draws nothing; a
    model of its codes does (--first-stage). The defaults are for digits.
    """
    from gengen.models.autoencoder import Autoencoder
    from gengen.nets.maps import MapDecoder, MapEncoder
    from gengen.nets.mlp import MLP

    if o.architecture == "mlp":
        latent = o.latent
        nets = (
            MLP((latent,), o.hidden, dtype=o.dtype),
            MLP(data.shape, o.hidden[::-1], dtype=o.dtype),
        )
    else:
        sizes = o.channels, o.conv_levels
        latent = (*halved(data.shape, o.conv_levels), o.latent)
        nets = (
            MapEncoder(o.latent, *sizes, dtype=o.dtype),
            MapDecoder(data.shape, *sizes, dtype=o.dtype),
        )
    model = Autoencoder(*nets, data.space(), latent, o.denoise)
    return o.experiment(model, "autoencoder")


def halved(shape: tuple[int, ...], times: int) -> tuple[int, int]:
    """The sides of a map whose image was halved; BadInput where they do not divide."""
    from gengen.nets.layers import check_divisible

    height, width = (check_divisible(s, times, "--conv-levels") for s in shape[:2])
    return height, width
