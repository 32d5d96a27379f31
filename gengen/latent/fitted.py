"""A Gaussian fitted to codes: what a plain autoencoder can be drawn from, and why not.

Nothing makes the codes of an autoencoder Gaussian, nor its decoder sensible between
them. A Gaussian of their mean and covariance is the best that two moments can say, and
its draws, decoded, show what is missing: the shape of the aggregate posterior.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gengen.errors import BadInput
from gengen.types import Array, Key, static


@static
class FittedGaussian:
    """N(mean, L Lᵀ) of vectors."""

    mean: tuple[float, ...]
    """Its mean [D]."""
    factor: tuple[tuple[float, ...], ...]
    """L [D, D], lower triangular."""

    def sample(self, key: Key, num: int) -> Array:
        """mean + L ε, [num, D]."""
        noise = jax.random.normal(key, (num, len(self.mean)))
        return jnp.asarray(self.mean) + noise @ jnp.asarray(self.factor).T


def fitted_gaussian(codes: Array) -> FittedGaussian:
    """The Gaussian of the codes' mean and covariance (maximum likelihood).

    Args:
        codes: vectors [N, D], N above D.

    Raises:
        BadInput: for codes whose covariance is singular: too few, or constant.

    >>> codes = np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 2.0], [-1.0, -2.0]])
    >>> fitted_gaussian(codes).mean
    (0.0, 0.0)
    """
    codes = np.asarray(codes, np.float64)
    mean, covariance = codes.mean(0), np.atleast_2d(np.cov(codes.T, bias=True))
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise BadInput(
            f"the covariance of {len(codes):,} codes of {codes.shape[1]} numbers is "
            "singular: give more codes, or leave out what is constant"
        ) from None
    return FittedGaussian(tuple(mean.tolist()), tuple(map(tuple, factor.tolist())))
