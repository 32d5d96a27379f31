"""Invertible networks with a known determinant: densities by a change of variables.

    u = f(z),      log p(z) = log N(u; 0, 1) + log |det ∂u/∂z|

    network              ∂u/∂z           z -> u       u -> z
    AffineCouplings      half is kept    one call     one call
    AutoregressiveFlow   triangular      one call     one call per dimension

Each is `flow(z, h=None, reverse=False) -> (u, log_det)`, [B, *latent] and [B], the
identity at its first parameters; h [B, H] is what it may depend on. Backwards it
returns z and the log-determinant of ∂z/∂u. As the posterior of a VAE the autoregressive
one is fast (inverse autoregressive flow), as its prior slow to sample.

Dinh et al. 2017, arXiv:1605.08803 (RealNVP); Kingma et al. 2016, arXiv:1606.04934
(IAF); Papamakarios et al. 2017, arXiv:1705.07057 (MAF); Germain et al. 2015,
arXiv:1502.03509 (masks).
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from gengen.nets.layers import zeros
from gengen.types import Array

LARGEST = 3.0  # of a log-scale, softly: one layer scales by e^-3 to e^3


def soft_clamp(log_scale: Array, largest: float = LARGEST) -> Array:
    """largest · tanh(log_scale/largest): the identity near 0, never beyond ±largest.

    >>> [round(float(s), 2) for s in soft_clamp(jnp.array([0.01, 100.0]))]
    [0.01, 3.0]
    """
    return largest * jnp.tanh(log_scale / largest)


def checkered(dim: int, layer: int) -> np.ndarray:
    """bool [dim]: what layer `layer` keeps. Halves, and even places, in turn."""
    places = np.arange(dim)
    kept = places < dim // 2 if layer % 4 < 2 else places % 2 == 0
    return kept if layer % 2 == 0 else ~kept


class AffineCouplings(nn.Module):
    """Layers that keep some dimensions and scale and shift the others by them.

    u_a = z_a,  u_b = z_b e^{s(z_a, h)} + t(z_a, h). Dinh et al. 2017, equations 7 to 9.
    """

    layers: int = 8
    """The number of layers; four of them let every dimension see half the others."""
    hidden: tuple[int, ...] = (128,)
    """Widths of the network behind s and t."""

    @nn.compact
    def __call__(
        self, z: Array, h: Array | None = None, reverse: bool = False
    ) -> tuple[Array, Array]:
        shape, z = z.shape, z.reshape(len(z), -1)
        dim, total = z.shape[1], jnp.zeros(len(z), z.dtype)
        for i in reversed(range(self.layers)) if reverse else range(self.layers):
            kept = jnp.asarray(checkered(dim, i), z.dtype)
            s, t = _ScaleAndShift(dim, self.hidden, name=f"layer_{i}")(kept * z, h)
            s, t = (1.0 - kept) * soft_clamp(s), (1.0 - kept) * t
            z = (z - t) * jnp.exp(-s) if reverse else z * jnp.exp(s) + t
            total = total + jnp.sum(-s if reverse else s, axis=1)
        return z.reshape(shape), total


class _ScaleAndShift(nn.Module):
    """x [B, D] and h -> s and t, each [B, D]; both zero at first."""

    dim: int
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array, h: Array | None) -> tuple[Array, Array]:
        x = x if h is None else jnp.concatenate([x, h], axis=-1)
        for width in self.hidden:
            x = nn.silu(nn.Dense(width)(x))
        s, t = jnp.split(nn.Dense(2 * self.dim, kernel_init=zeros)(x), 2, axis=-1)
        return s, t


class AutoregressiveFlow(nn.Module):
    """Layers u_i = z_i e^{s_i(z_<i, h)} + t_i(z_<i, h), in alternating order.

    Kingma et al. 2016, equation 9 (in the form of Papamakarios et al. 2017, equation
    4): the determinant is the product of the scales. Backwards, each layer takes one
    call per dimension.
    """

    layers: int = 2
    """The number of layers."""
    hidden: tuple[int, ...] = (128,)
    """Widths of the masked network behind s and t."""

    @nn.compact
    def __call__(
        self, z: Array, h: Array | None = None, reverse: bool = False
    ) -> tuple[Array, Array]:
        shape, z = z.shape, z.reshape(len(z), -1)
        total = jnp.zeros(len(z), z.dtype)
        for i in reversed(range(self.layers)) if reverse else range(self.layers):
            net = _Masked(z.shape[1], self.hidden, name=f"layer_{i}")
            flip = slice(None, None, -1) if i % 2 else slice(None)
            y, s = (_invert if reverse else _forward)(net, z[:, flip], h)
            z, total = y[:, flip], total + jnp.sum(-s if reverse else s, axis=1)
        return z.reshape(shape), total


def _forward(net, z: Array, h: Array | None) -> tuple[Array, Array]:
    s, t = net(z, h)
    return z * jnp.exp(s) + t, s


def _invert(net, u: Array, h: Array | None) -> tuple[Array, Array]:
    """z of u, one dimension per call: after i calls the first i are right."""
    z = jnp.zeros_like(u)
    for _ in range(u.shape[1]):
        s, t = net(z, h)
        z = (u - t) * jnp.exp(-s)
    return z, net(z, h)[0]


class _Masked(nn.Module):
    """x [B, D] and h -> s and t [B, D], of which i depends on x_<i; both zero at first.

    Germain et al. 2015, equations 12 and 13: a hidden unit of degree d sees x_≤d.
    """

    dim: int
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array, h: Array | None) -> tuple[Array, Array]:
        degrees, widths = np.arange(1, self.dim + 1), (*self.hidden, 2 * self.dim)
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            new = np.arange(width) * max(1, self.dim - 1) // width + 1
            mask = new[None] >= degrees[:, None]
            if last:  # s and t of dimension d see what is of a lower degree than d
                new = np.tile(np.arange(1, self.dim + 1), 2)
                mask = new[None] > degrees[:, None]
            x = self._dense(f"layer_{i}", x, mask, zeros if last else None)
            if h is not None and (i == 0 or last):  # the first dimension sees h alone
                init = zeros if last else nn.initializers.lecun_normal()
                x = x + nn.Dense(width, False, kernel_init=init, name=f"context_{i}")(h)
            x, degrees = x if last else nn.silu(x), new
        s, t = jnp.split(x, 2, axis=-1)
        return soft_clamp(s), t

    def _dense(self, name: str, x: Array, mask: np.ndarray, init=None) -> Array:
        init = init or nn.initializers.lecun_normal()
        kernel = self.param(f"{name}_kernel", init, mask.shape)
        bias = self.param(f"{name}_bias", zeros, mask.shape[1:])
        return x @ (kernel * jnp.asarray(mask, kernel.dtype)) + bias
