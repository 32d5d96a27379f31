"""Walks in latent space: what lies between two latents, and what each coordinate does.

The prior N(0, I) of many dimensions lives on a shell: |z| ≈ √Z. Between independent
z_0 and z_1, the straight line cuts through the empty inside of the shell,

    linear:     z_t = (1-t) z_0 + t z_1,          Var z_t = (1-t)² + t²   (½ midway)

and shows samples of latents that are never drawn. The great circle stays on the shell
at constant speed, with θ the angle between the ends:

    spherical:  z_t = [sin((1-t)θ) z_0 + sin(tθ) z_1] / sin θ

Independent normals are almost orthogonal, where sin² + cos² = 1 keeps the variance 1.

Shoemake 1985, "Animating rotation with quaternion curves" (slerp); White 2016,
arXiv:1609.04468, section 2.1 (in latent space).
"""

import math
from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.latent.bounds import elbo
from gengen.tasks import require
from gengen.types import Array, Batch, Encodes, HasLatents, Key


def rate_and_distortion(
    model, params, state, batch: Batch, key: Key
) -> tuple[Array, Array]:
    """(KL(q(z|x) ‖ p(z)), -E_q log p(x|z)), nats [B] each; their sum is -ELBO.

    What a code of z costs beyond the prior, and what x still costs given it. Alemi et
    al. 2018, arXiv:1711.00464, section 3. Raises BadInput for a model without
    posterior.

    Args:
        model: one that `Encodes`.
        params, state: its arrays.
        batch: the data.
        key: of the one draw of z.

    >>> class Certain(Encodes):  # z = x, x is exact given z
    ...     def posterior(self, params, batch, train=False):
    ...         return batch["x"], jnp.full_like(batch["x"], -60.0)
    ...     def log_prob_given(self, params, batch, key, train=False):
    ...         return lambda z: -jnp.sum(jnp.square(z - batch["x"]), axis=-1)
    ...     def latents(self, params, mean, logvar):
    ...         return lambda z: (z, 0.0)
    >>> batch, key = {"x": jnp.zeros((1, 2))}, jax.random.key(0)
    >>> rate, distortion = rate_and_distortion(Certain(), {}, {}, batch, key)
    >>> rate.item(), abs(distortion.item()) < 1e-6
    (59.0, True)
    """
    require(model, Encodes, "take a variational autoencoder")
    key_noise, key_observe = jax.random.split(key)
    mean, logvar = model.posterior(params, batch)
    noise = jax.random.normal(key_noise, mean.shape)
    log_prob = model.log_prob_given(params, batch, key_observe)
    latent = model.latents(params, mean, logvar)
    _, (expected, kl) = elbo(log_prob, mean, logvar, noise, 1.0, latent)
    return kl, -expected


def _times(num: int) -> Array:
    if num < 2:
        raise BadInput(f"num={num}: a path needs at least its 2 ends")
    return jnp.linspace(0.0, 1.0, num)


def _mix(first: Array, last: Array, start: Array, end: Array) -> Array:
    """first · start + last · end, weights [..., num] and ends [B, ...]."""
    shape = (-1, first.shape[-1], *(1,) * (start.ndim - 1))
    return first.reshape(shape) * start[:, None] + last.reshape(shape) * end[:, None]


def linear(start: Array, end: Array, num: int) -> Array:
    """(1-t) start + t end at even times: [B, num, ...].

    Args:
        start: latents at t = 0, floats [B, ...].
        end: latents at t = 1, floats [B, ...].
        num: the number of times, at least 2 (else BadInput).

    >>> linear(jnp.zeros((1, 1)), jnp.ones((1, 1)), 3)[0, :, 0]
    Array([0. , 0.5, 1. ], dtype=float32)
    """
    chex.assert_type((start, end), float)
    chex.assert_equal_shape((start, end))
    t = _times(num)
    return _mix(1.0 - t, t, start, end)


def spherical(start: Array, end: Array, num: int) -> Array:
    """The great circle at even times: [B, num, ...].

    The angle is that of the whole latents; lengths are blended by the same weights.
    Parallel ends are joined by the line, which is the limit; so are opposite ends,
    which no single great circle joins, and an end at the origin.

    Args:
        start: latents at t = 0, floats [B, ...].
        end: latents at t = 1, floats [B, ...].
        num: the number of times, at least 2 (else BadInput).

    >>> east, north = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])
    >>> spherical(east, north, 3)[0]
    Array([[1.    , 0.    ],
           [0.7071, 0.7071],
           [0.    , 1.    ]], dtype=float32)
    """
    chex.assert_type((start, end), float)
    chex.assert_equal_shape((start, end))
    t, rest = _times(num), tuple(range(1, start.ndim))
    dot, sizes = jnp.sum(start * end, rest), jnp.sum(start**2, rest)
    sizes = sizes * jnp.sum(end**2, rest)
    # sin² θ below the accuracy of cos² θ: the line is as good, and has a gradient.
    on_a_line = sizes - dot**2 <= 10 * jnp.finfo(sizes.dtype).eps * sizes
    cos = jnp.where(on_a_line, 0.0, dot / jnp.sqrt(jnp.where(on_a_line, 1.0, sizes)))
    angle = jnp.arccos(cos)[:, None]
    on_a_line = on_a_line[:, None]
    first = jnp.sin((1.0 - t) * angle) / jnp.sin(angle)
    last = jnp.sin(t * angle) / jnp.sin(angle)
    first, last = jnp.where(on_a_line, 1.0 - t, first), jnp.where(on_a_line, t, last)
    return _mix(first, last, start, end)


def _require_latents(model, shape: tuple[int, ...]):
    require(model, HasLatents, "take a model with latents, such as a VAE or a GAN")
    if tuple(shape) != tuple(model.latent_shape):
        raise BadInput(
            f"a latent of shape {tuple(shape)}: {type(model).__name__} takes "
            f"{tuple(model.latent_shape)}"
        )


def interpolate(
    model,
    params,
    state,
    start: Array,
    end: Array,
    num: int = 9,
    path: Callable[[Array, Array, int], Array] = spherical,
    **condition,
) -> Array:
    """Samples along a path between latents: [B, num, ...].

    Args:
        model: a model with latents, such as a VAE.
        params: its parameters.
        state: its state.
        start: latents at t = 0, floats [B, *latent_shape].
        end: latents at t = 1, floats [B, *latent_shape].
        num: the number of times, at least 2.
        path: (start, end, num) -> latents [B, num, *latent_shape].
        **condition: keywords of `from_latent`; an array has one entry per pair.

    Raises BadInput for a model without latents, another latent shape or num < 2.

    >>> class Tenfold(HasLatents):
    ...     latent_shape = (1,)
    ...     def from_latent(self, params, state, z):
    ...         return 10 * z
    >>> model = Tenfold()
    >>> ends = jnp.zeros((1, 1)), jnp.ones((1, 1))
    >>> interpolate(model, {}, {}, *ends, num=3, path=linear)[0, :, 0]
    Array([ 0.,  5., 10.], dtype=float32)
    """
    _require_latents(model, start.shape[1:])
    z = path(start, end, num)  # [B, num, *latent_shape]
    chex.assert_shape(z, (start.shape[0], num, *start.shape[1:]))
    condition = {
        name: jnp.repeat(value, num, axis=0) if jnp.ndim(value) else value
        for name, value in condition.items()
    }
    flat = z.reshape(-1, *start.shape[1:])
    x = model.from_latent(params, state, flat, **condition)
    return x.reshape(*z.shape[:2], *x.shape[1:])


def traverse(
    model, params, state, z: Array, dims: Sequence[int], values: Array, **condition
) -> Array:
    """Samples of z with one coordinate set to each value: [len(dims), len(values), …].

    Args:
        model: a model with latents, such as a VAE.
        params: its parameters.
        state: its state.
        z: one latent, floats [*latent_shape].
        dims: coordinates, counted in the flattened latent.
        values: numbers [V].
        **condition: keywords of `from_latent`, the same for all.

    Raises BadInput for a model without latents, another latent shape or a coordinate
    that it does not have.

    >>> class Itself(HasLatents):
    ...     latent_shape = (2,)
    ...     def from_latent(self, params, state, z):
    ...         return z
    >>> model = Itself()
    >>> traverse(model, {}, {}, jnp.zeros(2), [1], jnp.array([-3.0, 3.0]))
    Array([[[ 0., -3.],
            [ 0.,  3.]]], dtype=float32)
    """
    _require_latents(model, z.shape)
    dims, values, size = tuple(dims), jnp.asarray(values), math.prod(z.shape)
    chex.assert_rank(values, 1)
    if bad := [dim for dim in dims if not 0 <= dim < size]:
        raise BadInput(f"dims {bad}: the latent's coordinates are 0 to {size - 1}")
    selected = jnp.arange(size) == jnp.array(dims)[:, None]  # [dims, Z]
    codes = jnp.where(selected[:, None], values[:, None], z.reshape(-1))
    flat = codes.reshape(-1, *z.shape)
    x = model.from_latent(params, state, flat, **condition)
    return x.reshape(len(dims), values.size, *x.shape[1:])
