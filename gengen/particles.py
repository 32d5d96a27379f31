"""Completion by clamping: what is observed stays, and particles answer for the rest.

A model that draws x one symbol after the other can be held to the observed ones. Where
they are a beginning of its order, what it draws is p(x | x_observed). Elsewhere clamped
draws come from Π p(x_t | x_<t) over the *unobserved* t, which knows nothing of what is
observed later, so each of several has the weight w = Π p(x_t | x_<t) over the observed
t, and one is chosen by its weight: importance resampling, right as they become many.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gengen.errors import BadInput
from gengen.losses.likelihood import per_example
from gengen.scan import fold_in, sample_keys
from gengen.types import Array, Tree


def observed_mask(observed: Array, num: int, shape: tuple[int, ...]) -> np.ndarray:
    """bool [num, *shape] of what broadcasts to it; BadInput if it does not, or is not
    known yet.
    """
    if isinstance(observed, jax.core.Tracer):
        raise BadInput("which pixels are observed must be known before compiling")
    observed = np.asarray(observed, bool)
    try:
        return np.broadcast_to(observed, (num, *shape))
    except ValueError:
        raise BadInput(
            f"observed has shape {observed.shape}: it must broadcast to "
            f"{(num, *shape)}, the examples"
        ) from None


def check_particles(particles: int, in_order: np.ndarray) -> None:
    """BadInput for one particle where the mask [B, n], in order, is no beginning."""
    if particles < 1:
        raise BadInput(f"particles={particles}: it must be at least 1")
    if particles == 1 and np.any(in_order[:, 1:] & ~in_order[:, :-1]):
        raise BadInput(
            "some observed pixels come after unobserved ones in the order, which "
            "one particle cannot know of: take 64 particles or more (importance "
            "resampling), or observe a beginning of the order"
        )


def resampled(
    generate: Callable,
    keys: Array,
    context: Tree,
    given: Array,
    observed: Array,
    particles: int,
) -> tuple[Array, Array]:
    """(x [B, ...], effective [B]): of `particles` draws a row one, by its weight.

    generate(keys, context, given, observed) -> (x, log p of its symbols), of as many
    rows as it is given; given, observed [B, ...]: what is clamped. effective: the
    effective number of particles, 1/Σ w²; 0 where no weight is above 0.
    """
    num = len(keys)
    each = jax.vmap(lambda key: sample_keys(key, particles))(keys).reshape(-1)
    rows = context, given, jnp.asarray(observed)
    rows = jax.tree.map(lambda a: jnp.repeat(a, particles, axis=0), rows)
    x, log_p = generate(each, *rows)
    log_w = per_example(jnp.where(rows[-1], log_p, 0.0)).reshape(num, particles)
    possible = jnp.any(jnp.isfinite(log_w), axis=-1, keepdims=True)
    log_w = jax.nn.log_softmax(jnp.where(possible, log_w, 0.0))
    chosen = jax.vmap(jax.random.categorical)(fold_in(keys, particles), log_w)
    x = x.reshape(num, particles, *x.shape[1:])[jnp.arange(num), chosen]
    effective = jnp.exp(-jax.nn.logsumexp(2 * log_w, axis=-1))
    return x, jnp.where(possible[:, 0], effective, 0.0)
