"""Diffusion and flow matching: regression onto one row of a 2×2 matrix.

Data x and noise ε are mixed into z = a(t) x + b(t) ε; a network sees (z, t, c) and is
asked for r = c x + d ε. Its optimum is the conditional mean E[r | z], which knows the
score of every noised density, and so an ODE (or SDE) that carries noise to data. Every
method of the literature is a choice of values, see `diffusion.process` and `presets`:

    Process(Linear(), Velocity()), LogitNormal, Euler               flow matching
    Process(DDPMSchedule(), Noise()), Steps, DDPM                   DDPM
    Process(VarianceExploding(), Score()), ErrorIn(Noise()), PredictorCorrector
                                                                    score SDE
    Process(Karras(s), EDM(s)), LogNormal, EDMSampler               EDM

Four views of the same object, each of which is a method:

    a deep latent-variable model   `log_likelihood`, a bound on log p(x) term by term
    a score, a field to walk along `predictor` and `process.score`
    an SDE and its ODE             `sample` by any solver, `to_latent` and back
    regression                     `loss`

The condition is null in a share of the rows in training, so that one network is both
conditional and unconditional: classifier-free guidance.
"""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import Condition, Nothing, check_batch, drop
from gengen.diffusion.likelihood import LikelihoodEstimator, VariationalBound
from gengen.diffusion.predictors import dry_run, means
from gengen.diffusion.process import Process, corrupt
from gengen.diffusion.sampler import Sampler
from gengen.diffusion.sampling import Samples
from gengen.diffusion.training import Training
from gengen.errors import BadInput
from gengen.nets.conditioning import agree, init_params
from gengen.objective import loss
from gengen.scan import sample_keys
from gengen.spaces import Space, Symbols
from gengen.types import Array, HasFeatures, static


@static
class Diffusion(Samples, HasFeatures):
    """A network (z, t, c) -> r̂, and what is asked of it.

    It samples, inverts and completes as `diffusion.sampling.Samples` says.
    """

    net: nn.Module
    """(z, t, c) -> r̂; with a learned variance, of twice the channels of z."""
    process: Process
    """The path and what is predicted along it."""
    space: Space
    """The type of x."""
    condition: Condition = Nothing()
    """What the network knows beside z and t."""
    training: Training = Training()
    """What the loss draws and weighs."""
    sampler: Sampler = Sampler()
    """How noise is carried to data, by default."""
    likelihood: LikelihoodEstimator = VariationalBound()
    """What `log_likelihood` estimates."""
    density: ClassVar[str] = "bound"

    def __post_init__(self):
        agree(self.net, self.condition)
        if isinstance(self.space, Symbols):
            raise BadInput(
                f"{self.space} has symbols without order, between which nothing can be "
                "mixed: take an autoregressive model, or Reals of their embedding"
            )

    @property
    def likelihood_kind(self) -> str:
        """What `log_likelihood` is: "VLB", "PF-ODE, uniform dequantisation", …"""
        return self.likelihood.kind

    def init(self, key, batch=None):
        """Parameters and state; a batch is checked and not needed."""
        check_batch(self.space, self.condition, batch)
        x, c = self.space.zeros(1), self.condition.zeros(1)
        params = init_params(self.net, key, x, jnp.zeros(1), c)
        return {"denoiser": params}, self.training.init()

    def losses(self):
        return {"denoiser": self.loss}

    def predictor(self, params, **kwargs) -> Callable:
        """`predict(z, t, c) -> r̂` with the parameters bound; t [] or [B].

        The network sees its own entries of c, and no other's. The r̂ of a network that
        learns variances has twice the channels of z.
        """
        weights = {"params": params["denoiser"]}

        def predict(z, t, c):
            t = jnp.broadcast_to(t, z.shape[:1])
            own = {name: c[name] for name in self.condition.names if name in c}
            return self.net.apply(weights, z, t, own, **kwargs)

        return predict

    @loss
    def loss(self, params, state, batch, key):
        """Mean of `matching_loss` over fresh noise, times and dropped conditions."""
        key_noise, key_time, key_c, key_dropout, key_pair = jax.random.split(key, 5)
        x, c = self.space.read(batch), self.condition.read(batch)
        noise = jax.random.normal(key_noise, x.shape)
        noise = self.training.coupling(key_pair, x, noise, c)
        c = drop(self.condition, key_c, self.training.condition_dropout, c)
        network = self.predictor(params, train=True, rngs={"dropout": key_dropout})

        def predict(z, t):
            return network(z, t, c)

        def loss(t):
            return self.training.each(predict, self.process, x, noise, t)

        ask = loss, self.process, key_time, len(x), state
        value, state = self.training.mean(*ask)
        return value, (state, {})

    # ------------------------------------------------------------ checks

    def refuse(self) -> None:
        """BadInput if training, sampling or likelihood cannot be: nothing is computed.

        A process that is singular, a solver or a bound that wants derivatives of a
        table or variances that are not learned, guidance without a null condition.
        """
        self.training.span(self.process)
        self.nfe()
        variances = bool(self.training.vlb_weight)
        own = self.process, self.space, self.sampler, self.likelihood
        dry_run(*own, variances)

    # ------------------------------------------------------------ likelihood, features

    def log_likelihood(self, params, state, batch, key) -> Array:
        """[B] nats of the data, given its condition: what `likelihood` says."""
        data, c = self.space.data(batch), self.condition.read(batch)
        keys, predict = sample_keys(key, len(data)), means(self.predictor(params))
        return self.likelihood(keys, predict, self.process, data, self.space, c)

    def features(self, params, state, batch, key, t: float = 0.1) -> Array:
        """The network's middle activations [B, F] at time t, without a condition.

        Needs a net that sows "features". Baranchuk et al. 2022, arXiv:2112.03126;
        Xiang et al. 2023, arXiv:2303.09769.
        """
        x = self.space.read(batch)
        noise, t = jax.random.normal(key, x.shape), jnp.full(x.shape[0], t)
        z, _ = corrupt(self.process, x, noise, t)
        weights = {"params": params["denoiser"]}
        _, sown = self.net.apply(weights, z, t, mutable="intermediates")
        return sown["intermediates"]["features"][0].reshape(x.shape[0], -1)
