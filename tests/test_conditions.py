"""Conditions: what c is, what is null, what is dropped, what a caller may give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gengen.conditions import (
    Labels,
    Maps,
    Nothing,
    Scalar,
    Sequence,
    Text,
    both,
    drop,
    labels_of,
    only,
    parts_of,
    union,
)
from gengen.errors import BadInput
from gengen.scan import sample_keys

RNG = np.random.default_rng(0)
NUM = 4
PARTS = {
    "labels": Labels(10),
    "sequence": Sequence(6),
    "text": Text(20, 5),
    "maps": Maps((2, 3, 1)),
    "scalar": Scalar("r"),
}
CONDITIONS = {
    "nothing": Nothing(),
    **PARTS,
    "product": both(*PARTS.values()),
    "apart": both(PARTS["labels"], PARTS["sequence"], together=False),
}
BATCH = {
    "image": np.zeros((NUM, 2, 3, 1), np.uint8),
    "label": np.arange(NUM, dtype=np.int32),
    "context": RNG.normal(size=(NUM, 3, 6)).astype(np.float32),
    "text": RNG.integers(1, 20, (NUM, 5)).astype(np.int32),
    "map": RNG.normal(size=(NUM, 2, 3, 1)).astype(np.float32),
    "r": RNG.uniform(size=NUM).astype(np.float32),
}
EVERY = pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)
EACH = pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
KEYS = sample_keys(jax.random.key(3), NUM)


def like(c):
    return jax.tree.map(lambda x: (x.shape[0], x.dtype), dict(c))


@EVERY
def test_every_view_of_a_condition_has_its_names_and_one_row_per_example(condition):
    c = condition.read(BATCH)
    assert set(c) == set(condition.names)
    assert like(c) == like(condition.null(c)) == like(condition.zeros(NUM))
    assert like(c) == like(condition.given({n: BATCH[n] for n in condition.names}, NUM))


@EVERY
def test_conditions_are_values(condition):
    again = type(condition)(**vars(condition))
    assert again == condition and hash(again) == hash(condition)


@EVERY
def test_null_leaves_other_entries_and_is_its_own_null(condition):
    c = {**condition.read(BATCH), "other": jnp.ones(NUM)}
    null = condition.null(c)
    assert np.all(null["other"] == 1)
    again = condition.null(null)
    jax.tree.map(np.testing.assert_array_equal, dict(null), dict(again))
    same = all(np.array_equal(c[name], null[name]) for name in condition.names)
    assert same != condition.droppable


@EVERY
def test_dropping_with_probability_one_is_null_and_with_zero_is_nothing(condition):
    c, key = condition.read(BATCH), jax.random.key(1)
    equal = np.testing.assert_array_equal
    jax.tree.map(equal, dict(drop(condition, key, 1.0, c)), dict(condition.null(c)))
    jax.tree.map(equal, dict(drop(condition, key, 0.0, c)), dict(c))


def test_a_share_of_rows_is_dropped_together_or_each_by_itself():
    num = 4_000
    c = {"label": jnp.ones(num, int), "map": jnp.ones((num, 1, 1, 1))}
    parts = Labels(10), Maps((1, 1, 1))
    for together in (True, False):
        condition = both(*parts, together=together)
        dropped = drop(condition, jax.random.key(0), 0.25, c)
        gone = np.stack([dropped["label"] == 10, dropped["map"][:, 0, 0, 0] == 0])
        np.testing.assert_allclose(gone.mean(1), 0.25, atol=0.03)
        share = 0.25 if together else 0.25**2
        np.testing.assert_allclose(np.all(gone, 0).mean(), share, atol=0.03)


@EACH
def test_unknown_missing_and_doubly_given_entries_are_one_sentence_each(part):
    with pytest.raises(BadInput, match="speed: the model is conditioned on"):
        part.given({"speed": 1}, NUM, KEYS)
    with pytest.raises(BadInput, match=f"give {part.key}"):
        part.given({}, NUM)
    with pytest.raises(BadInput, match=part.key):
        part.read({"image": BATCH["image"]})
    with pytest.raises(BadInput, match=f"two conditions are called {part.key}"):
        both(part, Nothing(), part)


@EACH
def test_rows_are_never_broadcast_by_chance(part):
    value = BATCH[part.key]
    for num in (2, NUM + 1):
        with pytest.raises(BadInput, match=part.key):
            part.given({part.key: value}, num)
    with pytest.raises(BadInput, match=part.key):
        part.read({**BATCH, part.key: value[:2], "a": np.zeros(NUM)})
    one = part.given({part.key: value[0]}, NUM)[part.key]
    np.testing.assert_array_equal(one, np.broadcast_to(value[0], one.shape))


@pytest.mark.parametrize(
    ("part", "value"),
    [
        (Labels(10), 10),
        (Labels(10), -1),
        (Labels(10), 2.0),
        (Sequence(6), np.zeros((NUM, 3, 5), np.float32)),
        (Sequence(6), np.zeros((NUM, 3, 6), np.int32)),
        (Text(20, 5), np.full((NUM, 5), 20)),
        (Text(20, 5), np.zeros((NUM, 6), int)),
        (Text(20, 5), np.zeros((NUM, 5))),
        (Maps((2, 3, 1)), np.zeros((NUM, 3, 3, 1))),
    ],
)
def test_a_wrong_value_is_one_sentence(part, value):
    with pytest.raises(BadInput, match=part.key):
        part.given({part.key: value}, NUM)


def test_values_closed_over_by_a_trace_are_checked():
    label = jnp.array([3, 12])
    with pytest.raises(BadInput, match="12 is out of range"):
        jax.jit(lambda: Labels(10).given({"label": label}, 2))()


def test_missing_labels_are_drawn_uniformly_and_row_by_row():
    keys = sample_keys(jax.random.key(0), 5_000)
    label = Labels(5).given({}, 5_000, keys)["label"]
    np.testing.assert_allclose(np.bincount(label) / 5_000, 0.2, atol=0.02)
    few = Labels(5).given({}, 7, keys[3:10])["label"]
    np.testing.assert_array_equal(few, label[3:10])


def test_a_missing_sequence_is_null_where_null_was_trained_and_refused_elsewhere():
    for part in (PARTS["sequence"], PARTS["text"]):
        with pytest.raises(BadInput, match=f"give {part.key}"):
            part.given({}, NUM, KEYS)
        c = part.given({}, NUM, KEYS, null_known=True)
        assert not np.any(c[part.key])
    for part in (PARTS["maps"], PARTS["scalar"]):
        with pytest.raises(BadInput, match=f"give {part.key}"):
            part.given({}, NUM, KEYS, null_known=True)


def test_only_keeps_the_named_parts():
    condition = CONDITIONS["product"]
    c = condition.read(BATCH)
    kept = only(condition, c, ("text",))
    np.testing.assert_array_equal(kept["text"], c["text"])
    np.testing.assert_array_equal(kept["r"], c["r"])
    assert np.all(kept["label"] == 10) and not np.any(kept["context"])


def test_products_are_flat_and_know_their_labels():
    product = both(both(Labels(3), Nothing()), Sequence(2))
    assert product == both(Labels(3), Sequence(2)) and len(parts_of(product)) == 2
    assert both() == both(Nothing()) == Nothing()
    assert labels_of(product) == Labels(3) and labels_of(Sequence(2)) is None


def test_a_sampler_s_own_keywords_are_no_names():
    with pytest.raises(BadInput, match="start_index"):
        Scalar("start_index")


def test_conditions_pass_through_transformations():
    condition = CONDITIONS["product"]

    @jax.jit
    def rows(c):
        alone = jax.tree.map(lambda x: x[:, None], c)
        return jax.vmap(condition.null)(alone)

    c = condition.read(BATCH)
    for name, value in rows(dict(c)).items():
        np.testing.assert_array_equal(value[:, 0], condition.null(c)[name])


def test_parts_that_were_dropped_together_are_given_or_null_together():
    product, keys = both(Labels(3), Text(20, 5)), jax.random.split(jax.random.key(0), 2)
    with pytest.raises(BadInput, match="give text, too: it was dropped together with"):
        product.given({"label": 1}, 2, keys, null_known=True)
    c = product.given({}, 2, keys, null_known=True)
    np.testing.assert_array_equal(c["label"], [3, 3])
    np.testing.assert_array_equal(c["text"], product.null(product.zeros(2))["text"])
    apart = both(Labels(3), Text(20, 5), together=False)
    assert apart.given({"label": 1}, 2, keys, null_known=True)["label"].tolist() == [
        1,
        1,
    ]
    several = union(Labels(3), Text(20, 5))  # of several models: no training dropped it
    c = several.given({"label": 1}, 2, keys, null_known=True)
    np.testing.assert_array_equal(c["label"], [1, 1])
