"""What the experiments of diffusion share: presets of one model, with other values."""

from typing import Annotated

from ..cli.bounds import AtLeast, AtMost, Calls, Default, Positive, Share, Weight
from ..cli.groups import group
from ..cli.names import (
    COUPLINGS,
    GRIDS,
    LIKELIHOODS,
    PREDICTIONS,
    SOLVERS,
    WEIGHTS,
    CouplingName,
    GridName,
    LikelihoodName,
    Prediction,
    SolverName,
    WeightName,
)
from .captions import CaptionOptions


@group()
class DroppedLabelOptions(CaptionOptions):
    """What a model of noisy images is conditioned on."""

    conditional: bool = True
    """Generate a given class or caption, where the data set has them."""
    label_dropout: Share = 0.1
    """Share of labels or captions dropped in training, for guidance."""


@group()
class DiffusionOptions(DroppedLabelOptions):
    """The sampler of a diffusion model, and its guidance."""

    sampling_steps: Annotated[Calls, Default()] = 50
    """Default steps of the sampler."""
    guidance_scale: Annotated[Weight | None, Default()] = None
    """Default classifier-free guidance of the sampler; 1 is none. By default 1.5 where
    the model can be guided."""

    def diffusion(self, preset, data, network: dict | None = None, **changes):
        """The Experiment of a preset with these values; refuses before any compute.

        network: keywords of the network that no option gives.
        """
        condition, scale = self.condition(data), self.guidance_scale
        if data.kind == "reals":  # latents have a density, and no bound of levels
            changes["likelihood"] = LIKELIHOODS["pf-ode"]()
        if scale is None:
            guided = condition.droppable and self.label_dropout > 0
            scale = 1.5 if guided else 1.0
        model = preset(
            self.network(condition, **(network or {})),
            data.space(),
            condition,
            condition_dropout=self.label_dropout,
            steps=self.sampling_steps,
            scale=scale,
            **changes,
        )
        model.refuse()
        return self.experiment(model, "denoiser")


@group()
class SolvedOptions(DiffusionOptions):
    """The equation that the sampler solves, and what its density is."""

    solver: Annotated[SolverName, Default()] = "euler"
    """Default solver of the sampler."""
    likelihood: LikelihoodName = "vlb"
    """Bits per dimension are the variational bound (vlb: of infinitely many steps; or
    vlb-1000), or the density of the probability-flow ODE (pf-ode)."""

    def solved(self) -> dict:
        """The values of `presets.changed`."""
        return {
            "solver": SOLVERS[self.solver](),
            "likelihood": LIKELIHOODS[self.likelihood or "vlb"](),
        }


@group()
class MatchingOptions(SolvedOptions):
    """What a flow matches: path, prediction, loss."""

    shift: Annotated[float, AtLeast(0), AtMost(10**6)] = 1.0
    """Multiplies the noise-to-signal ratio at every time (timestep shift): above 1 for
    large images."""
    prediction: Prediction = "velocity"
    """What the network predicts."""
    weight: WeightName = "plain"
    """Loss weighting: a function of time, or the name of a prediction, in whose space
    the error is then measured."""
    coupling: CouplingName = "independent"
    """Which noise goes with which image of a batch."""
    grid: Annotated[GridName, Default()] = "even"
    """Default grid of the sampler's times."""

    def matched(self, path, data_std: float = 0.5) -> dict:
        """The values of `presets.changed` along a path."""
        from gengen.diffusion.paths import Shifted
        from gengen.diffusion.process import Process

        path = path if self.shift == 1 else Shifted(path, self.shift)
        return {
            **self.solved(),
            "process": Process(path, PREDICTIONS[self.prediction](data_std)),
            "weight": WEIGHTS[self.weight](data_std),
            "coupling": COUPLINGS[self.coupling](),
            "grid": GRIDS[self.grid](),
        }


@group()
class DataStdOptions:
    """What a diffusion model knows of the data."""

    data_std: Positive = 0.75
    """Standard deviation of the data in [-1, 1], which the karras path and the edm
    prediction know: 0.75 of digits, 0.71 of Fashion-MNIST."""
