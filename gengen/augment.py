"""Augmentation: static values (batch, key) -> batch, for `objective.map_batch`.

Each example is changed by itself; pixels stay levels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gengen.types import static


@static
class Shift:
    """Move each image by up to `pixels` rows and columns; level 0 comes in."""

    pixels: int = 1
    """The most by which an image is moved."""
    key: str = "image"
    """The batch's name for the images, a space's `key`."""

    def __call__(self, batch, key):
        image, p = batch[self.key], self.pixels
        padded = jnp.pad(image, ((0, 0), (p, p), (p, p), (0, 0)))
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
