"""The variational bound of diffusion models, in nats, term by term.

A chain of latents z_t, t falling along a grid from t_max to t_min, is a deep latent
variable model with p(z_s | z_t) = q(z_s | z_t, x = x̂(z_t, t)). With SNR = a²/b²,

    -log p(x) <= ½ SNR(t_max) |x|²                                     (prior)
               + E Σ_i ½ (SNR(s_i) - SNR(t_i)) |x - x̂(z_{t_i}, t_i)|²  (diffusion)
               - E log p(x | z_{t_min})                                (reconstruction)

on every path and for every prediction (`bound_terms`). In the limit of infinitely many
steps the drop of SNR across an interval is its derivative, -SNR′(t) dt (`continuous`),
and the bound depends on the path through its two ends only. The prior N(0, b(t_max)²)
makes the first term one of the second's: a step from SNR = 0 with x̂ = 0. The lower end
t_min > 0 is a choice, and every choice is a bound: see `likelihood.sigma_min`.

Sohl-Dickstein et al. 2015, arXiv:1503.03585; Ho, Jain and Abbeel 2020,
arXiv:2006.11239, equation 5; Kingma, Salimans, Poole and Ho 2021, arXiv:2107.00630,
equations 11 to 14.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from gengen.diffusion.grids import check_grid
from gengen.diffusion.paths import Path, derivatives, snr
from gengen.diffusion.process import Process, corrupt
from gengen.diffusion.times import histogram_quantile
from gengen.errors import BadInput
from gengen.images import to_unit
from gengen.losses.likelihood import per_example
from gengen.scan import fold_in, normal
from gengen.types import Array


def prior_kl(process: Process, x: Array, t_max: Array | float) -> Array:
    """KL(q(z_{t_max} | x) ‖ N(0, b²)) = ½ (a/b)² |x|², [B] nats.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> prior_kl(Process(Linear(), Velocity()), jnp.array([[2.0]]), 0.5).tolist()
    [2.0]

    Args:
        process: the path, and what the network predicts.
        x: data [B, ...], floats.
        t_max: the time of the first latent, a scalar in (0, 1].
    """
    chex.assert_rank(t_max, 0)
    chex.assert_type(x, float)
    return 0.5 * snr(process.path, jnp.asarray(t_max)) * per_example(jnp.square(x))


def squared_error(
    predict: Callable, process: Process, x: Array, noise: Array, t: Array
) -> Array:
    """|x - x̂(z, t)|² [B], a sum over dimensions: (b/det)² |r - r̂|², z = a x + b ε.

    The error of r̂ keeps its digits where z and x are nearly the same.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Data
    >>> process, x = Process(Linear(), Data()), jnp.array([[2.0]])
    >>> squared_error(lambda z, t: z, process, x, jnp.zeros((1, 1)), 0.5).tolist()
    [1.0]

    Args:
        predict: the network, (z, t) -> r̂ of the shape of x.
        process: the path, and what the network predicts.
        x: data [B, ...], floats.
        noise: standard normal noise, of the shape of x.
        t: times in (0, 1), [] or [B].
    """
    z, r = corrupt(process, x, noise, t)
    found, m = predict(z, t), process.matrix(t)
    chex.assert_equal_shape([found, r])
    return jnp.square(m.b / m.det) * per_example(jnp.square(found - r))


def steps(path: Path, t: Array, s: Array, u: Array) -> tuple[Array, Array]:
    """(t, SNR(s) - SNR(t)): one of T steps. Kingma et al. 2021, equation 13.

    >>> from gengen.diffusion.paths import Linear
    >>> t, drop = steps(Linear(), 0.5, 0.25, 0.0)
    >>> t, float(drop)
    (0.5, 8.0)

    Args:
        path: the path of the process.
        t: times in (0, 1], of any shape.
        s: times below t, of the shape of t.
        u: not read.
    """
    chex.assert_equal_shape([jnp.asarray(t), jnp.asarray(s)])
    return t, snr(path, s) - snr(path, t)


def continuous(path: Path, t: Array, s: Array, u: Array) -> tuple[Array, Array]:
    """(τ, -SNR′(τ) (t - s)) at τ = s + u (t - s): an infinity of steps from t to s.

    With u ~ U(0, 1) it is unbiased for ∫ -SNR′(τ) … dτ. Kingma et al. 2021, section 5.

    >>> from gengen.diffusion.paths import Linear
    >>> [float(value) for value in continuous(Linear(), 0.75, 0.25, 0.5)]
    [0.5, 4.0]

    Args:
        path: a continuous path.
        t: times in (0, 1], of any shape.
        s: times below t, of the shape of t.
        u: numbers in (0, 1), of the shape of t; any shape beside a scalar t, or [].
    """
    chex.assert_equal_shape([jnp.asarray(t), jnp.asarray(s)])
    if jnp.ndim(u) and jnp.ndim(t):
        chex.assert_equal_shape([u, t])
    tau = s + u * (t - s)
    a, b, da, db = derivatives(path, tau)
    return tau, 2.0 * a * (a * db - b * da) / b**3 * (t - s)


def diffusion_loss(
    predict: Callable,
    process: Process,
    x: Array,
    noise: Array,
    t: Array,
    s: Array,
    u: Array | float = 0.0,
    limit: Callable = steps,
) -> Array:
    """½ ΔSNR |x - x̂(z_τ, τ)|² of the interval from t down to s, [B] nats.

    (τ, ΔSNR) = limit(path, t, s, u). With `steps` it is the divergence of the true
    posterior of z_s from the model's, with DDPM's fixed small variance.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Data
    >>> process, x = Process(Linear(), Data()), jnp.array([[2.0]])
    >>> at = jnp.zeros((1, 1)), 0.5, 0.25
    >>> diffusion_loss(lambda z, t: z, process, x, *at).tolist()
    [4.0]

    Args:
        predict: the network, (z, t) -> r̂ of the shape of x.
        process: the path, and what the network predicts.
        x: data [B, ...], floats.
        noise: standard normal noise, of the shape of x.
        t: times in (0, 1], [] or [B].
        s: times below t, of the shape of t.
        u: numbers in (0, 1), [] or [B], for `continuous`.
        limit: `steps` or `continuous`.
    """
    tau, drop = limit(process.path, t, s, u)
    return 0.5 * drop * squared_error(predict, process, x, noise, tau)


def level_log_probs(
    process: Process, z: Array, t: Array | float, levels: int = 256
) -> Array:
    """log p(k | z) of every level k in every dimension, [..., levels].

    It is a softmax of log N(z; a v_k, b²) over the levels' values v_k (Kingma, 3.3).

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Data
    >>> log_p = level_log_probs(Process(Linear(), Data()), jnp.zeros(1), 0.01, levels=3)
    >>> jnp.exp(log_p).round(3).tolist()
    [[0.0, 1.0, 0.0]]

    Args:
        process: the path, and what the network predicts.
        z: what is seen at time t, of any shape, floats.
        t: the time of z, a scalar in (0, 1].
        levels: the number of levels of a dimension.
    """
    chex.assert_rank(t, 0)
    chex.assert_type(z, float)
    a, b = process.path.a(jnp.asarray(t)), process.path.b(jnp.asarray(t))
    values = to_unit(jnp.arange(levels), levels).astype(z.dtype)
    return jax.nn.log_softmax(-0.5 * jnp.square((z[..., None] - a * values) / b))


def reconstruction_loss(
    process: Process, image: Array, noise: Array, t: Array | float, levels: int = 256
) -> Array:
    """-log p(x | z_t), x = `to_unit(image)`, [B] nats.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Data
    >>> image, noise = jnp.array([[1]]), jnp.zeros((1, 1))
    >>> process = Process(Linear(), Data())
    >>> loss = reconstruction_loss(process, image, noise, 0.01, levels=3)
    >>> round(abs(float(loss[0])), 3)
    0.0

    Args:
        process: the path, and what the network predicts.
        image: levels [B, ...], integers.
        noise: standard normal noise, of the shape of the image.
        t: the time of the last latent, a scalar in (0, 1].
        levels: the number of levels of a dimension.
    """
    chex.assert_type(image, int)
    z, _ = corrupt(process, to_unit(image, levels), noise, jnp.asarray(t))
    log_probs = level_log_probs(process, z, t, levels)
    index = image[..., None].astype(jnp.int32)
    return -per_example(jnp.take_along_axis(log_probs, index, axis=-1))


class Bound(NamedTuple):
    """-log p(x) <= E[prior + Σ diffusion + reconstruction], in nats."""

    prior: Array
    """The divergence of the first latent from the prior [B]."""
    diffusion: Array
    """The terms of the intervals [n, B]; their sum over n is unbiased."""
    reconstruction: Array
    """-log p(x | z_{t_min}) [B]."""

    @property
    def total(self) -> Array:
        """[B] nats: minus the lower bound on log p(x)."""
        return self.prior + jnp.sum(self.diffusion, axis=0) + self.reconstruction


def bound_terms(
    keys: Array,
    predict: Callable,
    process: Process,
    image: Array,
    grid: Array,
    levels: int = 256,
    limit: Callable = steps,
    draws: int | None = None,
    u: Array | None = None,
    mass: Array | None = None,
) -> Bound:
    """An unbiased estimate of every term, for images of levels.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Data
    >>> keys, image = jax.random.split(jax.random.key(0), 2), jnp.array([[0], [2]])
    >>> grid, process = jnp.array([0.99, 0.5, 0.1]), Process(Linear(), Data())
    >>> predict = lambda z, t: jnp.clip(z, -1.0, 1.0)
    >>> terms = bound_terms(keys, predict, process, image, grid, levels=3)
    >>> terms.diffusion.shape, terms.total.shape
    ((2, 2), (2,))

    Args:
        keys: one key per row [B]; term i of row j is a function of (keys[j], i) alone,
            sampled or not.
        predict: the network, (z, t) -> r̂ of the shape of the image.
        process: the path, and what the network predicts.
        image: levels [B, ...], integers.
        grid: T + 1 times falling from t_max to t_min.
        levels: the number of levels of a dimension.
        limit: `steps`, or `continuous` with one time drawn in each interval.
        draws: the number of terms per example, drawn by stratified sampling from
            `mass` and weighted by 1/(K · mass); None evaluates all T.
        u: the place of the strata in (0, 1), [B]; drawn if None. Evenly spread u vary
            less together (Kingma et al. 2021, appendix I.1).
        mass: the probability of each term [T], uniform if None.
    """
    chex.assert_shape(keys, image.shape[:1]), chex.assert_type(image, int)
    grid = check_grid(grid)
    num, x = grid.shape[0] - 1, to_unit(image, levels)
    chosen, scale = _drawn_terms(keys, num, draws, u, mass, grid.dtype)

    def term(i):  # [B]
        own, t, s = fold_in(keys, i), grid[i], grid[i + 1]
        noise, within = normal(own, x.shape[1:]), _uniform(fold_in(own, 0), grid.dtype)
        return diffusion_loss(predict, process, x, noise, t, s, within, limit)

    diffusion = scale * jax.lax.map(term, chosen)
    noise = normal(fold_in(keys, num), x.shape[1:])
    reconstruction = reconstruction_loss(process, image, noise, grid[-1], levels)
    return Bound(prior_kl(process, x, grid[0]), diffusion, reconstruction)


def _uniform(keys, dtype):
    return jax.vmap(lambda key: jax.random.uniform(key, (), dtype))(keys)


def _drawn_terms(keys, num, draws, u, mass, dtype):
    """(which of `num` terms [draws | num, B], the weights 1/(K · mass) that fit)."""
    if draws is None:
        return jnp.broadcast_to(jnp.arange(num)[:, None], (num, *keys.shape)), 1.0
    if draws < 1:
        raise BadInput(f"draws={draws}: at least 1 of the {num} terms must be drawn")
    mass = jnp.full(num, 1.0 / num, dtype) if mass is None else mass
    u = _uniform(fold_in(keys, num + 1), dtype) if u is None else u
    chex.assert_shape(mass, (num,)), chex.assert_shape(u, keys.shape)
    u = (jnp.arange(draws)[:, None] + u) / draws
    _, chosen, scale = histogram_quantile(u, mass)
    return chosen, scale * (num / draws)
