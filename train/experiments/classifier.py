"""Classifier: the discriminative model, and the offline extractor of features."""

from typing import Annotated, Literal

from gengen.errors import BadInput

from ..cli.bounds import AtLeast, AtMost, Depth, NonEmpty, Share, Width
from ..cli.groups import defaults_of, group
from ..cli.names import PATHS, PathName
from ..data.dataset import Spec
from .diffusion import DataStdOptions
from .experiment import takes
from .nets import LayerOptions, Multipliers
from .training import TrainingOptions


@group()
class ImageEncoderOptions(TrainingOptions, LayerOptions, DataStdOptions):
    """A network that makes a vector of an image, and the changes of its images."""

    network: Literal["resnet", "mlp", "conv"] = "resnet"
    """A residual network; or the encoder of the experiments vae and autoencoder, mlp or
    conv, with a linear layer, which can start as that of a run: --init-from."""
    channels: Width = 32
    """Channels of the first level, a multiple of 8 (resnet, conv)."""
    multipliers: Multipliers = (1, 2)
    """Channels of each level over the first's; each level after the first halves the
    image. The last level's are the features (resnet)."""
    blocks: Depth = 1
    """Residual blocks per level (resnet)."""
    latent: Width = 16
    """Dimensions of the code, which are the features (mlp, conv)."""
    hidden: Annotated[tuple[Width, ...], NonEmpty()] = (128,)
    """Widths of the layers (mlp)."""
    conv_levels: Depth = 2
    """Halvings of the image (conv)."""
    dropout: Share = 0.2
    """Dropout of the features, in training."""
    shift: Annotated[int, AtLeast(0), AtMost(2**16)] = 1
    """Augmentation: an image is moved by at most this many pixels."""
    flip: bool = False
    """Augmentation: mirror half of the images."""
    path: PathName | None = None
    """The path along which noise is mixed into the images, at all times: the run can
    then guide the sampler of a diffusion along the same path."""

    def changes(self, data):
        """The changes of images in training; None without any."""
        from gengen.augment import Chain, Flip, Shift

        key = data.space().key
        changes = (Shift(self.shift, key),) if self.shift else ()
        changes += (Flip(key),) if self.flip else ()
        return Chain(changes) if changes else None

    def noise(self):
        """The path of the noise; None of clean images."""
        return PATHS[self.path](self.data_std) if self.path else None


@group(steps=1_000)
class ClassifierOptions(ImageEncoderOptions):
    """What a classifier learns."""

    label_smoothing: Share = 0.1
    """Share of the target spread over all classes."""


@takes(ClassifierOptions)
def classifier(data, o: ClassifierOptions):
    """Classifier p(y|x), whose features judge samples.

    A residual network (He et al. 2016, arXiv:1603.05027). The command `evaluate`
    compares samples with data in its last features. The defaults are for digits: 98.0 %
    of the test images in 28 s on 2 CPU cores. For Fashion-MNIST: --dataset
    fashion_mnist --channels 16 --multipliers 1 2 4 --flip --batch-size 128 --steps
    3000, which reached 91.7 % in 480 s there.
    """
    from gengen.models.classifier import Classifier

    if not data.num_classes:
        raise BadInput(
            f"{data.name} has no labels, which a classifier needs: take a labelled "
            "data set (a folder: one subfolder a class)"
        )
    model = Classifier(
        network_of(data.num_classes, o),
        data.space(),
        data.labels(),
        o.changes(data),
        o.label_smoothing,
        o.noise(),
    )
    return o.experiment(model, "classifier")


def network_of(outputs: int, o: ImageEncoderOptions):
    """x -> (logits or a vector, of so many numbers; features)."""
    from gengen.nets.conv import ConvEncoder
    from gengen.nets.headed import HeadedEncoder
    from gengen.nets.mlp import MLPEncoder
    from gengen.nets.resnet import ResNet

    if o.network == "resnet":
        sizes = (o.channels, o.multipliers, o.blocks, o.dropout)
        return ResNet(outputs, *sizes, dtype=o.dtype, remat=o.remat)
    if o.path or o.remat:
        raise BadInput(
            f"--{'path' if o.path else 'remat'} with --network {o.network}: it is for "
            "a residual network; leave one of them out"
        )
    if o.network == "mlp":
        encoder = MLPEncoder(o.latent, o.hidden, dtype=o.dtype)
    else:
        encoder = ConvEncoder(o.latent, o.channels, o.conv_levels, dtype=o.dtype)
    return HeadedEncoder(encoder, outputs, o.dropout)


def recipe(data: Spec) -> dict:
    """All keywords for a data set, where the defaults (for digits) are not the best."""
    import math

    options = defaults_of(ClassifierOptions)
    height, width, _ = data.shape
    halvings = {4: 2, 2: 1, 1: 0}[math.gcd(4, height, width)]
    large = min(height, width) > 8
    if large:
        options |= {"channels": 16, "batch_size": 128, "steps": 3_000}
        options["flip"] = data.name == "fashion_mnist"
    options["multipliers"] = (1, 2, 4)[: 1 + min(halvings, 1 + large)]
    return options
