"""Variational autoencoders: maximise a lower bound on log p(x).

A latent-variable model p(x) = ∫ p(x|z) p(z) dz, z ~ N(0, 1), whose integral nobody can
take. An encoder q(z|x) = N(μ(x), σ²(x)) proposes latents; Jensen's inequality gives

    log p(x) >= E_q[log p(x|z)] - KL(q(z|x) ‖ p(z))                            (ELBO)

with equality at the true posterior q(z|x) = p(z|x). The gradient passes through the
sample by z = μ + σ ⊙ ε, ε ~ N(0, 1). The two terms fight: the first wants codes that
determine x, the second one Gaussian cloud for all; beta weighs the second.

With K proposals the average importance weight, w = p(x|z) p(z)/q(z|x), tightens the
bound, and in the limit closes it:

    log p(x) >= E log (1/K) Σ_k w_k >= ELBO                                  (IWAE-K)

p(x|z) is a distribution of *levels* 0 … L-1, so that the bound is in nats of the
discrete data and can be compared with any other model's bits per dimension.

Kingma and Welling 2014, arXiv:1312.6114; Burda, Grosse and Salakhutdinov 2016,
arXiv:1509.00519; beta: Higgins et al. 2017; annealing: Bowman et al. 2016,
arXiv:1511.06349, section 3.1.
"""

import math
from collections.abc import Callable
from typing import ClassVar, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import Condition, Given, Nothing, check_batch
from gengen.images import bin_width, dequantize, log_bin_volume, to_unit
from gengen.losses.divergence import gaussian_kl
from gengen.losses.likelihood import (
    binomial_log_prob,
    discretized_logistic_log_prob,
    normal_log_prob,
    per_example,
)
from gengen.nets.conditioning import agree
from gengen.objective import Weight, loss, weight_at
from gengen.scan import fold_in, normal, sample_keys
from gengen.spaces import Space
from gengen.types import (
    Array,
    Encodes,
    HasFeatures,
    HasLatents,
    Inverts,
    Key,
    Reconstructs,
    Tree,
    static,
)


def elbo(
    log_prob: Callable,
    mean: Array,
    logvar: Array,
    noise: Array,
    beta: Array | float = 1.0,
) -> tuple[Array, tuple[Array, Array]]:
    """E_q log p(x|z) - beta KL(q ‖ N(0, 1)) at z = mean + e^(logvar/2) noise: [B] nats.

    log_prob: z [B, Z] -> log p(x|z) [B]. The expectation is one sample's, the KL exact.
    Returns the bound and its two terms. Kingma and Welling 2014, equation 10.
    """
    expected = log_prob(mean + jnp.exp(0.5 * logvar) * noise)
    kl = gaussian_kl(mean, logvar)
    return expected - beta * kl, (expected, kl)


def log_weight(log_prob: Callable, mean: Array, logvar: Array, noise: Array) -> Array:
    """log p(x|z) + log p(z) - log q(z|x) at z = mean + e^(logvar/2) noise: [B] nats."""
    z = mean + jnp.exp(0.5 * logvar) * noise
    prior = per_example(normal_log_prob(z, jnp.zeros(()), jnp.zeros(())))
    return log_prob(z) + prior - per_example(normal_log_prob(z, mean, logvar))


def iwae_bound(log_w: Array) -> Array:
    """log (1/K) Σ_k w_k from log w [K, B]: [B] nats. Burda et al. 2016, equation 8."""
    return jax.nn.logsumexp(log_w, axis=0) - math.log(log_w.shape[0])


class Observation(Protocol):
    """p(x|z) of levels from the decoder's features [B, H, W, C · features].

    `observe` turns levels into what the density is of, `log_volume` is what its
    log-density lacks to a log-probability of levels. `dequantises`: the density is of
    the image plus uniform noise, and its bound one on the levels below that.
    """

    features: int
    dequantises: bool

    def init(self) -> Tree: ...
    def observe(self, key: Key, image: Array, levels: int) -> Array: ...
    def log_prob(self, params: Tree, features: Array, y: Array, levels: int): ...
    def log_volume(self, shape: tuple[int, ...], levels: int) -> float: ...
    def mean(self, params: Tree, features: Array) -> Array: ...
    def draw(self, params: Tree, keys: Array, features: Array, levels: int): ...


@static
class Bernoulli:
    """Level k counts the ones among L-1 coins of probability σ(features).

    With two levels the Bernoulli decoder of the papers; with more, the same
    cross-entropy made a proper distribution of levels (`binomial_log_prob`).
    """

    features: ClassVar[int] = 1
    dequantises: ClassVar[bool] = False

    def init(self):
        return {}

    def observe(self, key, image, levels):
        return image

    def log_prob(self, params, features, y, levels):
        return per_example(binomial_log_prob(y, features, levels))

    def log_volume(self, shape, levels):
        return 0.0

    def mean(self, params, features):
        return 2.0 * jax.nn.sigmoid(features) - 1.0

    def draw(self, params, keys, features, levels):
        def one(key, logits):
            coins = jax.random.uniform(key, (levels - 1, *logits.shape))
            return jnp.sum(coins < jax.nn.sigmoid(logits), axis=0)

        return to_unit(jax.vmap(one)(keys, features), levels)


@static
class Gaussian:
    """N(features, s²) of the dequantised image, one learned log s for all pixels.

    Rybkin, Daniilidis and Levine 2021, arXiv:2006.13202 (σ-VAE), section 3.
    """

    features: ClassVar[int] = 1
    dequantises: ClassVar[bool] = True

    def init(self):
        return {"log_scale": jnp.zeros(())}

    def observe(self, key, image, levels):
        return dequantize(key, image, levels)

    def log_prob(self, params, features, y, levels):
        logvar = 2.0 * params["log_scale"]
        return per_example(normal_log_prob(y, features, logvar))

    def log_volume(self, shape, levels):
        return log_bin_volume(shape, levels)

    def mean(self, params, features):
        return jnp.clip(features, -1.0, 1.0)

    def draw(self, params, keys, features, levels):
        noise = normal(keys, features.shape[1:])
        return jnp.clip(features + jnp.exp(params["log_scale"]) * noise, -1.0, 1.0)


@static
class DiscretizedLogistic:
    """The mass of a logistic in each level's bin; mean and log-scale from features."""

    features: ClassVar[int] = 2
    dequantises: ClassVar[bool] = False
    min_log_scale: float = -7.0

    def init(self):
        return {}

    def split(self, features):
        """Features [..., 2 C] -> mean and log-scale [..., C]."""
        mean, log_scale = jnp.split(features, 2, axis=-1)
        return mean, jnp.maximum(log_scale, self.min_log_scale)

    def observe(self, key, image, levels):
        return image

    def log_prob(self, params, features, y, levels):
        mean, log_scale = self.split(features)
        return per_example(discretized_logistic_log_prob(y, mean, log_scale, levels))

    def log_volume(self, shape, levels):
        return 0.0

    def mean(self, params, features):
        """E[clip(x, -1, 1)] = 1 - ∫ σ((x - mean)/s) dx over [-1, 1]; s = scale.

        Within half a level of the mean over the levels themselves.
        """
        mean, log_scale = self.split(features)
        s = jnp.exp(log_scale)
        upper, lower = (1.0 - mean) / s, (-1.0 - mean) / s
        return 1.0 - s * (jax.nn.softplus(upper) - jax.nn.softplus(lower))

    def draw(self, params, keys, features, levels):
        mean, log_scale = self.split(features)
        logistic = jax.vmap(lambda k: jax.random.logistic(k, mean.shape[1:]))(keys)
        w = bin_width(levels)
        x = mean + jnp.exp(log_scale) * logistic
        return jnp.clip(jnp.round((x + 1.0) / w) * w - 1.0, -1.0, 1.0)


@static
class VAE(HasLatents, Inverts, HasFeatures, Reconstructs, Encodes):
    """An encoder x -> (mean, logvar), a decoder z -> features, and what p(x|z) is.

    With a condition both networks see it, and everything is of p(x | c) (Sohn, Lee and
    Yan 2015, section 4).
    """

    encoder: nn.Module
    """x and c -> (mean, logvar) of q(z|x), each [B, *latent]."""
    decoder: nn.Module
    """z and c -> features [B, H, W, C · observation.features]."""
    observation: Observation
    """p(x|z) of the data, given the features."""
    space: Space
    """The type of x."""
    latent: int | tuple[int, ...]
    """The length of a vector z, or the shape of a map."""
    condition: Condition = Nothing()
    """What both networks know beside x and z."""
    beta: Weight = 1.0
    """The weight of the KL term: a number, or a static function of the step, such as
    `Ramp(0.0, 1.0, 1_000)`."""
    importance_samples: int = 1
    """The K of `log_likelihood`; 1 is the ELBO."""
    density: ClassVar[str] = "bound"

    def __post_init__(self):
        for net in (self.encoder, self.decoder):
            agree(net, self.condition)

    @property
    def likelihood_kind(self) -> str:
        """What `log_likelihood` is: "ELBO" or "IWAE-K", "dequantised-" if it is."""
        k = self.importance_samples
        bound = "ELBO" if k == 1 else f"IWAE-{k}"
        return f"dequantised-{bound}" if self.observation.dequantises else bound

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
            "encoder": self.encoder.init(key_encoder, self.space.zeros(1), c)["params"],
            "decoder": self.decoder.init(key_decoder, z, c)["params"],
            "likelihood": self.observation.init(),
        }
        return {"vae": own}, {}

    def losses(self):
        return {"vae": self.loss}

    def encode(
        self, params, x: Array, c: Given, train: bool = False
    ) -> tuple[Array, Array]:
        """x [B, *shape] -> (mean, logvar) of q(z|x), each [B, *latent]."""
        weights = {"params": params["vae"]["encoder"]}
        return self.encoder.apply(weights, x, c, train=train)

    def decode(self, params, z: Array, c: Given, train: bool = False) -> Array:
        """z [B, *latent] -> features [B, H, W, C · observation.features]."""
        weights = {"params": params["vae"]["decoder"]}
        return self.decoder.apply(weights, z, c, train=train)

    def posterior(self, params, batch, train: bool = False) -> tuple[Array, Array]:
        """(mean, logvar) of q(z|x) of a batch, each [B, *latent]."""
        x, c = self.space.read(batch), self.condition.read(batch)
        return self.encode(params, x, c, train)

    @loss
    def loss(self, params, state, batch, key):
        """-ELBO, mean over the batch, in nats of the discrete data."""
        key_noise, key_observe = jax.random.split(key)
        mean, logvar = self.posterior(params, batch, train=True)
        noise = jax.random.normal(key_noise, mean.shape)
        beta = weight_at(self.beta, state)
        log_prob = self.log_prob_given(params, batch, key_observe, train=True)
        bound, (expected, kl) = elbo(log_prob, mean, logvar, noise, beta)
        metrics = {"reconstruction": -jnp.mean(expected), "kl": jnp.mean(kl)}
        return -jnp.mean(bound), (state, metrics)

    def log_prob_given(
        self, params, batch, key: Key, train: bool = False
    ) -> Callable[[Array], Array]:
        """The function z [B, *latent] -> log p(x|z) [B], nats of the batch's data."""
        levels, own = self.space.size, params["vae"]["likelihood"]
        y = self.observation.observe(key, self.space.data(batch), levels)
        c = self.condition.read(batch)
        volume = self.observation.log_volume(self.space.shape, levels)

        def log_prob(z):
            features = self.decode(params, z, c, train)
            return self.observation.log_prob(own, features, y, levels) + volume

        return log_prob

    def log_likelihood(self, params, state, batch, key):
        """IWAE-K with K = importance_samples (1: the ELBO), [B] nats of the data."""
        key_noise, key_observe = jax.random.split(key)
        mean, logvar = self.posterior(params, batch)
        log_prob = self.log_prob_given(params, batch, key_observe)

        def one(key):
            noise = jax.random.normal(key, mean.shape)
            return log_weight(log_prob, mean, logvar, noise)

        keys = jax.random.split(key_noise, self.importance_samples)
        return iwae_bound(jax.lax.map(one, keys))

    def from_latent(self, params, state, z: Array, **given) -> Array:
        """E[x|z] of z [B, *latent]: x [B, *shape]. given: c by name."""
        c = self.condition.given(given, len(z))
        own = params["vae"]["likelihood"]
        return self.observation.mean(own, self.decode(params, z, c))

    def to_latent(self, params, state, x: Array, **given) -> Array:
        """The posterior's mean μ(x) [B, *latent] of x [B, *shape]. given: c by name."""
        return self.encode(params, x, self.condition.given(given, len(x)))[0]

    def sample(
        self, params, state, key, num, *, start_index=0, sample_pixels=False, **given
    ):
        """E[x|z] of z ~ N(0, 1), x [num, *shape]; a draw of p(x|z) by `sample_pixels`.

        given: c by name, for all or per row; what is missing is drawn.
        """
        keys = sample_keys(key, num, start_index)
        c = self.condition.given(given, num, keys)
        z = normal(keys, self.latent_shape)
        if not sample_pixels:
            return self.from_latent(params, state, z, **c)
        own, features = params["vae"]["likelihood"], self.decode(params, z, c)
        keys = fold_in(keys, 1)
        return self.observation.draw(own, keys, features, self.space.size)

    def nfe(self) -> int:
        """Network calls per sample."""
        return 1

    def reconstruct(self, params, state, batch, key) -> Array:
        """E[x | z = μ(x)], x [B, *shape]; the key is not used."""
        z, c = self.posterior(params, batch)[0], self.condition.read(batch)
        return self.observation.mean(
            params["vae"]["likelihood"], self.decode(params, z, c)
        )

    def features(self, params, state, batch, key) -> Array:
        """Posterior means μ(x) [B, Z]: a representation; the key is not used."""
        mean, _ = self.posterior(params, batch)
        return mean.reshape(len(mean), -1)
