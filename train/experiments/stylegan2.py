"""StyleGAN2, with adaptive augmentation."""

import dataclasses
from typing import Annotated

from ..cli.bounds import AtLeast, AtMost, Depth, Steps, Weight, Width
from ..cli.groups import group
from .experiment import takes
from .game import GameOptions, SightOptions
from .nets import PrecisionOptions

LARGE = 64  # pixels, from which on the published configuration is the full one
PUBLISHED = {"mixing": (0.0, 0.9), "residual": (False, True), "path_weight": (0.0, 2.0)}


@group(
    learning_rate=2.5e-3,
    b1=0.0,
    b2=0.99,
    warmup=0,
    clip=0.0,
    batch_size=32,
    steps=3_000,
    ema_decay=0.998,
    r1_interval=16,
    critic_augment=("shift", "flip", "cutout", "colour"),
    augment_target=0.6,
    augment_examples=100_000,
)
class StyleGAN2Options(GameOptions, SightOptions, PrecisionOptions):
    """The networks of StyleGAN2, and what is peculiar to its game."""

    conditional: bool = True
    """Generate a given class, where the data set has labels."""
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
    minibatch_std: Width = 4
    """The critic sees the standard deviation of so many examples; 1 for none."""
    residual: bool | None = None
    """Skip connections in the critic; by default from 64 pixels on."""
    mixing: Annotated[float, AtLeast(0), AtMost(1)] | None = None
    """Probability of mixing the styles of two z; by default 0.9 from 64 pixels on, else
    0."""
    path_weight: Weight | None = None
    """Weight of the path-length penalty; by default 2 from 64 pixels on, else 0."""
    path_interval: Steps = 4
    """Steps between two of these penalties, that many times as strong."""

    def sized(self, name: str, data):
        """An option's value, by default that which is published for such images."""
        large = min(data.shape[:2]) >= LARGE
        value = getattr(self, name)
        return PUBLISHED[name][large] if value is None else value

    def corrected(self, model):
        """The experiment, its optimisers corrected for lazy penalties.

        A penalty every k steps is one more step in k. With c = k/(k + 1) times the rate
        and betas to the power of c, as much is learned of each as if every step had it
        (Karras et al. 2020, arXiv:1912.04958, appendix B).
        """
        lazy = {"discriminator": self.r1_interval if model.penalties else 0}
        lazy["generator"] = model.path.interval if model.path else 0
        experiment, optimizers = self.of_two(model), {}
        for player, interval in lazy.items():
            c = interval / (interval + 1) if interval else 1.0
            own = {"learning_rate": self.learning_rate * c}
            if self.generator_rate is not None:
                own["generator_rate"] = self.generator_rate * c
            betas = {"b1": self.b1, "b2": self.b2}
            own |= {k: beta**c for k, beta in betas.items() if beta is not None}
            alone = dataclasses.replace(self, **own).of_two(model)
            optimizers[player] = alone.optimizers[player]
        return dataclasses.replace(experiment, optimizers=optimizers)


@takes(StyleGAN2Options)
def stylegan2(data, o: StyleGAN2Options):
    """StyleGAN2: a GAN whose generator has a space of styles.

    Karras et al. 2020, arXiv:1912.04958; adaptive augmentation: arXiv:2006.06676, whose
    "cifar" configuration is the one below 64 pixels, but for the game: relativistic
    pairs cover more. The defaults are for digits: Fréchet distance 0.042 in the
    features of the default classifier, precision 0.78 and recall 0.57, 344 s on one CPU
    core; the published game, --loss nonsaturating --r1-weight 0.05, reached 0.122, 0.97
    and 0.03 in 259 s. For Fashion-MNIST: --dataset fashion_mnist --channels 64
    --batch-size 64 --augment-examples 500000 --ema-half-life 100000 --steps 50000 (on
    an accelerator).
    """
    from gengen.losses.path_length import PathLength
    from gengen.models.stylegan import StyleGAN
    from gengen.nets.stylegan2 import StyleGAN2Generator
    from gengen.nets.stylegan2_discriminator import StyleGAN2Discriminator

    condition = data.condition(o.conditional)
    shared = {"condition": condition, "dtype": o.dtype}
    shared |= {"downsamples": halvings(data.shape)}
    names = ("channels", "max_channels", "mapping_layers")
    shared |= {name: getattr(o, name) for name in names}
    mixing, residual = o.sized("mixing", data), o.sized("residual", data)
    weight = o.sized("path_weight", data)
    model = StyleGAN(
        StyleGAN2Generator(data.shape, style=o.style, mixing=mixing, **shared),
        StyleGAN2Discriminator(residual=residual, group=o.minibatch_std, **shared),
        data.space(),
        o.latent,
        condition,
        o.game(),
        o.penalties(data),
        o.r1_interval,
        path=PathLength(weight, interval=o.path_interval) if weight else None,
        **o.sight(data),
    )
    return o.corrected(model)


def halvings(shape: tuple[int, ...], least: int = 4) -> int:
    """How often both sides can be halved without being odd or below `least`."""
    sides, times = shape[:2], 0
    while all(side % 2 == 0 and side // 2 >= least for side in sides):
        sides, times = [side // 2 for side in sides], times + 1
    return times
