"""First stages of latent models: autoencoders whose reconstructions are not blurred.

A pixel's error alone asks for the mean of all images that fit a code, which is blurred.
A critic that tells reconstructions from images asks for one of them. So to the loss of
an autoencoder, in nats per dimension of x, is added a game of which it plays one part:

    L = (-log p(x|z) + β KL)/D + w(step) λ g(D(x), D(x̂)),
    λ = min(|∇ L₀| / (|∇ g| + 10⁻⁴), most), both gradients in the decoder's last layer.

λ makes the two push equally hard; most is small, for a large λ ruins what is restored.
The critic judges patches, is trained from the first step on, and its weight w is 0
until it has learned: an untrained critic ruins the reconstruction, too. Where it wins
at once, on small sharp images, it needs a penalty (R1) or relativistic pairs.

With `Laplace()` as p(x|z) the first term is |x - x̂|/s + log 2s, as published. A
distance in the maps of a classifier's features can be added to it, as there (with those
of another network). Two kinds:

    AutoencoderKL   z of a Gaussian posterior, β small: `Latent(model, …)`
    VQGAN           z of a book of codes: `Coded(prior, …)`

Without a critic they are a VAE and a VQ-VAE, in nats per dimension.

Esser, Rombach and Ommer 2021, arXiv:2012.09841; Rombach et al. 2022, arXiv:2112.10752,
section 3.1 and appendix G; perceptual: Zhang et al. 2018, arXiv:1801.03924.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.latent.objectives import ELBO, Objective
from gengen.losses.adversarial import AdversarialLoss, Hinge
from gengen.losses.balance import balance
from gengen.losses.divergence import gaussian_kl
from gengen.losses.likelihood import per_example
from gengen.losses.perceptual import perceptual_distance
from gengen.models.vae import VAE
from gengen.models.vqvae import VQVAE
from gengen.nets.patch import patch_mean
from gengen.objective import Weight, add, every, loss, scale, weight_at
from gengen.types import Array, FirstStage, frozen, static

PLAYER = "discriminator"


@static
class Adversarial(FirstStage):
    """What is added to an autoencoder: a critic of its reconstructions.

    The autoencoder has `restored(params, state, batch, key)`: its loss in nats, x̂ with
    its gradient, the new state and metrics.
    """

    discriminator: nn.Module | None = None
    """x -> logits [B, …] of being real, such as a `PatchGAN`; None for no game."""
    game: AdversarialLoss = Hinge()
    """What either player minimises, of the logits of all patches."""
    penalties: tuple[Callable, ...] = ()
    """Regularisers of the critic, `(critic, real, fake, key) -> [B]`."""
    penalty_interval: int = 1
    """Steps between two penalties, each that many times as strong."""
    weight: Weight = 0.5
    """w of the game: a number, or a static function of the step such as `Delayed`."""
    most: float = 1.0
    """The largest λ."""
    perceptual: Any = None
    """A model with `maps`, such as a `Classifier`, whose arrays are
    state["frozen"]["perceptual"]; None for no such distance."""
    perceptual_weight: Weight = 1.0
    """The weight of the distance in its maps, beside nats per dimension."""

    def init(self, key, batch=None):
        """The autoencoder's parameters and state, and the critic's parameters."""
        params, state = super().init(key, batch)
        if self.discriminator is None:
            return params, state
        layer = self._last(params)
        if layer is None:
            raise BadInput(
                f"a {type(self.decoder).__name__} does not say where its last layer is,"
                " at which the game is weighed: give it last_layer, the path to its "
                "weights"
            )
        key_critic = jax.random.fold_in(key, 4)
        critic = self.discriminator.init(key_critic, self.space.zeros(1))["params"]
        return {**params, PLAYER: critic}, state

    def losses(self):
        (player,) = super().losses()
        if self.discriminator is None:
            return {player: self.loss}
        critic = self.play_discriminator
        if self.penalties:
            penalty = every(self.penalty_interval, self.penalty)
            critic = add(critic, scale(penalty, self.penalty_interval))
        return {PLAYER: critic, player: self.loss}

    def score(self, params, x: Array) -> Array:
        """Logits [B, …] of the critic's patches."""
        return self.discriminator.apply({"params": params[PLAYER]}, x)

    def _path(self) -> tuple[str, ...]:
        (player,) = super().losses()
        return (player, "decoder", *getattr(self.decoder, "last_layer", ("",)))

    def _last(self, params) -> Array | None:
        """The weights of the decoder's last layer."""
        for name in self._path():
            params = params.get(name)
            if params is None:
                return None
        return params

    def _moved(self, params, last: Array):
        """The parameters with other weights in that layer."""

        def put(tree, path):
            rest = put(tree[path[0]], path[1:]) if path[1:] else last
            return {**tree, path[0]: rest}

        return put(params, self._path())

    @loss
    def play_discriminator(self, params, state, batch, key):
        """The critic's loss, the mean over patches; no gradient in the autoencoder."""
        real, fake = self._judged(params, state, batch, key)
        real, fake = self.score(params, real).ravel(), self.score(params, fake).ravel()
        right = jnp.mean((self.game.margin(real, fake) > 0).astype(jnp.float32))
        value = jnp.mean(self.game.discriminator(real, fake))
        return value, (state, {"right": right})

    @loss
    def penalty(self, params, state, batch, key):
        """The penalties' mean, of the mean logit of an image."""
        key_restore, key = jax.random.split(key)
        real, fake = self._judged(params, state, batch, key_restore)

        def critic(x):
            return patch_mean(self.score(params, x))

        values = [
            penalty(critic, real, fake, jax.random.fold_in(key, i))
            for i, penalty in enumerate(self.penalties)
        ]
        value = jnp.mean(sum(values))
        return value, (state, {"penalty": value})

    def _judged(self, params, state, batch, key):
        """(images, their reconstructions), as the critic sees them."""
        _, restored, _, _ = self.restored(params, state, batch, key)
        return self.space.read(batch), jax.lax.stop_gradient(restored)

    def distance(self, state, x: Array, restored: Array) -> Array:
        """The mean distance in the other model's maps."""
        held = frozen(state, "perceptual")
        one, other = (self.perceptual.maps(*held, y) for y in (x, restored))
        return jnp.mean(perceptual_distance(one, other))

    @loss
    def loss(self, params, state, batch, key):
        """The autoencoder's loss per dimension, and λ w times its part in the game."""
        x = self.space.read(batch)

        def both(params):
            value, restored, new, metrics = self.restored(params, state, batch, key)
            own = value / x[0].size
            if self.perceptual is not None:
                distance = self.distance(state, x, restored)
                metrics = {**metrics, "perceptual": distance}
                own = own + weight_at(self.perceptual_weight, state) * distance
            if self.discriminator is None:
                return own, 0.0, (new, metrics)
            critic = jax.lax.stop_gradient(params)
            real, fake = (self.score(critic, y).ravel() for y in (x, restored))
            return own, jnp.mean(self.game.generator(real, fake)), (new, metrics)

        own, game, (new, metrics) = both(params)
        metrics = {**metrics, "per_dimension": own}
        if self.discriminator is None:
            return own, (new, metrics)
        fixed = jax.lax.stop_gradient(params)

        def at_last(last):
            return both(self._moved(fixed, last))[:2]

        _, back = jax.vjp(at_last, self._last(fixed))
        one, none = jnp.ones_like(own), jnp.zeros_like(own)
        ratio = balance(*back((one, none)), *back((none, one)), self.most)
        total = own + weight_at(self.weight, state) * ratio * game
        return total, (new, {**metrics, "game": game, "balance": ratio})


@static
class AutoencoderKL(Adversarial, VAE):
    """A VAE of maps whose KL term is small, with a critic: latents for a second stage.

    Its unit prior is not where codes lie, so `sample` draws little of worth.
    """

    objective: Objective = ELBO(1e-4)
    """An ELBO, of which β is read alone."""

    def __post_init__(self):
        super().__post_init__()
        if self.objective != ELBO(getattr(self.objective, "beta", 1.0)) or self.flow:
            raise BadInput(
                f"{self.objective}: an AutoencoderKL has an ELBO with a β alone, and "
                "no flow"
            )

    def restored(self, params, state, batch, key):
        """(nats, x̂ of a draw of z, state, metrics), the nats a mean over the batch."""
        key_noise, key_observe = jax.random.split(key)
        mean, logvar = self.posterior(params, batch, train=True)
        z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key_noise, mean.shape)
        own, c = params["vae"]["likelihood"], self.condition.read(batch)
        features = self.decode(params, z, c, train=True)
        data = self.observed_data(batch, key_observe)
        each = per_example(self.observation.log_prob(own, features, data))
        nats = -jnp.mean(each) - self.observed_volume
        kl = jnp.mean(gaussian_kl(mean, logvar))
        value = nats + weight_at(self.objective.beta, state) * kl
        x = self.observation.mean(own, features)
        return value, x, state, {"reconstruction": nats, "kl": kl}


@static
class VQGAN(Adversarial, VQVAE):
    """A VQ-VAE with a critic: codes for a prior."""

    def restored(self, params, state, batch, key):
        """(nats, x̂ of the codes, the new state, metrics); the book moves."""
        value, z, state, metrics = self.coded(params, state, batch, key)
        own = params["vqvae"]["likelihood"]
        x = self.observation.mean(own, self.decode(params, z, train=True))
        return value, x, state, metrics
