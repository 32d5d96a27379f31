"""L2: combinators of losses. Each takes a LossFn (or several) and returns a LossFn.

    total = add(model.loss, scale(every(16, penalty), Ramp(0.0, 10.0, 1_000)))

They are `static` dataclasses, so an equal composition is an equal value and does not
retrace. Functions handed to them belong at module scope for the same reason, and
methods become values by the decorator `loss`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.types import RESERVED, Array, LossFn, static


@static
class Ramp:
    """A line from `first` at step 0 to `last` at step `steps`, constant after it.

    >>> float(Ramp(0.0, 10.0, 4)(jnp.int32(1)))
    2.5
    """

    first: float
    """The value at step 0."""
    last: float
    """The value from step `steps` on."""
    steps: int
    """The number of steps from `first` to `last`."""

    def __call__(self, step: Array) -> Array:
        """The value at a step; an int32 scalar."""
        done = jnp.clip(step / max(self.steps, 1), 0.0, 1.0)
        return self.first + (self.last - self.first) * done


@static
class Delayed:
    """0 before step `start`, and `value` from then on.

    >>> [float(Delayed(0.5, 2)(jnp.int32(step))) for step in (1, 2)]
    [0.0, 0.5]
    """

    value: float
    """The value from step `start` on."""
    start: int
    """The first step that has it."""

    def __call__(self, step: Array) -> Array:
        """The value at a step; an int32 scalar."""
        return jnp.where(step >= self.start, self.value, 0.0)


Weight = float | Callable[[Array], Array]  # a number, or a static function of the step


def weight_at(weight: Weight, state) -> Array | float:
    """The weight's value at `state["step"]`.

    >>> weight_at(0.5, {"step": jnp.int32(7)})
    0.5

    Args:
        weight: a number, or a static function of the step (`Ramp`).
        state: what a loss is given; "step" is read.
    """
    return weight(state["step"]) if callable(weight) else weight


@static
class _Bound:
    """`function(owner, params, state, batch, key)` as a value."""

    function: Callable
    owner: Any

    def __call__(self, params, state, batch, key):
        return self.function(self.owner, params, state, batch, key)


class loss:
    """Decorates a method that is a loss: `model.loss` is then a value.

    Bound methods of equal objects are hashed by the objects' addresses and do not
    compare equal, so `jax.jit` would retrace. What this returns compares equal and has
    equal hashes for equal owners. On the class, the attribute is the plain function.

    >>> @static
    ... class Scaled:
    ...     factor: float
    ...
    ...     @loss
    ...     def square(self, w, state, batch, key):
    ...         return self.factor * w**2, (state, {})
    >>> Scaled(2.0).square(3.0, {}, {}, jax.random.key(0))[0]
    18.0
    >>> Scaled(2.0).square == Scaled(2.0).square
    True

    Args:
        function: `method(self, params, state, batch, key)` of a `static` class.
    """

    def __init__(self, function: Callable):
        functools.update_wrapper(self, function)

    def __get__(self, owner, kind=None):
        return self.__wrapped__ if owner is None else _Bound(self.__wrapped__, owner)


@static
class _Add:
    losses: tuple[LossFn, ...]

    def __call__(self, params, state, batch, key):
        total, metrics = 0.0, {}
        for i, loss in enumerate(self.losses):
            value, (state, new) = loss(params, state, batch, jax.random.fold_in(key, i))
            if taken := metrics.keys() & new.keys():
                raise BadInput(
                    f"two added losses both report {sorted(taken)}: rename one metric"
                )
            total, metrics = total + value, {**metrics, **new}
        return total, (state, metrics)


def add(*losses: LossFn) -> LossFn:
    """The sum of losses. State passes from one to the next; each has its own key.

    >>> def square(w, state, batch, key):
    ...     return w**2, (state, {})
    >>> add(square, square)(3.0, {}, {}, jax.random.key(0))[0]
    18.0

    Args:
        losses: any number of losses.

    Raises:
        BadInput: at the call, if two losses report a metric of the same name.
    """
    return _Add(losses)


@static
class _Scale:
    loss: LossFn
    weight: Weight

    def __call__(self, params, state, batch, key):
        value, aux = self.loss(params, state, batch, key)
        return weight_at(self.weight, state) * value, aux


def scale(loss: LossFn, weight: Weight) -> LossFn:
    """`weight` times the loss; its metrics stay as they are.

    >>> def square(w, state, batch, key):
    ...     return w**2, (state, {})
    >>> scale(square, 0.5)(3.0, {}, {}, jax.random.key(0))[0]
    4.5

    Args:
        loss: the loss.
        weight: a number, or a static function of the step (`Ramp`).
    """
    return _Scale(loss, weight)


@static
class _Every:
    n: int
    loss: LossFn

    def __call__(self, params, state, batch, key):
        # What nobody writes need not come out of the branches, and so is not copied.
        read_only = {name: state[name] for name in RESERVED if name in state}
        own = {name: x for name, x in state.items() if name not in read_only}

        def take(params, own, batch, key):
            value, (new, metrics) = self.loss(params, own | read_only, batch, key)
            new = {name: x for name, x in new.items() if name not in RESERVED}
            return value, (new, jax.tree.map(lambda m: m * self.n, metrics))

        def skip(params, own, batch, key):
            shapes = jax.eval_shape(take, params, own, batch, key)
            value, (_, metrics) = jax.tree.map(jnp.zeros_like, shapes)
            return value, (own, metrics)

        now = state["step"] % self.n == 0
        value, (own, metrics) = jax.lax.cond(now, take, skip, params, own, batch, key)
        return value, (own | read_only, metrics)


def every(n: int, loss: LossFn) -> LossFn:
    """The loss at steps 0, n, 2n, …; between them it is zero and costs nothing.

    Metrics are multiplied by n, and are zero on the other steps, so that their mean
    over all steps is the mean over the steps at which the loss was evaluated. The
    state changes at those steps only. Lazy regularisation is
    `scale(every(n, loss), n)`: the same mean gradient for 1/n of the work
    (Karras et al. 2020, arXiv:1912.04958, appendix B).

    >>> def square(w, state, batch, key):
    ...     return w**2, (state, {})
    >>> def at(step):
    ...     value, _ = every(2, square)(3.0, {"step": step}, {}, jax.random.key(0))
    ...     return float(value)
    >>> [at(step) for step in range(3)]
    [9.0, 0.0, 9.0]

    Args:
        n: the period in steps, at least 1.
        loss: the loss.

    Raises:
        BadInput: if n < 1.
    """
    if n < 1:
        raise BadInput(f"every(n={n}): n must be at least 1")
    return _Every(n, loss)


@static
class _MapBatch:
    function: Callable
    loss: LossFn

    def __call__(self, params, state, batch, key):
        key_map, key_loss = jax.random.split(key)
        batch = self.function(batch, key_map)
        return self.loss(params, state, batch, key_loss)


def map_batch(function: Callable, loss: LossFn) -> LossFn:
    """The loss of `function(batch, key)`: augmentation, binarisation, corruption.

    >>> def linear(w, state, batch, key):
    ...     return w * batch["x"], (state, {})
    >>> def double(batch, key):
    ...     return {"x": 2.0 * batch["x"]}
    >>> map_batch(double, linear)(3.0, {}, {"x": 5.0}, jax.random.key(0))[0]
    30.0

    Args:
        function: `function(batch, key) -> batch`, at module scope or a static value.
        loss: the loss; its key differs from the function's.
    """
    return _MapBatch(function, loss)


@static
class _WithState:
    loss: LossFn
    update: Callable

    def __call__(self, params, state, batch, key):
        key_loss, key_update = jax.random.split(key)
        value, (state, metrics) = self.loss(params, state, batch, key_loss)
        new = jax.lax.stop_gradient(self.update(params, state, batch, key_update))
        if unknown := new.keys() - (state.keys() - set(RESERVED)):
            raise BadInput(
                f"with_state writes {sorted(unknown)}, which the state does not hold "
                "or reserves: put first values into the state that init returns"
            )
        return value, (({**state, **new}), metrics)


def with_state(loss: LossFn, update: Callable) -> LossFn:
    """The loss, then the state becomes `state | update(params, state, batch, key)`.

    This is for running means, image buffers and averaged latents. The update's result
    carries no gradient.

    >>> def square(w, state, batch, key):
    ...     return w**2, (state, {})
    >>> def count(w, state, batch, key):
    ...     return {"seen": state["seen"] + 1}
    >>> counted = with_state(square, count)
    >>> value, (state, _) = counted(3.0, {"seen": 4}, {}, jax.random.key(0))
    >>> int(state["seen"])
    5

    Args:
        loss: the loss, whose new state the update sees.
        update: `update(params, state, batch, key)`, which returns the entries that
            change.

    Raises:
        BadInput: at the call, for an entry that the state does not already hold (the
            structure of a state must not change) or that is reserved.
    """
    return _WithState(loss, update)
