"""PixelCNN++."""

from ..data.dataset import Spec
from .experiment import Experiment
from .shared import Order, Precision


def pixelcnnpp(
    data: Spec,
    *,
    width: int = 32,
    blocks: int = 2,
    resolutions: int = 2,
    components: int = 5,
    dropout: float = 0.5,
    order: Order = "raster",
    conditional: bool = False,
    precision: Precision = "float32",
    remat: bool = False,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    steps: int = 750,
    ema_decay: float = 0.995,
) -> Experiment:
    """PixelCNN++: a mixture of discretised logistics a pixel, several resolutions.

    Salimans, Karpathy, Chen and Kingma 2017, arXiv:1701.05517. The defaults are for
    digits; for Fashion-MNIST: --dataset fashion_mnist --width 96 --blocks 3
    --resolutions 3 --components 10 --learning-rate 5e-4 --steps 50000 --ema-decay
    0.9995 (on an accelerator).

    Args:
        width: Features of a pixel.
        blocks: Gated residual blocks at each resolution on the way down.
        resolutions: Of the features; each after the first halves the image's sides.
        components: Logistics in the mixture, shared by the channels of a pixel.
        dropout: Dropout in the residual blocks.
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
    from gengen.nets.pixelcnnpp import PixelCNNPP
    from gengen.observations.logistic_mixture import LogisticMixture
    from gengen.spaces import Images

    from .shared import adam, dtype, permutation

    condition = Labels(data.num_classes) if conditional else Nothing()
    head = LogisticMixture(data.levels, data.shape[-1], components)
    net = PixelCNNPP(
        head.features,
        data.shape,
        data.levels,
        width,
        blocks,
        resolutions,
        condition,
        dropout,
        dtype(precision),
        remat,
    )
    whole = permutation(order, data.shape, whole_pixels=True)
    space = Images(data.shape, data.levels)
    model = Autoregressive(net, head, space, condition, whole)
    optimizers = {"autoregressive": adam(learning_rate)}
    return Experiment(model, optimizers, batch_size, steps, ema_decay)
