"""Exact answers that tests hold the library against.

Gaussian mixtures under noise are `gengen.models.closed_form`; a linear VAE is
probabilistic PCA.
"""

import math
import re
from typing import NamedTuple

import numpy as np
from scipy import stats

from gengen.diffusion.paths import (
    Cosine,
    Karras,
    Linear,
    Shifted,
    SubVariancePreserving,
    Trigonometric,
    VarianceExploding,
    VariancePreserving,
)
from gengen.diffusion.process import EDM, Data, Noise, Score, V, Velocity
from gengen.models.closed_form import Mixture

PATHS = [
    Linear(),
    VariancePreserving(),
    VariancePreserving(0.5, 3.0),
    SubVariancePreserving(),
    VarianceExploding(),
    Cosine(),
    Trigonometric(),
    Karras(),
    Shifted(Linear(), 3.0),
    Shifted(VariancePreserving(), 0.5),
]
FAR_PATHS = [Linear(), VariancePreserving(), VarianceExploding(0.05, 20.0)]
PREDICTIONS = [Noise(), Data(), V(), Velocity(), Score(), EDM(0.6)]
MEAN, STD = 1.5, 0.4
MIXTURE = Mixture((0.3, 0.7), ((-1.0, 0.5), (1.0, 0.0)), (0.3, 0.5))


def named(value):
    """A test's name for a value."""
    return type(value).__name__ if not isinstance(value, float | int) else None


def said(value):
    """A test's name for a value that holds functions: without their addresses."""
    return re.sub(r"<function (\w+) at 0x\w+>", r"\1", str(value))


def arrays(num, dim=2, seed=0, batch=7):
    """`num` arrays [batch, dim] of standard normals."""
    return np.random.default_rng(seed).normal(size=(num, batch, dim))


def close(actual, desired, rtol=1e-12, atol=1e-12):
    """Equal in float64."""
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=atol)


class PPCA(NamedTuple):
    """x = W z + mean + σ ε: the maximum-likelihood linear-Gaussian model.

    W = U (Λ - σ² I)^½ without rotation, so that its columns are orthogonal and the
    posterior is diagonal. Tipping and Bishop 1999, equations 7 and 8.
    """

    mean: np.ndarray  # [D]
    weight: np.ndarray  # [D, Z]
    variance: float  # σ²

    def log_evidence(self, x) -> np.ndarray:
        """log N(x; mean, W Wᵀ + σ² I): [B] nats, by scipy."""
        cov = self.weight @ self.weight.T + self.variance * np.eye(len(self.mean))
        return stats.multivariate_normal(self.mean, cov).logpdf(x)

    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """(P [Z, D], [Z]): z | x ~ N(P (x - mean), diag(variances))."""
        precision = np.sum(self.weight**2, axis=0) + self.variance
        return self.weight.T / precision[:, None], self.variance / precision


def fit_ppca(x: np.ndarray, latent: int) -> PPCA:
    """The optimum in closed form: eigenvectors of the covariance of x [B, D]."""
    mean = x.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    values, vectors = values[::-1], vectors[:, ::-1]
    variance = values[latent:].mean()
    weight = vectors[:, :latent] * np.sqrt(values[:latent] - variance)
    return PPCA(mean, weight, float(variance))


def sigma_points(dim: int) -> np.ndarray:
    """±√dim e_i [2 dim, dim]: their mean of a quadratic is that over N(0, I)."""
    return math.sqrt(dim) * np.concatenate([np.eye(dim), -np.eye(dim)])
