"""StyleGAN2: the game of a GAN whose generator has a space of styles.

It is the `GAN` of `gengen.models.gan` with the networks of `gengen.nets.stylegan2`, and
three things besides:

- z is mapped to w, one copy of which goes to each layer. Layers may be given different
  w: coarse ones say what is seen, fine ones its colours (`styles`, `from_styles`).
- w is drawn towards its mean, w̄ + ψ (w - w̄), by `truncation=ψ`: at 0 all images are
  one, at 1 they are the generator's own. The state keeps w̄, as it keeps the mean of
  batch statistics: of the averaged generator, which is the one that is sampled.
- The generator pays for paths of unequal length (`gengen.losses.path_length`), every
  few steps. Below 64 pixels the published configuration leaves that and mixing out.

Karras et al. 2019, arXiv:1812.04948; 2020, arXiv:1912.04958; on little data: 2020,
arXiv:2006.06676, whose "cifar" configuration is the small one.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gengen.errors import BadInput
from gengen.losses.path_length import PathLength, path_lengths
from gengen.models.gan import GAN
from gengen.objective import add, every, loss, scale
from gengen.scan import fold_in, normal, sample_keys
from gengen.types import Array, HasStyles, static


@static
class StyleGAN(GAN, HasStyles):
    """A GAN with a `StyleGAN2Generator`; the critic is any, such as StyleGAN2's."""

    path: PathLength | None = None
    """The penalty of unequal paths; None for none."""

    def init(self, key, batch=None):
        """Parameters, the mean of w, and that of the path lengths."""
        params, state = super().init(key, batch)
        if self.path is not None:
            state["path"] = {"mean": jnp.zeros(())}
        return params, state

    def losses(self):
        losses = super().losses()
        if self.path is None:
            return losses
        n = self.path.interval
        lazy = scale(every(n, self.path_penalty), n)
        return {**losses, "generator": add(losses["generator"], lazy)}

    @loss
    def path_penalty(self, params, state, batch, key):
        """The mean penalty of a part of the batch, and a, the mean length."""
        key_z, key_noise, key_y = jax.random.split(key, 3)
        c = self.condition.read(batch)
        num = max(1, len(self.space.data(batch)) // self.path.shrink)
        z = jax.random.normal(key_z, (num, self.latent))
        weights = {"params": params["generator"], **state["generator"]}
        c = {name: value[:num] for name, value in c.items()}
        w = self.generator.apply(weights, z, c, method="styles")
        noise = jax.random.split(key_noise, num)

        def images(w):
            return self.generator.apply(weights, w, noise, method="synthesize")

        lengths = path_lengths(images, w, key_y)
        value, mean = self.path(lengths, state["path"]["mean"])
        state = {**state, "path": {"mean": mean}}
        return jnp.mean(value), (state, {"path_length": mean})

    @property
    def num_styles(self) -> int:
        """The layers that take a style."""
        return self.generator.num_styles

    def styles(self, params, state, z: Array, **given) -> Array:
        """w of every layer, [B, num_styles, D], of z [B, latent]."""
        c = self.condition.given(given, len(z))
        weights = {"params": params["generator"], **state["generator"]}
        return self.generator.apply(weights, z, c, method="styles")

    def mean_style(self, params, state) -> Array:
        """w̄ [D]."""
        return state["generator"]["average"]["w"]

    def from_styles(self, params, state, w: Array, keys: Array | None = None) -> Array:
        """Images of styles; keys: [B] of the noise images, None for fixed ones."""
        weights = {"params": params["generator"], **state["generator"]}
        return self.generator.apply(weights, w, keys, method="synthesize")

    def from_latent(
        self, params, state, z: Array, *, truncation=1.0, keys=None, **given
    ) -> Array:
        """x of z [B, latent], with ψ; keys as in `from_styles`."""
        check_truncation(truncation)
        w, mean = self.styles(params, state, z, **given), self.mean_style(params, state)
        w = mean + truncation * (w - mean)
        return self.from_styles(params, state, w, keys)

    def sample(
        self, params, state, key, num, *, start_index=0, truncation=1.0, **given
    ):
        """x [num, *shape] of drawn z and noise; truncation: ψ in [0, 1]."""
        keys = sample_keys(key, num, start_index)
        c = self.condition.given(given, num, keys)
        z = normal(keys, self.latent_shape)
        more = {"truncation": truncation, "keys": fold_in(keys, 1)}
        return self.from_latent(params, state, z, **more, **c)


def check_truncation(truncation) -> None:
    """BadInput for a known ψ outside [0, 1]."""
    if isinstance(truncation, jax.core.Tracer):
        return
    if not np.all((np.asarray(truncation) >= 0) & (np.asarray(truncation) <= 1)):
        raise BadInput(
            f"truncation={truncation} is outside [0, 1]: give 1 for the generator's "
            "own images, less for more typical ones, 0 for the one typical image"
        )
