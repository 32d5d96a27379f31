"""Tempering keeps what it says, to the last symbol, and raises masses to a power."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gengen.autoregressive.tempering import Tempering, choose, log_mass
from gengen.errors import BadInput


def test_cold_takes_the_largest():
    logits = Tempering(1e-37)(jnp.array([1.0, 5.0, 3.0]))
    np.testing.assert_array_equal(jax.nn.softmax(logits), [0.0, 1.0, 0.0])
    with pytest.raises(BadInput, match="temperature 1e-40: it must be above 0"):
        Tempering(1e-40)


@pytest.mark.parametrize(
    ("tempering", "mass", "kept"),
    [
        (Tempering(top_k=2), [0.1, 0.5, 0.15, 0.25], [1, 3]),
        (Tempering(top_k=9), [0.1, 0.5, 0.15, 0.25], [0, 1, 2, 3]),
        (Tempering(top_p=0.5), [0.1, 0.5, 0.15, 0.25], [1]),
        (Tempering(top_p=0.51), [0.1, 0.5, 0.15, 0.25], [1, 3]),
        (Tempering(top_p=1e-6), [0.1, 0.5, 0.15, 0.25], [1]),
        (Tempering(top_p=1.0), [0.1, 0.5, 0.15, 0.25], [0, 1, 2, 3]),
        (Tempering(top_k=2), [0.4, 0.25, 0.25, 0.1], [0, 1, 2]),  # a tie at the border
        (Tempering(top_p=0.5), [0.4, 0.25, 0.25, 0.1], [0, 1, 2]),
        (Tempering(top_k=2, top_p=0.7), [0.1, 0.5, 0.15, 0.25], [1, 3]),  # of the two
        (Tempering(top_k=2, top_p=0.6), [0.1, 0.5, 0.15, 0.25], [1]),
    ],
)
def test_tempering_keeps_the_most_probable(tempering, mass, kept):
    logits = tempering(jnp.log(jnp.asarray(mass)) + 3.0)
    np.testing.assert_array_equal(np.flatnonzero(logits > -jnp.inf), kept)
    rest = np.array(mass)[kept] / np.sum(np.array(mass)[kept])
    np.testing.assert_allclose(jax.nn.softmax(logits)[np.array(kept)], rest, 1e-5)


def test_tempering_is_a_power_of_the_mass():
    mass = np.array([0.1, 0.6, 0.3])
    tempered = jax.nn.softmax(Tempering(0.25)(jnp.log(mass)))
    np.testing.assert_allclose(tempered, mass**4 / np.sum(mass**4), rtol=1e-5)


def test_a_nucleus_of_one_is_everything():
    """The last of 256 symbols have no mass at all in float32, and are not cut."""
    logits = -jnp.linspace(0.0, 200.0, 256)
    np.testing.assert_array_equal(Tempering(top_p=1.0)(logits), Tempering()(logits))
    two = Tempering(top_p=1.0, top_k=200)(logits)
    np.testing.assert_array_equal(two, Tempering(top_k=200)(logits))


@pytest.mark.parametrize("left_out", [1e-2, 1e-5, 1e-8, 1e-12, 1e-16])
def test_a_nucleus_leaves_out_as_little_as_it_says(left_out):
    """The masses after the border, in float64."""
    logits = -np.linspace(0.0, 60.0, 256, dtype=np.float32)
    mass = np.exp(np.float64(logits))
    tail = np.cumsum((mass / mass.sum())[::-1])[::-1]  # from each symbol on
    kept = np.isfinite(Tempering(top_p=1 - left_out)(jnp.asarray(logits)))
    expected = tail > 1 - (1 - left_out)
    np.testing.assert_array_equal(kept, expected)


def test_wrong_shapes_are_errors():
    keys, logits = jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 5))
    given, observed = jnp.zeros(2, int), jnp.zeros(2, bool)
    choose(keys, logits, given, observed)
    for wrong in (
        (keys[:1], logits, given, observed),
        (keys, logits, given[:1], observed),
        (keys, logits, given, observed[:, None]),
        (keys, logits.astype(int), given, observed),
    ):
        with pytest.raises(AssertionError):
            choose(*wrong)
    with pytest.raises(AssertionError):
        log_mass(logits, jnp.zeros((2, 5), int))
    with pytest.raises(AssertionError):
        Tempering()(jnp.arange(3))


def test_mistakes_are_sentences():
    with pytest.raises(BadInput, match="temperature 0.0: it must be above 0"):
        Tempering(0.0)
    with pytest.raises(BadInput, match="top_k 0: it must be at least 1"):
        Tempering(top_k=0)
    with pytest.raises(BadInput, match="top_p 1.5: it must be above 0"):
        Tempering(top_p=1.5)
