"""What several experiments share: the optimiser, the precision, the order of pixels."""

from typing import Literal

import numpy as np

Precision = Literal["float32", "bf16"]
Order = Literal["raster", "columns", "random"]


def permutation(
    order: Order, shape: tuple[int, ...], whole_pixels: bool = False
) -> tuple[int, ...] | None:
    """Of the subpixels of images [H, W, C], or of their pixels; None for raster."""
    if order == "raster":
        return None
    places = np.arange(np.prod(shape[:2] if whole_pixels else shape))
    if order == "columns":
        return tuple(places.reshape(*shape[:2], -1).swapaxes(0, 1).ravel().tolist())
    # Philox' raw stream is the same in every version of NumPy.
    bits = np.random.Philox(0).random_raw(len(places))
    return tuple(np.argsort(bits, kind="stable").tolist())


def dtype(precision: Precision):
    """The `dtype` of a network: None computes in float32."""
    import jax.numpy as jnp

    return jnp.bfloat16 if precision == "bf16" else None


def adam(learning_rate: float, b1: float = 0.9, b2: float = 0.999, warmup: int = 100):
    """Adam after clipping the gradient's norm to 1; the rate rises over `warmup` steps.

    The rate then stays: a run continued for more steps is the longer run.
    """
    import optax

    rate = optax.linear_schedule(0.0, learning_rate, warmup)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b1=b1, b2=b2))
