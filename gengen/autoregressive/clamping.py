"""Completion by clamping: observed symbols stay, and particles account for the rest.

A model that draws x symbol by symbol can be held to the observed symbols. If these are
a beginning of its order, its draws are samples of p(x | x_observed). Otherwise clamped
draws come from Π p(x_t | x_<t) over the *unobserved* t, which does not know what is
observed later. Each of several draws, the particles, then has the weight
w = Π p(x_t | x_<t) over the observed t, and one is selected by its weight: importance
resampling, which becomes exact as the number of particles grows.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gengen.errors import BadInput
from gengen.losses.likelihood import per_example
from gengen.scan import fold_in, sample_keys
from gengen.spaces import Space
from gengen.types import Array, Tree


def known_mask(space: Space, observed: Array, num: int) -> np.ndarray:
    """`space.mask` of known values; BadInput for a mask under a trace.

    Args:
        space: of the examples.
        observed: bool, of a shape that broadcasts to [num, *space.shape].
        num: the number of examples.

    >>> from gengen.spaces import Images
    >>> known_mask(Images((2, 2, 1), 2), np.array([[[True]], [[False]]]), 1).shape
    (1, 2, 2, 1)
    """
    if isinstance(observed, jax.core.Tracer):
        raise BadInput("which pixels are observed must be known before compiling")
    return space.mask(observed, num)


def check_particles(particles: int, in_order: np.ndarray) -> None:
    """BadInput for a single particle where it would be wrong.

    Args:
        particles: the number of particles, at least 1.
        in_order: the mask [B, n] of what is observed, in the order of the model.

    >>> check_particles(1, np.array([[True, True, False]]))
    """
    chex.assert_rank(in_order, 2)
    if particles < 1:
        raise BadInput(f"particles={particles}: it must be at least 1")
    if particles == 1 and np.any(in_order[:, 1:] & ~in_order[:, :-1]):
        raise BadInput(
            "some observed pixels come after unobserved ones in the order, which "
            "one particle cannot know of: take 64 particles or more (importance "
            "resampling), or observe a beginning of the order"
        )


def check_beginning(observation, mask: np.ndarray) -> None:
    """BadInput for a mask whose data have no log-probability in closed form.

    Args:
        observation: p(data | features): its symbols are observed as a whole, and if
            it is `sequential` those before an observed one are.
        mask: bool [B, ..., C], known values.

    >>> from gengen.observations.binomial import Binomial
    >>> check_beginning(Binomial(2), np.array([[[False, True]]]))
    """
    if observation.symbol and np.any(mask.any(-1) != mask.all(-1)):
        raise BadInput(
            "some channels of a pixel are observed and others not, and this model "
            "reads pixels as a whole: observe all channels"
        )
    flat = mask.reshape(len(mask), -1)
    if observation.sequential and np.any(flat[:, 1:] & ~flat[:, :-1]):
        raise BadInput(
            "some observed pixels come after unobserved ones in the order, of which "
            "this model's pixels know nothing: observe a beginning, such as the top"
        )


def resampled(
    generate: Callable,
    keys: Array,
    c: Tree,
    given: Array,
    observed: Array,
    particles: int,
) -> tuple[Array, Array]:
    """One of several clamped draws per row, selected by its importance weight.

    Args:
        generate: (keys, c, given, observed) -> (x, log p of its symbols), of as many
            rows as it is given.
        keys: [B] keys.
        c: the condition, a tree of arrays [B, ...].
        given: the observed symbols, [B, ...].
        observed: bool, of the shape of `given`.
        particles: the number of draws per row.

    Returns:
        x [B, ...], and the effective number of particles 1/Σ w² [B], which is 0 where
        no weight is above 0.

    >>> keys, seen = jax.random.split(jax.random.key(0)), jnp.ones((2, 1), bool)
    >>> certain = lambda keys, c, given, observed: (given, 0.0 * given)
    >>> x, effective = resampled(certain, keys, {}, jnp.ones((2, 1)), seen, 4)
    >>> effective.tolist()
    [4.0, 4.0]
    """
    chex.assert_equal_shape([given, jnp.asarray(observed)])
    chex.assert_shape(keys, given.shape[:1])
    num = len(keys)
    each = jax.vmap(lambda key: sample_keys(key, particles))(keys).reshape(-1)
    rows = c, given, jnp.asarray(observed)
    rows = jax.tree.map(lambda a: jnp.repeat(a, particles, axis=0), rows)
    x, log_p = generate(each, *rows)
    log_w = per_example(jnp.where(rows[-1], log_p, 0.0)).reshape(num, particles)
    x = x.reshape(num, particles, *x.shape[1:])
    return selected(fold_in(keys, particles), x, log_w)


def selected(keys: Array, x: Array, log_w: Array) -> tuple[Array, Array]:
    """One of P particles per row, by its weight, and 1/Σ w² (0 for no weight) [B].

    Args:
        keys: [B] keys.
        x: the particles [B, P, ...].
        log_w: their log-weights [B, P], -inf for none.

    >>> x, log_w = jnp.array([[3.0, 4.0]]), jnp.array([[-jnp.inf, 0.0]])
    >>> selected(jax.random.split(jax.random.key(0), 1), x, log_w)[0].tolist()
    [4.0]
    """
    chex.assert_shape(log_w, x.shape[:2])
    possible = jnp.any(jnp.isfinite(log_w), axis=-1, keepdims=True)
    log_w = jax.nn.log_softmax(jnp.where(possible, log_w, 0.0))
    place = jax.vmap(jax.random.categorical)(keys, log_w)
    effective = jnp.exp(-jax.nn.logsumexp(2 * log_w, axis=-1))
    return x[jnp.arange(len(x)), place], jnp.where(possible[:, 0], effective, 0.0)
