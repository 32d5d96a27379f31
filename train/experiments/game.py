"""The options of a game of two players: losses, regularisers, turns, what is seen."""

import dataclasses
from typing import Annotated, Literal

from gengen.errors import BadInput

from ..cli.bounds import Above, AtLeast, AtMost, Count, Positive, Share, Steps, Weight
from ..cli.groups import group
from .training import TrainingOptions

Game = Literal[
    "relativistic",
    "nonsaturating",
    "minimax",
    "least-squares",
    "hinge",
    "wasserstein",
]
Regulariser = Literal[
    "off", "r1", "r2", "gradient-penalty", "consistency", "clipping", "spectral"
]
Change = Literal["flip", "shift", "cutout", "colour"]
Turns = Annotated[int, AtLeast(1), AtMost(1_000)]
Rate = Annotated[float, Above(0), AtMost(1e38)]
PUBLISHED = {  # the regularisers that each loss is published with
    "relativistic": ("r1", "r2"),
    "nonsaturating": ("r1",),
    "minimax": ("r1",),
    "least-squares": ("off",),
    "hinge": ("spectral",),
    "wasserstein": ("gradient-penalty",),
}
PER_EXAMPLE = {"r1", "r2", "gradient-penalty", "consistency", "spectral"}


@group(learning_rate=2e-4, warmup=0, clip=0.0, b1=0.5, steps=3_000)
class GameOptions(TrainingOptions):
    """The game of a GAN: what either player minimises, and how they take turns."""

    loss: Game = "relativistic"
    """The game: relativistic pairs (R3GAN); -log D(G(z)) for the generator, or
    log(1 - D(G(z))); least squares; hinge; or the Wasserstein distance."""
    regulariser: tuple[Regulariser, ...] = ()
    """What keeps the critic smooth, for which it goes without BatchNorm; by default r1
    r2 of relativistic, gradient-penalty of wasserstein, spectral of hinge, off of
    least-squares, r1 of others. `off` and `clipping` leave it its BatchNorm."""
    r1_weight: Weight = 1.0
    """Gamma of the R1 and R2 penalties on real and fake examples; 0 for neither."""
    r1_interval: Steps = 4
    """Steps between two penalties, that many times as strong."""
    gradient_penalty: Weight = 10.0
    """Weight of (|gradient| - 1)² between real and fake examples."""
    consistency: Weight = 10.0
    """Weight of the critic's squared change under flips and shifts of images."""
    weight_bound: Positive = 0.01
    """The critic's weights are clipped to plus or minus this (clipping)."""
    label_smoothing: Share = 0.0
    """The share of each real example that counts as fake."""
    generator_rate: Rate | None = None
    """Learning rate of the generator; by default that of the critic."""
    critic_turns: Turns = 1
    """Turns of the critic before each of the generator."""

    @property
    def regularisers(self) -> tuple[str, ...]:
        """The regularisers' names, without those of weight 0; BadInput for nonsense."""
        names = self.regulariser or PUBLISHED[self.loss]
        if len(set(names)) < len(names) or ("off" in names and len(names) > 1):
            raise BadInput(
                f"--regulariser {' '.join(names)}: name each once, and off alone"
            )
        weights = {"off": 0, "r1": self.r1_weight, "r2": self.r1_weight}
        weights |= {"gradient-penalty": self.gradient_penalty}
        weights |= {"consistency": self.consistency}
        return tuple(name for name in names if weights.get(name, 1))

    @property
    def batch_norm(self) -> bool:
        """Whether the critic may mix examples."""
        return not PER_EXAMPLE & {*self.regularisers}

    def game(self):
        """What either player minimises."""
        from gengen.losses import adversarial

        game = {
            "relativistic": adversarial.Relativistic,
            "nonsaturating": adversarial.NonSaturating,
            "minimax": adversarial.Minimax,
            "least-squares": adversarial.LeastSquares,
            "hinge": adversarial.Hinge,
            "wasserstein": adversarial.Wasserstein,
        }[self.loss]()
        if not self.label_smoothing:
            return game
        if self.loss == "relativistic":
            raise BadInput(
                f"--label-smoothing {self.label_smoothing:g} with --loss relativistic: "
                "it has no label of one example; leave it out, or take another loss"
            )
        return adversarial.Smoothed(game, self.label_smoothing)

    def penalties(self, data) -> tuple:
        """The regularisers that are terms of the critic's loss."""
        from gengen.losses.penalty import Consistency, GradientPenalty, wgan_gp

        names, penalties = self.regularisers, ()
        zero_centred = {"r1": "real", "r2": "fake"}
        if at := tuple(zero_centred[name] for name in names if name in zero_centred):
            penalties += (GradientPenalty(self.r1_weight / 2, at),)
        if "gradient-penalty" in names:
            penalties += (wgan_gp(self.gradient_penalty),)
        if "consistency" in names:
            data.images_only("--regulariser consistency")
            change = changes(("shift", "flip"), data)
            penalties += (Consistency(change, self.consistency),)
        return penalties

    def of_two(self, model):
        """The experiment: the critic's turns, then one of the generator's."""
        import optax

        from gengen.gradients import clip_weights

        critic, generator = "discriminator", "generator"
        experiment = self.experiment(model, critic, generator)
        optimizers = dict(experiment.optimizers)
        if self.generator_rate is not None:
            own = dataclasses.replace(self, learning_rate=self.generator_rate)
            optimizers[generator] = own.transformation(own.rate())
        if "clipping" in self.regularisers:
            clip = clip_weights(self.weight_bound)
            optimizers[critic] = optax.chain(optimizers[critic], clip)
        order = (critic,) * self.critic_turns + (generator,)
        return dataclasses.replace(experiment, optimizers=optimizers, order=order)


@group()
class SightOptions:
    """What the critic sees, of real and fake examples alike."""

    critic_augment: tuple[Change, ...] = ()
    """Changes of all images that the critic sees, differentiable, one after another."""
    augment_probability: Annotated[float, AtLeast(0), AtMost(1)] = 1.0
    """The probability of each of those changes."""
    augment_target: Share | None = None
    """In the place of a fixed probability one that adapts (ADA): it rises while the
    critic is right on real examples more clearly than this, 0.6 in the paper."""
    augment_examples: Count = 500_000
    """Examples in which an adaptive probability can rise from 0 to 1."""
    instance_noise: Weight = 0.0
    """Standard deviation of the noise on all that the critic sees, at first."""
    noise_steps: Steps = 1_000
    """Steps in which that noise falls to 0."""
    packing: Annotated[int, AtLeast(1), AtMost(64)] = 1
    """Examples that the critic judges at once (PacGAN), of an unconditional model."""

    def sight(self, data) -> dict:
        """The fields `augment`, `probability` and `packing` of a GAN."""
        from gengen.augment import InstanceNoise
        from gengen.models.gan import Adaptive
        from gengen.objective import Ramp

        if self.augment_target is not None and not self.critic_augment:
            raise BadInput(
                f"--augment-target {self.augment_target:g} without augmentations to "
                "adapt: name some with --critic-augment, such as flip shift colour"
            )
        if self.batch_size % self.packing:
            raise BadInput(
                f"--packing {self.packing} does not divide --batch-size "
                f"{self.batch_size}: take a multiple of it"
            )
        found = {"packing": self.packing}
        if self.critic_augment:
            if self.instance_noise:
                raise BadInput(
                    f"--instance-noise {self.instance_noise:g} with --critic-augment "
                    f"{' '.join(self.critic_augment)}: take one of the two"
                )
            data.images_only(f"--critic-augment {' '.join(self.critic_augment)}")
            adaptive = self.augment_target is not None
            ada = Adaptive(self.augment_target, self.augment_examples)
            found["augment"] = changes(self.critic_augment, data)
            found["probability"] = ada if adaptive else self.augment_probability
        elif self.instance_noise:
            found["augment"] = InstanceNoise(self.instance_noise)
            found["probability"] = Ramp(1.0, 0.0, self.noise_steps)
        return found


def changes(names: tuple[str, ...], data):
    """The differentiable changes of images of these names, in their order."""
    from gengen.augment import Colour, Cutout, Flip, Gated, Shift

    pixels = max(1, min(data.shape[:2]) // 8)
    made = {"flip": Flip(), "shift": Shift(pixels, fill=-1)}
    made |= {"cutout": Cutout(), "colour": Colour()}
    return Gated(tuple(made[name] for name in names))
