"""PixelCNN, gated or plain."""

from typing import Literal

from ..data.dataset import Spec
from .experiment import Experiment
from .shared import Order, Precision


def pixelcnn(
    data: Spec,
    *,
    architecture: Literal["gated", "plain"] = "gated",
    width: int = 48,
    blocks: int = 5,
    dropout: float = 0.2,
    order: Order = "raster",
    conditional: bool = False,
    precision: Precision = "float32",
    remat: bool = False,
    learning_rate: float = 2e-3,
    batch_size: int = 64,
    steps: int = 500,
    ema_decay: float = 0.995,
) -> Experiment:
    """PixelCNN: masked convolutions, a softmax over each subpixel's levels, exact.

    Gated: van den Oord et al. 2016, arXiv:1606.05328, without a blind spot; plain: van
    den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759. The defaults are for
    digits; for Fashion-MNIST: --dataset fashion_mnist --width 96 --blocks 10 --dropout
    0.1 --steps 50000 --ema-decay 0.9995 (on an accelerator).

    Args:
        architecture: Two stacks of gated convolutions, or residual blocks with the
            blind spot.
        width: Features of a pixel, a multiple of the channels (plain: twice).
        blocks: Gated layers, or residual blocks.
        dropout: Dropout of what each convolution hears, the first excepted.
        order: In which pixels come: raster, columns (the image transposed), or a
            random one (where convolutions mean little).
        conditional: Generate a given class, where the data set has labels.
        precision: Of the network's layers; parameters and losses are float32 all the
            same.
        remat: Recompute each block in the backward pass: less memory, more time.
        learning_rate: Of Adam, after 100 steps of warm-up.
        batch_size: Images a step.
        steps: Training steps in all.
        ema_decay: Decay of the averaged parameters, from which samples are drawn.
    """
    from gengen.conditions import Labels, Nothing
    from gengen.models.autoregressive import Autoregressive
    from gengen.nets.gated_pixelcnn import GatedPixelCNN
    from gengen.nets.pixelcnn import PixelCNN
    from gengen.observations.categorical import Categorical
    from gengen.spaces import Images

    from .shared import adam, dtype, permutation

    condition = Labels(data.num_classes) if conditional else Nothing()
    head = Categorical(data.levels)
    kind = GatedPixelCNN if architecture == "gated" else PixelCNN
    net = kind(
        head.features,
        data.shape,
        data.levels,
        width,
        blocks,
        condition,
        dropout,
        dtype(precision),
        remat,
    )
    space = Images(data.shape, data.levels)
    model = Autoregressive(net, head, space, condition, permutation(order, data.shape))
    optimizers = {"autoregressive": adam(learning_rate)}
    return Experiment(model, optimizers, batch_size, steps, ema_decay)
