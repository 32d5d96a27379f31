"""Contrastive training of images and their captions."""

from typing import Annotated, Literal

from ..cli.bounds import AtLeast, AtMost
from ..cli.groups import group
from .captions import TextEncoderOptions
from .classifier import ImageEncoderOptions, network_of
from .experiment import takes


@group(
    channels=16,
    multipliers=(1, 2, 4),
    shift=2,
    dropout=0.0,
    batch_size=128,
    steps=1_500,
    optimizer="adamw",
    learning_rate=1e-3,
    rate_schedule="cosine",
    weight_decay=0.05,
    ema_decay=0.998,
)
class ClipOptions(ImageEncoderOptions, TextEncoderOptions):
    """What a CLIP learns."""

    contrast: Literal["infonce", "sigmoid"] = "infonce"
    """Whose caption an image's is among those of the batch, and the other way; or of
    each image and caption by themselves, whether they belong together."""
    embedding: Annotated[int, AtLeast(2), AtMost(2**16)] = 128
    """Numbers of the vector of an image, and of that of a caption."""


@takes(ClipOptions)
def clip(data, o: ClipOptions):
    """CLIP: images and captions as vectors, near one another where they belong.

    Radford et al. 2021, arXiv:2103.00020; sigmoid: Zhai et al. 2023, arXiv:2303.15343.
    A residual network and a transformer over words; equal captions are no negatives of
    one another. It draws nothing: it scores samples (evaluate --clip), guides a
    diffusion to a caption (--path, then sample --classifier), and starts the encoder of
    captions of another run (--init-from). The defaults are for scenes, 98 % of which
    are nearer to their own caption than to 99 others.
    """
    from gengen.models.clip import CLIP, InfoNCE, PairwiseSigmoid

    contrasts = {"infonce": InfoNCE(), "sigmoid": PairwiseSigmoid()}
    model = CLIP(
        network_of(o.embedding, o),
        data.space(),
        o.text(data),
        o.embedding,
        contrasts[o.contrast],
        o.changes(data),
        o.noise(),
    )
    return o.experiment(model, "clip")
