"""Exact answers that tests hold the library against.

Gaussian mixtures stay Gaussian mixtures when noise is mixed in. With data from
Σ_k w_k N(m_k, s_k² I) and z = a x + b ε,

    p_t(z) = Σ_k w_k N(z; a m_k, v_k I),   v_k = a² s_k² + b²,
    E[x | z] = Σ_k γ_k (m_k + (a s_k²/v_k) (z - a m_k)),   γ_k ∝ w_k N(z; a m_k, v_k I),
    E[ε | z] = Σ_k γ_k (b/v_k) (z - a m_k),

so the optimal network is known for every path and prediction, at both ends of time. One
Gaussian's probability-flow ODE even has a solution: z_s keeps the standardised value
(z - a m)/√v. And a linear VAE is probabilistic PCA.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from gengen.diffusion.process import expand
from gengen.types import static


@static
class Mixture:
    """Σ_k w_k N(m_k, s_k² I): weights K, means K × D (or K × 1, for any D), stds K.

    Components are shared by the last axis of z [B, ..., D]; other axes are independent.
    """

    weights: tuple[float, ...]
    means: tuple[tuple[float, ...], ...]
    stds: tuple[float, ...]

    def components(self, path, z, t):
        """log w_k N(z; a m_k, v_k I) [..., K]; E[x | z, k], E[ε | z, k] [..., K, D]."""
        z = z[..., None, :]
        t = expand(t, z)
        a, b = path.a(t), path.b(t)
        m, s = jnp.asarray(self.means), jnp.asarray(self.stds)[:, None]
        v, gap = (a * s) ** 2 + b**2, z - a * m
        log_normal = -0.5 * jnp.sum(gap**2 / v + jnp.log(2 * math.pi * v), axis=-1)
        log_joint = jnp.log(jnp.asarray(self.weights)) + log_normal
        return log_joint, m + a * s**2 / v * gap, b / v * gap

    def log_density(self, path, z, t):
        """log p_t(z), summed over the last axis: [B, ...]."""
        return jax.nn.logsumexp(self.components(path, z, t)[0], axis=-1)

    def score(self, path, z, t):
        """∇ log p_t(z), by differentiating the density and not by the posterior."""
        return jax.grad(lambda z: jnp.sum(self.log_density(path, z, t)))(z)

    def denoise(self, process):
        """The optimal network: (z, t) -> E[r | z] = c E[x | z] + d E[ε | z]."""

        def denoise(z, t):
            log_joint, x, noise = self.components(process.path, z, t)
            share = jax.nn.softmax(log_joint, axis=-1)[..., None]
            m = process.matrix(expand(t, z))
            return m.c * jnp.sum(share * x, -2) + m.d * jnp.sum(share * noise, -2)

        return denoise


def gaussian(mean: float, std: float) -> Mixture:
    """N(mean, std²) in every dimension."""
    return Mixture((1.0,), ((mean,),), (std,))


def gaussian_variance(path, std, t):
    """v = a² s² + b², the variance of z at time t."""
    return (path.a(t) * std) ** 2 + path.b(t) ** 2


def gaussian_flow(path, mean, std, z, t, s):
    """The probability-flow ODE from z at t to s: m a_s + √(v_s/v_t) (z - m a_t)."""
    v_t, v_s = gaussian_variance(path, std, t), gaussian_variance(path, std, s)
    return mean * path.a(s) + jnp.sqrt(v_s / v_t) * (z - mean * path.a(t))


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
