"""Vector-quantised autoencoder: images as grids of codes."""

from typing import Annotated, Literal

from ..cli.bounds import AtLeast, AtMost, Depth, NonEmpty, Share, Weight, Width
from ..cli.groups import group
from .autoencoder import halved
from .experiment import takes
from .latent import ObservationOptions
from .nets import PrecisionOptions
from .training import TrainingOptions

Values = Annotated[tuple[Annotated[int, AtLeast(3), AtMost(1_000)], ...], NonEmpty()]


@group()
class QuantizerOptions:
    """The book of codes."""

    quantizer: Literal["vq", "fsq"] = "vq"
    """The nearest of learned vectors (VQ), or a grid of rounded values (FSQ)."""
    codes: Annotated[int, AtLeast(2), AtMost(2**16)] = 512
    """Codes of the book (vq)."""
    code_width: Width = 16
    """Dimensions of its vectors (vq)."""
    commitment: Weight = 0.25
    """Weight of the distance that draws the encoder to the book (vq)."""
    book_decay: Share = 0.99
    """Decay, per step, of the moving averages that the vectors are (vq)."""
    restart: Share = 0.1
    """The share of an even share of a batch's vectors below which a code starts again
    at one of them (vq); 0 never restarts any."""
    fsq_levels: Values = (8, 8, 8)
    """Values of each dimension, 3 or more, whose products are the codes (fsq)."""

    def book(self):
        """The quantiser."""
        from gengen.latent.quantizers import FiniteScalar, VectorQuantizer

        if self.quantizer == "fsq":
            return FiniteScalar(self.fsq_levels)
        return VectorQuantizer(
            self.codes, self.code_width, self.book_decay, self.restart
        )


@group()
class MapOptions(PrecisionOptions):
    """The sizes of an encoder into a map, and its decoder."""

    channels: Width = 32
    """Channels at full resolution, doubled at each level; a multiple of 8."""
    conv_levels: Depth = 2
    """Halvings of the image: a place of the map stands for 2^levels × 2^levels
    pixels."""
    blocks: Depth = 1
    """Residual blocks at each level."""


@group(channels=8, learning_rate=1e-3, batch_size=128, steps=1_000, ema_decay=0.99)
class VQVAEOptions(TrainingOptions, MapOptions, ObservationOptions, QuantizerOptions):
    """The networks of a VQ-VAE."""


@takes(VQVAEOptions)
def vqvae(data, o: VQVAEOptions):
    """Vector-quantised autoencoder: images as grids of codes, which a prior can learn.

    Van den Oord et al. 2017, arXiv:1711.00937; FSQ: Mentzer et al. 2023,
    arXiv:2309.15505. It draws nothing by itself: `prior --first-stage` does. The
    defaults are for digits: all of 512 codes in use and a squared error of 0.072 of
    test images (x in [-1, 1]), in 76 s on one CPU core.
    """
    from gengen.models.vqvae import VQVAE
    from gengen.nets.maps import MapDecoder, MapEncoder
    from gengen.observations.observation import outputs

    p_x, book = o.observation(data), o.book()
    height, width, depth = data.shape
    out, sizes = (height, width, outputs(p_x, depth)), (o.channels, o.conv_levels)
    model = VQVAE(
        MapEncoder(book.dim, *sizes, o.blocks, dtype=o.dtype),
        MapDecoder(out, *sizes, o.blocks, dtype=o.dtype),
        book,
        p_x,
        data.space(),
        halved(data.shape, o.conv_levels),
        o.commitment,
    )
    return o.experiment(model, "vqvae")
