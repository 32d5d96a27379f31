"""The loss of all of diffusion: regress what the matrix asks for."""

from collections.abc import Callable

import chex
import jax.numpy as jnp

from gengen.diffusion.process import Process, corrupt
from gengen.diffusion.weights import Unweighted, Weight
from gengen.types import Array


def matching_loss(
    predict: Callable,
    process: Process,
    x: Array,
    noise: Array,
    t: Array,
    weight: Weight = Unweighted(),
) -> Array:
    """w(t) |r̂(z, t) - r|² averaged over the dimensions, [B].

    Here z = a x + b ε is what the network sees and r = c x + d ε what it is asked for.

    Velocity on the linear path is flow matching (Lipman et al. 2023, arXiv:2210.02747,
    equation 23), noise on a variance-preserving path is DDPM's L_simple (Ho et al.
    2020, arXiv:2006.11239, equation 14), the score weighted by b² denoising score
    matching (Vincent 2011; Song and Ermon 2019, arXiv:1907.05600, equation 5).

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> x, noise, t = jnp.array([[1.0, 0.0]]), jnp.array([[3.0, 0.0]]), jnp.array([0.5])
    >>> process = Process(Linear(), Velocity())
    >>> matching_loss(lambda z, t: z, process, x, noise, t).tolist()
    [0.0]

    Args:
        predict: the network, (z, t) -> r̂ [B, ...]; channels beyond those of x (a
            learned variance) are not looked at.
        process: the path, and what the network predicts.
        x: data [B, ...], floats.
        noise: standard normal noise, of the shape of x.
        t: times in (0, 1), [B].
        weight: the weight of the squared error, (process, t) -> [B].
    """
    chex.assert_shape(t, x.shape[:1])
    z, r = corrupt(process, x, noise, t)
    found = predict(z, t)[..., : x.shape[-1]]
    chex.assert_equal_shape([found, r])
    error = jnp.square(found - r)
    loss = jnp.mean(error.reshape(error.shape[0], -1), axis=-1)
    return weight(process, t) * loss
