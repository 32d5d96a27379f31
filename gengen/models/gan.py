"""Generative adversarial networks: two players, samples without a density.

A generator turns z ~ N(0, 1) into images, a discriminator (or critic) tells them from
data. In the game as it was first stated,

    min_G max_D E[log D(x)] + E[log(1 - D(G(z)))]

the best answer to a generator of density q is D* = p/(p + q), and the generator's loss
is then 2 JS(p ‖ q) - 2 log 2: minimal where q = p. Where D wins, log(1 - D) is flat;
the non-saturating generator minimises -log D(G(z)) instead: the same fixed point, a
gradient at the start. `gengen.losses.adversarial` has these games and the others.

Gradient play circles around the fixed point. On the smallest example, data at 0, a fake
at θ and D(x) = ψx (Dirac-GAN), the linearised dynamics have the eigenvalues ±i/2; with
the penalty γ/2 |∇D(x)|² they are -γ/2 ± √(γ²/4 - 1/4), which converge. So a critic is
regularised (`gengen.losses.penalty`), and relativistic pairs keep the generator from
leaving modes out: `Relativistic()` with `r1_r2(γ)` is R3GAN's game.

What the critic sees may be changed first, real *and* fake alike: by differentiable
augmentations, at a fixed probability or at one that adapts (ADA), by noise (instance
noise), or by packing several examples into one (PacGAN). The optimum q = p stays where
it was as long as the change can be undone in distribution.

Each player is one loss with a gradient in its own parameters alone, and the train step
alternates them; nothing else about the family is special. Batch statistics live in the
state; those of the generator are taken from the *averaged* generator, the one that is
sampled.

Goodfellow et al. 2014, arXiv:1406.2661; DCGAN: Radford et al. 2016, arXiv:1511.06434;
Dirac-GAN: Mescheder et al. 2018, arXiv:1801.04406; R3GAN: Huang et al. 2024,
arXiv:2501.05441; ADA: Karras et al. 2020, arXiv:2006.06676; PacGAN: Lin et al. 2018,
arXiv:1712.04086.
"""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import Condition, Given, Labels, Nothing, check_batch, parts_of
from gengen.errors import BadInput, no_density
from gengen.losses.adversarial import Adaptive, AdversarialLoss, NonSaturating
from gengen.nets.conditioning import agree
from gengen.objective import Weight, add, every, loss, scale, weight_at
from gengen.scan import normal, sample_keys
from gengen.spaces import Space
from gengen.types import Array, HasFeatures, HasLatents, static


@static
class GAN(HasLatents, HasFeatures):
    """Two networks: a generator (z, c) -> x and a discriminator (x, c) -> logit.

    Raises BadInput for what contradicts itself: a penalty per example of a critic with
    batch norm, an adaptive probability of nothing, packed examples with a condition.
    """

    generator: nn.Module
    """z [B, latent] and c -> x, such as images in [-1, 1]."""
    discriminator: nn.Module
    """x and c -> logit [B] of being real."""
    space: Space
    """The type of x."""
    latent: int | tuple[int, ...]
    """The length of z, or its shape."""
    condition: Condition = Nothing()
    """What both networks know beside z and x."""
    game: AdversarialLoss = NonSaturating()
    """What either player minimises, of logits."""
    penalties: tuple[Callable, ...] = ()
    """Regularisers of the critic, `(critic, real, fake, key) -> [B]`."""
    penalty_interval: int = 1
    """Steps between two penalties, each that many times as strong."""
    augment: Callable | None = None
    """`(x, key, p) -> x`: what the critic sees of real and fake, in either's turn."""
    probability: Weight | Adaptive = 1.0
    """p of the augmentation: a number, a static function of the step, or adaptive."""
    packing: int = 1
    """Examples that the critic judges at once, their last axes joined (PacGAN)."""
    auxiliary: float = 0.0
    """Weight of the classes that the critic reads off x (AC-GAN); its network sows
    their logits as "classes"."""
    density: ClassVar[str] = "none"

    def __post_init__(self):
        for net in (self.generator, self.discriminator):
            agree(net, self.condition)
        if self.penalties and getattr(self.discriminator, "batch_norm", False):
            raise BadInput(
                f"{self.penalties[0]} is of each example alone, and the critic has "
                "batch norm, which mixes them: make it with batch_norm=False"
            )
        if self.augment is None and isinstance(self.probability, Adaptive):
            raise BadInput(
                "an adaptive probability, and no augmentation to be adapted: give the "
                "GAN augment=, or leave the probability out"
            )
        if self.packing > 1 and parts_of(self.condition):
            raise BadInput(
                f"packing={self.packing} with a condition: packed examples would have "
                "several; take packing=1 or an unconditional GAN"
            )
        if self.auxiliary and not self._labels():
            raise BadInput(
                f"auxiliary={self.auxiliary} without labels to be told apart: "
                "condition the GAN on Labels"
            )

    def _labels(self) -> Labels | None:
        labels = [p for p in parts_of(self.condition) if isinstance(p, Labels)]
        return labels[0] if labels else None

    def init(self, key, batch=None):
        """Parameters and batch statistics; a batch is checked and not needed."""
        check_batch(self.space, self.condition, batch)
        if batch is not None and len(self.space.data(batch)) % self.packing:
            raise BadInput(
                f"packing={self.packing} does not divide the batch of "
                f"{len(self.space.data(batch))}: take a multiple of it"
            )
        key_g, key_d = jax.random.split(key)
        x, c = self.space.zeros(self.packing), self.condition.zeros(1)
        z = jnp.zeros((1, *self.latent_shape))
        g = self.generator.init(key_g, z, c)
        d = self.discriminator.init(key_d, self._packed(x), c)
        params = {"discriminator": d.pop("params"), "generator": g.pop("params")}
        state = {"discriminator": d, "generator": g}
        if isinstance(self.probability, Adaptive):
            state["augment"] = {"p": jnp.zeros(())}
        return params, state

    def losses(self):
        critic = self.play_discriminator
        if self.penalties:
            penalty = every(self.penalty_interval, self.penalty)
            critic = add(critic, scale(penalty, self.penalty_interval))
        return {"discriminator": critic, "generator": self.play_generator}

    def generate(self, params, state, z: Array, c: Given, key):
        """(images, new state) with batch statistics: the generator in training.

        key: of what it draws besides, such as noise inputs.
        """
        own = {"rngs": {"noise": key}, "mutable": list(state)}
        return self.generator.apply({"params": params, **state}, z, c, True, **own)

    def _packed(self, x: Array) -> Array:
        """[B, ..., C] -> [B/m, ..., m C]: m examples as the channels of one."""
        if self.packing == 1:
            return x
        parts = jnp.split(x, self.packing)
        return jnp.concatenate(parts, axis=-1)

    def seen(self, state, x: Array, key) -> Array:
        """x as the critic sees it: augmented, then packed."""
        if self.augment is not None:
            adaptive = isinstance(self.probability, Adaptive)
            p = state["augment"]["p"] if adaptive else self.probability
            x = self.augment(x, key, p if adaptive else weight_at(p, state))
        return self._packed(x)

    def score(self, params, state, x: Array, c: Given):
        """(logits [B], class logits or None, new state): the critic in training."""
        mutable = [*state, "intermediates"] if self.auxiliary else list(state)
        logit, new = self.discriminator.apply(
            {"params": params, **state}, x, c, train=True, mutable=mutable
        )
        if not self.auxiliary:
            return logit, None, new
        new, sown = dict(new), new["intermediates"]
        new.pop("intermediates")
        return logit, sown["classes"][0], new

    def logits(self, params, state, x: Array, c: Given) -> Array:
        """Logits [B] of examples as they are: the critic in evaluation."""
        weights = {"params": params["discriminator"], **state["discriminator"]}
        return self.discriminator.apply(weights, self._packed(x), c)

    def _fake(self, params, state, batch, key):
        c = self.condition.read(batch)
        num = len(self.space.data(batch))
        z = jax.random.normal(key, (num, *self.latent_shape))
        return z, self.generate(params["generator"], state["generator"], z, c, key)[0]

    def _class_loss(self, classes: Array, c: Given) -> Array:
        """-log p(class | x) of an auxiliary classifier, times its weight, [B]."""
        log_p = jax.nn.log_softmax(classes)
        label = c[self._labels().key]
        return -self.auxiliary * jnp.take_along_axis(log_p, label[:, None], 1)[:, 0]

    @loss
    def play_discriminator(self, params, state, batch, key):
        """The critic's loss; real and fake in separate passes."""
        own, c = params["discriminator"], self.condition.read(batch)
        fake = jax.lax.stop_gradient(self._fake(params, state, batch, key)[1])
        key_real, key_fake = jax.random.split(jax.random.fold_in(key, 1))
        real = self.seen(state, self.space.read(batch), key_real)
        fake = self.seen(state, fake, key_fake)
        real, real_classes, new = self.score(own, state["discriminator"], real, c)
        fake, fake_classes, new = self.score(own, new, fake, c)
        loss, margin = self.game.discriminator(real, fake), self.game.margin(real, fake)
        metrics = {
            "real": jnp.mean(jax.nn.sigmoid(real)),
            "fake": jnp.mean(jax.nn.sigmoid(fake)),
            "right": jnp.mean((margin > 0).astype(jnp.float32)),
        }
        if self.auxiliary:
            both = self._class_loss(real_classes, c), self._class_loss(fake_classes, c)
            loss = loss + both[0] + both[1]
        state = {**state, "discriminator": new}
        if isinstance(self.probability, Adaptive):
            p = self.probability.moved(state["augment"]["p"], margin)
            state["augment"] = {"p": jax.lax.stop_gradient(p)}
            metrics["augment"] = p
        return jnp.mean(loss), (state, metrics)

    @loss
    def penalty(self, params, state, batch, key):
        """The penalties' mean, of the critic as it is evaluated; it sees new fakes."""
        weights = {"params": params["discriminator"], **state["discriminator"]}
        key_fake, key_real_seen, key_fake_seen, key = jax.random.split(key, 4)
        fake = jax.lax.stop_gradient(self._fake(params, state, batch, key_fake)[1])
        real = self.seen(state, self.space.read(batch), key_real_seen)
        fake, c = self.seen(state, fake, key_fake_seen), self.condition.read(batch)

        def critic(x):
            parts = [c] * (len(x) // len(real))
            rows = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
            return self.discriminator.apply(weights, x, rows)

        values = [
            penalty(critic, real, fake, jax.random.fold_in(key, i))
            for i, penalty in enumerate(self.penalties)
        ]
        value = jnp.mean(sum(values))
        return value, (state, {"penalty": value})

    @loss
    def play_generator(self, params, state, batch, key):
        """The generator's loss, and the averaged generator's batch statistics."""
        c = self.condition.read(batch)
        z, fake = self._fake(params, state, batch, key)
        key_real, key_fake = jax.random.split(jax.random.fold_in(key, 1))
        critic = jax.lax.stop_gradient(params["discriminator"])
        real = self.seen(state, self.space.read(batch), key_real)
        fake = self.seen(state, fake, key_fake)
        real, _, _ = self.score(critic, state["discriminator"], real, c)
        fake, classes, _ = self.score(critic, state["discriminator"], fake, c)
        loss = self.game.generator(real, fake)
        if self.auxiliary:
            loss = loss + self._class_loss(classes, c)
        average = state["ema"]["generator"]
        _, statistics = self.generate(average, state["generator"], z, c, key)
        state = {**state, "generator": jax.lax.stop_gradient(statistics)}
        return jnp.mean(loss), (state, {})

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one z."""
        return self.latent if isinstance(self.latent, tuple) else (self.latent,)

    def from_latent(self, params, state, z: Array, **given) -> Array:
        """G(z) of z [B, *latent_shape]: x [B, *shape]. given: c by name."""
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

        They do not see the condition; the key is not used. A critic of packed examples
        sees each one as a pack of itself.
        """
        x, weights = self.space.read(batch), state["discriminator"]
        _, sown = self.discriminator.apply(
            {"params": params["discriminator"], **weights},
            jnp.concatenate([x] * self.packing, axis=-1),
            mutable="intermediates",
        )
        return sown["intermediates"]["features"][0]
