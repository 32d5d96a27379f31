"""Binarised images: the pixels that there may be, as often as their grey says."""

import jax
import numpy as np
import pytest
from scipy import stats

from gengen.augment import Binarise
from gengen.errors import BadInput
from train.data.augment import augmented
from train.data.binarise import drawn_once
from train.data.dataset import Spec
from train.data.feed import Feed
from train.data.load import load

GREY = np.array([0, 1, 7, 15, 16], np.uint8).reshape(1, 5, 1)
KEY = jax.random.key(0)


def drawn_in_a_step(num):
    batch = {"image": np.stack([GREY] * num), "label": np.arange(num)}
    out = Binarise(17)(batch, KEY)
    np.testing.assert_array_equal(out["label"], batch["label"])
    return np.asarray(out["image"])


def drawn_by_index(num):
    return np.stack([drawn_once(GREY, i, 17) for i in range(num)])


@pytest.mark.parametrize("draw", [drawn_in_a_step, drawn_by_index])
def test_a_pixel_is_white_with_the_probability_of_its_grey(draw):
    num = 4_000
    drawn = draw(num)
    assert drawn.dtype == np.uint8 and set(np.unique(drawn)) == {0, 1}
    white = drawn.reshape(num, 5).sum(0)
    assert white[0] == 0 and white[4] == num
    for count, level in zip(white[1:4], (1, 7, 15), strict=True):
        assert stats.binomtest(int(count), num, level / 16).pvalue > 1e-3
    table = np.corrcoef(drawn.reshape(num, 5)[:, 1:4].T)
    assert np.all(np.abs(table - np.eye(3)) < 4 / num**0.5)  # each for itself


def test_training_reads_the_grey_and_all_else_what_was_drawn_once():
    grey, binary = load("digits"), load("binarised:digits")
    assert (binary.spec.name, binary.spec.levels) == ("binarised:digits", 2)
    assert binary.spec.grey == grey.spec.levels and binary.size == grey.size
    places = np.array([5, 900, 5])
    some, every = binary.fetch(places), binary.fetch(np.arange(1000))
    np.testing.assert_array_equal(some["image"], every["image"][places])
    np.testing.assert_array_equal(every["label"], grey.fetch(np.arange(1000))["label"])
    black = every["image"] == 0
    assert np.all(black[grey.fetch(np.arange(1000))["image"] == 0])
    for resident in (2**30, 0):
        ours, theirs = (Feed(x, 4, 0, resident) for x in (binary, grey))
        batches = [f.data or f.items(3, 1) for f in (ours, theirs)]
        ours.close(), theirs.close()
        np.testing.assert_array_equal(*(batch["image"] for batch in batches))


def test_every_step_draws_anew_after_other_changes():
    def seen(params, state, batch, key):
        return batch["image"], (state, {})

    spec = Spec("binarised:x", (1, 5, 1), 2, 0, (), grey=17)
    batch = {"image": np.stack([GREY] * 50)}
    mean = {}
    for names in ((), ("flip",)):
        step = augmented({"one": seen}, names, spec)["one"]
        first, other = (step({}, {}, batch, jax.random.key(k))[0] for k in (1, 2))
        assert set(np.unique(first)) == {0, 1} and np.any(first != other)
        mean[names] = np.asarray(first)[:, 0, 0, 0].mean()
    assert mean[()] == 0.0 and 0.3 < mean[("flip",)] < 0.7  # the corners change places


def test_what_has_no_grey_is_refused():
    with pytest.raises(BadInput, match="binarised:text.* works on images"):
        load("binarised:text:pyproject.toml", length=8)
    with pytest.raises(BadInput, match="no data set is called 'digit'"):
        load("binarised:digit")
