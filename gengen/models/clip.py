"""CLIP: which caption belongs to which image, by the angle between two vectors.

An image and a caption are each encoded as a unit vector, u and v. The similarities of
a batch of B pairs, and what the losses ask of them, are

    l_ij = τ u_i · v_j                   InfoNCE: whose caption is it, among B?
    l_ij = τ u_i · v_j + b               sigmoid: do these two belong together?

with τ learned, at most 100. Equal captions are no negatives of one another. The best
l_ij is log p(x, c)/(p(x) p(c)), up to a constant, so that ∇ₓ l is ∇ₓ log p(c | x):
trained on noisy images z = a(t) x + b(t) ε, it guides an unconditional diffusion to a
caption, by `ClassifierGuide`. Its cosine says how well a sample fits its caption, and
its encoder of captions can start that of a conditional network.

Radford et al. 2021, arXiv:2103.00020; Zhai et al. 2023, arXiv:2303.15343 (sigmoid);
noisy images: Nichol et al. 2022, arXiv:2112.10741, section 2.4.
"""

import math
from collections.abc import Callable
from typing import ClassVar, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import Text, check_batch
from gengen.diffusion.noisy import clean, noisy, unit_variance
from gengen.diffusion.paths import Path
from gengen.errors import BadInput, no_density
from gengen.losses.contrastive import equal_rows, infonce, sigmoid
from gengen.losses.perceptual import unit
from gengen.nets.captions import CaptionEncoder
from gengen.objective import loss, map_batch
from gengen.spaces import Space
from gengen.types import Array, Guides, HasFeatures, Matches, static

MOST = 100.0  # τ at most


@jax.custom_vjp
def temperature(log_scale: Array) -> Array:
    """τ = min(e^s, 100) of a learned s, which can come back from beyond.

    Where e^s is above 100, a gradient that would raise s is 0, and one that would lower
    it is what it were without the bound.

    >>> temperature(jnp.float32(9.0)).item()
    100.0
    """
    return jnp.minimum(jnp.exp(log_scale), MOST)


def _forward(log_scale):
    value = temperature(log_scale)
    return value, (value, log_scale > math.log(MOST))


def _backward(kept, gradient):
    value, beyond = kept
    return (value * jnp.where(beyond, jnp.maximum(gradient, 0.0), gradient),)


temperature.defvjp(_forward, _backward)


class Contrast(Protocol):
    """What a `CLIP` minimises."""

    def init(self) -> dict[str, Array]:
        """The parameters: `log_scale`, and others."""

    def loss(self, own: dict[str, Array], cosine: Array, same: Array) -> Array:
        """The loss of each pair, [B] nats.

        Args:
            own: the parameters.
            cosine: u_i · v_j, [B, B].
            same: bool [B, B], which captions are equal.
        """


@static
class InfoNCE:
    """Among the captions of the batch, which is the image's; and the other way."""

    scale: float = 1 / 0.07
    """τ at first."""

    def init(self):
        """log τ."""
        return {"log_scale": jnp.float32(math.log(self.scale))}

    def loss(self, own, cosine, same):
        """`infonce` of τ u · v."""
        return infonce(temperature(own["log_scale"]) * cosine, same)


@static
class PairwiseSigmoid:
    """Each image and caption by themselves: do they belong together?"""

    scale: float = 10.0
    """τ at first."""
    bias: float = -10.0
    """b at first: most pairs do not belong together."""

    def init(self):
        """log τ and b."""
        first = {"log_scale": math.log(self.scale), "bias": self.bias}
        return jax.tree.map(jnp.float32, first)

    def loss(self, own, cosine, same):
        """`sigmoid` of τ u · v + b."""
        return sigmoid(temperature(own["log_scale"]) * cosine + own["bias"], same)


@static
class CLIP(Matches, Guides, HasFeatures):
    """Unit vectors of images and captions, near one another where they belong."""

    net: nn.Module
    """x -> (vectors [B, D], features [B, F]), such as a `ResNet` of D classes; with a
    path it takes times t [B], too."""
    space: Space
    """The type of x."""
    condition: Text
    """The type of the captions, with the sizes of their encoder."""
    dim: int
    """D, the length of the vectors."""
    contrast: Contrast = InfoNCE()
    """What is minimised."""
    augment: Callable | None = None
    """(batch, key) -> batch, at module scope or a static value; in training only."""
    path: Path | None = None
    """The path of the noise, at uniform times; None for clean images."""
    density: ClassVar[str] = "none"

    @property
    def target(self) -> Text:
        """What it guides a sampler to: a caption."""
        return self.condition

    @property
    def text_net(self) -> CaptionEncoder:
        """The encoder of captions."""
        return CaptionEncoder(self.condition, self.dim)

    def init(self, key, batch=None):
        """Parameters; a batch is checked and not needed."""
        check_batch(self.space, self.condition, batch)
        key_image, key_text = jax.random.split(key)
        x, more = self.space.zeros(1), {} if self.path is None else {"t": jnp.zeros(1)}
        (u, _), image = self.net.init_with_output(key_image, x, **more)
        if u.shape != (1, self.dim):
            raise BadInput(
                f"the network's vectors have shape {list(u.shape)} for one example, and"
                f" those of captions are {self.dim} long: give both the same length"
            )
        text = self.text_net.init(key_text, self.condition.zeros(1), 1)
        own = {"image": image["params"], "text": text["params"]}
        return {"clip": {**own, "contrast": self.contrast.init()}}, {}

    def losses(self):
        own = self.loss
        return {"clip": map_batch(self.augment, own) if self.augment else own}

    def _image(self, params, z, t, **kwargs):
        """(unit vectors [B, D], features [B, F]) of z at times t, or of x."""
        z, more = unit_variance(self.path, z, t)
        own = {"params": params["clip"]["image"]}
        u, features = self.net.apply(own, z, **more, **kwargs)
        return unit(u), features

    def embed_text(self, params, c) -> Array:
        """Unit vectors [B, D] of captions {name: int32 [B, S]}."""
        tokens = c[self.condition.key]
        own = {"params": params["clip"]["text"]}
        return unit(self.text_net.apply(own, c, len(tokens)))

    def embed_image(self, params, x) -> Array:
        """Unit vectors [B, D] of x [B, *shape] without noise."""
        return self._image(params, *clean(self.path, x))[0]

    def embeddings(self, params, state, batch):
        """(u, v) of a batch, unit vectors [B, D] each."""
        u = self.embed_image(params, self.space.read(batch))
        return u, self.embed_text(params, self.condition.read(batch))

    @loss
    def loss(self, params, state, batch, key):
        """The contrast's mean; metrics: τ, and whose own caption is the nearest."""
        c, key_noise = self.condition.read(batch), jax.random.fold_in(key, 1)
        z, t = noisy(self.path, self.space.read(batch), key_noise)
        u, _ = self._image(params, z, t, train=True, rngs={"dropout": key})
        own, cosine = params["clip"]["contrast"], u @ self.embed_text(params, c).T
        same = equal_rows(c[self.condition.key])
        value = jnp.mean(self.contrast.loss(own, cosine, same))
        nearest = jnp.argmax(cosine, axis=1)[:, None]
        right = jnp.mean(jnp.take_along_axis(same, nearest, axis=1), dtype=jnp.float32)
        tau = temperature(own["log_scale"])
        return value, (state, {"right": right, "temperature": tau})

    def log_prob_at(self, params, state, z, t, c) -> Array:
        """τ u · v [B]: log p(c | z) up to a constant, of noisy z at times t."""
        if self.path is None:
            raise BadInput(
                "this CLIP has seen clean images only: train one with a path"
            )
        u, _ = self._image(params, z, jnp.broadcast_to(t, z.shape[:1]))
        tau = temperature(params["clip"]["contrast"]["log_scale"])
        return tau * jnp.sum(u * self.embed_text(params, c), axis=-1)

    def features(self, params, state, batch, key) -> Array:
        """What the image network's last layer sees, [B, F]; the key is not used."""
        return self._image(params, *clean(self.path, self.space.read(batch)))[1]

    def log_likelihood(self, params, state, batch, key):
        """Raises BadInput: there is no density of x."""
        no_density("a CLIP")

    def sample(self, params, state, key, num, **condition):
        """Raises BadInput: it says nothing about which x there are."""
        raise BadInput(
            "a CLIP draws no samples: sample a generative model, which it can guide to "
            "a caption and whose samples it can rank"
        )
