"""StyleGAN2, with adaptive augmentation."""

import dataclasses
from typing import Annotated

from ..cli.bounds import AtLeast, AtMost, Depth, Steps, Weight, Width
from ..cli.groups import group
from .experiment import takes
from .nets import PrecisionOptions
from .training import TrainingOptions

LARGE = 64  # pixels, from which on the published configuration is the full one


@group(
    learning_rate=2.5e-3,
    b1=0.0,
    b2=0.99,
    warmup=0,
    clip=0.0,
    batch_size=32,
    steps=3_000,
    ema_decay=0.998,
)
class StyleGAN2Options(TrainingOptions, PrecisionOptions):
    """The networks of StyleGAN2, and what is peculiar to its game."""

    conditional: bool = True
    """Generate a given class, where the data set has labels."""
    r1_weight: Weight = 0.1
    """Gamma of R1."""
    r1_interval: Steps = 16
    """Steps between two penalties, that many times as strong."""
    adaptive: bool = True
    """ADA."""
    latent: Width = 64
    """Dimensions of z."""
    style: Width = 64
    """Dimensions of w."""
    mapping_layers: Depth = 2
    """Layers of the mapping from z to w."""
    channels: Width = 32
    """Channels next to the image, doubled at each level below."""
    max_channels: Width = 128
    """The most channels of a level."""
    group: Width = 4
    """Examples whose standard deviation the critic sees; 1 for none."""
    residual: bool | None = None
    """Skip connections in the critic; by default from 64 pixels on."""
    mixing: Annotated[float, AtLeast(0), AtMost(1)] | None = None
    """Probability of mixing the styles of two z; by default 0.9 from 64 pixels on, else
    0."""
    path_weight: Weight | None = None
    """Weight of the path-length penalty; by default 2 from 64 pixels on, else 0."""
    path_interval: Steps = 4
    """Steps between two of these penalties, that many times as strong."""

    def large(self, value, small, large, data):
        """An option's value, or its default by the size of the images."""
        if value is not None:
            return value
        return large if min(data.shape[:2]) >= LARGE else small


@takes(StyleGAN2Options)
def stylegan2(data, o: StyleGAN2Options):
    """StyleGAN2: a GAN whose generator has a space of styles."""
    from gengen.augment import Colour, Cutout, Flip, Gated, Shift
    from gengen.losses.adversarial import NonSaturating
    from gengen.losses.path_length import PathLength
    from gengen.losses.penalty import r1
    from gengen.models.gan import Adaptive
    from gengen.models.stylegan import StyleGAN
    from gengen.nets.stylegan2 import StyleGAN2Generator
    from gengen.nets.stylegan2_discriminator import StyleGAN2Discriminator

    condition, levels = data.condition(o.conditional), halvings(data.shape)
    shared = {"condition": condition, "dtype": o.dtype, "downsamples": levels}
    shared |= {"channels": o.channels, "max_channels": o.max_channels}
    shared |= {"mapping_layers": o.mapping_layers}
    mixing = o.large(o.mixing, 0.0, 0.9, data)
    residual = o.large(o.residual, False, True, data)
    weight = o.large(o.path_weight, 0.0, 2.0, data)
    path = PathLength(weight, interval=o.path_interval) if weight else None
    change = Gated((Flip(), Shift(max(1, min(data.shape[:2]) // 8), fill=-1), Cutout(), Colour()))
    model = StyleGAN(
        StyleGAN2Generator(data.shape, style=o.style, mixing=mixing, **shared),
        StyleGAN2Discriminator(residual=residual, group=o.group, **shared),
        data.space(),
        o.latent,
        condition,
        NonSaturating(),
        (r1(o.r1_weight),),
        o.r1_interval,
        change if o.adaptive else None,
        Adaptive(examples=100_000) if o.adaptive else 1.0,
        path=path,
    )
    experiment = o.experiment(model, "discriminator", "generator")
    intervals = {"discriminator": o.r1_interval}
    intervals |= {"generator": path.interval if path else 0}
    optimizers = {player: lazy(o, k) for player, k in intervals.items()}
    return dataclasses.replace(experiment, optimizers=optimizers)


def lazy(o: TrainingOptions, interval: int):
    """Adam of c = k/(k + 1) times the rate, betas to the power of c.

    A penalty every k steps is one more step in k; so the optimiser makes as much of
    each as if every step had it (Karras et al. 2020, arXiv:1912.04958, appendix B).
    """
    c = interval / (interval + 1) if interval else 1.0
    own = dataclasses.replace(
        o, learning_rate=o.learning_rate * c, b1=o.b1**c, b2=o.b2**c
    )
    return own.transformation(own.rate())


def halvings(shape: tuple[int, ...], least: int = 4) -> int:
    """How often both sides can be halved without being odd or below `least`."""
    sides, times = shape[:2], 0
    while all(side % 2 == 0 and side // 2 >= least for side in sides):
        sides, times = [side // 2 for side in sides], times + 1
    return times
