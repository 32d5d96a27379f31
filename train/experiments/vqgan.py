"""A vector-quantised autoencoder with a critic."""

from ..cli.groups import group
from .autoencoder import halved
from .experiment import takes
from .first_stage import CriticOptions, FirstStageOptions
from .vqvae import QuantizerOptions


@group()
class VQGANOptions(FirstStageOptions, CriticOptions, QuantizerOptions):
    """The codes of a VQ-VAE with a critic."""


@takes(VQGANOptions)
def vqgan(data, o: VQGANOptions):
    """VQGAN: images as grids of codes, restored without blur.

    Esser, Rombach and Ommer 2021, arXiv:2012.09841. The absolute error with a learned
    scale and a critic of patches; --perceptual adds a distance of features. A prior
    over its codes draws: prior --first-stage.
    """
    from gengen.models.first_stage import VQGAN
    from gengen.observations.laplace import Laplace

    book = o.book()
    coders = o.coders(data, book.dim, Laplace())
    model = VQGAN(
        **coders,
        quantizer=book,
        grid=halved(data.shape, o.conv_levels),
        commitment=o.commitment,
        **o.critic(),
    )
    return o.against(model, "vqvae")
