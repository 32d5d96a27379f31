"""One training step for every family. It knows players, not families.

    for i, player in enumerate(order):
        gradient of that player's loss in that player's parameters, one update

A GAN is two players, WGAN is `order=("critic",) * 5 + ("generator",)`. Keys are
derived, fold_in(fold_in(key, step), turn), so a step is a pure function of
(train_state, batch) and a resumed run is the same run.

A turn whose loss or gradient is not finite changes nothing and is counted: one bad
batch costs one update, not the run. `first_nonfinite` says which tensor was to blame.
What is kept is selected, not branched to: a select is fused into the update (the costs
of both are in docs/scaling.md).
"""

import functools
from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.extend import core
from jax.flatten_util import ravel_pytree

from gengen.errors import BadInput
from gengen.types import RESERVED, Array, Key, LossFn, Params, State, Tree


@flax.struct.dataclass
class NonFinite:
    """Turns that changed nothing, because loss or gradient was not finite: int32."""

    turns: Array  # in all
    in_a_row: Array  # steps with such a turn since the last step without one
    player: Array  # of the last such turn, its place in the sorted players
    tensor: Array  # the place of the first of its `checked_tensors` that was not finite


@flax.struct.dataclass
class TrainState:
    """All that training carries from step to step, and all that is saved."""

    step: Array  # int32 scalar: steps done
    key: Key  # the run's key, never advanced
    params: Params
    state: State
    opt_state: dict[str, optax.OptState]
    ema: Params | None  # averaged parameters
    skipped: NonFinite


def init_train_state(
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
    skipped = NonFinite(*jnp.zeros(4, jnp.int32))
    return TrainState(jnp.int32(0), key, params, state, opt_state, average, skipped)


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


def named(groups: Mapping[str, Tree]) -> dict[str, Array]:
    """{path: leaf} of the groups' floating leaves, in their order."""
    leaves = {}
    for group, tree in groups.items():
        for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
            if jnp.issubdtype(x.dtype, jnp.floating):
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                leaves[f"{group}/{name}" if name else group] = x
    return leaves


def checked_tensors(player: str, batch, loss, grads) -> dict[str, Array]:
    """{path: array} of what one turn works with, causes before effects."""
    groups = {"batch": batch, f"{player}/loss": loss, f"{player}/gradient": grads}
    return named({**groups, f"{player}/grad_norm": optax.tree.norm(grads)})


def first_nonfinite(train_state: TrainState, batch) -> str:
    """The path of the first tensor that was not finite in the last skipped turn.

    Of the batch (any with the same leaves, for their paths), then parameters and state,
    the loss, the gradient and its norm. Not finite is also that whose squares add up
    beyond float32. Parameters and state are looked at now: once bad, they stay so.
    """
    player = sorted(train_state.params)[int(train_state.skipped.player)]
    names = list(
        checked_tensors(player, batch, jnp.zeros(()), train_state.params[player])
    )
    name = names[int(train_state.skipped.tensor)]
    if name in named({"batch": batch}):
        return name
    held = named({"params": train_state.params, "state": train_state.state})
    bad = (path for path, x in held.items() if not jnp.all(jnp.isfinite(x)))
    return next(bad, name)


def chosen(finite: Array, new: Tree, old: Tree) -> Tree:
    """`new` where a turn was finite, else `old`: of one structure, shapes and types."""
    return jax.tree.map(functools.partial(jax.lax.select, finite), new, old)


def choosing(update: Callable, finite: Array) -> Callable:
    """An optimiser's `update(grads, memory, params)`, all memory `chosen` when made.

    So the updates, which mean nothing unless `finite`, are made of what was chosen, and
    XLA makes it once, in place, where it would without the choice. Chosen afterwards,
    it is made twice, the second time for the updates, from a copy of the old: some 3 %
    of a step on CPU. `update` is traced, also where the step is not compiled.
    """

    def chosen_update(grads, past, params):
        traced, out = jax.make_jaxpr(update, return_shape=True)(grads, past, params)
        jax.tree.map(lambda new, was: None, out[1], past)  # or an error
        jaxpr, given = traced.jaxpr, jax.tree.leaves((grads, past, params))
        inputs = [*jaxpr.constvars, *jaxpr.invars]
        known = dict(zip(inputs, [*traced.consts, *given], strict=True))
        inputs, num = set(inputs), len(jax.tree.leaves(out[0]))
        memory = list(zip(jaxpr.outvars[num:], jax.tree.leaves(past), strict=True))

        def made_here(x):
            return isinstance(x, core.Var) and x not in inputs

        def value(x):
            literal = not isinstance(x, core.Var)
            return jnp.asarray(x.val, x.aval.dtype) if literal else known[x]

        old = {x: was for x, was in memory if made_here(x)}
        for eqn in jaxpr.eqns:
            reads = [x for x in eqn.invars if isinstance(x, core.Var)]
            one = core.Jaxpr((), reads, eqn.outvars, (eqn,), eqn.effects)
            made = core.jaxpr_as_fun(core.ClosedJaxpr(one, ()))(*map(value, reads))
            for x, new in zip(eqn.outvars, made, strict=True):
                known[x] = chosen(finite, new, old[x]) if x in old else new

        def kept(x, was):  # what no equation makes, or makes for two, is chosen here
            done = made_here(x) and old[x] is was
            return value(x) if done else chosen(finite, value(x), was)

        leaves = [*map(value, jaxpr.outvars[:num]), *(kept(*each) for each in memory)]
        return jax.tree.unflatten(jax.tree.structure(out), leaves)

    return chosen_update


def accumulate_gradients(gradient: Callable, num: int) -> Callable:
    """`gradient(own, state, batch, key)` as the mean over `num` parts of the batch.

    gradient returns ((loss, (state, metrics)), grads); state passes from part to part.
    """

    def divide(x):
        if x.shape[0] % num:
            raise BadInput(
                f"a batch of {x.shape[0]} cannot be accumulated in {num} equal parts: "
                f"choose a multiple of {num}"
            )
        return x.reshape(num, -1, *x.shape[1:])

    def whole(own, state, batch, key):
        parts = jax.tree.map(divide, batch), jax.random.split(key, num)

        def add(carry, part):
            state, total = carry
            (loss, (state, seen)), grads = gradient(own, state, *part)
            return (state, jax.tree.map(jnp.add, total, (loss, seen, grads))), None

        first = jax.tree.map(lambda x: x[0], parts)
        (loss, (_, seen)), grads = jax.eval_shape(gradient, own, state, *first)
        zeros = jax.tree.map(jnp.zeros_like, (loss, seen, grads))
        (state, total), _ = jax.lax.scan(add, (state, zeros), parts)
        loss, seen, grads = jax.tree.map(lambda x: x / num, total)
        return (loss, (state, seen)), grads

    return whole


def make_train_step(
    losses: Mapping[str, LossFn],
    optimizers: Mapping[str, optax.GradientTransformation],
    order: tuple[str, ...] | None = None,
    ema_decay: float | None = None,
    axis_name: str | None = None,
    accumulate: int = 1,
) -> Callable:
    """`step(train_state, batch) -> (train_state, metrics)`, pure, not yet compiled.

    losses, optimizers: one of each a player. order: the turns, by default each player
    once in the order of `losses`. ema_decay in [0, 1); None for no average: the
    train state then holds none, or its average is the parameters themselves.
    axis_name: under pmap, the axis over which gradients, metrics and floating state
    are averaged and by which keys differ.
    accumulate: the batch is gone through in so many equal parts, one after the other,
    whose mean gradient is taken: the memory of one part, the step of all. State passes
    from part to part, each has its own key.

    Metrics are the losses' own, prefixed by player, with "player/loss",
    "player/grad_norm" and "player/skipped"; of several turns of one player the last is
    reported. A skipped turn's metrics are zero but for "player/skipped", which is 1.
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

    def play(train_state: TrainState, batch, key, player: str):
        """One turn of one player."""

        def own_loss(own, state, batch, key):
            everything = {
                **state,
                "step": train_state.step,
                "ema": train_state.ema or train_state.params,
            }
            mine = {**train_state.params, player: own}
            loss, (new, seen) = losses[player](mine, everything, batch, key)
            return loss, ({k: x for k, x in new.items() if k not in RESERVED}, seen)

        own = train_state.params[player]
        gradient = jax.value_and_grad(own_loss, has_aux=True)
        if accumulate > 1:
            gradient = accumulate_gradients(gradient, accumulate)
        (loss, (new, seen)), grads = gradient(own, train_state.state, batch, key)
        loss, new, grads = mean((loss, new, grads))
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        if taken := (metrics.keys() | {"skipped"}) & seen.keys():
            raise BadInput(
                f"{player}'s loss reports {sorted(taken)}, which the step adds "
                "itself: rename the metric"
            )
        metrics |= {name: mean(jnp.asarray(x)) for name, x in seen.items()}

        # Any part of the gradient that is not finite makes its norm so.
        finite = jnp.isfinite(loss) & jnp.isfinite(metrics["grad_norm"])
        keep = functools.partial(chosen, finite)

        update = choosing(optimizers[player].update, finite)
        updates, memory = update(grads, train_state.opt_state[player], own)
        learnt = keep(optax.apply_updates(own, updates), own)
        # Sums of squares, because the norm makes them anyway.
        tensors = checked_tensors(player, batch, loss, grads).values()
        squares = [jnp.sum(jnp.square(x.astype(jnp.float32))) for x in tensors]
        squares = mean(jnp.stack(squares))
        bad = train_state.skipped.replace(
            turns=train_state.skipped.turns + 1,
            player=jnp.int32(sorted(losses).index(player)),
            tensor=jnp.argmin(jnp.isfinite(squares)).astype(jnp.int32),
        )
        metrics = keep(metrics, jax.tree.map(jnp.zeros_like, metrics))
        metrics["skipped"] = 1.0 - finite.astype(jnp.float32)
        return train_state.replace(
            params={**train_state.params, player: learnt},
            state=keep(new, train_state.state),
            opt_state={**train_state.opt_state, player: memory},
            skipped=keep(train_state.skipped, bad),
        ), {f"{player}/{name}": x for name, x in metrics.items()}

    def step(train_state: TrainState, batch) -> tuple[TrainState, dict[str, Array]]:
        if train_state.ema is None and ema_decay is not None:
            raise BadInput(
                f"ema_decay={ema_decay}, but the train state holds no average: "
                "make it with train_state(..., ema=True)"
            )
        key = jax.random.fold_in(train_state.key, train_state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        before, metrics = train_state.skipped, {}
        for turn, player in enumerate(order):
            train_state, seen = play(
                train_state, batch, jax.random.fold_in(key, turn), player
            )
            metrics |= seen
        ema = train_state.ema
        if ema is not None:
            ema = ema_update(
                ema, train_state.params, ema_decay or 0.0, train_state.step
            )
        good = train_state.skipped.turns == before.turns
        in_a_row = jnp.where(good, 0, before.in_a_row + 1)
        skipped = train_state.skipped.replace(in_a_row=in_a_row)
        return train_state.replace(
            step=train_state.step + 1, ema=ema, skipped=skipped
        ), metrics

    return step


def identity(data, item):
    """The feed's item is the batch."""
    del data
    return item


def multi_step(step: Callable, fetch: Callable = identity, length: int = 1) -> Callable:
    """Many steps in one dispatch: `many(train_state, data, feed, num)`.

    feed: a pytree with leading axis `length`; step i < num <= length sees
    `fetch(data, feed[i])`, e.g. indices [length, B] into a data set on the device.
    Returns the train state and the metrics' means over the steps taken. `num` is a
    traced scalar, so that a run which `length` does not divide still compiles once:
    that is why this is a loop with a counter and not a `lax.scan` over the whole feed.
    With length 1 there is no loop at all, which matters on CPU: XLA does not speed up
    the gradients of convolutions inside loops there.
    """

    def in_one(metrics):
        """(one array of floats, which is one operation to add up; its inverse)."""
        return ravel_pytree(jax.tree.map(lambda x: x.astype(float), metrics))

    def one(train_state, data, feed, i):
        item = jax.tree.map(
            lambda x: jax.lax.dynamic_index_in_dim(x, i, 0, False), feed
        )
        return step(train_state, fetch(data, item))

    def many(train_state, data, feed, num):
        if length == 1:
            return one(train_state, data, feed, 0)
        shapes = jax.eval_shape(one, train_state, data, feed, 0)[1]
        zeros, metrics_of = in_one(jax.tree.map(jnp.zeros_like, shapes))

        def body(i, carry):
            train_state, total = carry
            train_state, metrics = one(train_state, data, feed, i)
            return train_state, total + in_one(metrics)[0]

        train_state, total = jax.lax.fori_loop(0, num, body, (train_state, zeros))
        return train_state, metrics_of(total / num)

    return many
