"""One training step for every family. It knows players, not families.

    for i, player in enumerate(order):
        gradient of that player's loss in that player's parameters, one update

A GAN is two players, WGAN is `order=("critic",) * 5 + ("generator",)`. Keys are
derived, fold_in(fold_in(key, step), turn), so a step is a pure function of
(train_state, batch) and a resumed run is the same run.
"""

import functools
from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
import optax

from gengen.types import RESERVED, Array, BadInput, Key, LossFn, Params, State, Tree


@flax.struct.dataclass
class TrainState:
    """All that training carries from step to step, and all that is saved."""

    step: Array  # int32 scalar: steps done
    key: Key  # the run's key, never advanced
    params: Params
    state: State
    opt_state: dict[str, optax.OptState]
    ema: Params | None  # averaged parameters


def train_state(
    key: Key,
    params: Params,
    state: State,
    optimizers: Mapping[str, optax.GradientTransformation],
    ema: bool = True,
) -> TrainState:
    """The state before step 0. The average starts at the parameters themselves."""
    if taken := set(RESERVED) & state.keys():
        raise BadInput(f"state entries {sorted(taken)} are reserved: rename them")
    if missing := params.keys() ^ optimizers.keys():
        raise BadInput(f"players {sorted(missing)} lack parameters or an optimiser")
    opt_state = {player: optimizers[player].init(params[player]) for player in params}
    average = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.int32(0), key, params, state, opt_state, average)


def ema_update(ema: Tree, params: Tree, decay: float, step: Array) -> Tree:
    """ē ← d ē + (1 - d) θ with d = min(decay, (1 + step)/(10 + step)).

    The warm-up of d lets the average forget the initial parameters, at once in a run
    of a thousand steps, without a trace in a run of a million.
    """
    d = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda e, p: p + d.astype(e.dtype) * (e - p), ema, params)


def mean_over_devices(tree: Tree, axis_name: str | None) -> Tree:
    """The mean of every floating leaf over a mapped axis; the tree itself if None."""

    def mean(x):
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return jax.lax.pmean(x, axis_name) if floating else x

    return tree if axis_name is None else jax.tree.map(mean, tree)


def make_train_step(
    losses: Mapping[str, LossFn],
    optimizers: Mapping[str, optax.GradientTransformation],
    order: tuple[str, ...] | None = None,
    ema_decay: float | None = None,
    axis_name: str | None = None,
) -> Callable:
    """`step(train_state, batch) -> (train_state, metrics)`, pure, not yet compiled.

    losses, optimizers: one of each a player. order: the turns, by default each player
    once in the order of `losses`. ema_decay in [0, 1); None for no average: the
    train state then holds none, or its average is the parameters themselves.
    axis_name: under pmap, the axis over which gradients, metrics and floating state
    are averaged and by which keys differ.

    Metrics are the losses' own, prefixed by player, with "player/loss" and
    "player/grad_norm"; of several turns of one player the last is reported.
    """
    order = tuple(losses) if order is None else tuple(order)
    if losses.keys() != optimizers.keys() or set(order) != losses.keys():
        raise BadInput(
            f"losses {sorted(losses)}, optimisers {sorted(optimizers)} and order "
            f"{order} must name the same players"
        )
    if ema_decay is not None and not 0 <= ema_decay < 1:
        raise BadInput(f"ema_decay={ema_decay} must be in [0, 1), or None for no EMA")

    mean = functools.partial(mean_over_devices, axis_name=axis_name)

    def step(ts: TrainState, batch) -> tuple[TrainState, dict[str, Array]]:
        if ts.ema is None and ema_decay is not None:
            raise BadInput(
                f"ema_decay={ema_decay}, but the train state holds no average: "
                "make it with train_state(..., ema=True)"
            )
        key = jax.random.fold_in(ts.key, ts.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        params, state, opt_state = dict(ts.params), ts.state, dict(ts.opt_state)
        metrics = {}
        for turn, player in enumerate(order):

            def own_loss(own, player=player, turn=turn, params=params, state=state):
                everything = {**state, "step": ts.step, "ema": ts.ema or params}
                turn_key = jax.random.fold_in(key, turn)
                mine = {**params, player: own}
                return losses[player](mine, everything, batch, turn_key)

            (loss, (new, seen)), grads = jax.value_and_grad(own_loss, has_aux=True)(
                params[player]
            )
            state = mean({k: v for k, v in new.items() if k not in RESERVED})
            grads = mean(grads)
            updates, opt_state[player] = optimizers[player].update(
                grads, opt_state[player], params[player]
            )
            params = {**params, player: optax.apply_updates(params[player], updates)}
            own_metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
            if taken := own_metrics.keys() & seen.keys():
                raise BadInput(
                    f"{player}'s loss reports {sorted(taken)}, which the step adds "
                    "itself: rename the metric"
                )
            for name, value in (own_metrics | seen).items():
                metrics[f"{player}/{name}"] = mean(jnp.asarray(value))
        ema = ts.ema
        if ema is not None:
            ema = ema_update(ema, params, ema_decay or 0.0, ts.step)
        return ts.replace(
            step=ts.step + 1, params=params, state=state, opt_state=opt_state, ema=ema
        ), metrics

    return step


def as_given(data, item):
    """The feed's item is the batch."""
    del data
    return item


def scan_steps(step: Callable, fetch: Callable = as_given, length: int = 1) -> Callable:
    """Many steps in one dispatch: `many(train_state, data, feed, num)`.

    feed: a pytree with leading axis `length`; step i < num <= length sees
    `fetch(data, feed[i])`, e.g. indices [length, B] into a data set on the device.
    Returns the train state and the metrics' means over the steps taken. `num` is a
    traced scalar, so that a run which `length` does not divide still compiles once:
    that is why this is a loop with a counter and not a `lax.scan` over the whole feed.
    With length 1 there is no loop at all, which matters on CPU: XLA does not speed up
    the gradients of convolutions inside loops there.
    """

    def one(ts, data, feed, i):
        item = jax.tree.map(
            lambda x: jax.lax.dynamic_index_in_dim(x, i, 0, False), feed
        )
        return step(ts, fetch(data, item))

    def many(ts, data, feed, num):
        if length == 1:
            return one(ts, data, feed, 0)
        shapes = jax.eval_shape(one, ts, data, feed, 0)[1]
        zeros = jax.tree.map(jnp.zeros_like, shapes)

        def body(i, carry):
            ts, total = carry
            ts, metrics = one(ts, data, feed, i)
            return ts, jax.tree.map(jnp.add, total, metrics)

        ts, total = jax.lax.fori_loop(0, num, body, (ts, zeros))
        return ts, jax.tree.map(lambda x: x / num, total)

    return many
