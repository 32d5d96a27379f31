"""The options of models with latents: priors, posteriors, objectives, observations."""

from typing import Annotated, Literal

from gengen.errors import BadInput

from ..cli.bounds import AtLeast, AtMost, Count, Depth, NonEmpty, Steps, Weight, Width
from ..cli.groups import group


@group()
class ObservationOptions:
    """What p(x|z) is."""

    likelihood: Literal[
        "bernoulli", "gaussian", "logistic", "mixture", "categorical"
    ] = "logistic"
    """p(x|z) of the pixel levels: binomial (Bernoulli of two levels), Gaussian with one
    learned scale, discretised logistic, a mixture of logistics per pixel, or a free
    probability for each level."""
    components: Count = 5
    """Logistics per pixel (mixture)."""

    def observation(self, data):
        """The observation of the data's levels."""
        from gengen.observations.binomial import Binomial
        from gengen.observations.categorical import Categorical
        from gengen.observations.discretized_logistic import DiscretizedLogistic
        from gengen.observations.gaussian import Gaussian
        from gengen.observations.logistic_mixture import LogisticMixture

        channels = data.shape[-1]
        return {
            "bernoulli": Binomial(data.levels),
            "gaussian": Gaussian(),
            "logistic": DiscretizedLogistic(data.levels),
            "mixture": LogisticMixture(data.levels, channels, self.components),
            "categorical": Categorical(data.levels),
        }[self.likelihood]


@group()
class PixelOptions(ObservationOptions):
    """What pixels know of one another, given z."""

    decoder: Literal["independent", "pixelcnn"] = "independent"
    """Pixels are independent given z, or a gated PixelCNN draws them one after the
    other, given z at every place. It can do without z: what keeps z in use is how
    little it sees, --free-nats, and --annealing-steps."""
    pixelcnn_width: Width = 32
    """Features of the PixelCNN, a multiple of the image's channels; as many does the
    decoder make of z at every place."""
    pixelcnn_blocks: Depth = 1
    """Layers of the PixelCNN; with each it sees one pixel further."""
    pixelcnn_window: Annotated[int, AtLeast(3), AtMost(99)] = 3
    """Side of the window of its first layer, odd."""

    def observation(self, data):
        """The pixels' own, or a PixelCNN with it as its head."""
        pixel = super().observation(data)
        if self.decoder == "independent":
            return pixel
        from gengen.conditions import Maps
        from gengen.nets.gated_pixelcnn import GatedPixelCNN
        from gengen.observations.autoregressive import AutoregressivePixels

        if pixel.continuous or pixel.symbol:
            raise BadInput(
                f"--decoder pixelcnn with --likelihood {self.likelihood}: it draws the "
                "levels of pixels one by one, so take categorical, logistic or "
                "bernoulli"
            )
        if self.pixelcnn_window % 2 == 0:
            raise BadInput(
                f"--pixelcnn-window {self.pixelcnn_window}: a window has a middle, so "
                "take an odd number"
            )
        net = GatedPixelCNN(
            pixel.features,
            data.shape,
            data.levels,
            self.pixelcnn_width,
            self.pixelcnn_blocks,
            Maps((*data.shape[:2], self.pixelcnn_width), "features"),
            window=self.pixelcnn_window,
            dtype=self.dtype,
        )
        return AutoregressivePixels(net, pixel)


@group()
class ConditionalOptions:
    """What a density may depend on."""

    conditional: bool = False
    """Model p(x|y) of a given class, where the data set has labels: what the command
    `bayes` turns into a classifier that can reject."""


@group()
class PriorOptions:
    """The prior p(z), and what bends the Gaussian posterior."""

    prior: Literal["unit", "mixture", "vamp", "flow"] = "unit"
    """p(z): a standard Gaussian, a mixture of Gaussians, the mixture of the posteriors
    of learned inputs (VampPrior), or a Gaussian behind affine couplings (RealNVP)."""
    prior_components: Count = 100
    """Components of the prior (mixture, vamp)."""
    prior_layers: Depth = 8
    """Coupling layers of the prior (flow)."""
    posterior: Literal["gaussian", "autoregressive", "couplings"] = "gaussian"
    """q(z|x): a Gaussian, or one that an inverse autoregressive flow, or affine
    couplings, have bent."""
    posterior_layers: Depth = 2
    """Layers of the posterior's flow."""
    flow_hidden: Annotated[tuple[Width, ...], NonEmpty()] = (64,)
    """Widths of the networks in both flows."""

    def distributions(self) -> dict:
        """The fields `prior` and `flow` of a VAE."""
        from gengen.latent.priors import FlowPrior, GaussianMixture, UnitGaussian, Vamp
        from gengen.nets.flows import AffineCouplings, AutoregressiveFlow

        prior = {
            "unit": UnitGaussian(),
            "mixture": GaussianMixture(self.prior_components),
            "vamp": Vamp(self.prior_components),
            "flow": FlowPrior(AffineCouplings(self.prior_layers, self.flow_hidden)),
        }[self.prior]
        kinds = {"autoregressive": AutoregressiveFlow, "couplings": AffineCouplings}
        if self.posterior == "gaussian":
            return {"prior": prior}
        flow = kinds[self.posterior](self.posterior_layers, self.flow_hidden)
        return {"prior": prior, "flow": flow}


@group()
class BoundOptions:
    """The weights of the bound that training maximises."""

    beta: Weight = 1.0
    """Weight of the KL term; 1 is the ELBO."""
    annealing_steps: Steps | None = None
    """Steps over which the weight of the KL term rises from 0."""
    free_nats: Weight = 0.0
    """KL in nats per example, in a hierarchy per group, up to which it is free."""
    importance_samples: Count = 1
    """K of the bound that evaluation reports (IWAE); 1 is the ELBO."""

    def weight(self):
        """Beta, or its rise."""
        from gengen.objective import Ramp

        if self.annealing_steps:
            return Ramp(0.0, self.beta, self.annealing_steps)
        return self.beta


@group()
class ObjectiveOptions(BoundOptions):
    """The bound that training maximises."""

    total_correlation: Weight = 0.0
    """Additional weight of the total correlation of the latents."""
    train_samples: Annotated[int, AtLeast(1), AtMost(10**4)] = 1
    """K of the bound that training maximises; above 1 it is IWAE's, without the other
    weights, and with the doubly reparameterised gradient."""

    def objective(self):
        """ELBO with its weights, or IWAE."""
        from gengen.latent.objectives import ELBO, IWAE

        if self.train_samples == 1:
            return ELBO(self.weight(), self.free_nats, self.total_correlation)
        names = ("free_nats", "total_correlation", "annealing_steps")
        given = [name for name in names if getattr(self, name)]
        if given or self.beta != 1.0:
            name = (given or ["beta"])[0].replace("_", "-")
            raise BadInput(
                f"--train-samples {self.train_samples} with --{name}: IWAE's bound has "
                "no such weight; leave one out"
            )
        return IWAE(self.train_samples)
