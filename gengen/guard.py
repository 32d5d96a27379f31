"""The guard of a training step: a turn that is not finite changes nothing.

A turn whose loss or gradient is not finite keeps the parameters, the state and the
optimiser's memory as they were, and is counted. One bad batch costs one update, not the
run. New and old values are selected and not branched to, because XLA fuses a select
into the update (docs/explanation/one-step.md has the cost of both).

    nonfinite = guard.init()
    finite = guard.is_finite(loss, grad_norm)
    params = guard.select(finite, new_params, params)
    nonfinite = guard.count(nonfinite, finite, player, tensors)     # per turn
    nonfinite = guard.end_step(nonfinite, before)                   # per step
"""

import functools
from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
import optax

from gengen.types import Array, Tree


@flax.struct.dataclass
class NonFinite:
    """Counters of the turns that changed nothing; int32 scalars, named as in optax."""

    total_notfinite: Array
    """The number of turns that were skipped, in all."""
    consecutive_notfinite: Array
    """The number of steps with a skipped turn since the last step without one."""
    player: Array
    """The player of the last skipped turn: an index into the sorted players."""
    tensor: Array
    """The first tensor that was not finite in it: an index into `checked_tensors`."""


def init() -> NonFinite:
    """The counters before step 0: all are zero.

    >>> int(init().total_notfinite)
    0
    """
    return NonFinite(*jnp.zeros(4, jnp.int32))


def is_finite(loss: Array, grad_norm: Array) -> Array:
    """Whether a turn is finite: any bad part of the gradient makes its norm bad.

    >>> bool(is_finite(jnp.float32(1.0), jnp.float32(jnp.inf)))
    False
    """
    return jnp.isfinite(loss) & jnp.isfinite(grad_norm)


def select(finite: Array, new: Tree, old: Tree) -> Tree:
    """`new` where the turn was finite, else `old`.

    >>> select(jnp.bool_(False), {"w": jnp.ones(2)}, {"w": jnp.zeros(2)})
    {'w': Array([0., 0.], dtype=float32)}

    Args:
        finite: a boolean scalar.
        new: a tree.
        old: a tree of the same structure, shapes and dtypes; others are a ValueError
            or TypeError.
    """
    return jax.tree.map(functools.partial(jax.lax.select, finite), new, old)


def named(groups: Mapping[str, Tree]) -> dict[str, Array]:
    """{path: leaf} of the groups' floating leaves, in their order.

    >>> named({"batch": {"x": jnp.zeros(1), "label": jnp.arange(1)}, "loss": 1.0})
    {'batch/x': Array([0.], dtype=float32), 'loss': 1.0}
    """
    leaves = {}
    for group, tree in groups.items():
        for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
            if jnp.issubdtype(jnp.result_type(x), jnp.floating):
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                leaves[f"{group}/{name}" if name else group] = x
    return leaves


def checked_tensors(player: str, batch, loss, grads) -> dict[str, Array]:
    """{path: array} of what one turn computes with, causes before effects.

    >>> list(checked_tensors("net", {"x": jnp.ones(2)}, 1.0, {"w": jnp.ones(2)}))
    ['batch/x', 'net/loss', 'net/gradient/w', 'net/grad_norm']

    Args:
        player: the name of the turn's player.
        batch: the turn's batch.
        loss: the value of its loss, a scalar.
        grads: the gradient of the player's parameters.
    """
    groups = {"batch": batch, f"{player}/loss": loss, f"{player}/gradient": grads}
    return named({**groups, f"{player}/grad_norm": optax.tree.norm(grads)})


def squares(tensors: Mapping[str, Array]) -> Array:
    """The sum of squares of each tensor [N]: the gradient's norm needs most of them.

    >>> squares({"a": jnp.array([3.0, 4.0]), "b": jnp.array([jnp.nan])})
    Array([25., nan], dtype=float32)
    """
    sums = [jnp.sum(jnp.square(x.astype(jnp.float32))) for x in tensors.values()]
    return jnp.stack(sums)


def count(nonfinite: NonFinite, finite: Array, player: int, sums: Array) -> NonFinite:
    """The counters after one turn: unchanged if it was finite.

    >>> int(count(init(), jnp.bool_(False), 0, jnp.array([1.0, jnp.inf])).tensor)
    1

    Args:
        nonfinite: the counters before the turn.
        finite: whether the turn was finite; a boolean scalar.
        player: the index of the turn's player among the sorted players.
        sums: the `squares` [N] of the turn's `checked_tensors`.
    """
    skipped = nonfinite.replace(
        total_notfinite=nonfinite.total_notfinite + 1,
        player=jnp.int32(player),
        tensor=jnp.argmin(jnp.isfinite(sums)).astype(jnp.int32),
    )
    return select(finite, nonfinite, skipped)


def end_step(nonfinite: NonFinite, before: NonFinite) -> NonFinite:
    """The counters after a step whose turns are counted.

    >>> after = count(init(), jnp.bool_(False), 0, jnp.array([jnp.inf]))
    >>> int(end_step(after, init()).consecutive_notfinite)
    1

    Args:
        nonfinite: the counters after the step's last turn.
        before: the counters before its first turn.
    """
    good = nonfinite.total_notfinite == before.total_notfinite
    consecutive = jnp.where(good, 0, before.consecutive_notfinite + 1)
    return nonfinite.replace(consecutive_notfinite=consecutive)


def first_nonfinite(train_state, batch) -> str:
    """The path of the first tensor that was not finite in the last skipped turn.

    The tensors are searched in this order: the batch, then parameters and state, then
    the loss, the gradient and the gradient's norm. A tensor whose squares add up to
    more than float32 holds counts as not finite. Parameters and state are examined as
    they are now, because a bad value in them stays.

    >>> from types import SimpleNamespace
    >>> counters = init().replace(tensor=jnp.int32(1))  # of net: batch/x, net/loss, …
    >>> params = {"net": {"w": jnp.ones(2)}}
    >>> seen = SimpleNamespace(nonfinite=counters, params=params, state={})
    >>> first_nonfinite(seen, {"x": jnp.ones(2)})
    'net/loss'

    Args:
        train_state: a `gengen.step.TrainState` with at least one skipped turn.
        batch: any batch with the same leaves as the one of the skipped turn; only the
            paths of its leaves are used.
    """
    nonfinite, params = train_state.nonfinite, train_state.params
    player = sorted(params)[int(nonfinite.player)]
    names = list(checked_tensors(player, batch, jnp.zeros(()), params[player]))
    name = names[int(nonfinite.tensor)]
    if name in named({"batch": batch}):
        return name
    held = named({"params": params, "state": train_state.state})
    bad = (path for path, x in held.items() if not jnp.all(jnp.isfinite(x)))
    return next(bad, name)
