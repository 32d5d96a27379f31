"""Augmentation: static values (batch, key) -> batch, for `objective.map_batch`.

Each example is changed by itself; pixels stay levels. All of them are differentiable in
real pixels, too: `Gated` makes of them what a GAN's critic sees of real and fake alike,
(x, key, p) -> x, p being a probability.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gengen.types import static


@static
class Shift:
    """Move each image by up to `pixels` rows and columns; `fill` comes in."""

    pixels: int = 1
    """The most by which an image is moved."""
    key: str = "image"
    """The batch's name for the images, a space's `key`."""
    fill: float = 0
    """What comes in: level 0 of pixels, -1 of x."""

    def __call__(self, batch, key):
        image, p = batch[self.key], self.pixels
        sides = ((0, 0), (p, p), (p, p), (0, 0))
        padded = jnp.pad(image, sides, constant_values=self.fill)
        corners = jax.random.randint(key, (image.shape[0], 2), 0, 2 * p + 1)

        def cut(padded, corner):
            return jax.lax.dynamic_slice(padded, (*corner, 0), image.shape[1:])

        return {**batch, self.key: jax.vmap(cut)(padded, corners)}


@static
class Flip:
    """Mirror each image left to right with probability 1/2."""

    key: str = "image"
    """The batch's name for the images, a space's `key`."""

    def __call__(self, batch, key):
        image = batch[self.key]
        flip = jax.random.bernoulli(key, 0.5, (image.shape[0], 1, 1, 1))
        return {**batch, self.key: jnp.where(flip, image[:, :, ::-1], image)}


@static
class Binarise:
    """Pixels 0 or 1: white with a probability of level/(levels - 1).

    Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, section 5.
    """

    levels: int = 256
    """The levels of the images that come in."""
    key: str = "image"
    """The batch's name for the images, a space's `key`."""

    def __call__(self, batch, key):
        image = batch[self.key]
        white = jax.random.bernoulli(key, image / (self.levels - 1.0))
        return {**batch, self.key: white.astype(image.dtype)}


@static
class Chain:
    """One after the other, each with its own key; () changes nothing."""

    functions: tuple[Callable, ...]

    def __call__(self, batch, key):
        for i, function in enumerate(self.functions):
            batch = function(batch, jax.random.fold_in(key, i))
        return batch


@static
class Cutout:
    """A rectangle of `share` of each side is 0 in x, anywhere in the image.

    DeVries and Taylor 2017, arXiv:1708.04552.
    """

    share: float = 0.5
    """The rectangle's sides over the image's."""
    key: str = "image"
    """The batch's name for the images, a space's `key`."""

    def __call__(self, batch, key):
        image = batch[self.key]
        num, height, width, _ = image.shape
        places = jax.random.uniform(key, (2, num, 1))

        def is_cut(side, place):  # bool [B, side]
            length = max(1, round(self.share * side))
            first = jnp.floor(place * (side + 1 - length))
            row = jnp.arange(side)
            return (first <= row) & (row < first + length)

        rows, columns = is_cut(height, places[0]), is_cut(width, places[1])
        cut = rows[:, :, None, None] & columns[:, None, :, None]
        return {**batch, self.key: jnp.where(cut, 0, image)}


@static
class Colour:
    """Brightness, then contrast: (x + b - mean) s + mean, b ± `shift`, s ± `contrast`.

    As in DiffAugment (Zhao et al. 2020, arXiv:2006.10738, section 4), for x.
    """

    shift: float = 0.5
    """The most that is added."""
    contrast: float = 0.5
    """The most by which the factor differs from 1."""
    key: str = "image"
    """The batch's name for the images, a space's `key`."""

    def __call__(self, batch, key):
        image = batch[self.key]
        shape = (2, image.shape[0], 1, 1, 1)
        b, s = jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
        image = image + self.shift * b
        mean = jnp.mean(image, axis=(1, 2, 3), keepdims=True)
        changed = (image - mean) * (1.0 + self.contrast * s) + mean
        return {**batch, self.key: changed}


@static
class Gated:
    """(x, key, p) -> x: one change after the other, each with probability p.

    What a critic may see of real and fake examples without leaking into the generator:
    below p = 1 the change can be undone in distribution, so that equal distributions
    are still the only ones that look equal. Karras et al. 2020, arXiv:2006.06676,
    section 2.2; at p = 1, DiffAugment (Zhao et al. 2020, arXiv:2006.10738).

    >>> x = jnp.arange(2.0).reshape(1, 1, 2, 1)
    >>> Gated((Flip(),))(x, jax.random.key(0), 0.0).ravel().tolist()
    [0.0, 1.0]
    """

    functions: tuple[Callable, ...]
    """Augmentations of batches whose images have the key "image"."""

    def __call__(self, x, key, p=1.0):
        for i, function in enumerate(self.functions):
            key_change, key_gate = jax.random.split(jax.random.fold_in(key, i))
            changed = function({"image": x}, key_change)["image"]
            gate = jax.random.bernoulli(key_gate, p, (len(x),) + (1,) * (x.ndim - 1))
            x = jnp.where(gate, changed, x)
        return x


@static
class InstanceNoise:
    """(x, key, p) -> x + p · std · ε, ε ~ N(0, 1): densities that overlap.

    Sønderby et al. 2017, arXiv:1610.04490, section 3.3; let p fall to 0 in training.

    >>> x = jnp.ones((1, 2))
    >>> InstanceNoise(0.1)(x, jax.random.key(0), 0.0).tolist()
    [[1.0, 1.0]]
    """

    std: float = 0.1
    """The standard deviation at p = 1."""

    def __call__(self, x, key, p=1.0):
        return x + p * self.std * jax.random.normal(key, x.shape, x.dtype)
