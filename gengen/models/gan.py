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

from gengen.images import to_unit
from gengen.labels import given_labels, sample_labels
from gengen.losses.adversarial import discriminator_loss, nonsaturating_generator_loss
from gengen.losses.penalty import r1
from gengen.objective import Bind, add, every, scale
from gengen.scan import normal, sample_keys
from gengen.types import Array, no_density, static


@static
class GAN:
    """generator (z, label) -> image in [-1, 1]; discriminator (image, label) -> logit.

    latent: the length of z. generator_loss: L0, `nonsaturating_generator_loss` or
    `minimax_generator_loss`. r1_weight: γ of γ/2 |∇D|² on real images, added every
    `r1_interval` steps, that many times as strong. num_classes: 0 for unconditional.
    """

    generator: nn.Module
    discriminator: nn.Module
    latent: int
    levels: int = 256
    num_classes: int = 0
    generator_loss: Callable = nonsaturating_generator_loss
    r1_weight: float = 0.0
    r1_interval: int = 1
    density: ClassVar[str] = "none"

    def init(self, key, batch):
        key_g, key_d = jax.random.split(key)
        x, label = to_unit(batch["image"][:1], self.levels), self._label(batch)
        z = jnp.zeros((1, self.latent))
        first = None if label is None else label[:1]
        g = self.generator.init(key_g, z, first)
        d = self.discriminator.init(key_d, x, first)
        params = {"discriminator": d.pop("params"), "generator": g.pop("params")}
        return params, {"discriminator": d, "generator": g}

    def _label(self, batch):
        return batch["label"] if self.num_classes else None

    def losses(self):
        game = Bind(GAN.play_discriminator, self)
        if self.r1_weight > 0:
            weight = self.r1_weight / 2 * self.r1_interval
            penalty = every(self.r1_interval, Bind(GAN.penalty, self))
            game = add(game, scale(penalty, weight))
        return {"discriminator": game, "generator": Bind(GAN.play_generator, self)}

    def generate(self, params, state, z: Array, label: Array | None):
        """(images, new state) with batch statistics: the generator in training."""
        return self.generator.apply(
            {"params": params, **state}, z, label, train=True, mutable=list(state)
        )

    def score(self, params, state, x: Array, label: Array | None):
        """(logits [B], new state) with batch statistics: the critic in training."""
        return self.discriminator.apply(
            {"params": params, **state}, x, label, train=True, mutable=list(state)
        )

    def _fake(self, params, state, batch, key):
        z = jax.random.normal(key, (batch["image"].shape[0], self.latent))
        label = self._label(batch)
        return z, self.generate(params["generator"], state["generator"], z, label)[0]

    def play_discriminator(self, params, state, batch, key):
        """E[-log D(x) - log(1 - D(G(z)))]; real and fake in separate passes."""
        own, label = params["discriminator"], self._label(batch)
        fake = jax.lax.stop_gradient(self._fake(params, state, batch, key)[1])
        real = to_unit(batch["image"], self.levels)
        real_logit, new = self.score(own, state["discriminator"], real, label)
        fake_logit, new = self.score(own, new, fake, label)
        loss = jnp.mean(discriminator_loss(real_logit, fake_logit))
        metrics = {
            "real": jnp.mean(jax.nn.sigmoid(real_logit)),
            "fake": jnp.mean(jax.nn.sigmoid(fake_logit)),
        }
        return loss, ({**state, "discriminator": new}, metrics)

    def penalty(self, params, state, batch, key):
        """E|∇ₓ D(x)|² of the critic as it is evaluated, with running statistics if any.

        R1 wants examples scored one by one: give it a critic without BatchNorm.
        """
        weights = {"params": params["discriminator"], **state["discriminator"]}
        label = self._label(batch)
        value = r1(
            lambda x: self.discriminator.apply(weights, x, label),
            to_unit(batch["image"], self.levels),
        )
        return jnp.mean(value), (state, {"r1": jnp.mean(value)})

    def play_generator(self, params, state, batch, key):
        """The generator's loss, and the averaged generator's batch statistics."""
        label = self._label(batch)
        z, fake = self._fake(params, state, batch, key)
        critic = jax.lax.stop_gradient(params["discriminator"])
        logit, _ = self.score(critic, state["discriminator"], fake, label)
        average = state["ema"]["generator"]
        _, statistics = self.generate(average, state["generator"], z, label)
        state = {**state, "generator": jax.lax.stop_gradient(statistics)}
        return jnp.mean(self.generator_loss(logit)), (state, {})

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one z."""
        return (self.latent,)

    def from_latent(self, params, state, z: Array, *, label=None) -> Array:
        """G(z) of z [B, Z]: [B, H, W, C] in [-1, 1]; label: int or [B]."""
        label = given_labels(label, z.shape[0], self.num_classes)
        weights = {"params": params["generator"], **state["generator"]}
        return self.generator.apply(weights, z, label)

    def sample(self, params, state, key, num, *, start_index=0, label=None):
        """G(z), [num, H, W, C] in [-1, 1]; labels uniform unless given."""
        keys = sample_keys(key, num, start_index)
        label = sample_labels(keys, label, self.num_classes)
        z = normal(keys, self.latent_shape)
        return self.from_latent(params, state, z, label=label)

    def nfe(self) -> int:
        """Network calls a sample."""
        return 1

    def log_likelihood(self, params, state, batch, key):
        """Raises BadInput: there is no density of x."""
        no_density("a GAN")

    def features(self, params, state, batch, key) -> Array:
        """The critic's last features [B, F] (Radford et al. 2016, section 5.1).

        They do not see the label; the key is not used.
        """
        x, weights = to_unit(batch["image"], self.levels), state["discriminator"]
        blank = jnp.zeros(x.shape[0], jnp.int32) if self.num_classes else None
        _, sown = self.discriminator.apply(
            {"params": params["discriminator"], **weights},
            x,
            blank,
            mutable="intermediates",
        )
        return sown["intermediates"]["features"][0]
