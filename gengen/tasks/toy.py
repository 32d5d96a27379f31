"""Models that one can compute by hand, for the examples of `gengen.tasks`."""

import jax.numpy as jnp

from gengen.types import HasStyles


class Sum(HasStyles):
    """Two styles of one number each, w = (z, z); the image is x = w_1 + 10 w_2.

    >>> Sum().from_styles({}, {}, jnp.array([[[1.0], [2.0]]]))[0]
    Array([21.], dtype=float32)
    """

    num_styles, latent_shape = 2, (1,)
    from_latent = sample_latent = None

    def styles(self, params, state, z):
        """Z [B, 1] twice: [B, 2, 1]."""
        return jnp.repeat(z[:, None], 2, axis=1)

    def mean_style(self, params, state):
        """One: [1]."""
        return jnp.ones(1)

    def from_styles(self, params, state, w):
        """The sum: [B, 1] of w [B, 2, 1]."""
        return w[:, 0] + 10 * w[:, 1]
