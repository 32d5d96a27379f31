"""Laws of `gengen.objective`: combinators take losses and return one."""

import inspect
import pickle
import re
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gengen.errors import BadInput
from gengen.objective import Ramp, add, every, loss, map_batch, scale, with_state
from gengen.types import static

PARAMS = {"p": {"w": jnp.array([1.0, -2.0])}}
STATE = {"step": jnp.int32(0), "count": jnp.float32(3.0)}
BATCH = {"x": jnp.array([[0.5, 1.0], [1.5, -1.0]])}
KEY = jax.random.key(0)


@static
class Power:
    """|w - x|^power; reports its value and its key, multiplies the count by `power`."""

    power: int
    name: str = "value"
    seen: Callable = lambda: None  # called when and only when it runs

    def __call__(self, params, state, batch, key):
        jax.debug.callback(self.seen)
        value = jnp.mean(jnp.abs(params["p"]["w"] - batch["x"]) ** self.power)
        metrics = {self.name: value, f"{self.name}_noise": jax.random.normal(key)}
        return value, ({**state, "count": self.power * state["count"] + 1}, metrics)


def at(step):
    return {**STATE, "step": jnp.int32(step)}


def value_and_grad(loss, state=STATE):
    """((value, (state, metrics)), gradient) at the tiny problem."""
    return jax.value_and_grad(loss, has_aux=True)(PARAMS, state, BATCH, KEY)


def test_add_and_scale_are_linear_in_value_and_gradient():
    both = add(scale(Power(2, "a"), 3.0), scale(Power(4, "b"), -0.5))
    (value, _), grad = value_and_grad(both)
    (first, _), first_grad = value_and_grad(Power(2))
    (second, _), second_grad = value_and_grad(Power(4))
    np.testing.assert_allclose(value, 3.0 * first - 0.5 * second, rtol=1e-6)
    expected = jax.tree.map(lambda a, b: 3.0 * a - 0.5 * b, first_grad, second_grad)
    chex.assert_trees_all_close(grad, expected, rtol=1e-6)


def test_scale_leaves_state_and_metrics_alone():
    (_, aux), _ = value_and_grad(Power(2))
    (_, scaled), _ = value_and_grad(scale(Power(2), 10.0))
    chex.assert_trees_all_equal(scaled, aux)


@pytest.mark.parametrize(("first", "second", "count"), [(2, 5, 36.0), (5, 2, 33.0)])
def test_state_passes_through_added_losses_in_order(first, second, count):
    (_, (state, _)), _ = value_and_grad(add(Power(first, "a"), Power(second, "b")))
    assert state["count"] == count  # n -> first n + 1 -> second (first n + 1) + 1
    assert state["step"] == 0


def test_added_losses_have_keys_of_their_own():
    (_, (_, metrics)), _ = value_and_grad(add(Power(2, "a"), Power(2, "b")))
    assert metrics["a"] == metrics["b"]
    assert metrics["a_noise"] != metrics["b_noise"]


def test_added_losses_may_not_report_the_same_metric():
    with pytest.raises(BadInput, match="both report .*'value', 'value_noise'.*rename"):
        value_and_grad(add(Power(2), Power(3)))


@pytest.mark.parametrize(
    ("step", "value"), [(0, 2.0), (1, 1.5), (3, 0.5), (4, 0.0), (5, 0.0), (10**9, 0.0)]
)
def test_ramp_is_a_line_then_constant(step, value):
    assert Ramp(2.0, 0.0, 4)(jnp.int32(step)) == value


def test_a_scheduled_weight_is_read_at_the_step():
    for step in (0, 3, 8):
        state = at(step)
        (value, _), _ = value_and_grad(scale(Power(2), Ramp(0.0, 1.0, 4)), state)
        (plain, _), _ = value_and_grad(Power(2), state)
        np.testing.assert_allclose(value, min(step / 4, 1.0) * plain, rtol=1e-6)


def test_every_n_is_the_loss_at_multiples_of_n_and_nothing_between():
    runs = []

    def seen():
        runs.append(1)

    loss = every(3, Power(2, seen=seen))
    compiled = jax.jit(lambda state: value_and_grad(loss, state))
    for step in range(8):
        (value, (state, metrics)), grad = compiled(at(step))
        (full, (new, reported)), full_grad = value_and_grad(Power(2), at(step))
        if step % 3 == 0:
            # 3 times the metrics: their mean over steps is that of the steps taken.
            tripled = jax.tree.map(lambda m: 3 * m, reported)
            expected = ((full, (new, tripled)), full_grad)
        else:
            zeros = jax.tree.map(jnp.zeros_like, ((full, reported), full_grad))
            expected = ((zeros[0][0], (at(step), zeros[0][1])), zeros[1])
        got = ((value, (state, metrics)), grad)
        chex.assert_trees_all_close(got, expected, rtol=1e-6)
    jax.effects_barrier()
    assert len(runs) == 3  # steps 0, 3, 6: between them the loss does not run at all


def test_lazy_regularisation_keeps_the_mean_gradient():
    lazy = scale(every(4, Power(2)), 4)
    gradient = jax.jit(jax.vmap(lambda step: value_and_grad(lazy, at(step))[1]))
    mean = jax.tree.map(lambda g: jnp.mean(g, axis=0), gradient(jnp.arange(8)))
    chex.assert_trees_all_close(mean, value_and_grad(Power(2))[1], rtol=1e-6)


@pytest.mark.parametrize("n", [0, -1])
def test_every_needs_a_positive_period(n):
    with pytest.raises(BadInput, match=f"n={n}.*at least 1"):
        every(n, Power(2))


def double(batch, key):
    del key
    return {"x": 2 * batch["x"]}


def jitter(batch, key):
    return {"x": batch["x"] * 0 + jax.random.normal(key)}


def test_map_batch_is_the_loss_of_the_mapped_batch():
    got = map_batch(double, Power(2))(PARAMS, STATE, BATCH, KEY)[0]
    expected = Power(2)(PARAMS, STATE, {"x": 2 * BATCH["x"]}, KEY)[0]
    assert got == expected


def noise_minus_x(params, state, batch, key):
    """Zero if `jitter` drew x from the key that the loss receives."""
    return jax.random.normal(key) - batch["x"][0, 0], (state, {})


def test_the_map_and_its_loss_have_keys_of_their_own():
    loss = map_batch(jitter, noise_minus_x)
    difference, other = (
        loss(PARAMS, STATE, BATCH, jax.random.key(seed))[0] for seed in (0, 1)
    )
    assert abs(difference) > 1e-3
    assert difference != other


def running_sum(params, state, batch, key):
    del batch, key
    return {"total": state["total"] + state["count"] + params["p"]["w"][0]}


def redraw(params, state, batch, key):
    del params, state, batch
    return {"total": jax.random.normal(key)}


def test_with_state_updates_after_the_loss():
    state = {**STATE, "total": jnp.float32(10.0)}
    (value, (new, metrics)), grad = value_and_grad(
        with_state(Power(2), running_sum), state
    )
    assert new["total"] == 10.0 + 7.0 + 1.0  # the count after the loss is 2 · 3 + 1
    assert new.keys() == state.keys()
    (plain, (_, reported)), plain_grad = value_and_grad(Power(2), state)
    assert value == plain
    assert metrics.keys() == reported.keys()
    chex.assert_trees_all_equal(grad, plain_grad)


def test_no_gradient_passes_through_the_update_of_the_state():
    def total(params):
        loss = with_state(Power(2), running_sum)
        state = {**STATE, "total": jnp.float32(0.0)}
        return loss(params, state, BATCH, KEY)[1][0]["total"]

    assert jnp.all(jax.grad(total)(PARAMS)["p"]["w"] == 0)


def test_the_loss_and_the_update_of_the_state_have_keys_of_their_own():
    state = {**STATE, "total": jnp.float32(0.0)}
    loss = with_state(Power(2), redraw)
    (_, (new, metrics)), _ = value_and_grad(loss, state)
    _, (other, _) = loss(PARAMS, state, BATCH, jax.random.key(1))
    draws = jnp.array([metrics["value_noise"], new["total"], other["total"]])
    assert len(np.unique(draws)) == 3


def test_with_state_may_not_add_entries():
    with pytest.raises(BadInput, match="'total'.*the state that init returns"):
        value_and_grad(with_state(Power(2), redraw))


@static
class Elbow:
    """A model whose losses are methods."""

    power: int

    @loss
    def loss(self, params, state, batch, key):
        """The mean power."""
        return scale(Power(self.power), 1.0)(params, state, batch, key)

    def plain(self, params, state, batch, key):
        return self.loss(params, state, batch, key)


@static
class Halved(Elbow):
    """The same model, half of its loss."""

    @loss
    def loss(self, params, state, batch, key):
        value, aux = super().loss(params, state, batch, key)
        return value / 2, aux


@static
class Named(Elbow):
    """A subclass that inherits its loss."""


def compositions():
    """Every combinator, rebuilt from nothing."""
    return [
        add(Power(2, "a"), Power(3, "b")),
        scale(Power(2), 3.0),
        scale(Power(2), Ramp(0.0, 1.0, 4)),
        every(2, Power(2)),
        map_batch(double, Power(2)),
        with_state(Power(2), running_sum),
        Elbow(2).loss,
        add(scale(every(2, map_batch(double, Power(2, "a"))), 2.0), Power(3, "b")),
    ]


@pytest.mark.parametrize("i", range(len(compositions())))
def test_equal_compositions_are_equal_and_trace_once(i):
    one, two = compositions()[i], compositions()[i]
    assert one is not two
    assert one == two
    assert hash(one) == hash(two)
    assert compositions()[i - 1] != one
    chex.clear_trace_counter()
    compiled = jax.jit(
        chex.assert_max_traces(lambda loss, state: value_and_grad(loss, state), n=1),
        static_argnums=0,
    )
    state = {**STATE, "total": jnp.float32(0.0)}
    chex.assert_trees_all_equal(compiled(one, state), compiled(two, state))


def test_methods_are_losses_as_values():
    first, second = Elbow(2).loss, Elbow(2).loss
    assert first == second and hash(first) == hash(second)
    assert pickle.loads(pickle.dumps(first)) == first
    assert Elbow(2).plain != Elbow(2).loss  # a bound method is no value
    others = [Elbow(3).loss, Halved(2).loss, Named(2).loss]
    assert all(other != first for other in others)
    assert len({first, second, *others}) == 4


def test_a_method_as_a_loss_is_that_method():
    expected = value_and_grad(Power(2))
    chex.assert_trees_all_equal(value_and_grad(Elbow(2).loss), expected)
    chex.assert_trees_all_equal(value_and_grad(Named(2).loss), expected)
    function = Elbow.loss  # of the class: the plain function
    assert inspect.isfunction(function) and function.__name__ == "loss"
    assert function.__doc__ == "The mean power."
    got = function(Elbow(2), PARAMS, STATE, BATCH, KEY)
    chex.assert_trees_all_equal(got, Power(2)(PARAMS, STATE, BATCH, KEY))


def test_a_subclass_overrides_a_loss():
    (value, _), grad = value_and_grad(Halved(2).loss)
    (whole, _), whole_grad = value_and_grad(Elbow(2).loss)
    assert value == whole / 2
    chex.assert_trees_all_close(grad, jax.tree.map(lambda g: g / 2, whole_grad))


def test_losses_of_different_owners_trace_apart():
    chex.clear_trace_counter()
    compiled = jax.jit(
        chex.assert_max_traces(lambda loss, state: value_and_grad(loss, state), n=2),
        static_argnums=0,
    )
    values = {power: compiled(Elbow(power).loss, STATE)[0][0] for power in (2, 3, 2, 3)}
    assert values[2] != values[3]


def read_frozen(params, state, batch, key):
    value = jnp.sum(params["p"]["w"]) + jnp.sum(state["frozen"]["teacher"])
    return value, ({**state, "count": state["count"] + 1}, {})


def test_every_reads_reserved_entries_without_carrying_them():
    state = {**STATE, "frozen": {"teacher": jnp.ones((7, 13), jnp.float32)}}
    lazy = every(2, read_frozen)
    for step, value, count in [(0, 7 * 13 - 1.0, 4.0), (1, 0.0, 3.0)]:
        now = {**state, "step": jnp.int32(step)}
        got, (new, _) = lazy(PARAMS, now, BATCH, KEY)
        assert got == value and new["count"] == count
        chex.assert_trees_all_equal(new, {**now, "count": jnp.float32(count)})
    text = str(jax.make_jaxpr(lambda state: lazy(PARAMS, state, BATCH, KEY)[0])(state))
    outputs = re.findall(r"(?m)^ *([^=]*) = cond\[", text)
    assert len(outputs) == 1 and "f32[7,13]" not in outputs[0]
