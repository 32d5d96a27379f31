"""Generative adversarial networks: two players, samples without a density.

A generator turns z ~ N(0, 1) into images, a discriminator tells them from data:

    min_G max_D E[log D(x)] + E[log(1 - D(G(z)))]

For a fixed generator with density q, the best answer is D* = p/(p + q), and the
generator's loss is then 2 JS(p ‖ q) - 2 log 2: minimal where q = p. Where D wins,
log(1 - D) is flat; the non-saturating generator minimises -log D(G(z)) instead: the
same fixed point, a gradient at the start.

Each player is one loss with a gradient in its own parameters alone, and the train step
alternates them; nothing else about the family is special. Batch statistics live in the
state; those of the generator are taken from the *averaged* generator, the one that is
sampled.

Goodfellow et al. 2014, arXiv:1406.2661; DCGAN: Radford et al. 2016, arXiv:1511.06434;
R1: Mescheder et al. 2018, arXiv:1801.04406.
"""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import Condition, Given, Nothing, check_batch
from gengen.errors import no_density
from gengen.losses.adversarial import discriminator_loss, nonsaturating_generator_loss
from gengen.losses.penalty import r1
from gengen.nets.conditioning import agree
from gengen.objective import add, every, loss, scale
from gengen.scan import normal, sample_keys
from gengen.spaces import Space
from gengen.types import Array, HasFeatures, HasLatents, static


@static
class GAN(HasLatents, HasFeatures):
    """Two networks: a generator (z, c) -> x and a discriminator (x, c) -> logit."""

    generator: nn.Module
    """z [B, latent] and c -> x in [-1, 1]."""
    discriminator: nn.Module
    """x and c -> logit [B] of being real."""
    space: Space
    """The type of x."""
    latent: int
    """The length of z."""
    condition: Condition = Nothing()
    """What both networks know beside z and x."""
    generator_loss: Callable = nonsaturating_generator_loss
    """L0: `nonsaturating_generator_loss` or `minimax_generator_loss`."""
    r1_weight: float = 0.0
    """γ of γ/2 |∇D|² on real images; 0 for no penalty."""
    r1_interval: int = 1
    """Steps between two penalties, each that many times as strong."""
    density: ClassVar[str] = "none"

    def __post_init__(self):
        for net in (self.generator, self.discriminator):
            agree(net, self.condition)

    def init(self, key, batch=None):
        """Parameters and batch statistics; a batch is checked and not needed."""
        check_batch(self.space, self.condition, batch)
        key_g, key_d = jax.random.split(key)
        x, c = self.space.zeros(1), self.condition.zeros(1)
        z = jnp.zeros((1, self.latent))
        g = self.generator.init(key_g, z, c)
        d = self.discriminator.init(key_d, x, c)
        params = {"discriminator": d.pop("params"), "generator": g.pop("params")}
        return params, {"discriminator": d, "generator": g}

    def losses(self):
        game = self.play_discriminator
        if self.r1_weight > 0:
            weight = self.r1_weight / 2 * self.r1_interval
            penalty = every(self.r1_interval, self.penalty)
            game = add(game, scale(penalty, weight))
        return {"discriminator": game, "generator": self.play_generator}

    def generate(self, params, state, z: Array, c: Given):
        """(images, new state) with batch statistics: the generator in training."""
        return self.generator.apply(
            {"params": params, **state}, z, c, train=True, mutable=list(state)
        )

    def score(self, params, state, x: Array, c: Given):
        """(logits [B], new state) with batch statistics: the critic in training."""
        return self.discriminator.apply(
            {"params": params, **state}, x, c, train=True, mutable=list(state)
        )

    def _fake(self, params, state, batch, key):
        c = self.condition.read(batch)
        z = jax.random.normal(key, (len(self.space.data(batch)), self.latent))
        return z, self.generate(params["generator"], state["generator"], z, c)[0]

    @loss
    def play_discriminator(self, params, state, batch, key):
        """E[-log D(x) - log(1 - D(G(z)))]; real and fake in separate passes."""
        own, c = params["discriminator"], self.condition.read(batch)
        fake = jax.lax.stop_gradient(self._fake(params, state, batch, key)[1])
        real = self.space.read(batch)
        real_logit, new = self.score(own, state["discriminator"], real, c)
        fake_logit, new = self.score(own, new, fake, c)
        loss = jnp.mean(discriminator_loss(real_logit, fake_logit))
        metrics = {
            "real": jnp.mean(jax.nn.sigmoid(real_logit)),
            "fake": jnp.mean(jax.nn.sigmoid(fake_logit)),
        }
        return loss, ({**state, "discriminator": new}, metrics)

    @loss
    def penalty(self, params, state, batch, key):
        """E|∇ₓ D(x)|² of the critic as it is evaluated, with running statistics if any.

        R1 wants examples scored one by one: give it a critic without BatchNorm.
        """
        weights = {"params": params["discriminator"], **state["discriminator"]}
        c = self.condition.read(batch)
        value = r1(
            lambda x: self.discriminator.apply(weights, x, c),
            self.space.read(batch),
        )
        return jnp.mean(value), (state, {"r1": jnp.mean(value)})

    @loss
    def play_generator(self, params, state, batch, key):
        """The generator's loss, and the averaged generator's batch statistics."""
        c = self.condition.read(batch)
        z, fake = self._fake(params, state, batch, key)
        critic = jax.lax.stop_gradient(params["discriminator"])
        logit, _ = self.score(critic, state["discriminator"], fake, c)
        average = state["ema"]["generator"]
        _, statistics = self.generate(average, state["generator"], z, c)
        state = {**state, "generator": jax.lax.stop_gradient(statistics)}
        return jnp.mean(self.generator_loss(logit)), (state, {})

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one z."""
        return (self.latent,)

    def from_latent(self, params, state, z: Array, **given) -> Array:
        """G(z) of z [B, latent]: x [B, *shape]. given: c by name."""
        c = self.condition.given(given, len(z))
        weights = {"params": params["generator"], **state["generator"]}
        return self.generator.apply(weights, z, c)

    def sample(self, params, state, key, num, *, start_index=0, **given):
        """G(z) of z ~ N(0, 1): x [num, *shape]. given: c by name, else drawn."""
        keys = sample_keys(key, num, start_index)
        c = self.condition.given(given, num, keys)
        return self.from_latent(params, state, normal(keys, self.latent_shape), **c)

    def nfe(self) -> int:
        """Network calls a sample."""
        return 1

    def log_likelihood(self, params, state, batch, key):
        """Raises BadInput: there is no density of x."""
        no_density("a GAN")

    def features(self, params, state, batch, key) -> Array:
        """The critic's last features [B, F] (Radford et al. 2016, section 5.1).

        They do not see the condition; the key is not used.
        """
        x, weights = self.space.read(batch), state["discriminator"]
        _, sown = self.discriminator.apply(
            {"params": params["discriminator"], **weights},
            x,
            mutable="intermediates",
        )
        return sown["intermediates"]["features"][0]
