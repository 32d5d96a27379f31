"""Drifting: the field that carries samples of q to a density p, by a kernel.

Each sample x is drawn to data y and away from other samples ỹ:

    V(x) = Σ w⁺ (y - x) - Σ w⁻ (ỹ - x),    w = softmax(-|x - ·|²/2h²)

Either sum is a step of mean shift. With this Gaussian kernel of width h it is
h² ∇ log of the density, smoothed by the kernel (Comaniciu and Meer 2002), so that

    V = h² (∇ log p_h - ∇ log q_h),

which is conservative, and zero everywhere if and only if p = q. A generator is trained
to be where its samples drift to: |x - stop(x + V)|².

Deng et al. 2026, arXiv:2602.04770, whose kernel exp(-|x - y|/h) has no such form.
"""

import chex
import jax
import jax.numpy as jnp

from gengen.types import Array


def mean_shift(x: Array, others: Array, width: float, among: Array) -> Array:
    """Σ w (y - x) with w = softmax(-|x - y|²/2h²), [B, ...].

    >>> x, y = jnp.zeros((1, 1)), jnp.array([[1.0], [3.0]])
    >>> mean_shift(x, y, 1e3, jnp.ones((1, 2), bool)).round(3)
    Array([[2.]], dtype=float32)

    Args:
        x: where the field is asked for [B, ...].
        others: the samples that draw [N, ...].
        width: h of the kernel, above 0, in the units of x.
        among: which of them count, bool [B, N]; a row of none is not drawn.
    """
    chex.assert_shape(among, (len(x), len(others)))
    flat, y = x.reshape(len(x), -1), others.reshape(len(others), -1)
    square = jnp.sum(jnp.square(flat[:, None] - y[None]), axis=-1)
    logits = jnp.where(among, -square / (2 * width**2), -jnp.inf)
    known = jnp.any(among, axis=-1, keepdims=True)
    weights = jax.nn.softmax(jnp.where(known, logits, 0.0), axis=-1)
    shift = weights @ y - flat
    return jnp.where(known, shift, 0.0).reshape(x.shape)


def drift(
    x: Array,
    real: Array,
    fake: Array,
    width: float,
    real_among: Array | None = None,
    fake_among: Array | None = None,
) -> Array:
    """V(x) = h² (∇ log p_h - ∇ log q_h) of samples of p and of q, [B, ...].

    >>> x, y = jnp.array([[0.0]]), jnp.array([[1.0], [3.0]])
    >>> drift(x, y, y, 0.5)
    Array([[0.]], dtype=float32)

    Args:
        x: where the field is asked for [B, ...].
        real: samples of p [N, ...].
        fake: samples of q [M, ...].
        width: h of the kernel, above 0, in the units of x.
        real_among: which of the real ones each x knows, bool [B, N]; all by default.
            Where it knows none of one kind, its drift is that of the other.
        fake_among: the same of the fake ones, [B, M].
    """

    def among(which, others):
        return jnp.ones((len(x), len(others)), bool) if which is None else which

    to = mean_shift(x, real, width, among(real_among, real))
    return to - mean_shift(x, fake, width, among(fake_among, fake))
