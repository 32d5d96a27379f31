"""The options of first stages: an autoencoder of maps and a critic of patches."""

import dataclasses
from typing import Annotated, Literal

from ..cli.bounds import AtLeast, AtMost, Depth, Positive, Steps, Weight, Width
from ..cli.groups import group
from .autoencoder import halved
from .training import TrainingOptions
from .vqvae import MapOptions


@group(learning_rate=1e-3, b1=0.5, b2=0.9, batch_size=32, steps=3_000)
class FirstStageOptions(TrainingOptions, MapOptions):
    """The networks of a first stage of latent models."""

    perceptual_weight: Weight = 1.0
    """Weight of the distance in the classifier's maps, with --perceptual."""

    def coders(self, data, features: int, observation) -> dict:
        """The fields `encoder`, `decoder`, `observation` and `space`."""
        from gengen.nets.maps import MapDecoder, MapEncoder
        from gengen.observations.observation import outputs

        halved(data.shape, self.conv_levels)
        out = (*data.shape[:2], outputs(observation, data.shape[2]))
        sizes = (self.channels, self.conv_levels, self.blocks)
        return {
            "encoder": MapEncoder(features, *sizes, dtype=self.dtype),
            "decoder": MapDecoder(out, *sizes, dtype=self.dtype),
            "observation": observation,
            "space": data.space(),
            "perceptual_weight": self.perceptual_weight,
        }


@group()
class CriticOptions:
    """The critic of an autoencoder's reconstructions."""

    adversarial: Weight = 0.5
    """Weight of the game against the critic; 0 for no critic."""
    critic_start: Annotated[float, AtLeast(0), AtMost(1)] = 0.2
    """Share of the steps after which the game counts; before, the critic alone learns
    from it."""
    most_balance: Positive = 1.0
    """The game's gradient in the decoder's last layer is brought to that of the error,
    but its weight is multiplied by this at most."""
    game: Literal["hinge", "nonsaturating", "relativistic"] = "hinge"
    """What either player minimises; relativistic compares each patch with its own
    reconstruction."""
    r1_weight: Weight = 0.05
    """Gamma of the R1 penalty of the critic on images; 0 for none."""
    r1_interval: Steps = 4
    """Steps between two penalties, that many times as strong."""
    critic_channels: Width = 32
    """Channels of the critic's first level, doubled at each level below."""
    critic_levels: Depth = 2
    """Halvings of the image in the critic: the more, the larger are its patches."""

    def critic(self) -> dict:
        """The fields of `gengen.models.first_stage.Adversarial`; {} without a game."""
        from gengen.losses import adversarial
        from gengen.losses.penalty import r1
        from gengen.nets.patch import PatchGAN
        from gengen.objective import Delayed

        if not self.adversarial:
            return {}
        games = {
            "hinge": adversarial.Hinge(),
            "nonsaturating": adversarial.NonSaturating(),
            "relativistic": adversarial.Relativistic(),
        }
        start = int(self.critic_start * self.steps)
        return {
            "discriminator": PatchGAN(
                self.critic_channels, self.critic_levels, self.dtype
            ),
            "game": games[self.game],
            "penalties": (r1(self.r1_weight),) if self.r1_weight else (),
            "penalty_interval": self.r1_interval,
            "weight": Delayed(self.adversarial, start),
            "most": self.most_balance,
        }

    def against(self, model, player: str):
        """The experiment of a model with a critic, if it has one."""
        players = ("discriminator",) if model.discriminator is not None else ()
        experiment = self.experiment(model, *players, player)
        return dataclasses.replace(experiment, order=(*players, player))
