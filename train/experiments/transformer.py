"""The transformer decoder over subpixels."""

from ..data.dataset import Spec
from .experiment import Experiment
from .shared import Order, Precision


def transformer(
    data: Spec,
    *,
    width: int = 64,
    blocks: int = 3,
    heads: int = 4,
    dropout: float = 0.3,
    order: Order = "raster",
    conditional: bool = False,
    remat: bool = False,
    precision: Precision = "float32",
    learning_rate: float = 2e-3,
    batch_size: int = 64,
    steps: int = 1_000,
    ema_decay: float = 0.995,
) -> Experiment:
    """Transformer decoder: an exact density, a softmax over each subpixel's levels.

    Vaswani et al. 2017, arXiv:1706.03762. The defaults are for digits, whose 1,000
    images a larger network memorises; for Fashion-MNIST: --dataset fashion_mnist
    --width 256 --blocks 6 --heads 8 --dropout 0.1 --learning-rate 5e-4 --steps 50000
    --ema-decay 0.9995 (on an accelerator).

    Args:
        width: Features of a position, a multiple of `heads`.
        blocks: Layers of attention and MLP.
        heads: Attention heads.
        dropout: Dropout on what each layer adds.
        order: Of the subpixels: raster (row, column, channel), columns (column, row,
            channel), or a random one, the same for all images.
        conditional: Generate a given class, where the data set has labels.
        remat: Recompute each block in the backward pass: less memory, more time.
        precision: Of the network's layers; parameters, losses and the statistics of
            norms are float32 all the same.
        learning_rate: Of Adam, after 100 steps of warm-up.
        batch_size: Images a step.
        steps: Training steps in all.
        ema_decay: Decay of the averaged parameters, from which samples are drawn.
    """
    import math

    from gengen.conditions import Labels, Nothing
    from gengen.models.autoregressive import Autoregressive
    from gengen.nets.transformer import Transformer
    from gengen.observations.categorical import Categorical
    from gengen.spaces import Images

    from .shared import adam, dtype, permutation

    condition = Labels(data.num_classes) if conditional else Nothing()
    head = Categorical(data.levels)
    net = Transformer(
        head.features,
        math.prod(data.shape),
        data.levels,
        width,
        blocks,
        heads,
        dropout,
        condition,
        dtype=dtype(precision),
        remat=remat,
    )
    space = Images(data.shape, data.levels)
    model = Autoregressive(net, head, space, condition, permutation(order, data.shape))
    optimizers = {"autoregressive": adam(learning_rate)}
    return Experiment(model, optimizers, batch_size, steps, ema_decay)
