"""One training step for every family. It knows players, not families.

    for i, player in enumerate(order):
        gradient of that player's loss in that player's parameters, one update

A GAN has two players; WGAN is `order=("critic",) * 5 + ("generator",)`. Keys are
derived, fold_in(fold_in(key, step), turn), so a step is a pure function of
(train_state, batch), and a resumed run is the same run. A turn that is not finite
changes nothing and is counted (`gengen.guard`).
"""

import functools
from collections.abc import Callable, Mapping

import chex
import flax.struct
import jax
import jax.numpy as jnp
import optax

from gengen import guard
from gengen.errors import BadInput
from gengen.gradients import accumulate_gradients, mean_over_devices
from gengen.scan import check_key
from gengen.types import (
    RESERVED,
    Array,
    Key,
    LossFn,
    Params,
    State,
    Tree,
    Variables,
    check_frozen,
)


@flax.struct.dataclass
class TrainState:
    """All that training carries from step to step, and all that is saved."""

    step: Array
    """The number of steps done; an int32 scalar."""
    key: Key
    """The run's key, which never changes."""
    params: Params
    """Parameters by player."""
    state: State
    """Every other array that the losses change."""
    opt_state: dict[str, optax.OptState]
    """The optimiser's memory, by player."""
    ema: Params | None
    """The average of the parameters, if the run keeps one."""
    nonfinite: guard.NonFinite
    """The counters of skipped turns."""


def init_train_state(
    key: Key,
    params: Params,
    state: State,
    optimizers: Mapping[str, optax.GradientTransformation],
    ema: bool = True,
) -> TrainState:
    """The train state before step 0; the average starts at the parameters.

    >>> params = {"net": {"w": jnp.ones(2)}}
    >>> optimizers = {"net": optax.sgd(0.1)}
    >>> int(init_train_state(jax.random.key(0), params, {}, optimizers).step)
    0

    Args:
        key: the run's typed key, `jax.random.key(seed)`.
        params: parameters by player.
        state: every other array; it may hold none of the RESERVED entries.
        optimizers: one optimiser per player.
        ema: whether the train state holds an average of the parameters.

    Raises:
        BadInput: for a raw key, a reserved entry, a single optimiser, or players
            without parameters or without an optimiser.
    """
    check_key(key)
    check_by_player(optimizers)
    if taken := set(RESERVED) & state.keys():
        raise BadInput(f"state entries {sorted(taken)} are reserved: rename them")
    if missing := params.keys() ^ optimizers.keys():
        raise BadInput(f"players {sorted(missing)} lack parameters or an optimiser")
    opt_state = {player: optimizers[player].init(params[player]) for player in params}
    average = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(
        jnp.int32(0), key, params, state, opt_state, average, guard.init()
    )


def ema_update(ema: Tree, params: Tree, decay: float, step: Array) -> Tree:
    """ē ← d ē + (1 - d) θ with d = min(decay, (1 + step)/(10 + step)).

    The warm-up of d lets the average forget the initial parameters: this matters in a
    run of a thousand steps and leaves no trace in a run of a million.

    >>> float(ema_update(jnp.float32(1.0), jnp.float32(2.0), 0.75, jnp.int32(1_000)))
    1.25

    Args:
        ema: the average ē.
        params: the parameters θ; a tree of the same structure, shapes and dtypes.
        decay: the largest d, in [0, 1).
        step: the number of steps done; a scalar.
    """
    chex.assert_trees_all_equal_shapes_and_dtypes(ema, params)
    chex.assert_rank(step, 0)
    d = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda e, p: p + d.astype(e.dtype) * (e - p), ema, params)


def make_train_step(
    losses: Mapping[str, LossFn],
    optimizers: Mapping[str, optax.GradientTransformation],
    order: tuple[str, ...] | None = None,
    ema_decay: float | None = None,
    axis_name: str | None = None,
    accumulate: int = 1,
) -> Callable:
    """`step(train_state, batch, frozen=None) -> (train_state, metrics)`, pure.

    The step is not yet compiled. Its metrics are the losses' own, prefixed by player,
    with "player/loss", "player/grad_norm" and "player/skipped"; a player with several
    turns reports the last one. The metrics of a skipped turn are zero except for
    "player/skipped", which is 1.

    `frozen`, {name: Variables}, holds arrays that the losses read as
    `state["frozen"]` and that nothing changes: a teacher, an autoencoder. The train
    state does not hold them, so they are neither guarded, averaged, donated nor saved.

    >>> def loss(params, state, batch, key):
    ...     return jnp.mean((params["net"] - batch["x"]) ** 2), (state, {})
    >>> optimizers = {"net": optax.sgd(0.5)}
    >>> step = make_train_step({"net": loss}, optimizers)
    >>> key, params = jax.random.key(0), {"net": jnp.float32(1.0)}
    >>> train_state = init_train_state(key, params, {}, optimizers, ema=False)
    >>> train_state, metrics = step(train_state, {"x": jnp.array([2.0, 4.0])})
    >>> float(train_state.params["net"]), float(metrics["net/loss"])
    (3.0, 5.0)

    Args:
        losses: one loss per player.
        optimizers: one optimiser per player.
        order: the turns of one step; by default each player once, as in `losses`.
        ema_decay: the decay of the average, in [0, 1). With None there is no average:
            the train state holds none, or holds a copy of the parameters.
        axis_name: the mapped axis (`jax.pmap`) over which gradients, metrics and
            floating state are averaged and along which keys differ.
        accumulate: the number of equal parts in which each batch is processed, one
            after the other (`accumulate_gradients`).

    Raises:
        BadInput: if the players' names differ, a value is out of range, or optimizers
            is no mapping.
    """
    check_by_player(optimizers)
    order = tuple(losses) if order is None else tuple(order)
    if losses.keys() != optimizers.keys() or set(order) != losses.keys():
        raise BadInput(
            f"losses {sorted(losses)}, optimisers {sorted(optimizers)} and order "
            f"{order} must name the same players"
        )
    if ema_decay is not None and not 0 <= ema_decay < 1:
        raise BadInput(f"ema_decay={ema_decay} must be in [0, 1), or None for no EMA")
    if accumulate < 1:
        raise BadInput(f"accumulate={accumulate} must be at least 1")

    mean = functools.partial(mean_over_devices, axis_name=axis_name)

    def play(train_state: TrainState, batch, key, player: str, frozen):
        """One turn of one player."""
        read_only = {
            "step": train_state.step,
            "ema": train_state.ema or train_state.params,
            "frozen": frozen,
        }

        def own_loss(own, state, batch, key):
            mine = {**train_state.params, player: own}
            loss, (new, seen) = losses[player](mine, state | read_only, batch, key)
            return loss, ({k: x for k, x in new.items() if k not in RESERVED}, seen)

        own, memory = train_state.params[player], train_state.opt_state[player]
        gradient = jax.value_and_grad(own_loss, has_aux=True)
        if accumulate > 1:
            gradient = accumulate_gradients(gradient, accumulate)
        (loss, (state, seen)), grads = gradient(own, train_state.state, batch, key)
        loss, state, grads = mean((loss, state, grads))
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        if taken := (metrics.keys() | {"skipped"}) & seen.keys():
            raise BadInput(
                f"{player}'s loss reports {sorted(taken)}, which the step adds "
                "itself: rename the metric"
            )
        metrics |= {name: mean(jnp.asarray(x)) for name, x in seen.items()}
        updates, new_memory = optimizers[player].update(grads, memory, own)

        finite = guard.is_finite(loss, metrics["grad_norm"])
        keep = functools.partial(guard.select, finite)
        tensors = guard.checked_tensors(player, batch, loss, grads)
        nonfinite = guard.count(
            train_state.nonfinite,
            finite,
            sorted(losses).index(player),
            mean(guard.squares(tensors)),
        )
        metrics = keep(metrics, jax.tree.map(jnp.zeros_like, metrics))
        metrics["skipped"] = 1.0 - finite.astype(jnp.float32)
        new = keep(optax.apply_updates(own, updates), own)
        return train_state.replace(
            params={**train_state.params, player: new},
            state=keep(state, train_state.state),
            opt_state={**train_state.opt_state, player: keep(new_memory, memory)},
            nonfinite=nonfinite,
        ), {f"{player}/{name}": x for name, x in metrics.items()}

    def step(
        train_state: TrainState, batch, frozen: Mapping[str, Variables] | None = None
    ) -> tuple[TrainState, dict[str, Array]]:
        if train_state.ema is None and ema_decay is not None:
            raise BadInput(
                f"ema_decay={ema_decay}, but the train state holds no average: "
                "make it with init_train_state(..., ema=True)"
            )
        frozen = check_frozen(frozen)
        key = jax.random.fold_in(train_state.key, train_state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        before, metrics = train_state.nonfinite, {}
        for turn, player in enumerate(order):
            key_turn = jax.random.fold_in(key, turn)
            train_state, seen = play(train_state, batch, key_turn, player, frozen)
            metrics |= seen
        ema, params = train_state.ema, train_state.params
        if ema is not None:
            ema = ema_update(ema, params, ema_decay or 0.0, train_state.step)
        nonfinite = guard.end_step(train_state.nonfinite, before)
        return train_state.replace(
            step=train_state.step + 1, ema=ema, nonfinite=nonfinite
        ), metrics

    return step


def check_by_player(optimizers) -> None:
    """BadInput unless the optimisers are a mapping by player."""
    if not isinstance(optimizers, Mapping):
        raise BadInput(
            f"optimizers is a {type(optimizers).__name__}: give one per player, such "
            'as {"vae": optax.adam(1e-3)}'
        )
