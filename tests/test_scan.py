"""Laws of `gengen.scan`: sample i is a function of (key, i) alone."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gengen.errors import BadInput
from gengen.scan import fold_in, normal, randint, sample_keys, sample_scan

KEY = jax.random.key(0)
ROUNDING = {"rtol": 0, "atol": 1e-6}  # XLA compiles other shapes to other instructions


def walk(keys, state, x):
    """A random walk with drift; emits (position, x)."""
    state = 0.5 * state + x["drift"] + normal(keys, (2,))
    return state, {"at": state, "coin": randint(keys, 2)}


def sample(num, first=0, steps=3):
    keys = sample_keys(KEY, num, first)
    xs = {"drift": jnp.arange(float(steps))}
    return sample_scan(walk, keys, normal(fold_in(keys, 99), (2,)), xs)


def data(keys):
    return np.asarray(jax.random.key_data(keys))


@pytest.mark.parametrize("first", [0, 3])
def test_sample_keys_are_fold_in_of_the_number(first):
    expected = [jax.random.fold_in(KEY, first + i) for i in range(4)]
    got = data(sample_keys(KEY, 4, first))
    np.testing.assert_array_equal(got, np.stack([data(k) for k in expected]))


@pytest.mark.parametrize("draw", [lambda k: normal(k, (2, 3)), lambda k: randint(k, 9)])
def test_row_i_of_a_draw_is_the_draw_of_key_i(draw):
    keys = sample_keys(KEY, 5)
    whole = draw(keys)
    rows = jnp.concatenate([draw(keys[i : i + 1]) for i in range(5)])
    np.testing.assert_array_equal(whole, rows)


def test_sample_i_does_not_depend_on_how_many_are_drawn():
    state8, emits8 = sample(8)
    for num, first in [(4, 0), (4, 4), (1, 6)]:
        rows = slice(first, first + num)
        state, emits = sample(num, first)
        chex.assert_trees_all_close(state, state8[rows], **ROUNDING)
        emits_rows = jax.tree.map(lambda emit, rows=rows: emit[:, rows], emits8)
        chex.assert_trees_all_close(emits, emits_rows, **ROUNDING)


def test_the_samples_of_one_key_differ():
    state, _ = sample(8)
    assert len(np.unique(state)) == state.size


def test_the_scan_is_the_python_loop():
    keys = sample_keys(KEY, 4)
    state, emits = normal(fold_in(keys, 99), (2,)), []
    for i in range(3):
        state, emit = walk(fold_in(keys, i), state, {"drift": jnp.float32(i)})
        emits.append(emit)
    stacked = jax.tree.map(lambda *emit: jnp.stack(emit), *emits)
    chex.assert_trees_all_close(sample(4), (state, stacked), **ROUNDING)


def test_every_example_and_step_has_its_own_key():
    def show(keys, state, x):
        return state, jax.random.key_data(keys)

    _, emits = sample_scan(show, sample_keys(KEY, 4), (), jnp.zeros(5))
    assert emits.shape[:2] == (5, 4)
    assert len(np.unique(emits.reshape(20, -1), axis=0)) == 20


@pytest.mark.parametrize("keys", [KEY, jax.random.split(KEY, (2, 3))])
def test_keys_are_one_per_example(keys):
    for call in (
        lambda: fold_in(keys, 1),
        lambda: normal(keys, (2,)),
        lambda: randint(keys, 3),
        lambda: sample_scan(walk, keys, jnp.zeros((2, 2)), {"drift": jnp.zeros(3)}),
    ):
        with pytest.raises(AssertionError, match="rank"):
            call()


@pytest.mark.parametrize("shape", [(1,), (3,), (4, 1)])
def test_numbers_to_fold_in_are_one_or_one_per_key(shape):
    with pytest.raises(AssertionError, match="shape"):
        fold_in(sample_keys(KEY, 4), jnp.zeros(shape, jnp.int32))


def test_xs_are_of_one_length():
    xs = {"drift": jnp.zeros(3), "other": jnp.zeros(1)}
    with pytest.raises(AssertionError, match="prefix"):
        sample_scan(walk, sample_keys(KEY, 2), jnp.zeros((2, 2)), xs)


def test_the_key_of_samples_is_one_typed_key():
    for key in (jax.random.PRNGKey(0), jax.random.split(KEY)):
        with pytest.raises(BadInput, match=r"the key is .*\(2,\).*jax.random.key\(se"):
            sample_keys(key, 3)
    with pytest.raises(AssertionError, match="rank"):
        sample_keys(KEY, 3, jnp.zeros(3, jnp.int32))
