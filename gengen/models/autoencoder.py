"""Autoencoders: a code from which the data can be restored, and nothing more.

    L = |x - D(E(x + noise))|²

Without noise the code keeps what it can of x; with it (denoising) it keeps what the
data have in common. Nothing says where codes lie, so there is no p(z) to draw from: a
Gaussian that is fitted to the codes of all data shows what that means.

Hinton and Salakhutdinov 2006; Vincent et al. 2008 (denoising).
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import Nothing, check_batch
from gengen.errors import BadInput, no_density
from gengen.losses.likelihood import per_example
from gengen.nets.conditioning import agree, init_params
from gengen.objective import loss
from gengen.spaces import Space, Symbols
from gengen.types import (
    Array,
    HasFeatures,
    HasLatents,
    Inverts,
    OnlyReconstructs,
    static,
)


@static
class Autoencoder(HasLatents, Inverts, HasFeatures, OnlyReconstructs):
    """An encoder x -> z and a decoder z -> x, trained on the squared error."""

    encoder: nn.Module
    """x and c -> z [B, *latent]."""
    decoder: nn.Module
    """z and c -> x [B, *shape]."""
    space: Space
    """The type of x."""
    latent: int | tuple[int, ...]
    """The length of a vector z, or the shape of a map."""
    noise: float = 0.0
    """The standard deviation of the noise that is added to x before it is encoded."""
    condition: ClassVar = Nothing()
    density: ClassVar[str] = "none"

    def __post_init__(self):
        for net in (self.encoder, self.decoder):
            agree(net, self.condition)
        if isinstance(self.space, Symbols):
            raise BadInput(
                f"{self.space} has symbols without order, which have no squared error: "
                "take an autoregressive model, or an autoencoder of Images or Reals"
            )
        if self.noise < 0:
            raise BadInput(f"noise={self.noise}: it must be at least 0")

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one z."""
        return self.latent if isinstance(self.latent, tuple) else (self.latent,)

    def init(self, key, batch=None):
        """Parameters; a batch is checked and not needed."""
        check_batch(self.space, self.condition, batch)
        key_encoder, key_decoder = jax.random.split(key)
        x, z = self.space.zeros(1), jnp.zeros((1, *self.latent_shape))
        own = {
            "encoder": init_params(self.encoder, key_encoder, x, {}),
            "decoder": init_params(self.decoder, key_decoder, z, {}),
        }
        params = {"autoencoder": own}
        found = jax.eval_shape(self.to_latent, params, {}, x).shape
        back = jax.eval_shape(self.from_latent, params, {}, z).shape
        for what, has, wanted in (("z", found, z.shape), ("x", back, x.shape)):
            if has != wanted:
                raise BadInput(
                    f"{what} has shape {list(has[1:])} by its network and "
                    f"{list(wanted[1:])} by the model: make them the same"
                )
        return params, {}

    def losses(self):
        return {"autoencoder": self.loss}

    @loss
    def loss(self, params, state, batch, key):
        """|x - D(E(x + noise))|² summed over an example, mean over the batch."""
        x = self.space.read(batch)
        noisy = x + self.noise * jax.random.normal(key, x.shape) if self.noise else x
        error = per_example(jnp.square(x - self._restored(params, noisy, train=True)))
        value = jnp.mean(error)
        return value, (state, {"mean_squared_error": value / x[0].size})

    def _restored(self, params, x: Array, train: bool = False) -> Array:
        own = params["autoencoder"]
        z = self.encoder.apply({"params": own["encoder"]}, x, {}, train=train)
        return self.decoder.apply({"params": own["decoder"]}, z, {}, train=train)

    def to_latent(self, params, state, x: Array) -> Array:
        """The codes z [B, *latent] of x [B, *shape]."""
        return self.encoder.apply(
            {"params": params["autoencoder"]["encoder"]}, x, {}, train=False
        )

    def from_latent(self, params, state, z: Array) -> Array:
        """x [B, *shape] of codes z [B, *latent]."""
        return self.decoder.apply(
            {"params": params["autoencoder"]["decoder"]}, z, {}, train=False
        )

    def nfe(self) -> int:
        """Calls of the decoder per code."""
        return 1

    def reconstruct(self, params, state, batch, key) -> Array:
        """The batch after encoding and decoding; the key is not used."""
        return self._restored(params, self.space.read(batch))

    def features(self, params, state, batch, key) -> Array:
        """The codes [B, F]: a representation; the key is not used."""
        z = self.to_latent(params, state, self.space.read(batch))
        return z.reshape(len(z), -1)

    def sample_latent(self, params, state, keys):
        """Raises BadInput: nothing is known of where codes lie."""
        self.sample(params, state, keys, len(keys))

    def sample(self, params, state, key, num, **how):
        """Raises BadInput: nothing is known of where codes lie."""
        raise BadInput(
            "an autoencoder has no p(z) to draw from: take a VAE, or train a model of "
            "its codes and sample Latent(model, autoencoder)"
        )

    def log_likelihood(self, params, state, batch, key):
        """Raises BadInput."""
        no_density("an autoencoder")
