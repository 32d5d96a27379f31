"""Drifting: a one-step generator that follows a kernel's field to the data."""

from typing import Annotated

from ..cli.bounds import NonEmpty, Positive
from ..cli.groups import group
from .diffusion import DroppedLabelOptions
from .experiment import takes
from .nets import DiTOptions


@group(steps=4_000, batch_size=256, learning_rate=1e-3)
class DriftingOptions(DroppedLabelOptions, DiTOptions):
    """The field that samples drift along."""

    widths: Annotated[tuple[Positive, ...], NonEmpty()] = (0.1, 0.2, 0.4)
    """Widths of the Gaussian kernel over the root of the number of pixels, in the units
    of images in [-1, 1]; the field is the mean of theirs."""


@takes(DriftingOptions)
def drifting(data, o: DriftingOptions):
    """Drifting: samples move to data of their class, and away from each other.

    Deng et al. 2026, arXiv:2602.04770, with a Gaussian kernel, whose field is known: it
    is zero where the smoothed densities agree. No critic, no teacher, one step; large
    batches, because the field is that of a batch. The network is that of `dit`, so that
    --init-from can name such a run. The kernel compares pixels, which is for small
    images, or for the latents of --first-stage. The defaults are for digits: with
    --steps 3000 the Fréchet distance is 0.041, after 1,604 s on one busy CPU core. For
    Fashion-MNIST: --dataset fashion_mnist --width 256 --blocks 8 --heads 8 --batch-size
    1024 --ema-decay 0.9995 --steps 30000 (on an accelerator).
    """
    from gengen import presets
    from gengen.models.combinators.drifting import Drifting

    condition = o.condition(data)
    flow = presets.flow(
        o.network(condition),
        data.space(),
        condition,
        condition_dropout=o.label_dropout,
    )
    return o.experiment(Drifting(flow, o.widths), "denoiser")
