"""Variational autoencoders: maximise a lower bound on log p(x).

A latent-variable model p(x) = ∫ p(x|z) p(z) dz, z ~ N(0, 1), whose integral nobody can
take. An encoder q(z|x) = N(μ(x), σ²(x)) proposes latents; Jensen's inequality gives

    log p(x) >= E_q[log p(x|z)] - KL(q(z|x) ‖ p(z))                            (ELBO)

with equality at the true posterior q(z|x) = p(z|x). The gradient passes through the
sample by z = μ + σ ⊙ ε, ε ~ N(0, 1). The two terms fight: the first wants codes that
determine x, the second one cloud for all; beta weighs the second.

With K proposals the average importance weight, w = p(x|z) p(z)/q(z|x), tightens the
bound, and in the limit closes it:

    log p(x) >= E log (1/K) Σ_k w_k >= ELBO                                  (IWAE-K)

p(x|z) is a distribution of *levels* 0 … L-1, so that the bound is in nats of the
discrete data and can be compared with any other model's bits per dimension.

Each part is a value that can be exchanged: `prior` is what p(z) is, `flow` bends the
posterior, `observation` is what p(x|z) is, and `objective` is what training maximises.

Kingma and Welling 2014, arXiv:1312.6114; Burda, Grosse and Salakhutdinov 2016,
arXiv:1509.00519; beta: Higgins et al. 2017; annealing: Bowman et al. 2016,
arXiv:1511.06349, section 3.1.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import Condition, Given, Nothing, check_batch
from gengen.errors import BadInput
from gengen.latent.bounds import iwae_bound, log_weight, plain
from gengen.latent.completion import CompletesByLatent
from gengen.latent.objectives import ELBO, Objective
from gengen.latent.observing import Observing
from gengen.latent.priors import Prior, UnitGaussian, Vamp, unit_log_prob
from gengen.losses.likelihood import per_example
from gengen.nets.conditioning import agree, init_params
from gengen.objective import loss
from gengen.observations.observation import Observation, check_levels, decoded
from gengen.scan import fold_in, sample_keys
from gengen.spaces import Space, Symbols
from gengen.types import (
    Array,
    Encodes,
    HasFeatures,
    HasLatents,
    Inverts,
    Key,
    Reconstructs,
    check_hashable,
    static,
)


@static
class VAE(
    Observing,
    HasLatents,
    Inverts,
    HasFeatures,
    Reconstructs,
    Encodes,
    CompletesByLatent,
):
    """An encoder x -> (mean, logvar), a decoder z -> features, and what p(x|z) is.

    With a condition both networks see it, and everything is of p(x | c) (Sohn, Lee and
    Yan 2015, section 4).
    """

    encoder: nn.Module
    """x and c -> (mean, logvar) of q(z|x), each [B, *latent]."""
    decoder: nn.Module
    """z and c -> features [B, H, W, outputs(observation, C)]."""
    observation: Observation
    """p(x|z) of the data, given the features."""
    space: Space
    """The type of x."""
    latent: int | tuple[int, ...]
    """The length of a vector z, or the shape of a map."""
    condition: Condition = Nothing()
    """What both networks know beside x and z."""
    objective: Objective = ELBO()
    """What training maximises: the ELBO with its weights, or IWAE's bound."""
    importance_samples: int = 1
    """The K of `log_likelihood`; 1 is the ELBO."""
    prior: Prior = UnitGaussian()
    """p(z), from which samples are drawn."""
    flow: Any = None
    """A network of gengen.nets.flows that bends the Gaussian posterior, knowing its
    mean and log-variance; None leaves it as it is."""

    def __post_init__(self):
        check_hashable(self)
        for net in (self.encoder, self.decoder):
            agree(net, self.condition)
        if isinstance(self.space, Symbols):
            raise BadInput(
                f"{self.space} has symbols without order, which have no mean: take an "
                "autoregressive model, or a VAE of Images or Reals"
            )
        check_levels(self.observation, self.space)
        self.check_importance_samples()
        if getattr(self.objective, "total_correlation", 0.0) and (
            self.flow is not None or len(self.latent_shape) != 1
        ):
            raise BadInput(
                "the total correlation is that of Gaussian posteriors of vectors: leave"
                " it out, or take a vector z and no flow"
            )
        if isinstance(self.prior, Vamp) and (self.condition.names or self.flow):
            raise BadInput(
                "a Vamp prior mixes the encoder's Gaussians: leave out the condition "
                "and the flow, or take another prior"
            )

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one z."""
        return self.latent if isinstance(self.latent, tuple) else (self.latent,)

    def init(self, key, batch=None):
        """Parameters; a batch is checked and not needed."""
        check_batch(self.space, self.condition, batch)
        key_encoder, key_decoder = jax.random.split(key)
        c, z = self.condition.zeros(1), jnp.zeros((1, *self.latent_shape))
        own = {
            "encoder": init_params(self.encoder, key_encoder, self.space.zeros(1), c),
            "decoder": init_params(self.decoder, key_decoder, z, c),
            "likelihood": self.observation.init(jax.random.fold_in(key, 3)),
        }
        if prior := self.prior.init(jax.random.fold_in(key, 1), z, self.space.zeros(1)):
            own["prior"] = prior
        if self.flow is not None:
            h = jnp.zeros((1, 2 * z.size))
            own["flow"] = self.flow.init(jax.random.fold_in(key, 2), z, h)["params"]
        params = {"vae": own}
        mean, _ = jax.eval_shape(self.encode, params, self.space.zeros(1), c)
        if mean.shape[1:] != self.latent_shape:
            raise BadInput(
                f"the encoder's latent has shape {list(mean.shape[1:])} and the "
                f"model's {list(self.latent_shape)}: make them the same"
            )
        jax.eval_shape(self.decode, params, z, c)  # the decoder's output fits the data
        return params, {}

    def losses(self):
        return {"vae": self.loss}

    def encode(
        self, params, x: Array, c: Given, train: bool = False
    ) -> tuple[Array, Array]:
        """x [B, *shape] -> (mean, logvar) of q(z|x), each [B, *latent]."""
        weights = {"params": params["vae"]["encoder"]}
        return self.encoder.apply(weights, x, c, train=train)

    def decode(self, params, z: Array, c: Given, train: bool = False) -> Array:
        """z [B, *latent] -> features [B, ..., F] of the data's symbols."""
        weights = {"params": params["vae"]["decoder"]}
        output = self.decoder.apply(weights, z, c, train=train)
        return decoded(self.observation, output, self.space.shape)

    def posterior(self, params, batch, train: bool = False) -> tuple[Array, Array]:
        """(mean, logvar) of q(z|x) of a batch, each [B, *latent]."""
        x, c = self.space.read(batch), self.condition.read(batch)
        return self.encode(params, x, c, train)

    def log_prior(self, params, z: Array) -> Array:
        """log p(z) [B] of z [B, *latent], nats."""
        prior = params["vae"].get("prior", {})
        return self.prior.log_prob(prior, z, self._encoder(params))

    def latents(self, params, mean: Array, logvar: Array):
        """The function z₀ -> (z, surplus) of the prior and the flow, see `elbo`."""
        own = params["vae"]
        if self.flow is None and self.prior == UnitGaussian():
            return plain

        def latent(first):
            z, log_det = first, 0.0
            if self.flow is not None:
                h = jnp.concatenate([mean, logvar], axis=-1).reshape(len(mean), -1)
                z, log_det = self.flow.apply({"params": own["flow"]}, first, h)
            return z, self.log_prior(params, z) + log_det - unit_log_prob(first)

        return latent

    def _encoder(self, params):
        """x [K, *shape] -> (mean, logvar): what a Vamp prior asks."""
        return lambda x: self.encode(params, x, {})

    @loss
    def loss(self, params, state, batch, key):
        """The objective's, mean over the batch, in nats of the discrete data."""
        key_noise, key_observe = jax.random.split(key)

        def problem(params, mean, logvar):
            log_prob = self.log_prob_given(params, batch, key_observe, train=True)
            return log_prob, self.latents(params, mean, logvar)

        gaussian = self.posterior(params, batch, train=True)
        value, metrics = self.objective(params, state, key_noise, gaussian, problem)
        return value, (state, metrics)

    def log_prob_given(
        self, params, batch, key: Key, train: bool = False
    ) -> Callable[[Array], Array]:
        """The function z [B, *latent] -> log p(x|z) [B], nats of the batch's data."""
        data, c = self.observed_data(batch, key), self.condition.read(batch)

        def log_prob(z):
            each = self.log_probs_given(params, z, data, c, train)
            return per_example(each) + self.observed_volume

        return log_prob

    def log_probs_given(self, params, z, data, c, train: bool = False) -> Array:
        """log p of every number of the data given z: [B, *shape] nats."""
        features = self.decode(params, z, c, train)
        return self.observation.log_prob(params["vae"]["likelihood"], features, data)

    def log_likelihood(self, params, state, batch, key):
        """IWAE-K with K = importance_samples (1: the ELBO), [B] nats of the data."""
        key_noise, key_observe = jax.random.split(key)
        mean, logvar = self.posterior(params, batch)
        log_prob = self.log_prob_given(params, batch, key_observe)
        latent = self.latents(params, mean, logvar)

        def one(key):
            noise = jax.random.normal(key, mean.shape)
            return log_weight(log_prob, mean, logvar, noise, latent)

        keys = jax.random.split(key_noise, self.importance_samples)
        return iwae_bound(jax.lax.map(one, keys))

    def from_latent(self, params, state, z: Array, **given) -> Array:
        """E[x|z] of z [B, *latent]: x [B, *shape]. given: c by name."""
        c = self.condition.given(given, len(z))
        return self._mean(params, z, c)

    def _mean(self, params, z, c):
        own = params["vae"]["likelihood"]
        return self.shown(self.observation.mean(own, self.decode(params, z, c)))

    def to_latent(self, params, state, x: Array, **given) -> Array:
        """The code of x [B, *shape], z [B, *latent]. given: c by name."""
        c = self.condition.given(given, len(x))
        return self.code(params, *self.encode(params, x, c))

    def code(self, params, mean: Array, logvar: Array) -> Array:
        """The posterior's mean μ, taken through the flow if there is one."""
        return self.latents(params, mean, logvar)(mean)[0]

    def sample_latent(self, params, state, keys) -> Array:
        """z [B, *latent] of the prior, from keys [B]."""
        prior = params["vae"].get("prior", {})
        return self.prior.sample(prior, keys, self.latent_shape, self._encoder(params))

    def sample(
        self, params, state, key, num, *, start_index=0, sample_pixels=False, **given
    ):
        """E[x|z] of z ~ p(z), x [num, *shape]; a draw of p(x|z) by `sample_pixels`.

        Pixels that are drawn one after the other have no such mean, and are drawn.

        given: c by name, for all or per row; what is missing is drawn.
        """
        keys = sample_keys(key, num, start_index)
        c = self.condition.given(given, num, keys)
        z = self.sample_latent(params, state, keys)
        if not (sample_pixels or self.observation.sequential):
            return self.from_latent(params, state, z, **c)
        return self.draw_given(params, fold_in(keys, 1), z, c)

    def draw_given(self, params, keys, z, c, given=None, observed=None) -> Array:
        """A draw of p(x|z), x [B, *shape], of which some data may be given."""
        own, features = params["vae"]["likelihood"], self.decode(params, z, c)
        data, _ = self.observation.sample(own, keys, features, given, observed)
        return self.as_shown(data)

    def nfe(self) -> int:
        """Network calls per sample."""
        return 1

    def reconstruct(self, params, state, batch, key) -> Array:
        """E[x | z = code of x], x [B, *shape]; the key is not used."""
        z = self.code(params, *self.posterior(params, batch))
        return self._mean(params, z, self.condition.read(batch))

    def features(self, params, state, batch, key) -> Array:
        """The codes of the batch, [B, Z]: a representation; the key is not used."""
        z = self.code(params, *self.posterior(params, batch))
        return z.reshape(len(z), -1)
