"""Laws of `gengen.images`: levels, bins, and the nats and bits they cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from gengen.errors import BadInput
from gengen.images import (
    bin_width,
    bits_per_dim,
    dequantize,
    log_bin_volume,
    require_finite,
    to_levels,
    to_unit,
)

LEVELS = pytest.mark.parametrize("levels", [2, 17, 256])


def every_level(levels, repeats=1):
    """uint8 [repeats, levels]: each level, `repeats` times."""
    return jnp.tile(jnp.arange(levels, dtype=jnp.uint8), (repeats, 1))


@LEVELS
def test_to_levels_inverts_to_unit(levels):
    image = every_level(levels)
    back = to_levels(to_unit(image, levels), levels)
    assert back.dtype == jnp.uint8
    np.testing.assert_array_equal(back, image)


@LEVELS
def test_to_unit_is_the_even_grid_from_minus_one_to_one(levels):
    x = to_unit(every_level(levels)[0], levels)
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, np.linspace(-1, 1, levels), rtol=0, atol=2e-7)
    assert (x[0], x[-1]) == (-1.0, 1.0)


@LEVELS
def test_to_levels_is_the_nearest_level(levels):
    x = np.random.default_rng(0).uniform(-1, 1, 500).astype(np.float32)
    grid = np.linspace(-1, 1, levels)
    nearest = np.argmin(np.abs(x[:, None].astype(float) - grid), axis=1)
    np.testing.assert_array_equal(to_levels(jnp.asarray(x), levels), nearest)


@LEVELS
def test_to_levels_clips(levels):
    ends = to_levels(jnp.array([-1e9, -1.5, 1.5, 1e9]), levels)
    np.testing.assert_array_equal(ends, [0, 0, levels - 1, levels - 1])


@LEVELS
def test_dequantised_noise_stays_in_its_bin(levels):
    image = every_level(levels, repeats=64)
    y = dequantize(jax.random.key(0), image, levels)
    np.testing.assert_array_equal(to_levels(y, levels), image)


@LEVELS
def test_dequantised_noise_is_uniform_over_the_bin(levels):
    image = every_level(levels, repeats=2_000 // levels)
    y = np.asarray(dequantize(jax.random.key(1), image, levels), float)
    u = (y - np.asarray(to_unit(image, levels), float)) / bin_width(levels) + 0.5
    assert scipy.stats.kstest(u.ravel(), "uniform").pvalue > 0.01


def test_dequantisation_noise_is_independent_of_the_level_and_new_for_each_key():
    dark, light = jnp.zeros((50,), jnp.uint8), jnp.full((50,), 255, jnp.uint8)
    noise = dequantize(jax.random.key(0), dark) + 1.0
    same = dequantize(jax.random.key(0), light) - 1.0
    np.testing.assert_allclose(noise, same, atol=2e-7)  # float32 at 1
    assert not jnp.any(noise == dequantize(jax.random.key(1), dark) + 1.0)


@LEVELS
def test_a_density_constant_on_bins_gives_the_exact_discrete_likelihood(levels):
    shape, repeats = (2, 3, 1), 20
    p = np.random.default_rng(0).dirichlet(np.ones(levels))
    image = jax.random.randint(jax.random.key(2), (repeats, *shape), 0, levels)
    y = np.asarray(dequantize(jax.random.key(3), image, levels), float)
    # Each of six independent dimensions has density p_k / width on the bin of level k.
    edges = -1.0 + (np.arange(levels + 1) - 0.5) * 2.0 / (levels - 1)
    density = scipy.stats.rv_histogram((p, edges), density=False)
    log_density = density.logpdf(y).reshape(repeats, -1).sum(1)
    exact = np.log(p)[image].reshape(repeats, -1).sum(1)
    got = log_density + log_bin_volume(shape, levels)
    np.testing.assert_allclose(got, exact, rtol=1e-12)


@LEVELS
@pytest.mark.parametrize("shape", [(), (5,), (4, 3, 2)])
def test_the_uniform_guess_costs_log2_levels_bits(levels, shape):
    nats = -jnp.full((3,), np.prod(shape) * np.log(levels))
    got = bits_per_dim(nats, shape)
    np.testing.assert_allclose(got, [np.log2(levels)] * 3, rtol=1e-6)


def test_bin_volume_of_uniform_density_on_the_dequantised_cube_is_the_uniform_guess():
    # The bins fill [-1 - w/2, 1 + w/2], whose uniform density is 1/(levels w).
    shape, levels = (3, 3, 1), 17
    log_density = -9 * np.log(levels * bin_width(levels))
    nats = log_density + log_bin_volume(shape, levels)
    np.testing.assert_allclose(bits_per_dim(nats, shape), np.log2(levels), rtol=1e-12)


# ---------------------------------------------------------------- borders


def test_what_is_not_finite_has_no_level_and_is_named():
    x = np.zeros((5, 2, 2, 1), np.float32)
    x[3, 1] = np.nan
    with pytest.raises(BadInput, match="row 3 is not finite") as caught:
        to_levels(jnp.asarray(x))
    assert "\n" not in str(caught.value)
    x[1, 0, 0] = -np.inf
    with pytest.raises(BadInput, match="sample 101 is not finite.*guidance scale"):
        require_finite(x, start=100)
    require_finite(np.nan_to_num(x))
    require_finite(np.arange(3))  # tokens


def test_under_a_trace_nan_is_level_0_as_documented():
    x = jnp.array([jnp.nan, -jnp.inf, jnp.inf, 0.0])
    levels = jax.jit(to_levels, static_argnums=1)(x, 17)
    np.testing.assert_array_equal(levels, [0, 0, 16, 8])


@pytest.mark.parametrize("levels", [1, 0, -3])
def test_fewer_than_two_levels_are_refused(levels):
    with pytest.raises(BadInput, match=f"levels={levels}: "):
        to_unit(np.zeros(3, np.uint8), levels)


def test_more_levels_than_uint8_holds_are_refused():
    with pytest.raises(BadInput, match="levels=512: uint8"):
        to_levels(jnp.zeros(3), 512)


def test_levels_are_integers_and_images_are_floats():
    for call in (
        lambda: to_unit(jnp.zeros(3)),
        lambda: dequantize(jax.random.key(0), jnp.zeros(3)),
        lambda: to_levels(jnp.zeros(3, jnp.uint8)),
        lambda: bits_per_dim(jnp.zeros(3, jnp.int32), (2,)),
    ):
        with pytest.raises(AssertionError):
            call()


def test_nothing_is_rounded_to_float32_under_x64():
    exact = np.linspace(-1, 1, 256)
    image = np.arange(256, dtype=np.uint8)
    with jax.enable_x64(True):
        for k in (image, jnp.asarray(image)):
            x = to_unit(k)
            assert x.dtype == np.float64
            np.testing.assert_allclose(x, exact, rtol=0, atol=1e-15)
        y = dequantize(jax.random.key(0), jnp.asarray(image))
        assert y.dtype == np.float64
        np.testing.assert_array_equal(to_levels(y), image)
        single = to_unit(image, dtype=jnp.float32)
        assert single.dtype == np.float32
        assert (
            dequantize(jax.random.key(0), image, 256, jnp.float32).dtype == np.float32
        )
    assert to_unit(image).dtype == np.float32  # without x64
