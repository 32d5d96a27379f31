"""PixelRNN, in one scale or two."""

from typing import Literal

from ..cli.groups import group
from .autoregressive import AutoregressiveOptions
from .experiment import takes


@group(width=24, steps=1_500)
class PixelRNNOptions(AutoregressiveOptions):
    """The recurrence of a PixelRNN."""

    architecture: Literal["diagonal", "row"] = "diagonal"
    """Diagonal BiLSTM, which sees all pixels before, or Row LSTM, which sees a triangle
    of them and takes fewer steps. The width is that of an LSTM, a multiple of the
    channels; between the LSTMs it is twice as large."""
    scales: Literal[1, 2] = 1
    """2: first every second pixel of every second row, then the rest, given these
    (multi-scale PixelRNN)."""


@takes(PixelRNNOptions)
def pixelrnn(data, o: PixelRNNOptions):
    """PixelRNN: recurrent rows or diagonals, an exact density.

    van den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759. The defaults are
    for digits: 1.797 test bits/dim, 252 s of training on 2 CPU cores. For
    Fashion-MNIST: --dataset fashion_mnist --width 64 --blocks 7 --dropout 0.1
    --learning-rate 1e-3 --steps 50000 --ema-decay 0.9995 (on an accelerator).
    """
    from gengen.conditions import Maps
    from gengen.models.multiscale import Multiscale
    from gengen.nets.upsample import Upsample

    condition = o.condition(data)
    if o.scales == 1:
        whole = recurrent(data, o, data.shape, condition)
        return o.experiment(whole, "autoregressive")
    height, width, depth = data.shape
    small = -(-height // 2), -(-width // 2), depth
    # The fine network knows labels and the small image through one map.
    size, features = (height, width), 2 * o.width
    upsample = Upsample(features, size, 2, condition, o.dtype)
    coarse = recurrent(data, o, small, condition)
    fine = recurrent(data, o, data.shape, Maps((*size, features)))
    return o.experiment(Multiscale(coarse, fine, upsample), "coarse", "fine")


def recurrent(data, o: PixelRNNOptions, shape, condition):
    """The model of images [H, W, C] of one scale."""
    from gengen.models.autoregressive import Autoregressive
    from gengen.nets.pixelrnn import PixelRNN
    from gengen.nets.recurrence import DiagonalBiLSTM, RowLSTM
    from gengen.observations.categorical import Categorical
    from gengen.spaces import Images

    head = Categorical(data.levels)
    net = PixelRNN(
        head.features,
        shape,
        data.levels,
        o.width,
        o.blocks,
        DiagonalBiLSTM if o.architecture == "diagonal" else RowLSTM,
        condition,
        o.dropout,
        o.dtype,
        o.remat,
    )
    return Autoregressive(net, head, Images(shape, data.levels), condition)
