"""L2: combinators of losses. Each takes a LossFn (or several) and returns a LossFn.

    loss = add(elbo, scale(every(16, penalty), Ramp(0.0, 10.0, 1_000)))

They are `static` dataclasses, so an equal composition is an equal value and does not
retrace. Functions handed to them belong at module scope for the same reason.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.types import RESERVED, Array, LossFn, static


@static
class Ramp:
    """A line from `first` at step 0 to `last` at step `steps`, constant after it."""

    first: float
    last: float
    steps: int

    def __call__(self, step: Array) -> Array:
        done = jnp.clip(step / max(self.steps, 1), 0.0, 1.0)
        return self.first + (self.last - self.first) * done


Weight = float | Callable[[Array], Array]  # a number, or a static function of the step


def weight_at(weight: Weight, state) -> Array | float:
    """The weight's value at `state["step"]`."""
    return weight(state["step"]) if callable(weight) else weight


@static
class Bind:
    """`function(owner, params, state, batch, key)`: a method that compares equal.

    Bound methods of equal owners are not equal, so jit would retrace;
    `Bind(GAN.generator_loss, gan)` is a value.
    """

    function: Callable
    owner: Any

    def __call__(self, params, state, batch, key):
        return self.function(self.owner, params, state, batch, key)


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
    """The sum of losses. State passes from one to the next, each gets its own key."""
    return _Add(losses)


@static
class _Scale:
    loss: LossFn
    weight: Weight

    def __call__(self, params, state, batch, key):
        value, aux = self.loss(params, state, batch, key)
        return weight_at(self.weight, state) * value, aux


def scale(loss: LossFn, weight: Weight) -> LossFn:
    """`weight` times the loss: a number, or a static function of the step (`Ramp`)."""
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
    """The loss at steps 0, n, 2n, …; between them zero, at no cost, state untouched.

    Metrics are n times themselves, and zero on the skipped steps: their mean over steps
    is the mean over the steps that were taken. Lazy regularisation is
    `scale(every(n, loss), n)`: the same mean gradient for 1/n of the work
    (Karras et al. 2020, arXiv:1912.04958, appendix B).
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
    """The loss of `function(batch, key)`: augmentation, binarisation, corruption."""
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
    """The loss, then `state | update(params, state, batch, key)`.

    For running means, image buffers and averaged latents; the update's result carries
    no gradient. Raises BadInput for an entry
    that the state does not already hold: its structure must not change.
    """
    return _WithState(loss, update)
