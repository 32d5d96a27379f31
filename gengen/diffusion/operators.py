"""Linear measurements y = A x of images, as values that inverse problems take."""

from typing import NamedTuple

import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.types import Array, static


@static
class Average:
    """[B, H, W, C] -> [B, H/factor, W/factor, C], means of factor × factor pixels."""

    factor: int
    """The side of the squares, a divisor of H and W."""

    def __call__(self, x: Array) -> Array:
        num, height, width, channels = x.shape
        f = self.factor
        if f < 1 or height % f or width % f:
            raise BadInput(
                f"factor {f}: images of {height}×{width} are not whole squares of {f} "
                "pixels; take a divisor of both sides"
            )
        return jnp.mean(x.reshape(num, height // f, f, width // f, f, channels), (2, 4))


class Observed(NamedTuple):
    """x -> x where `observed`, 0 elsewhere: a mask as an operator."""

    observed: Array
    """bool, of a shape that broadcasts to x."""

    def __call__(self, x: Array) -> Array:
        return jnp.where(self.observed, x, 0.0)
