"""Hierarchical variational autoencoders: latents in groups, each given those before.

    p(z) = Π_l p(z_l | z_<l),    q(z | x) = Π_l q(z_l | z_<l, x)

    log p(x) >= E_q log p(x | z) - Σ_l KL(q(z_l | z_<l, x) ‖ p(z_l | z_<l)),

where each KL is that of two Gaussians, exact given the groups before. The first groups
are small maps that say what the whole is; the last are large and say where things are.

Sønderby et al. 2016, arXiv:1602.02282; Vahdat and Kautz 2020, arXiv:2007.03898.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gengen.conditions import Condition, Nothing, check_batch
from gengen.errors import BadInput
from gengen.latent.bounds import free_bits, iwae_bound
from gengen.latent.completion import CompletesByLatent
from gengen.latent.observing import Observing
from gengen.latent.priors import unit_log_prob
from gengen.losses.divergence import gaussian_kl
from gengen.losses.likelihood import normal_log_prob, per_example
from gengen.nets.conditioning import agree
from gengen.objective import Weight, loss, weight_at
from gengen.observations.observation import Observation, check_levels, decoded
from gengen.scan import fold_in, normal, sample_keys
from gengen.spaces import Space, Symbols
from gengen.types import Array, HasFeatures, HasLatents, Inverts, Reconstructs, static


@static
class HierarchicalVAE(
    Observing, HasLatents, Inverts, HasFeatures, Reconstructs, CompletesByLatent
):
    """A `Ladder`, or a network of its kind, and what p(x|z) is.

    Its latents are the noise ε of all groups in one vector, z_l = μ_p + σ_p ε_l: so
    standard normal ones give p(x).
    """

    net: nn.Module
    """net(x, noise, c) -> (features, groups); net.generate(noise, c) -> features;
    `latent_shapes`: those of the groups."""
    observation: Observation
    """p(x|z) of the data, given the features."""
    space: Space
    """The type of x."""
    condition: Condition = Nothing()
    """What the network knows beside x and z."""
    beta: Weight = 1.0
    """The weight of the KL terms: a number, or a static function of the step."""
    free_nats: float = 0.0
    """The KL of each group up to which it costs nothing."""
    importance_samples: int = 1
    """The K of `log_likelihood`; 1 is the ELBO with its KL estimated."""

    def __post_init__(self):
        agree(self.net, self.condition)
        if isinstance(self.space, Symbols):
            raise BadInput(f"{self.space}: take an autoregressive model of symbols")
        check_levels(self.observation, self.space)
        self.check_importance_samples()
        if self.free_nats < 0:
            raise BadInput(f"free_nats={self.free_nats}: it must be at least 0")

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """All latents as one vector."""
        return (sum(self._sizes),)

    @property
    def _sizes(self) -> list[int]:
        return [math.prod(shape) for shape in self.net.latent_shapes]

    def _split(self, z: Array) -> tuple[Array, ...]:
        """[..., D] -> the groups' arrays [..., *shape]."""
        parts = jnp.split(z, np.cumsum(self._sizes)[:-1], axis=-1)
        shapes = self.net.latent_shapes
        return tuple(
            part.reshape(*z.shape[:-1], *shape)
            for part, shape in zip(parts, shapes, strict=True)
        )

    def init(self, key, batch=None):
        """Parameters; a batch is checked and not needed."""
        check_batch(self.space, self.condition, batch)
        x, noise = self.space.zeros(1), self._split(jnp.zeros((1, *self.latent_shape)))
        net = self.net.init(key, x, noise, self.condition.zeros(1)).get("params", {})
        own = self.observation.init(jax.random.fold_in(key, 3))
        params = {"hvae": {"net": net, "likelihood": own}}
        jax.eval_shape(self._features, params, noise, self.condition.zeros(1))
        return params, {}

    def losses(self):
        return {"hvae": self.loss}

    def _features(self, params, noise, c) -> Array:
        weights = {"params": params["hvae"]["net"]}
        output = self.net.apply(weights, noise, c, method="generate")
        return decoded(self.observation, output, self.space.shape)

    def _ascended(self, params, batch, noise, train: bool = False):
        """(features, groups) of the posterior's pass."""
        x, c = self.space.read(batch), self.condition.read(batch)
        weights = {"params": params["hvae"]["net"]}
        output, groups = self.net.apply(weights, x, noise, c, train=train)
        return decoded(self.observation, output, self.space.shape), groups

    def _log_prob(self, params, features, batch, key) -> Array:
        own, data = params["hvae"]["likelihood"], self.observed_data(batch, key)
        each = self.observation.log_prob(own, features, data)
        return per_example(each) + self.observed_volume

    def log_prior(self, params, z: Array) -> Array:
        """log p(z) [B] of noise z [B, D], nats."""
        return unit_log_prob(z)

    def log_probs_given(self, params, z, data, c) -> Array:
        """log p of every number of the data given noise z: [B, *shape] nats."""
        features = self._features(params, self._split(z), c)
        return self.observation.log_prob(params["hvae"]["likelihood"], features, data)

    def draw_given(self, params, keys, z, c, given=None, observed=None) -> Array:
        """A draw of p(x|z), x [B, *shape], of which some data may be given."""
        own = params["hvae"]["likelihood"]
        features = self._features(params, self._split(z), c)
        data, _ = self.observation.sample(own, keys, features, given, observed)
        return self.as_shown(data)

    @loss
    def loss(self, params, state, batch, key):
        """-ELBO, mean over the batch, in nats of the discrete data."""
        key_noise, key_observe = jax.random.split(key)
        num = len(self.space.data(batch))
        noise = self._split(jax.random.normal(key_noise, (num, *self.latent_shape)))
        features, groups = self._ascended(params, batch, noise, train=True)
        expected = self._log_prob(params, features, batch, key_observe)
        kls = [
            gaussian_kl(g.mean, g.logvar, g.prior_mean, g.prior_logvar) for g in groups
        ]
        costs = [free_bits(kl, self.free_nats) if self.free_nats else kl for kl in kls]
        value = -jnp.mean(expected - weight_at(self.beta, state) * sum(costs))
        metrics = {f"kl_{i}": jnp.mean(kl) for i, kl in enumerate(kls)}
        metrics |= {"reconstruction": -jnp.mean(expected), "kl": jnp.mean(sum(kls))}
        return value, (state, metrics)

    def log_likelihood(self, params, state, batch, key):
        """IWAE-K with K = importance_samples, [B] nats of the data.

        log w = log p(x|z) + Σ_l log p(z_l | z_<l) - log q(z_l | z_<l, x).
        """
        key_noise, key_observe = jax.random.split(key)
        num = len(self.space.data(batch))

        def one(key):
            noise = self._split(jax.random.normal(key, (num, *self.latent_shape)))
            features, groups = self._ascended(params, batch, noise)
            log_w = self._log_prob(params, features, batch, key_observe)
            for g in groups:
                prior = normal_log_prob(g.z, g.prior_mean, g.prior_logvar)
                own = normal_log_prob(g.z, g.mean, g.logvar)
                log_w = log_w + per_example(prior - own)
            return log_w

        keys = jax.random.split(key_noise, self.importance_samples)
        return iwae_bound(jax.lax.map(one, keys))

    def from_latent(self, params, state, z: Array, **given) -> Array:
        """E[x|z] of noise z [B, D]: x [B, *shape]. given: c by name."""
        c = self.condition.given(given, len(z))
        return self._mean(params, self._features(params, self._split(z), c))

    def _mean(self, params, features):
        return self.shown(self.observation.mean(params["hvae"]["likelihood"], features))

    def to_latent(self, params, state, x: Array, **given) -> Array:
        """The noise (μ_q - μ_p)/σ_p [B, D] that gives the posterior's means of x."""
        c = self.condition.given(given, len(x))
        noise = self._split(jnp.zeros((len(x), *self.latent_shape)))
        weights = {"params": params["hvae"]["net"]}
        _, groups = self.net.apply(weights, x, noise, c)
        return _noise_of(groups)

    def sample(
        self, params, state, key, num, *, start_index=0, sample_pixels=False, **given
    ):
        """E[x|z] of z ~ p(z), x [num, *shape]; a draw of p(x|z) by `sample_pixels`.

        Pixels that are drawn one after the other have no such mean, and are drawn.

        given: c by name, for all or per row; what is missing is drawn.
        """
        keys = sample_keys(key, num, start_index)
        c = self.condition.given(given, num, keys)
        z = normal(keys, self.latent_shape)
        if not (sample_pixels or self.observation.sequential):
            return self._mean(params, self._features(params, self._split(z), c))
        return self.draw_given(params, fold_in(keys, 1), z, c)

    def nfe(self) -> int:
        """Network calls per sample."""
        return 1

    def reconstruct(self, params, state, batch, key) -> Array:
        """E[x | z = posterior means], x [B, *shape]; the key is not used."""
        num = len(self.space.data(batch))
        noise = self._split(jnp.zeros((num, *self.latent_shape)))
        return self._mean(params, self._ascended(params, batch, noise)[0])

    def features(self, params, state, batch, key) -> Array:
        """The noise of the posterior's means, [B, D]; the key is not used."""
        num = len(self.space.data(batch))
        noise = self._split(jnp.zeros((num, *self.latent_shape)))
        return _noise_of(self._ascended(params, batch, noise)[1])


def _noise_of(groups) -> Array:
    """(z - μ_p)/σ_p of all groups, [B, D]."""
    parts = [(g.z - g.prior_mean) * jnp.exp(-0.5 * g.prior_logvar) for g in groups]
    return jnp.concatenate([part.reshape(len(part), -1) for part in parts], axis=-1)
