"""A prior over the codes of a run: the second stage of a VQ-VAE."""

from gengen.errors import BadInput

from ..cli.groups import group
from .captions import CaptionOptions
from .experiment import takes
from .latent import ConditionalOptions
from .sequence import SequenceOptions


@group(
    architecture="transformer",
    width=64,
    layers=2,
    dropout=0.3,
    learning_rate=1e-3,
    steps=300,
)
class PriorOptions(SequenceOptions, CaptionOptions, ConditionalOptions):
    """The network of a prior over codes."""


@takes(PriorOptions, reads={"first_stage": "vqvae"})
def prior(data, o: PriorOptions):
    """Prior over the codes of a run (--first-stage): with its decoder, one model.

    Van den Oord et al. 2017, arXiv:1711.00937, section 4. An autoregressive model of
    the codes, row by row. Its bits per dimension are a code length: of the codes, and
    of the image given them. The defaults are for digits: 2.641 test bits/dim with the
    default vqvae, in 8 s on one CPU core.
    """
    if data.kind != "symbols":
        raise BadInput(
            "a prior is of the codes of a run: give --first-stage WORKDIR, the folder "
            "of a vqvae, or --dataset npz:FILE with an array codes"
        )
    condition = o.condition(data)
    return o.experiment(o.autoregressive(data.space(), condition), "autoregressive")
