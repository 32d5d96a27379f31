"""What a space of styles allows: mixing two images, and finding a given one.

A generator of L layers takes a style w for each. Layers below `first` given the styles
of one latent and the others those of a second one:

    x = g(w_1, …, w_first-1, w′_first, …, w′_L)

shows what a layer is for: coarse ones the thing and its pose, fine ones its colours
(Karras et al. 2019, arXiv:1812.04948, section 3.1). A given image is found by gradient
descent on all L styles from their mean; the space is then that of Abdal et al. 2019,
arXiv:1904.03189 ("W+"), and how near it comes says what the generator cannot draw.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from gengen.errors import BadInput
from gengen.tasks import require
from gengen.types import Array, HasStyles

REMEDY = "take a model with styles, such as a StyleGAN"


def truncated(model, params, state, z: Array, truncations: Array, **condition) -> Array:
    """w̄ + ψ (w - w̄) of every ψ, as images: [B, T, ...].

    Args:
        model: a model with styles, else BadInput.
        params: its parameters.
        state: its state.
        z: latents [B, *latent_shape].
        truncations: ψ, numbers [T].
        **condition: c by name.

    >>> from gengen.tasks.toy import Sum
    >>> truncated(Sum(), {}, {}, jnp.array([[3.0]]), jnp.array([0.0, 1.0]))[0, :, 0]
    Array([11., 33.], dtype=float32)
    """
    require(model, HasStyles, REMEDY)
    psi, weights = jnp.asarray(truncations, jnp.float32), (params, state)
    w, mean = (
        model.styles(params, state, z, **condition),
        model.mean_style(params, state),
    )
    all_of_it = mean + psi[:, None, None] * (w - mean)[:, None]  # [B, T, L, D]
    x = model.from_styles(*weights, all_of_it.reshape(-1, *w.shape[1:]))
    return x.reshape(len(w), len(psi), *x.shape[1:])


def mixed(model, params, state, coarse: Array, fine: Array, first: int) -> Array:
    """Images of the first layers' styles of one and the others' of another: [A, B, …].

    Args:
        model: a model with styles, else BadInput.
        params: its parameters.
        state: its state.
        coarse: styles [A, L, D], of which layers below `first` are taken.
        fine: styles [B, L, D], of which the others are.
        first: in 0 to L, else BadInput; L takes everything of `coarse`.

    >>> from gengen.tasks.toy import Sum
    >>> w = jnp.array([[[1.0], [2.0]]])
    >>> mixed(Sum(), {}, {}, w, 3 * w, first=1)[0, 0]
    Array([61.], dtype=float32)
    """
    require(model, HasStyles, REMEDY)
    chex.assert_equal_shape((coarse, fine), dims=(1, 2))
    if not 0 <= first <= model.num_styles:
        raise BadInput(
            f"first={first}: the model has {model.num_styles} layers that take a "
            f"style, so give 0 to {model.num_styles}"
        )
    is_fine = (jnp.arange(model.num_styles) >= first)[:, None]
    w = jnp.where(is_fine, fine[None], coarse[:, None])  # [A, B, L, D]
    x = model.from_styles(params, state, w.reshape(-1, *w.shape[2:]))
    return x.reshape(*w.shape[:2], *x.shape[1:])


class Projection(NamedTuple):
    """An image, as near as a generator comes to it."""

    w: Array
    """The styles [B, L, D]."""
    x: Array
    """Their images [B, ...]."""
    error: Array
    """Mean squared error of every step, [steps, B]."""


def squared_error(x: Array, y: Array) -> Array:
    """Mean over all but the first axis of (x - y)²: [B].

    >>> squared_error(jnp.zeros((1, 2)), jnp.ones((1, 2)))
    Array([1.], dtype=float32)
    """
    return jnp.mean(jnp.square(x - y), axis=range(1, x.ndim))


def projected(
    model,
    params,
    state,
    x: Array,
    steps: int = 300,
    rate: float = 0.05,
    distance: Callable[[Array, Array], Array] = squared_error,
) -> Projection:
    """The styles whose image is nearest to x, by Adam from the mean style.

    Args:
        model: a model with styles, else BadInput.
        params: its parameters.
        state: its state.
        x: images [B, ...] as the model's.
        steps: steps of Adam, at least 1.
        rate: the learning rate, which falls to 0 by a cosine.
        distance: (x, image) -> [B], what is minimised.

    >>> from gengen.tasks.toy import Sum
    >>> found = projected(Sum(), {}, {}, jnp.array([[22.0]]), steps=100)
    >>> bool(jnp.abs(found.x[0, 0] - 22.0) < 0.5)
    True
    """
    require(model, HasStyles, REMEDY)
    if steps < 1:
        raise BadInput(f"steps={steps}: give at least 1")
    mean = model.mean_style(params, state)
    w = jnp.broadcast_to(mean, (len(x), model.num_styles, mean.shape[-1]))
    adam = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def step(carry, _):
        w, memory = carry

        def loss(w):
            value = distance(x, model.from_styles(params, state, w))
            return jnp.sum(value), value

        gradient, error = jax.grad(loss, has_aux=True)(w)
        updates, memory = adam.update(gradient, memory)
        return (optax.apply_updates(w, updates), memory), error

    (w, _), error = jax.lax.scan(step, (w, adam.init(w)), None, steps)
    return Projection(w, model.from_styles(params, state, w), error)
