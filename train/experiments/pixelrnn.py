"""PixelRNN, in one scale or two."""

from typing import Literal

from ..data.dataset import Spec
from .experiment import Experiment
from .shared import Precision


def pixelrnn(
    data: Spec,
    *,
    architecture: Literal["diagonal", "row"] = "diagonal",
    scales: Literal[1, 2] = 1,
    width: int = 24,
    blocks: int = 3,
    dropout: float = 0.2,
    conditional: bool = False,
    remat: bool = False,
    precision: Precision = "float32",
    learning_rate: float = 2e-3,
    batch_size: int = 64,
    steps: int = 1_500,
    ema_decay: float = 0.995,
) -> Experiment:
    """PixelRNN: recurrent rows or diagonals, a softmax over each subpixel's levels.

    van den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759. The defaults are
    for digits; for Fashion-MNIST: --dataset fashion_mnist --width 64 --blocks 7
    --dropout 0.1 --learning-rate 1e-3 --steps 50000 --ema-decay 0.9995 (on an
    accelerator).

    Args:
        architecture: Diagonal BiLSTM, which sees all pixels before, or Row LSTM, which
            sees a triangle of them and takes fewer steps.
        scales: 2: first every second pixel of every second row, then the rest, given
            these (multi-scale PixelRNN).
        width: Features h of an LSTM, a multiple of the channels; 2 h between them.
        blocks: LSTM layers.
        dropout: Dropout of what each layer hears, the first excepted.
        conditional: Generate a given class, where the data set has labels.
        remat: Recompute each LSTM in the backward pass: less memory, more time.
        precision: Of the network's layers; parameters, cells and losses are float32
            all the same.
        learning_rate: Of Adam, after 100 steps of warm-up.
        batch_size: Images a step.
        steps: Training steps in all.
        ema_decay: Decay of the averaged parameters, from which samples are drawn.
    """
    from gengen.conditions import Labels, Maps, Nothing
    from gengen.models.autoregressive import Autoregressive
    from gengen.models.multiscale import Multiscale
    from gengen.nets.pixelrnn import PixelRNN
    from gengen.nets.recurrence import DiagonalBiLSTM, RowLSTM
    from gengen.nets.upsample import Upsample
    from gengen.observations.categorical import Categorical
    from gengen.spaces import Images

    from .shared import adam, dtype

    condition = Labels(data.num_classes) if conditional else Nothing()
    head = Categorical(data.levels)
    kind = DiagonalBiLSTM if architecture == "diagonal" else RowLSTM

    def model(shape, condition):
        net = PixelRNN(
            head.features,
            shape,
            data.levels,
            width,
            blocks,
            kind,
            condition,
            dropout,
            dtype(precision),
            remat,
        )
        space = Images(shape, data.levels)
        return Autoregressive(net, head, space, condition)

    if scales == 1:
        whole = model(data.shape, condition)
        optimizers = {"autoregressive": adam(learning_rate)}
        return Experiment(whole, optimizers, batch_size, steps, ema_decay)
    height, width_, depth = data.shape
    small = -(-height // 2), -(-width_ // 2), depth
    # The fine network knows labels and the small image through one map.
    size, features = (height, width_), 2 * width
    upsample = Upsample(features, size, 2, condition, dtype(precision))
    fine = model(data.shape, Maps((*size, features)))
    both = Multiscale(model(small, condition), fine, upsample)
    optimizers = {player: adam(learning_rate) for player in ("coarse", "fine")}
    return Experiment(both, optimizers, batch_size, steps, ema_decay)
