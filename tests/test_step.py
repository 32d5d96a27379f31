"""Laws of `gengen.step`: one step is a pure function of (train state, batch)."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gengen.errors import BadInput
from gengen.guard import first_nonfinite, select
from gengen.multi_step import multi_step
from gengen.objective import every
from gengen.step import ema_update, init_train_state, make_train_step
from gengen.types import RESERVED, Variables, static
from train.run.metrics import mean_metrics

KEY = jax.random.key(0)
RATE = 0.5
PARAMS = {"a": {"w": jnp.float32(3.0)}, "b": {"w": jnp.float32(-2.0)}}
STATE = {"played": jnp.int32(0), "total": jnp.float32(0.0)}
SGD = {"a": optax.sgd(RATE), "b": optax.sgd(RATE)}
BATCH = {"x": jnp.array([1.0, 3.0, 2.0, 6.0])}
MEAN = 3.0


@static
class Chase:
    """½ (own - sign · other - mean x)²: the other's gradient would not be zero either.

    Reports what it saw and counts its turns. All numbers here are small multiples of
    powers of two, so that float32 is exact and tests may ask for equality.
    """

    own: str
    other: str
    sign: float

    def __call__(self, params, state, batch, key):
        own, other = params[self.own]["w"], params[self.other]["w"]
        value = 0.5 * (own - self.sign * other - jnp.mean(batch["x"])) ** 2
        metrics = {
            "step": state["step"],
            "ema": state["ema"][self.own]["w"],
            "noise": jax.random.normal(key),
            "number": jax.random.randint(key, (), 0, 2**20),
            "other": other,
        }
        played = state["played"] * 2 + (self.own == "b")
        total = state["total"] + jnp.mean(batch["x"])
        return value, ({**state, "played": played, "total": total}, metrics)


LOSSES = {"a": Chase("a", "b", 1.0), "b": Chase("b", "a", -1.0)}


def start(ema=False, key=KEY):
    return init_train_state(key, PARAMS, STATE, SGD, ema=ema)


def step(train_state=None, **kwargs):
    return make_train_step(LOSSES, SGD, **kwargs)(train_state or start(), BATCH)


def game(order, a=3.0, b=-2.0, rate=RATE, mean=MEAN):
    """The game in closed form: each turn moves its own player only."""
    for player in order:
        if player == "a":
            a -= rate * (a - b - mean)
        else:
            b -= rate * (b + a - mean)
    return {"a": {"w": a}, "b": {"w": b}}


# ---------------------------------------------------------------- turns


@pytest.mark.parametrize(
    "order", [None, ("a", "b"), ("b", "a"), ("b",) * 5 + ("a",), ("a", "b", "a", "b")]
)
def test_each_turn_moves_its_own_player_who_sees_the_turns_before(order):
    after, _ = step(order=order)
    turns = order or ("a", "b")
    chex.assert_trees_all_equal(after.params, game(turns))
    # State passes from turn to turn, too: the turns, read as a binary number.
    assert after.state["played"] == int("".join("01"["ab".index(p)] for p in turns), 2)
    assert after.step == 1


def test_a_player_without_a_learning_rate_rests_though_the_other_depends_on_it():
    optimizers = {"a": optax.sgd(RATE), "b": optax.sgd(0.0)}
    train_state = init_train_state(KEY, PARAMS, STATE, optimizers)
    after, metrics = make_train_step(LOSSES, optimizers)(train_state, BATCH)
    chex.assert_trees_all_equal(after.params["b"], PARAMS["b"])
    assert metrics["b/grad_norm"] > 0
    state = {**STATE, "step": jnp.int32(0), "ema": PARAMS}
    gradient = jax.grad(LOSSES["a"], has_aux=True)(PARAMS, state, BATCH, KEY)[0]
    assert gradient["b"]["w"] != 0


def test_each_optimiser_keeps_its_own_moments():
    optimizers = {"a": optax.sgd(RATE, momentum=0.5), "b": optax.sgd(RATE)}
    train_state = init_train_state(KEY, PARAMS, STATE, optimizers)
    play = make_train_step(LOSSES, optimizers, order=("a", "a", "b"))
    after, _ = play(train_state, BATCH)
    first = 3.0 + 2.0 - MEAN
    a = 3.0 - RATE * first
    a -= RATE * ((a + 2.0 - MEAN) + 0.5 * first)
    chex.assert_trees_all_equal(after.params["a"]["w"], jnp.float32(a))


def test_the_last_turn_of_a_player_is_reported():
    _, metrics = step(order=("b", "b", "a"))
    b = game(("b",))["b"]["w"]  # the second turn's gradient is where the first led
    gradient = b + 3.0 - MEAN
    assert metrics["b/loss"] == 0.5 * gradient**2
    assert metrics["b/grad_norm"] == abs(gradient)
    assert metrics["a/other"] == game(("b", "b"))["b"]["w"]


# ---------------------------------------------------------------- state


def test_losses_read_the_reserved_state_which_is_not_kept():
    train_state = start()
    for n in range(3):
        train_state, metrics = step(train_state)
        assert metrics["a/step"] == metrics["b/step"] == n
        assert train_state.state.keys() == STATE.keys()
    assert not set(RESERVED) & train_state.state.keys()


@pytest.mark.parametrize("ema", [False, True])
def test_without_an_average_ema_is_the_parameters(ema):
    """Whatever `init_train_state` was told: with ema_decay=None nothing averages."""
    train_state = start(ema=ema)
    for _ in range(2):
        before = train_state.params
        train_state, metrics = step(train_state)
        assert metrics["a/ema"] == before["a"]["w"]
        assert metrics["b/ema"] == before["b"]["w"]


def test_with_an_average_ema_is_the_average_before_the_step():
    train_state = start(ema=True)
    for _ in range(2):
        before = train_state.ema
        train_state, metrics = step(train_state, ema_decay=0.9)
        assert metrics["a/ema"] == before["a"]["w"]
        assert metrics["b/ema"] == before["b"]["w"]


@pytest.mark.parametrize("decay", [0.0, 0.15, 0.999])
def test_the_average_is_a_weighted_sum_of_all_parameters(decay):
    train_state, path = start(ema=True), [PARAMS]
    for _ in range(5):
        train_state, _ = step(train_state, ema_decay=decay)
        path.append(train_state.params)
    d = [min(decay, (1 + n) / (10 + n)) for n in range(5)]
    fresh = [1.0] + [1 - d_n for d_n in d]
    kept = [np.prod(d[n:]) for n in range(6)]
    weights = np.multiply(fresh, kept)
    np.testing.assert_allclose(weights.sum(), 1.0)
    expected = jax.tree.map(lambda *w: jnp.float32(np.dot(weights, w)), *path)
    chex.assert_trees_all_close(train_state.ema, expected, rtol=1e-6)


def test_the_average_of_a_constant_is_the_constant_in_its_own_precision():
    tree = {"w": jnp.full(3, 0.7, jnp.bfloat16), "v": jnp.float32(0.3)}
    average = ema_update(tree, tree, 0.9, jnp.int32(7))
    chex.assert_trees_all_equal(average, tree)
    chex.assert_trees_all_equal_dtypes(average, tree)


def test_the_average_starts_at_the_parameters():
    chex.assert_trees_all_equal(start(ema=True).ema, PARAMS)
    assert start(ema=False).ema is None


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("losses", "optimizers", "order"),
    [
        (LOSSES, {"a": SGD["a"]}, None),
        (LOSSES, {**SGD, "c": SGD["a"]}, None),
        (LOSSES, SGD, ("a",)),
        (LOSSES, SGD, ("a", "b", "c")),
    ],
)
def test_losses_optimisers_and_order_must_name_the_same_players(
    losses, optimizers, order
):
    with pytest.raises(BadInput, match="must name the same players"):
        make_train_step(losses, optimizers, order)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_the_decay_of_the_average_is_in_zero_to_one(decay):
    with pytest.raises(BadInput, match=f"ema_decay={decay} must be in"):
        make_train_step(LOSSES, SGD, ema_decay=decay)


def test_an_average_needs_a_place_in_the_train_state():
    with pytest.raises(BadInput, match="ema"):
        step(start(ema=False), ema_decay=0.9)


@pytest.mark.parametrize("name", RESERVED)
def test_a_model_may_not_take_a_reserved_entry(name):
    with pytest.raises(BadInput, match=f"'{name}'.*reserved"):
        init_train_state(KEY, PARAMS, {**STATE, name: jnp.int32(0)}, SGD)


@pytest.mark.parametrize("optimizers", [{"a": SGD["a"]}, {**SGD, "c": SGD["a"]}])
def test_every_player_has_parameters_and_an_optimiser(optimizers):
    with pytest.raises(BadInput, match="players .*'[bc]'.* lack"):
        init_train_state(KEY, PARAMS, STATE, optimizers)


def test_optimisers_are_given_by_player():
    with pytest.raises(BadInput, match="optimizers is a .*one per player"):
        make_train_step(LOSSES, optax.adam(1e-3))
    with pytest.raises(BadInput, match="optimizers is a .*one per player"):
        init_train_state(KEY, PARAMS, STATE, optax.adam(1e-3))


def test_the_key_is_a_typed_one():
    with pytest.raises(BadInput, match=r"the key is uint32.*jax.random.key\(seed\)"):
        init_train_state(jax.random.PRNGKey(0), PARAMS, STATE, SGD)
    keys = jax.random.split(KEY, 3)
    with pytest.raises(BadInput, match=r"\(3,\).*jax.random.key\(seed\)"):
        init_train_state(keys, PARAMS, STATE, SGD)


@pytest.mark.parametrize("num", [0, -1])
def test_a_batch_is_accumulated_in_at_least_one_part(num):
    with pytest.raises(BadInput, match=f"accumulate={num} must be at least 1"):
        make_train_step(LOSSES, SGD, accumulate=num)


def test_an_average_of_other_shapes_is_refused():
    ema, params = {"w": jnp.zeros(3)}, {"w": jnp.zeros((1, 3))}
    with pytest.raises(AssertionError, match="shape"):
        ema_update(ema, params, 0.9, jnp.int32(0))
    with pytest.raises(AssertionError, match="rank"):
        ema_update(ema, ema, 0.9, jnp.zeros(1))


# ---------------------------------------------------------------- determinism


def test_a_step_is_a_function_of_train_state_and_batch():
    train_state, _ = step()
    chex.assert_trees_all_equal(data(step(train_state)), data(step(train_state)))
    assert jnp.array_equal(*map(jax.random.key_data, (train_state.key, KEY)))


def data(tree):
    """The tree with keys as numbers."""
    train_state, metrics = tree
    return train_state.replace(key=jax.random.key_data(train_state.key)), metrics


def test_every_step_turn_and_run_has_its_own_key():
    train_state, first = step()
    _, second = step(train_state)
    _, later = step(order=("b", "a"))  # a has the second turn, b the first
    _, other = step(start(key=jax.random.key(1)))
    draws = [run[f"{p}/number"] for run in (first, second, other) for p in "ab"]
    assert len(np.unique(draws)) == 6
    assert later["a/number"] == first["b/number"]  # the turn's, whoever plays


# ---------------------------------------------------------------- multi_step

FEED = {"x": jnp.arange(16.0).reshape(4, 4)}
STEP = make_train_step(LOSSES, SGD)


def fetch(data, item):
    return {"x": data[item]}


@pytest.fixture(scope="module")
def many():
    """Four steps in one dispatch; every test shares, and so asserts, the one trace."""
    chex.clear_trace_counter()
    return jax.jit(chex.assert_max_traces(multi_step(STEP, length=4), n=1))


@pytest.mark.parametrize("num", [1, 2, 3, 4])
def test_num_scanned_steps_are_num_single_steps(many, num):
    train_state, seen = start(), []
    for i in range(num):
        train_state, metrics = STEP(train_state, {"x": FEED["x"][i]})
        seen.append(metrics)
    got, means = many(start(), None, FEED, num)
    expected = jax.tree.map(lambda *m: np.mean(np.float64(m)), *seen)
    chex.assert_trees_all_equal(data((got, {})), data((train_state, {})))
    expected = jax.tree.map(np.float32, expected)
    chex.assert_trees_all_close(means, expected, rtol=1e-6, atol=1e-6)


def test_the_feed_may_be_indices_into_data():
    rows = jnp.array([[3, 0], [1, 1]])
    values = jnp.arange(4.0)
    got, _ = multi_step(STEP, fetch, length=2)(start(), values, rows, 2)
    train_state = start()
    for row in rows:
        train_state, _ = STEP(train_state, {"x": values[row]})
    chex.assert_trees_all_equal(data((got, {})), data((train_state, {})))


def test_one_step_a_dispatch_is_the_step_itself_without_a_loop():
    feed = {"x": FEED["x"][:1]}
    one = multi_step(STEP, length=1)
    expected = STEP(start(), {"x": FEED["x"][0]})
    chex.assert_trees_all_equal(data(one(start(), None, feed, 1)), data(expected))

    def loops(length):
        feed = {"x": FEED["x"][:length]}
        jaxpr = jax.make_jaxpr(multi_step(STEP, length=length))(start(), None, feed, 1)
        return "while[" in str(jaxpr) or "scan[" in str(jaxpr)

    assert not loops(1)
    assert loops(2)


# ---------------------------------------------------------------- frozen arrays


@static
class Distil:
    """mean (w - 10 u)² over a batch of zeros that u, a frozen array, is added to."""

    def __call__(self, params, state, batch, key):
        teacher = state["frozen"]["teacher"]
        target = teacher.params["u"].sum() + teacher.state["bias"]
        value = jnp.mean((params["a"]["w"] - 10.0 * target + batch["x"]) ** 2)
        seen = {"target": target, "elements": jnp.float32(teacher.params["u"].size)}
        return value, (state, seen)


DISTIL, DISTIL_SGD = {"a": Distil()}, {"a": optax.sgd(RATE)}
TEACHER = Variables(
    {"u": jnp.full((7, 13), 0.25, jnp.float32)}, {"bias": jnp.float32(0.25)}
)
FROZEN = {"teacher": TEACHER}
ZEROS = {"x": jnp.zeros(4)}
OPTIONS = ({}, {"accumulate": 2}, {"ema_decay": 0.5})


def distil_start():
    key, params = jnp.copy(KEY), {"a": {"w": jnp.float32(1.0)}}
    return init_train_state(key, params, {}, DISTIL_SGD)


@pytest.mark.parametrize("options", OPTIONS)
def test_losses_read_frozen_arrays_whole_and_nothing_changes_them(options):
    step = make_train_step(DISTIL, DISTIL_SGD, **options)
    before = distil_start()
    after, metrics = step(before, ZEROS, FROZEN)
    target = 7 * 13 * 0.25 + 0.25
    assert metrics["a/target"] == target and metrics["a/elements"] == 7 * 13
    assert after.params["a"]["w"] == 1.0 - RATE * 2.0 * (1.0 - 10.0 * target)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    shapes = {x.shape for x in jax.tree.leaves(after)}
    assert (7, 13) not in shapes


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("lazy", [False, True])
def test_the_program_neither_selects_nor_returns_frozen_arrays(options, lazy):
    losses = {"a": every(2, Distil())} if lazy else DISTIL
    step = make_train_step(losses, DISTIL_SGD, **options)
    many = jax.jit(multi_step(step, length=3), donate_argnums=0)
    feed = {"x": jnp.zeros((3, 4))}
    arguments = distil_start(), None, feed, 2, FROZEN
    text = str(jax.make_jaxpr(many)(*arguments))
    assert "f32[7,13]" in text
    assert "float32[7,13]" not in str(many.lower(*arguments).out_info)
    outputs = re.findall(r"(?m)^ *(\S.*?) = (\w+)", text)
    made = [(name, what) for name, what in outputs if "f32[7,13]" in name]
    assert made == []  # no equation has one as its output: no select, no copy
    many(*arguments)
    assert not any(x.is_deleted() for x in jax.tree.leaves(FROZEN))


def test_every_step_of_a_dispatch_has_the_frozen_arrays():
    step = make_train_step(DISTIL, DISTIL_SGD)
    feed = {"x": jnp.arange(3.0)[:, None]}
    got, _ = multi_step(step, length=3)(distil_start(), None, feed, 3, FROZEN)
    train_state = distil_start()
    for x in feed["x"]:
        train_state, _ = step(train_state, {"x": x}, FROZEN)
    chex.assert_trees_all_equal(data((got, {})), data((train_state, {})))


def test_two_shards_share_the_frozen_arrays():
    one = make_train_step(DISTIL, DISTIL_SGD, axis_name="data")
    many = jax.vmap(one, in_axes=(None, 0, None), axis_name="data")
    after, metrics = many(distil_start(), {"x": jnp.zeros((2, 2))}, FROZEN)
    whole, _ = make_train_step(DISTIL, DISTIL_SGD)(distil_start(), ZEROS, FROZEN)
    np.testing.assert_array_equal(metrics["a/elements"], [7 * 13] * 2)
    for shard in range(2):
        assert after.params["a"]["w"][shard] == whole.params["a"]["w"]


def test_a_loss_that_writes_a_reserved_entry_changes_nothing():
    def loss(params, state, batch, key):
        return params["a"]["w"], (state | {"frozen": {}, "step": 9}, {})

    step = make_train_step({"a": loss}, DISTIL_SGD, order=("a", "a"))
    after, _ = step(distil_start(), ZEROS, FROZEN)
    assert after.state == {} and after.step == 1


def test_frozen_arrays_are_given_as_variables():
    with pytest.raises(BadInput, match=r"frozen\['teacher'\] is a dict.*Variables"):
        step = make_train_step(DISTIL, DISTIL_SGD)
        step(distil_start(), ZEROS, {"teacher": {"u": 1.0}})


# ---------------------------------------------------------------- several devices


@pytest.fixture(scope="module")
def sharded():
    """One step over two shards of the batch, as `pmap` would take it."""
    one = make_train_step(LOSSES, SGD, ema_decay=0.5, axis_name="data")
    shards = {"x": BATCH["x"].reshape(2, 2)}
    return jax.vmap(one, in_axes=(None, 0), axis_name="data")(start(ema=True), shards)


def test_two_shards_take_the_step_of_the_whole_batch(sharded):
    after, metrics = sharded
    whole, whole_metrics = step(start(ema=True), ema_decay=0.5)
    for shard in range(2):
        mine = jax.tree.map(lambda x, shard=shard: x[shard], after)
        chex.assert_trees_all_equal(data((mine, {})), data((whole, {})))
    for name in ("a/grad_norm", "b/grad_norm", "a/other"):
        np.testing.assert_array_equal(metrics[name], [whole_metrics[name]] * 2)


def test_shards_draw_different_noise_and_report_its_mean(sharded):
    _, metrics = sharded
    for player in "ab":
        first, second = metrics[f"{player}/number"]  # integers are not averaged
        assert first != second
        assert jnp.ptp(metrics[f"{player}/noise"]) == 0


# ---------------------------------------------------------------- skipped turns

HUGE = 1.5e19  # the squares of one are finite, of two their sum is not


@static
class Fragile:
    """½ |w|² + x, with any one tensor bad when the batch's code asks for it."""

    own: str
    code: int

    def __call__(self, params, state, batch, key):
        asked = batch["code"] == self.code
        w, v = params[self.own]["w"], params[self.own]["v"]
        # Their value is zero, so that the gradient alone is bad.
        zero_w, zero_v = (x - jax.lax.stop_gradient(x) for x in (w, v))
        # The root of 0 is finite, its gradient is not.
        kink = jnp.sqrt(jnp.where(asked & (batch["how"] == 1), zero_v, 1.0))
        steep = jnp.where(asked & (batch["how"] == 2), HUGE, 0.0) * (zero_w + zero_v)
        steep += jnp.where(asked & (batch["how"] == 4), 2 * HUGE, 0.0) * zero_v
        loss = 0.5 * (w**2 + v**2) + jnp.mean(batch["x"]) + kink + steep
        loss = jnp.where(asked & (batch["how"] == 3), jnp.nan, loss)
        state = {**state, "played": state["played"] + 1}
        return loss, (state, {"seen": jnp.float32(2.0)})


NAMES = ("a", "b")
FRAGILE = {own: Fragile(own, code) for code, own in enumerate(NAMES)}
ADAM = {own: optax.adam(0.25) for own in NAMES}
GOOD = {"x": jnp.ones(2), "code": jnp.int32(-1), "how": jnp.int32(0)}
BADS = {  # the batch, and what `first_nonfinite` says
    "NaN loss": ({**GOOD, "code": jnp.int32(1), "how": jnp.int32(3)}, "b/loss"),
    "inf in one leaf's gradient": (
        {**GOOD, "code": jnp.int32(1), "how": jnp.int32(1)},
        "b/gradient/v",
    ),
    "overflow of one leaf's squares": (
        {**GOOD, "code": jnp.int32(1), "how": jnp.int32(4)},
        "b/gradient/v",
    ),
    "overflow of the norm alone": (
        {**GOOD, "code": jnp.int32(1), "how": jnp.int32(2)},
        "b/grad_norm",
    ),
}


@pytest.fixture(scope="module")
def fragile():
    """The compiled step of all tests below: one trace, good batches and bad."""
    chex.clear_trace_counter()
    made = make_train_step(FRAGILE, ADAM, ema_decay=0.5)
    return jax.jit(chex.assert_max_traces(made, n=1))


def fresh():
    params = {own: {"w": jnp.float32(1.0), "v": jnp.float32(-2.0)} for own in NAMES}
    return init_train_state(KEY, params, {"played": jnp.int32(0)}, ADAM)


def counts(train_state):
    return (
        int(train_state.nonfinite.total_notfinite),
        int(train_state.nonfinite.consecutive_notfinite),
    )


@pytest.mark.parametrize("why", BADS)
def test_a_turn_that_is_not_finite_changes_nothing_and_is_named(fragile, why):
    batch, name = BADS[why]
    before, _ = fragile(fresh(), GOOD)
    good, _ = fragile(before, GOOD)
    after, metrics = fragile(before, batch)
    # b's turn left everything of b's as it was, bit for bit, memory included;
    chex.assert_trees_all_equal(after.params["b"], before.params["b"])
    chex.assert_trees_all_equal(after.opt_state["b"], before.opt_state["b"])
    # a played as if nothing were wrong, and only its turn was counted by the state.
    chex.assert_trees_all_equal(after.params["a"], good.params["a"])
    chex.assert_trees_all_equal(after.opt_state["a"], good.opt_state["a"])
    assert after.state["played"] == before.state["played"] + 1
    assert good.state["played"] == before.state["played"] + 2
    assert after.step == before.step + 1 and counts(after) == (1, 1)
    assert first_nonfinite(after, batch) == name
    own = {k: float(v) for k, v in metrics.items() if k.startswith("b/")}
    assert own == {"b/loss": 0, "b/grad_norm": 0, "b/seen": 0, "b/skipped": 1}
    assert metrics["a/skipped"] == 0 and metrics["a/seen"] == 2


def test_skipped_turns_are_counted_in_all_and_in_a_row(fragile):
    train_state, seen = fresh(), []
    bad = BADS["NaN loss"][0]
    for batch in (GOOD, bad, bad, GOOD, bad):
        train_state, _ = fragile(train_state, batch)
        seen.append(counts(train_state))
    assert seen == [(0, 0), (1, 1), (2, 2), (2, 0), (3, 1)]
    both = {**GOOD, "x": jnp.array([jnp.inf, 1.0])}
    train_state, _ = fragile(train_state, both)
    assert counts(train_state) == (5, 2)  # two turns, one step


def test_the_cause_is_named_before_its_effects(fragile):
    bad = {**GOOD, "x": jnp.array([1.0, jnp.nan])}
    train_state, _ = fragile(fresh(), bad)
    assert first_nonfinite(train_state, bad) == "batch/x"
    start = fresh()
    params = {**start.params, "a": {"w": jnp.float32(1.0), "v": jnp.float32(jnp.inf)}}
    train_state, _ = fragile(start.replace(params=params), GOOD)
    assert first_nonfinite(train_state, GOOD) == "params/a/v"
    assert counts(train_state) == (1, 1) and train_state.params["b"]["w"] != 1.0


def test_without_an_average_a_wholly_skipped_step_only_advances():
    made = make_train_step(FRAGILE, ADAM)
    before = fresh()
    after, _ = made(before, {**GOOD, "x": jnp.array([jnp.nan, 1.0])})
    same = after.replace(step=before.step, nonfinite=before.nonfinite)
    chex.assert_trees_all_equal(data((same, {})), data((before, {})))


def test_a_bad_batch_in_a_scan_is_a_bad_batch_in_a_row_of_steps(fragile):
    batches = [GOOD, BADS["NaN loss"][0], GOOD]
    feed = jax.tree.map(lambda *x: jnp.stack(x), *batches)
    train_state, rows = fresh(), []
    for batch in batches:
        train_state, metrics = fragile(train_state, batch)
        rows.append(metrics)
    step = make_train_step(FRAGILE, ADAM, ema_decay=0.5)
    got, means = jax.jit(multi_step(step, length=3))(fresh(), None, feed, 3)
    chex.assert_trees_all_close(data((got, {})), data((train_state, {})), rtol=1e-6)
    assert counts(got) == counts(train_state) == (1, 0)
    np.testing.assert_allclose(means["b/skipped"], 1 / 3, rtol=1e-6)
    assert mean_metrics([(3, means)]) == pytest.approx(
        mean_metrics([(1, row) for row in rows]), rel=1e-6
    )


def test_a_bad_shard_of_a_batch_is_named_by_all_devices():
    made = make_train_step(FRAGILE, ADAM, ema_decay=0.5, axis_name="data")
    one = jax.vmap(made, in_axes=(None, 0), axis_name="data")
    half = jax.tree.map(lambda x: jnp.stack([x, x]), GOOD)
    after, _ = one(fresh(), {**half, "x": jnp.array([[1.0, 1.0], [1.0, jnp.inf]])})
    for shard in range(2):
        mine = jax.tree.map(lambda x, shard=shard: x[shard], after)
        assert counts(mine) == (2, 1) and first_nonfinite(mine, GOOD) == "batch/x"


def test_parameters_that_are_not_finite_by_design_learn_as_others():
    # Masks of ±∞; and a batch of half precision, whose squares add up beyond it.
    def loss(params, state, batch, key):
        mask, w = params["a"]["mask"], params["a"]["w"]
        x = jnp.mean(batch["x"].astype(jnp.float32)) / batch["by"]
        return x * jax.nn.softmax(w + mask)[1], (state, {})

    adam = {"a": optax.adam(0.1)}
    step = jax.jit(make_train_step({"a": loss}, adam))
    mask = jnp.array([-jnp.inf, 0.0, 0.0])
    params = {"other": jnp.array([jnp.inf]), "mask": mask, "w": jnp.zeros(3)}
    train_state = init_train_state(KEY, {"a": params}, {}, adam)
    x = jnp.ones(70_000, jnp.float16)
    train_state, _ = step(train_state, {"x": x, "by": jnp.int32(1)})
    assert train_state.opt_state["a"][0].count == 1 and counts(train_state) == (0, 0)
    np.testing.assert_allclose(train_state.params["a"]["w"], [0, -0.1, 0.1], rtol=1e-3)
    train_state = train_state.replace(
        params={"a": jax.tree.map(jnp.zeros_like, params)}
    )
    train_state, _ = step(train_state, batch := {"x": x, "by": jnp.int32(0)})
    assert (
        counts(train_state) == (1, 1)
        and first_nonfinite(train_state, batch) == "a/loss"
    )


OPTIMIZERS = {
    "adam": optax.adam(optax.cosine_decay_schedule(0.1, 10)),
    "clipped": optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(0.1)),
    "momentum": optax.sgd(0.1, momentum=0.9),  # the updates are the memory
    "no memory": optax.sgd(0.1),
    "factored": optax.adafactor(0.1, min_dim_size_to_factor=2),
    "orthogonal": optax.contrib.muon(0.1),  # loops
    "schedule-free": optax.contrib.schedule_free_adamw(0.1),
    "several steps": optax.MultiSteps(optax.adam(0.1), 2),  # branches
    "injected": optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    "masked": optax.masked(optax.adam(0.1), {"w": True, "b": False}),
    "noisy": optax.add_noise(0.1, 0.5, KEY),  # keys
    # One array of its memory is an input, two are constants, one stands there twice.
    "odd": optax.GradientTransformation(
        lambda params: (params["b"],) * 3 + (params["b"] + 1, jnp.int8(0)),
        lambda grads, memory, params: (
            grads,
            (grads["b"], jnp.ones(3), *[memory[2] * memory[3]] * 2, jnp.int8(1)),
        ),
    ),
}


def opened(tree):
    """The tree, its keys as numbers."""
    keys = jax.dtypes.prng_key
    return jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, keys) else x, tree
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimiser_is_itself_or_leaves_its_memory_alone(name):
    optimizer = OPTIMIZERS[name]
    keys = jax.random.split(KEY, 4)
    params, grads = (
        {"w": jax.random.normal(one, (4, 3)), "b": jax.random.normal(other, (3,))}
        for one, other in (keys[:2], keys[2:])
    )
    plain, memory = jax.jit(optimizer.update), optimizer.init(params)

    @jax.jit
    def either(finite, grads, memory, params):
        updates, new = optimizer.update(grads, memory, params)
        return updates, select(finite, new, memory)

    for _ in range(3):
        nothing = jax.tree.map(lambda g: g * jnp.nan, grads)
        _, same = either(False, nothing, memory, params)
        chex.assert_trees_all_equal(opened(same), opened(memory))
        expected = plain(grads, memory, params)
        both = expected, either(True, grads, memory, params)
        # The programs differ, and so may the last bits of a sum.
        chex.assert_trees_all_close(*map(opened, both), rtol=1e-6, atol=1e-7)
        memory = expected[1]


def test_memory_of_another_structure_is_refused():
    optimizer = optax.GradientTransformation(
        lambda params: {"m": jnp.float32(0.0)},
        lambda grads, memory, params=None: (grads, {"v": jnp.float32(1.0)}),
    )
    optimizers = {"a": optimizer, "b": optimizer}
    train_state = init_train_state(KEY, PARAMS, STATE, optimizers)
    with pytest.raises(ValueError, match=r"structure error[^$]*'v'[^$]*'m'"):
        make_train_step(LOSSES, optimizers)(train_state, BATCH)


def test_memory_of_another_shape_or_type_is_refused():
    for old in (jnp.zeros(2), jnp.int32(0)):
        with pytest.raises(TypeError, match="select"):
            select(jnp.bool_(True), jnp.float32(1.0), old)


@pytest.mark.parametrize(
    ("optimizer", "copied"),
    [
        (optax.sgd(1e-3), set()),
        (optax.sgd(1e-3, momentum=0.9), {"trace"}),
        (optax.adam(1e-3), {"mu", "nu"}),
    ],
)
def test_the_guard_copies_an_optimisers_memory_once_and_nothing_else(optimizer, copied):
    """Neither parameters nor their average are copied before they are selected."""

    def loss(params, state, batch, key):
        return jnp.sum(jnp.sin(params["a"]["w"] @ batch["x"])), (state, {})

    step = make_train_step({"a": loss}, {"a": optimizer}, ema_decay=0.9)
    batch, params = {"x": jnp.ones((19, 4))}, {"a": {"w": jnp.ones((37, 19))}}
    train_state = init_train_state(KEY, params, {}, {"a": optimizer})
    donated = jax.jit(step, donate_argnums=0).lower(train_state, batch).compile()
    assert "f32[37,19]" in donated.as_text()
    found = re.findall(r"f32\[37,19\]\S* copy\(%(\S+)\)", donated.as_text())
    assert sorted(f"train_state_opt_state__a___0__{x}__w__.1" for x in copied) == (
        sorted(found)
    )


def test_metrics_are_means_over_the_turns_that_were_played():
    # Two dispatches of 3 and 1 steps; b skipped 2 of 3 turns, whose metrics are 0.
    first = {"a/loss": 2.0, "a/skipped": 0.0, "b/loss": 5.0 / 3, "b/skipped": 2 / 3}
    second = {"a/loss": 6.0, "a/skipped": 0.0, "b/loss": 7.0, "b/skipped": 0.0}
    got = mean_metrics([(3, first), (1, second)])
    expected = {"a/loss": 3.0, "b/loss": (5.0 + 7.0) / 2, "b/skipped": 0.5}
    assert got == pytest.approx(expected)
    # Of a player who never played there is nothing to tell but that.
    assert mean_metrics([(1, {"a/loss": 0.0, "a/skipped": 1.0})]) == {"a/skipped": 1.0}
