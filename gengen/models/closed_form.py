"""Models whose every answer is known: Gaussians and mixtures of them.

Gaussian mixtures stay Gaussian mixtures when noise is mixed in. With data from
Σ_k w_k N(m_k, s_k² I) and z = a x + b ε,

    p_t(z) = Σ_k w_k N(z; a m_k, v_k I),   v_k = a² s_k² + b²,
    E[x | z] = Σ_k γ_k (m_k + (a s_k²/v_k) (z - a m_k)),   γ_k = p(k | z),
    E[ε | z] = Σ_k γ_k (b/v_k) (z - a m_k),

so the optimal network is known for every path and prediction, at both ends of time; and
with the component as the label, so are the conditional one, the classifier p(k | z) of
noisy data and what guidance makes of them. One Gaussian's probability-flow ODE even has
a solution: z_s keeps the standardised value (z - a m)/√v.

Nothing here is learnt. It is what solvers, bounds and guidance are tested against, and
what they can be tried on in a notebook.
"""

import math

import jax
import jax.numpy as jnp

from gengen.diffusion.paths import Path
from gengen.diffusion.process import Process, expand, ode_velocity
from gengen.scan import fold_in, normal, sample_keys
from gengen.types import Array, Key, static


@static
class Mixture:
    """Σ_k w_k N(m_k, s_k² I): weights K, means K × D (or K × 1, for any D), stds K.

    Components are shared by the last axis of z [B, ..., D]; other axes are independent.
    """

    weights: tuple[float, ...]
    means: tuple[tuple[float, ...], ...]
    stds: tuple[float, ...]

    def components(self, path: Path, z: Array, t: Array) -> tuple[Array, Array, Array]:
        """log w_k N(z; a m_k, v_k I) [..., K]; E[x | z, k], E[ε | z, k] [..., K, D]."""
        z = z[..., None, :]
        t = expand(t, z)
        a, b = path.a(t), path.b(t)
        m, s = jnp.asarray(self.means), jnp.asarray(self.stds)[:, None]
        v, gap = (a * s) ** 2 + b**2, z - a * m
        log_normal = -0.5 * jnp.sum(gap**2 / v + jnp.log(2 * math.pi * v), axis=-1)
        log_joint = jnp.log(jnp.asarray(self.weights)) + log_normal
        return log_joint, m + a * s**2 / v * gap, b / v * gap

    def log_density(self, path: Path, z: Array, t: Array) -> Array:
        """log p_t(z) in nats, summed over the last axis: [B, ...]."""
        return jax.nn.logsumexp(self.components(path, z, t)[0], axis=-1)

    def log_prob_labels(self, path: Path, z: Array, t: Array) -> Array:
        """log p(k | z) [B, ..., K]: the optimal classifier of noisy data."""
        return jax.nn.log_softmax(self.components(path, z, t)[0])

    def score(self, path: Path, z: Array, t: Array) -> Array:
        """∇ log p_t(z), by differentiating the density and not by the posterior."""
        return jax.grad(lambda z: jnp.sum(self.log_density(path, z, t)))(z)

    def guided_score(
        self, path: Path, z: Array, t: Array, label: int, scale: float
    ) -> Array:
        """∇ log p_t(z) + scale ∇ log p(label | z): 1 is the conditional score."""

        def log_p(z):
            log_joint = self.components(path, z, t)[0]
            total = jax.nn.logsumexp(log_joint, axis=-1)
            return jnp.sum(total + scale * (log_joint[..., label] - total))

        return jax.grad(log_p)(z)

    def predict(self, process: Process, label: int | None = None):
        """The optimal network: (z, t) -> E[r | z] = c E[x | z] + d E[ε | z].

        label: E[r | z, k] of that component, None for all.
        """

        def predict(z, t):
            log_joint, x, noise = self.components(process.path, z, t)
            m = process.matrix(expand(t, z))
            if label is not None:
                return m.c * x[..., label, :] + m.d * noise[..., label, :]
            share = jax.nn.softmax(log_joint, axis=-1)[..., None]
            return m.c * jnp.sum(share * x, -2) + m.d * jnp.sum(share * noise, -2)

        return predict

    def velocity(self, process: Process, z: Array, t: Array) -> Array:
        """ż of the probability-flow ODE."""
        return ode_velocity(process, z, self.predict(process)(z, t), t)

    def sample(self, key: Key, num: int, label: int | None = None) -> Array:
        """[num, D] from the data's density, row i from (key, i)."""
        keys, weights = sample_keys(key, num), jnp.asarray(self.weights)

        def component(key):
            return jax.random.categorical(key, jnp.log(weights))

        m, s = jnp.asarray(self.means), jnp.asarray(self.stds)
        k = jnp.full(num, label) if label is not None else jax.vmap(component)(keys)
        return m[k] + s[k, None] * normal(fold_in(keys, 1), m.shape[1:])


def gaussian(mean: float, std: float) -> Mixture:
    """N(mean, std²) in every dimension."""
    return Mixture((1.0,), ((mean,),), (std,))


def gaussian_variance(path: Path, std: float, t: Array) -> Array:
    """v = a² s² + b², the variance of z at time t."""
    return (path.a(t) * std) ** 2 + path.b(t) ** 2


def gaussian_flow(
    path: Path, mean: float, std: float, z: Array, t: Array, s: Array
) -> Array:
    """The probability-flow ODE from z at t to s: m a_s + √(v_s/v_t) (z - m a_t)."""
    v_t, v_s = gaussian_variance(path, std, t), gaussian_variance(path, std, s)
    return mean * path.a(s) + jnp.sqrt(v_s / v_t) * (z - mean * path.a(t))
