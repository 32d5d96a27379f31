"""PixelCNN, gated or plain."""

from typing import Literal

from ..cli.groups import group
from .autoregressive import AutoregressiveOptions
from .experiment import takes
from .nets import OrderOptions


@group(blocks=5, steps=500)
class PixelCNNOptions(AutoregressiveOptions, OrderOptions):
    """The kind of PixelCNN."""

    architecture: Literal["gated", "plain"] = "gated"
    """Two stacks of gated convolutions, or residual blocks with the blind spot, whose
    width is twice as large between them. The width is a multiple of the channels."""


@takes(PixelCNNOptions)
def pixelcnn(data, o: PixelCNNOptions):
    """PixelCNN: masked convolutions, an exact density.

    Gated: van den Oord et al. 2016, arXiv:1606.05328, without a blind spot; plain: van
    den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759. The defaults are for
    digits: 1.814 test bits/dim, 84 s of training on 2 CPU cores. For Fashion-MNIST:
    --dataset fashion_mnist --width 96 --blocks 10 --dropout 0.1 --steps 50000
    --ema-decay 0.9995 (on an accelerator).
    """
    from gengen.nets.gated_pixelcnn import GatedPixelCNN
    from gengen.nets.pixelcnn import PixelCNN
    from gengen.observations.categorical import Categorical

    head = Categorical(data.levels)
    kind = GatedPixelCNN if o.architecture == "gated" else PixelCNN
    net = kind(
        head.features,
        data.shape,
        data.levels,
        o.width,
        o.blocks,
        o.condition(data),
        o.dropout,
        o.dtype,
        o.remat,
    )
    return o.autoregressive(data, net, head, o.permutation(data.shape))
