"""Vector-quantised autoencoders: an image as a grid of codes of a finite book.

An encoder's vectors are replaced by the nearest of a book, and a decoder reads those:

    L = -log p(x | e(codes)) + β |z - stop_gradient(e)|²,

with the gradient passed straight through the rounding. The book is state, which moves
as a running average of the vectors or, with finite scalar quantisation, does not move
at all. What is left to learn are the frequencies of the codes: a prior over them is an
autoregressive model, and `Coded(prior, vqvae)` is one model of images. The codes are
a function of x, so log p(x, codes) is a lower bound on log p(x): its code length.

Van den Oord, Vinyals and Kavukcuoglu 2017, arXiv:1711.00937; Mentzer et al. 2023,
arXiv:2309.15505.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import Nothing, check_batch
from gengen.errors import BadInput, no_density
from gengen.latent.quantizers import Quantizer
from gengen.losses.likelihood import per_example
from gengen.nets.conditioning import agree, init_params
from gengen.objective import Weight, loss, weight_at
from gengen.observations.observation import Observation, check_levels, decoded
from gengen.spaces import Images, Space, Symbols
from gengen.types import Array, HasCodes, HasFeatures, OnlyReconstructs, static


@static
class VQVAE(HasCodes, HasFeatures, OnlyReconstructs):
    """An encoder x -> z, a quantiser z -> codes, a decoder of the codes' vectors."""

    encoder: nn.Module
    """x and c -> vectors [B, *grid, quantizer.dim]."""
    decoder: nn.Module
    """vectors [B, *grid, quantizer.dim] and c -> features of p(x|z)."""
    quantizer: Quantizer
    """The book of codes."""
    observation: Observation
    """p(x|z) of the data, given the features."""
    space: Space
    """The type of x."""
    grid: tuple[int, ...]
    """The shape of the codes of one example, such as (7, 7)."""
    commitment: Weight = 0.25
    """β, the weight of the distance that draws the encoder to the book."""
    condition: ClassVar = Nothing()
    density: ClassVar[str] = "none"

    def __post_init__(self):
        for net in (self.encoder, self.decoder):
            agree(net, self.condition)
        if isinstance(self.space, Symbols):
            raise BadInput(f"{self.space} are codes already: take a model of Symbols")
        check_levels(self.observation, self.space)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of the codes of one example."""
        return self.grid

    @property
    def codes(self) -> Symbols:
        """The space of the codes, for a prior."""
        return Symbols(self.grid, self.quantizer.size)

    def init(self, key, batch=None):
        """Parameters and the book; a batch is checked and not needed."""
        check_batch(self.space, self.condition, batch)
        key_encoder, key_decoder = jax.random.split(key)
        z = jnp.zeros((1, *self.grid, self.quantizer.dim))
        own = {
            "encoder": init_params(self.encoder, key_encoder, self.space.zeros(1), {}),
            "decoder": init_params(self.decoder, key_decoder, z, {}),
            "likelihood": self.observation.init(jax.random.fold_in(key, 3)),
        }
        params = {"vqvae": own}
        found = jax.eval_shape(self.encode, params, self.space.zeros(1)).shape
        if found[1:] != z.shape[1:]:
            raise BadInput(
                f"the encoder's vectors have shape {list(found[1:])} and the grid's "
                f"{list(z.shape[1:])}: make them the same"
            )
        jax.eval_shape(self.decode, params, z)
        return params, {"book": self.quantizer.init()}

    def losses(self):
        return {"vqvae": self.loss}

    def encode(self, params, x: Array, train: bool = False) -> Array:
        """x [B, *shape] -> vectors [B, *grid, D]."""
        return self.encoder.apply(
            {"params": params["vqvae"]["encoder"]}, x, {}, train=train
        )

    def decode(self, params, z: Array, train: bool = False) -> Array:
        """Vectors [B, *grid, D] -> features [B, ..., F] of the data's symbols."""
        weights = {"params": params["vqvae"]["decoder"]}
        output = self.decoder.apply(weights, z, {}, train=train)
        return decoded(self.observation, output, self.space.shape)

    @loss
    def loss(self, params, state, batch, key):
        """-log p(x | codes) + β distance, nats, mean over the batch; the book moves."""
        value, _, state, metrics = self.coded(params, state, batch, key)
        return value, (state, metrics)

    def coded(self, params, state, batch, key):
        """(the loss, the vectors z of the codes, the new state, metrics) in training.

        The gradient of what is made of z passes straight through to the encoder.
        """
        key_observe, key_book = jax.random.split(key)
        z = self.encode(params, self.space.read(batch), train=True)
        quantised = self.quantizer(state["book"], z)
        given = params, quantised.z, batch, key_observe
        log_p = per_example(self._by_place(*given, train=True))
        distance = per_example(quantised.distance)
        book = self.quantizer.update(state["book"], z, key_book)
        metrics = {"reconstruction": -jnp.mean(log_p), "distance": jnp.mean(distance)}
        beta = weight_at(self.commitment, state)
        value = -jnp.mean(log_p) + beta * jnp.mean(distance)
        return value, quantised.z, {**state, "book": book}, metrics

    def _by_place(self, params, z, batch, key, train: bool = False) -> Array:
        own, data, volume = params["vqvae"]["likelihood"], self.space.data(batch), 0.0
        if self.observation.continuous:
            data, volume = self.space.dequantize(key, data), self.space.log_volume
        features, size = self.decode(params, z, train), data[0].size
        log_p = self.observation.log_prob(own, features, data)
        each = log_p.reshape(*log_p.shape, *[1] * (data.ndim - log_p.ndim))
        spread = each * (each.size / data.size)  # of one symbol over its dimensions
        return jnp.broadcast_to(spread, data.shape) + volume / size

    def to_latent(self, params, state, x: Array) -> Array:
        """The codes of x, int32 [B, *grid]."""
        return self.quantizer(state["book"], self.encode(params, x)).codes

    def from_latent(self, params, state, codes: Array) -> Array:
        """E[x | codes], x [B, *shape]."""
        z = self.quantizer.embed(state["book"], codes)
        own = params["vqvae"]["likelihood"]
        mean = self.observation.mean(own, self.decode(params, z))
        clips = self.observation.continuous and isinstance(self.space, Images)
        return jnp.clip(mean, -1.0, 1.0) if clips else mean

    def log_prob_by_place(self, params, state, batch, codes: Array, key) -> Array:
        """log p(x | codes) [B, *shape], nats of the batch's data."""
        z = self.quantizer.embed(state["book"], codes)
        return self._by_place(params, z, batch, key)

    def reconstruct(self, params, state, batch, key) -> Array:
        """E[x | codes of x], x [B, *shape]; the key is not used."""
        codes = self.to_latent(params, state, self.space.read(batch))
        return self.from_latent(params, state, codes)

    def features(self, params, state, batch, key) -> Array:
        """The quantised vectors, [B, F]: a representation; the key is not used."""
        z = self.encode(params, self.space.read(batch))
        return self.quantizer(state["book"], z).z.reshape(len(z), -1)

    def sample(self, params, state, key, num, **how):
        """Raises BadInput: codes need a prior."""
        raise BadInput(
            "a VQVAE has no prior over its codes: train a model of its `codes` and "
            "sample Coded(prior, vqvae)"
        )

    def log_likelihood(self, params, state, batch, key):
        """Raises BadInput: the code length needs a prior."""
        no_density("a VQVAE without a prior")
