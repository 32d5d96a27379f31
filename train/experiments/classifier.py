"""Classifier: the discriminative model, and the offline extractor of features."""

from gengen.errors import BadInput

from ..data.dataset import Spec
from .diffusion import PathName
from .experiment import Experiment
from .shared import Precision


def classifier(
    data: Spec,
    *,
    channels: int = 32,
    multipliers: tuple[int, ...] = (1, 2),
    blocks: int = 1,
    dropout: float = 0.2,
    shift: int = 1,
    flip: bool = False,
    label_smoothing: float = 0.1,
    path: PathName | None = None,
    data_std: float = 0.75,
    precision: Precision = "float32",
    remat: bool = False,
    learning_rate: float = 2e-3,
    batch_size: int = 64,
    steps: int = 1_000,
    ema_decay: float = 0.995,
) -> Experiment:
    """Classifier p(y|x): the discriminative model, whose features judge samples.

    A residual network (He et al. 2016, arXiv:1603.05027). python -m train.evaluate
    compares samples with data in its last features. The defaults are for digits; for
    Fashion-MNIST: --dataset fashion_mnist --channels 16 --multipliers 1 2 4 --flip
    --batch-size 128 --steps 3000.

    Args:
        channels: Channels of the first level, a multiple of 8.
        multipliers: Channels of each level over the first's; each level after the
            first halves the image. The last level's are the features.
        blocks: Residual blocks a level.
        dropout: Dropout of the features, in training.
        shift: Augmentation: pixels by which an image is moved at most.
        flip: Augmentation: mirror half of the images.
        label_smoothing: Share of the target spread over all classes.
        path: Of noise that is mixed into the images, at all times: a classifier that
            can guide the sampler of a diffusion along the same path.
        data_std: Standard deviation of the data in [-1, 1], which the karras path
            knows.
        precision: Of the networks' layers; parameters, losses and the statistics of
            norms are float32 all the same.
        remat: Recompute each block in the backward pass: less memory, more time.
        learning_rate: Of Adam, after 100 steps of warm-up.
        batch_size: Images a step.
        steps: Training steps in all.
        ema_decay: Decay of the averaged parameters, which classify.
    """
    from gengen.augment import Chain, Flip, Shift
    from gengen.models.classifier import Classifier
    from gengen.nets.resnet import ResNet

    from .diffusion import paths
    from .shared import adam, dtype

    if not data.num_classes:
        raise BadInput(
            f"{data.name} has no labels, which a classifier needs: take a labelled "
            "data set (a folder: one subfolder a class)"
        )
    key = data.space().key
    changes = (Shift(shift, key),) if shift else ()
    changes += (Flip(key),) if flip else ()
    model = Classifier(
        ResNet(
            data.num_classes,
            channels,
            multipliers,
            blocks,
            dropout,
            dtype=dtype(precision),
            remat=remat,
        ),
        data.space(),
        data.labels(),
        Chain(changes) if changes else None,
        label_smoothing,
        paths(data_std)[path] if path else None,
    )
    optimizers = {"classifier": adam(learning_rate)}
    return Experiment(model, optimizers, batch_size, steps, ema_decay)


def recipe(data: Spec) -> dict:
    """All keywords for a data set, where the defaults (for digits) are not the best."""
    import inspect
    import math

    defaults = inspect.signature(classifier).parameters
    options = {name: p.default for name, p in defaults.items() if name != "data"}
    height, width, _ = data.shape
    halvings = {4: 2, 2: 1, 1: 0}[math.gcd(4, height, width)]
    large = min(height, width) > 8
    if large:
        options |= {"channels": 16, "batch_size": 128, "steps": 3_000}
        options["flip"] = data.name == "fashion_mnist"
    options["multipliers"] = (1, 2, 4)[: 1 + min(halvings, 1 + large)]
    return options
