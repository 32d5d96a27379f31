"""A model of another one's latents: latent diffusion, and priors of codes.

    z = autoencoder.to_latent(x),   a model of z,   x = autoencoder.from_latent(z)

The autoencoder was trained before and is frozen: its arrays are state["frozen"], read
and never moved. The inner model may be any model of the library, and nothing of it is
known here but its space: `Reals` of the latents, which standardises them, or `Symbols`
of their codes. So latent diffusion is `Latent(flow, autoencoder)`, and the second stage
of a VQ-VAE is `Coded(autoregressive, vqvae)`.

Latents that are real have no density of x. Codes do: they are a function of x, so

    log p(x) >= log p(x | codes) + log p(codes),

which is the length of what a receiver needs to restore x: first its codes, then x.

Rombach et al. 2022, arXiv:2112.10752; van den Oord et al. 2017, arXiv:1711.00937.
"""

from functools import partial
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gengen.autoregressive.clamping import known_mask, resampled
from gengen.conditions import Condition, check_batch
from gengen.errors import BadInput, no_density
from gengen.scan import fold_in, sample_keys
from gengen.spaces import Space
from gengen.types import (
    Array,
    Completes,
    Completion,
    HasCodes,
    HasFeatures,
    HasLatents,
    LossFn,
    Model,
    frozen,
    static,
)


@static
class _OfData:
    """A loss of latents as a loss of data."""

    latent: Any
    loss: LossFn

    def __call__(self, params, state, batch, key):
        return self.loss(params, state, self.latent.encoded(state, batch), key)


@static
class _SecondStage(HasFeatures):
    """The inner model, of `to_latent` of what the autoencoder's space reads."""

    model: Model
    """The model of latents; its space names the entry under which it reads them."""
    autoencoder: Any
    """`space`, `latent_shape`, `to_latent` and `from_latent`, without a condition."""
    name: str = "autoencoder"
    """The entry of state["frozen"] that holds the autoencoder's arrays."""

    def __post_init__(self):
        inner, latents = self.model.space.shape, self.autoencoder.latent_shape
        if tuple(inner) != tuple(latents):
            raise BadInput(
                f"a model of {inner} over latents of {latents}: make both for the same "
                "latents"
            )
        own = getattr(self.autoencoder, "condition", None)
        if own is not None and own.names:
            raise BadInput(
                f"the autoencoder is conditioned on {', '.join(own.names)}: a model of "
                "latents needs one that is not"
            )

    @property
    def space(self) -> Space:
        """The autoencoder's: the type of x."""
        return self.autoencoder.space

    @property
    def condition(self) -> Condition:
        """The inner model's."""
        return self.model.condition

    def encoded(self, state, batch):
        """The batch with latents, gradient stopped, under the inner space's key.

        A batch without data is one of latents, which were computed before.
        """
        if self.space.key not in batch:
            return batch
        own, x = frozen(state, self.name), self.space.read(batch)
        z = self.autoencoder.to_latent(own.params, own.state, x)
        return {**batch, self.model.space.key: jax.lax.stop_gradient(z)}

    def decoded(self, state, z: Array) -> Array:
        """The inner model's samples -> x."""
        own, data = frozen(state, self.name), self.model.space.to_data(z)
        return self.autoencoder.from_latent(own.params, own.state, data)

    def init(self, key, batch=None):
        """The inner model's parameters; a batch is checked and not needed."""
        if batch is not None and self.space.key not in batch:
            return self.model.init(key, batch)
        check_batch(self.space, self.condition, batch)
        return self.model.init(key, None)

    def losses(self):
        return {p: _OfData(self, loss) for p, loss in self.model.losses().items()}

    def sample(self, params, state, key, num, **how) -> Array:
        """x [num, *shape]: the inner model's samples, decoded; how: its keywords."""
        return self.decoded(state, self.model.sample(params, state, key, num, **how))

    def features(self, params, state, batch, key) -> Array:
        """The inner model's features of the latents."""
        return self.model.features(params, state, self.encoded(state, batch), key)

    def nfe(self, *sampler) -> int | None:
        """The inner model's network calls per sample, and one of the decoder."""
        calls = self.model.nfe(*sampler)
        return None if calls is None else calls + 1


@static
class Latent(_SecondStage, HasLatents):
    """A model of real latents: latent diffusion. It has no density of x."""

    density: ClassVar[str] = "none"

    def sample_latent(self, params, state, keys) -> Array:
        """Latents of the inner model, as it draws them."""
        return self.model.sample_latent(params, state, keys)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The inner model's latents; BadInput if it has none (a prior of codes)."""
        if not isinstance(self.model, HasLatents):
            raise BadInput(
                f"the inner {type(self.model).__name__} draws without latents: take a "
                "diffusion model of the latents"
            )
        return self.model.latent_shape

    def from_latent(self, params, state, z: Array, **how) -> Array:
        """x of the inner model's latents, by both; BadInput if it has none."""
        chex.assert_shape(z, (None, *self.latent_shape))
        return self.decoded(state, self.model.from_latent(params, state, z, **how))

    def log_likelihood(self, params, state, batch, key):
        """Raises BadInput: a density of latents is none of x."""
        no_density("a model of latents")


@static
class Coded(_SecondStage, Completes):
    """A prior over the codes of an autoencoder, and its decoder: one model of x."""

    density: ClassVar[str] = "bound"
    likelihood_kind: ClassVar[str] = "code-length"

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.autoencoder, HasCodes) or self.model.density == "none":
            raise BadInput(
                f"a {type(self.model).__name__} over the latents of a "
                f"{type(self.autoencoder).__name__} has no code length: take a prior "
                "with a density and a VQVAE, or Latent"
            )
        codes = self.autoencoder.codes.size
        if self.model.space.size != codes:
            raise BadInput(
                f"a prior of {self.model.space.size} codes over a book of {codes}: "
                "make both for the same book"
            )

    def complete(
        self, params, state, key, batch, observed, *, start_index=0, particles=1, **how
    ) -> Completion:
        """Draws of the codes and E[x | codes], where x is not observed.

        The posterior of the codes is p(codes) p(x_observed | codes). Proposed are the
        codes whose places, their shares of the image's grid, are wholly observed and
        begin the prior's order, as the encoder reads them; and draws of the prior for
        the others. One of `particles` is then selected by p(x_observed | codes). So
        the draws become those of the posterior with many particles, but for the codes
        that are kept: an encoder reads beyond their places, where x is not observed and
        stands as the first draw has it.

        Args, beside those of `sample`:
            batch: the data, of which the observed part is read, and the condition.
            observed: bool, of a shape that broadcasts to [B, *shape]; known values.
            particles: the number of draws that are weighed per row.
            **how: the prior's own keywords of `generate`, such as `sampler`.
        """
        own, x = frozen(state, self.name), self.space.read(batch)
        mask = known_mask(self.space, observed, len(x))
        kept = self._beginning(mask)
        keys, guess = sample_keys(key, len(x), start_index), jnp.zeros_like(x)
        for turn in range(2 if kept.any() else 1):
            seen = jnp.where(mask, x, guess)
            codes = self.autoencoder.to_latent(own.params, own.state, seen)
            rows = (
                self.condition.read(batch),
                self.model.in_order(codes),
                jnp.asarray(kept),
            )
            generate = partial(self._weighed, params, own, key, how)
            data = self.space.data(batch)
            drawn = fold_in(keys, turn), rows, data, mask, particles
            codes, effective = resampled(generate, *drawn)
            guess = self.autoencoder.from_latent(*own, codes)
        return Completion(jnp.where(mask, x, guess), effective)

    def _beginning(self, mask):
        """Which codes begin the prior's order and are wholly observed, bool [B, T]."""
        whole = mask
        for axis, count in enumerate(self.autoencoder.latent_shape, 1):
            cut = (*whole.shape[:axis], count, -1, *whole.shape[axis + 1 :])
            whole = whole.reshape(cut).all(axis=axis + 1)
        whole = whole.reshape(len(mask), *self.autoencoder.latent_shape, -1).all(-1)
        return np.logical_and.accumulate(self.model.in_order(whole), axis=1)

    def _weighed(self, params, own, key, how, keys, rows, data, observed):
        """Codes of the prior, and what they say of the data: log p [B, *shape]."""
        symbols, _ = self.model.generate(params, keys, *rows, **how)
        codes, batch = self.model.to_model(symbols), {self.space.key: data}
        by_place = self.autoencoder.log_prob_by_place(*own, batch, codes, key)
        return codes, by_place

    def log_likelihood(self, params, state, batch, key):
        """log p(x | codes) + log p(codes), [B] nats of the data."""
        key_codes, key_data = jax.random.split(key)
        own, batch = frozen(state, self.name), self.encoded(state, batch)
        codes = batch[self.model.space.key]
        given = self.autoencoder.log_prob_of_codes(*own, batch, codes, key_data)
        return given + self.model.log_likelihood(params, state, batch, key_codes)
