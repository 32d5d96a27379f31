"""Laws of `gengen.labels`: the label of a sample, given or drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from gengen.errors import BadInput
from gengen.labels import sample_labels
from gengen.scan import sample_keys

KEYS = sample_keys(jax.random.key(0), 4)


def test_one_label_is_everyones():
    np.testing.assert_array_equal(sample_labels(KEYS, 2, 3), [2, 2, 2, 2])


@pytest.mark.parametrize("box", [list, np.array, jnp.array])
def test_labels_of_each_example_are_kept(box):
    label = sample_labels(KEYS, box([2, 0, 1, 2]), 3)
    assert label.dtype == jnp.int32
    np.testing.assert_array_equal(label, [2, 0, 1, 2])


def test_an_unconditional_model_has_no_label():
    assert sample_labels(KEYS, None, 0) is None
    with pytest.raises(BadInput, match="label=1: the model is unconditional"):
        sample_labels(KEYS, 1, 0)


@pytest.mark.parametrize("label", [-1, 3, [0, 1, 3, 2], np.array([0, -1, 0, 0])])
def test_a_label_out_of_range_is_named_with_the_range(label):
    bad = {-1, 3} & set(np.atleast_1d(label).tolist())
    with pytest.raises(BadInput, match=f"label={bad.pop()} .* 0 to 2"):
        sample_labels(KEYS, label, 3)


def test_as_many_labels_as_samples():
    with pytest.raises(BadInput, match="3 .* 4"):
        sample_labels(KEYS, [0, 1, 2], 3)


def test_traced_labels_pass_under_jit():
    label = jax.jit(lambda label: sample_labels(KEYS, label, 3))(jnp.int32(1))
    np.testing.assert_array_equal(label, [1, 1, 1, 1])


def test_a_drawn_label_depends_on_its_own_key_only():
    many = sample_labels(sample_keys(jax.random.key(1), 8), None, 10)
    last = sample_labels(sample_keys(jax.random.key(1), 4, start_index=4), None, 10)
    np.testing.assert_array_equal(many[4:], last)


def test_drawn_labels_are_uniform_over_the_classes():
    label = sample_labels(sample_keys(jax.random.key(2), 1_000), None, 5)
    assert label.dtype == jnp.int32
    counts = np.bincount(label, minlength=5)
    assert counts.size == 5
    assert scipy.stats.chisquare(counts).pvalue > 0.01
