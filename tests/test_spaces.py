"""Spaces: both representations, and what is not of a space."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gengen.errors import BadInput
from gengen.spaces import Images, Reals, Symbols, standardised, tokens

RNG = np.random.default_rng(0)
SPACES = {
    "images": Images((2, 3, 1), 17),
    "codes": Symbols((2, 2), 512),
    "tokens": tokens(5),
    "reals": Reals((2, 2, 3), (1.0, 0.0, -2.0), (2.0, 0.5, 7.0)),
}
EVERY = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def data_of(space, num=4):
    """Random data of a space, as a batch holds them."""
    if space.size is None:
        return RNG.normal(size=(num, *space.shape)).astype(np.float32)
    return RNG.integers(0, space.size, (num, *space.shape)).astype(np.int32)


@EVERY
def test_to_data_is_the_inverse_of_to_model(space):
    data = data_of(space)
    x = space.read({space.key: data, "label": np.arange(4)})
    np.testing.assert_allclose(space.to_data(x), data, atol=1e-6)
    assert x.shape == (4, *space.shape) and x.dtype == space.zeros(4).dtype


@EVERY
def test_what_a_network_is_initialised_with_has_32_bits(space):
    with jax.enable_x64(True):
        kind = jnp.int32 if isinstance(space, Symbols) else jnp.float32
        assert space.zeros(2).dtype == kind


@EVERY
def test_spaces_are_values(space):
    again = type(space)(**vars(space))
    assert again == space and hash(again) == hash(space)


@EVERY
def test_what_is_not_of_a_space_is_one_sentence(space):
    data = data_of(space)
    bad = {"no such entry": {"other": data}, "shape": {space.key: data[:, :1]}}
    kind = np.float32 if space.size else np.int32
    bad["type"] = {space.key: data.astype(kind)}
    if space.size:
        bad["above"] = {space.key: data * 0 + space.size}
        bad["below"] = {space.key: data * 0 - 1}
    for batch in bad.values():
        with pytest.raises(BadInput, match=space.key):
            space.data(batch)


def test_types_and_shapes_are_checked_under_a_trace_and_known_values_are_too():
    space = SPACES["images"]
    scaled = jnp.ones((1, 2, 3, 1))
    with pytest.raises(BadInput, match="float32"):
        jax.eval_shape(space.data, {"image": scaled})
    closed_over = jnp.full((1, 2, 3, 1), 200, jnp.uint8)
    with pytest.raises(BadInput, match="200 is out of range"):
        jax.jit(lambda: space.data({"image": closed_over}))()


def test_codes_above_255_survive():
    codes = SPACES["codes"]
    data = np.full((1, 2, 2), 300, np.int32)
    assert np.all(codes.to_data(codes.read({"codes": data})) == 300)


def test_log_volume_is_the_change_of_variables():
    """The density of dequantised data integrates to one over levels, by its volume."""
    space = SPACES["reals"]
    jacobian = jax.jacfwd(lambda data: space.to_model(data).ravel())
    matrix = jacobian(jnp.zeros(space.shape)).reshape(12, 12)
    expected = np.linalg.slogdet(np.asarray(matrix, float))[1]
    assert math.isclose(space.log_volume, expected, rel_tol=1e-6)
    assert math.isclose(SPACES["images"].log_volume, 6 * math.log(2 / 16))
    # Uniform over L levels: density 1/(L - 1 + 1) of bins, so log2 L bits.
    uniform = -6 * math.log(17 * 2 / 16)  # of y, over the union of all bins
    bits = SPACES["images"].bits(uniform + SPACES["images"].log_volume)
    assert math.isclose(bits, math.log2(17))


def test_dequantised_images_stay_in_their_bins():
    space = SPACES["images"]
    data = data_of(space)
    y = space.dequantize(jax.random.key(0), data)
    assert np.any(y != space.to_model(data))
    np.testing.assert_array_equal(space.to_data(y), data)
    with pytest.raises(BadInput, match="without order"):
        SPACES["codes"].dequantize(jax.random.key(0), data_of(SPACES["codes"]))


def test_standardised_reals_have_mean_zero_and_variance_one_per_channel():
    data = RNG.normal([3.0, -0.1], [7.0, 0.02], (500, 4, 2))
    space = standardised(Reals((4, 2)), data)
    x = space.to_model(jnp.asarray(data))
    np.testing.assert_allclose(np.mean(x, (0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(np.std(x, (0, 1)), 1, rtol=1e-4)
    with pytest.raises(BadInput, match="above 0"):
        standardised(Reals((4, 2)), data * [1.0, 0.0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Images((2, 3), 17),
        lambda: Images((2, 3, 1), 1),
        lambda: Symbols((2,), 0),
        lambda: Reals((2, 3), (0.0, 1.0)),
        lambda: Reals((2, 3), math.nan),
    ],
)
def test_spaces_that_cannot_be_are_refused(make):
    with pytest.raises(BadInput):
        make()
