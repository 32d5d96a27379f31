"""Models whose every answer is known: Gaussians and mixtures of them.

Gaussian mixtures stay Gaussian mixtures when noise is mixed in. With data from
Σ_k w_k N(m_k, C_k) and z = a x + b ε,

    p_t(z) = Σ_k w_k N(z; a m_k, V_k),   V_k = a² C_k + b² I,
    E[x | z] = Σ_k γ_k (m_k + a C_k V_k⁻¹ (z - a m_k)),   γ_k = p(k | z),
    E[ε | z] = Σ_k γ_k b V_k⁻¹ (z - a m_k),

so the optimal network is known for every path and prediction, at both ends of time; and
with the component as the label, so are the conditional one, the classifier p(k | z) of
noisy data and what guidance makes of them. One Gaussian's probability-flow ODE even has
a solution: along each axis z_s keeps the standardised value (z - a m)/√v.

Nothing here is learnt. It is what solvers, bounds and guidance are tested against, and
what they can be tried on in a notebook.
"""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gengen.diffusion.paths import Path
from gengen.diffusion.process import Process, expand, ode_velocity
from gengen.errors import BadInput
from gengen.scan import fold_in, normal, sample_keys
from gengen.types import Array, Key, static

Rows = tuple[tuple[float, ...], ...]


@static
class Mixture:
    """Σ_k w_k N(m_k, C_k), C_k = R_k diag(s_k²) R_kᵀ; K components in D dimensions.

    Components are shared by the last axis of z [B, ..., D]; other axes are independent.
    `with_covariances` makes one from full covariances. Raises BadInput for values of
    other sizes.
    """

    weights: tuple[float, ...]
    """w, K numbers that sum to 1."""
    means: Rows
    """m, K × D numbers, or K × 1 for any D."""
    stds: tuple[float, ...] | Rows
    """s, K numbers, or K × D for one per axis."""
    axes: tuple[Rows, ...] | None = None
    """R, K × D × D numbers: the columns of each are its axes. None for those of z."""

    def __post_init__(self):
        num = len(self.weights)
        mean, std = np.shape(self.means), np.shape(self.stds)
        good = len(mean) == 2 and mean[0] == num and std in ((num,), mean)
        if self.axes is not None:
            good &= np.shape(self.axes) == (*mean, mean[-1]) and std == mean
        if not good:
            raise BadInput(
                f"{num} weights, means of {mean}, standard deviations of {std} and "
                f"axes of {np.shape(self.axes)}: a mixture of K components in D "
                "dimensions has K, [K, D], [K] or [K, D], and [K, D, D] or None"
            )

    def components(self, path: Path, z: Array, t: Array) -> tuple[Array, Array, Array]:
        """log w_k N(z; a m_k, V_k) [..., K]; E[x | z, k], E[ε | z, k] [..., K, D].

        Args:
            path: the path of the process.
            z: what is seen at times t [B, ..., D], floats.
            t: times in [0, 1], [] or [B].
        """
        chex.assert_type(z, float)
        m, s = jnp.asarray(self.means), jnp.asarray(self.stds)
        if m.shape[-1] != 1:
            chex.assert_axis_dimension(z, -1, m.shape[-1])
        s = s[:, None] if s.ndim == 1 else s
        z = z[..., None, :]
        t = expand(t, z)
        a, b = path.a(t), path.b(t)
        v, gap = (a * s) ** 2 + b**2, self._along(z - a * m)
        log_normal = -0.5 * jnp.sum(gap**2 / v + jnp.log(2 * math.pi * v), axis=-1)
        log_joint = jnp.log(jnp.asarray(self.weights)) + log_normal
        x = m + self._back(a * s**2 / v * gap)
        return log_joint, x, self._back(b / v * gap)

    def _along(self, x):
        """The components of x [..., K, D] along the axes."""
        return x if self.axes is None else self._turned(x, "kij,...ki->...kj")

    def _back(self, x):
        """x [..., K, D] from its components along the axes."""
        return x if self.axes is None else self._turned(x, "kij,...kj->...ki")

    def _turned(self, x, how):
        axes = jnp.asarray(self.axes, x.dtype)
        return jnp.einsum(how, axes, x, precision=jax.lax.Precision.HIGHEST)

    def log_density(self, path: Path, z: Array, t: Array) -> Array:
        """log p_t(z) in nats, summed over the last axis: [B, ...].

        Args:
            path: the path of the process.
            z: what is seen at times t [B, ..., D], floats.
            t: times in [0, 1], [] or [B].
        """
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
        """∇ log p_t(z) + scale ∇ log p(label | z): 1 is the conditional score.

        Args:
            path: the path of the process.
            z: what is seen at times t [B, ..., D], floats.
            t: times in [0, 1], [] or [B].
            label: the component, one for all rows.
            scale: of the guidance.
        """

        def log_p(z):
            log_joint = self.components(path, z, t)[0]
            total = jax.nn.logsumexp(log_joint, axis=-1)
            return jnp.sum(total + scale * (log_joint[..., label] - total))

        return jax.grad(log_p)(z)

    def predict(self, process: Process, label: Array | int | None = None):
        """The optimal network: (z, t) -> E[r | z] = c E[x | z] + d E[ε | z].

        Args:
            process: the path, and what is predicted.
            label: for E[r | z, k] of component k, one for all rows or one per row [B];
                None for E[r | z].
        """
        if label is not None:
            chex.assert_rank(jnp.asarray(label), {0, 1})
            chex.assert_type(jnp.asarray(label), int)

        def predict(z, t):
            log_joint, x, noise = self.components(process.path, z, t)
            m = process.matrix(expand(t, z))
            if jnp.ndim(label) == 1:
                chex.assert_shape(label, z.shape[:1])
                own = jnp.reshape(label, (-1, *[1] * z.ndim))
                x, noise = (
                    jnp.take_along_axis(each, own, axis=-2)[..., 0, :]
                    for each in (x, noise)
                )
                return m.c * x + m.d * noise
            if label is not None:
                return m.c * x[..., label, :] + m.d * noise[..., label, :]
            share = jax.nn.softmax(log_joint, axis=-1)[..., None]
            return m.c * jnp.sum(share * x, -2) + m.d * jnp.sum(share * noise, -2)

        return predict

    def velocity(self, process: Process, z: Array, t: Array) -> Array:
        """ż of the probability-flow ODE."""
        return ode_velocity(process, z, self.predict(process)(z, t), t)

    def sample(self, key: Key, num: int, label: int | None = None) -> Array:
        """[num, D] from the data's density; row i is a function of (key, i).

        Args:
            key: one key.
            num: how many.
            label: the component to draw from, None for all.
        """
        keys, weights = sample_keys(key, num), jnp.asarray(self.weights)

        def component(key):
            return jax.random.categorical(key, jnp.log(weights))

        m, s = jnp.asarray(self.means), jnp.asarray(self.stds)
        s = s[:, None] if s.ndim == 1 else s
        k = jnp.full(num, label) if label is not None else jax.vmap(component)(keys)
        fresh = s[k] * normal(fold_in(keys, 1), m.shape[1:])
        if self.axes is not None:
            fresh = jnp.einsum("bij,bj->bi", jnp.asarray(self.axes)[k], fresh)
        return m[k] + fresh


def with_covariances(
    weights: tuple[float, ...], means: Rows, covariances: tuple[Rows, ...]
) -> Mixture:
    """Σ_k w_k N(m_k, C_k) with full covariances. Raises BadInput for other matrices.

    >>> from gengen.diffusion.paths import Linear
    >>> data = with_covariances((1.0,), ((0.0, 0.0),), (((1.0, 0.6), (0.6, 1.0)),))
    >>> log_p = data.log_density(Linear(), jnp.zeros((1, 2)), 0.0)
    >>> round(float(log_p[0]), 3)  # -log 2π - ½ log 0.64
    -1.615

    Args:
        weights: w, K numbers that sum to 1.
        means: m, K × D numbers.
        covariances: C, K × D × D numbers: symmetric, none of their eigenvalues below 0.
    """
    matrices = np.asarray(covariances, np.float64)
    if matrices.ndim != 3 or not np.allclose(matrices, np.swapaxes(matrices, 1, -1)):
        raise BadInput(f"covariances {covariances}: give K symmetric matrices")
    values, vectors = np.linalg.eigh(matrices)
    if np.min(values) < -1e-12 * np.max(np.abs(values)):
        raise BadInput(f"covariances with eigenvalues {values}: none may be below 0")
    stds = np.sqrt(np.maximum(values, 0.0))
    stds = tuple(map(tuple, stds.tolist()))
    axes = tuple(tuple(map(tuple, each)) for each in vectors.tolist())
    return Mixture(weights, means, stds, axes)


def gaussian(mean: float, std: float) -> Mixture:
    """N(mean, std²) in every dimension.

    >>> gaussian(1.5, 0.4).stds
    (0.4,)

    Args:
        mean: of every dimension.
        std: of every dimension, 0 or above.
    """
    return Mixture((1.0,), ((mean,),), (std,))


def gaussian_variance(path: Path, std: float, t: Array) -> Array:
    """v = a² s² + b², the variance of z at times t, of the shape of t.

    >>> from gengen.diffusion.paths import Linear
    >>> float(gaussian_variance(Linear(), 2.0, 0.5))
    1.25

    Args:
        path: the path of the process.
        std: of the data.
        t: times in [0, 1], of any shape.
    """
    return (path.a(t) * std) ** 2 + path.b(t) ** 2


def gaussian_flow(
    path: Path, mean: float, std: float, z: Array, t: Array, s: Array
) -> Array:
    """The probability-flow ODE from z at t to s: m a_s + √(v_s/v_t) (z - m a_t).

    >>> from gengen.diffusion.paths import Linear
    >>> gaussian_flow(Linear(), 1.5, 0.5, jnp.array([1.0]), 1.0, 0.0).tolist()
    [2.0]

    Args:
        path: the path of the process.
        mean: of the data.
        std: of the data.
        z: the samples at time t, floats [B, *rest].
        t: the time of z, a scalar or [B].
        s: the time to reach, a scalar or [B].
    """
    t, s = expand(t, z), expand(s, z)
    v_t, v_s = gaussian_variance(path, std, t), gaussian_variance(path, std, s)
    return mean * path.a(s) + jnp.sqrt(v_s / v_t) * (z - mean * path.a(t))
