"""Convolutions of stride two equal the plain ones: values, gradients, parameters."""

import doctest
import itertools
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import close

from gengen.nets import layers, strided

KEY = jax.random.key(0, impl="rbg")
DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def plain_strided(x, kernel, padding="SAME"):
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), padding, dimension_numbers=DIMENSIONS
    )


def plain_transposed(x, kernel):
    return jax.lax.conv_transpose(x, kernel, (2, 2), "SAME")


def plain_doubled(x, kernel):
    x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=DIMENSIONS
    )


def drawn(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape)) for shape in shapes]


def equal(one, other, x, kernel):
    """Values, and gradients of them and of the gradients' squares, in float64."""

    def value_and_gradients(function):
        def loss(x, kernel):
            return jnp.sum(jnp.sin(function(x, kernel)))

        def steep(x, kernel):
            return jnp.sum(jax.grad(loss)(x, kernel) ** 2)

        return jax.jit(
            lambda *given: (
                function(*given),
                jax.grad(loss, (0, 1))(*given),
                jax.grad(steep, (0, 1))(*given),
            )
        )(x, kernel)

    results = zip(
        *map(jax.tree.leaves, map(value_and_gradients, (one, other))), strict=True
    )
    for actual, desired in results:
        assert actual.dtype == desired.dtype == jnp.float64
        close(actual, desired, 1e-12, 1e-12)


STRIDED = [
    ((4, 4), (3, 4), "SAME"),
    ((4, 4), (4, 4), "VALID"),
    ((6, 4), (7, 2), ((1, 1), (0, 3))),
    ((3, 3), (4, 5), "SAME"),
    ((3, 2), (1, 7), "SAME"),
]


@pytest.mark.parametrize(("taps", "sides", "padding"), STRIDED)
def test_a_strided_convolution_is_one_over_gathered_pixels(taps, sides, padding):
    with jax.enable_x64(True):
        equal(
            partial(strided.strided, padding=padding),
            partial(plain_strided, padding=padding),
            *drawn((2, *sides, 3), (*taps, 3, 2)),
        )


@pytest.mark.parametrize("sides", [(1, 1), (2, 3), (4, 2)])
def test_a_transposed_convolution_is_four_of_its_phases(sides):
    with jax.enable_x64(True):
        given = drawn((2, *sides, 3), (4, 4, 3, 2))
        equal(strided.transposed, plain_transposed, *given)


@pytest.mark.parametrize("sides", [(1, 1), (2, 3), (4, 2)])
def test_doubling_and_convolving_is_a_transposed_convolution(sides):
    with jax.enable_x64(True):
        equal(strided.doubled, plain_doubled, *drawn((2, *sides, 3), (3, 3, 3, 2)))


class Plain(nn.Module):
    """The layers of flax, in the order of `Fast`."""

    @nn.compact
    def __call__(self, x):
        for features, taps in ((2, 4), (3, 3)):
            x = nn.Conv(features, (taps, taps), 2, use_bias=taps == 3)(x)
        x = nn.ConvTranspose(4, (4, 4), (2, 2))(x)
        x = nn.ConvTranspose(4, (3, 3), (2, 2))(x)
        return nn.Conv(2, (3, 3))(jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2))


class Fast(nn.Module):
    """The same, of `layers` and `DoubledConv`."""

    @nn.compact
    def __call__(self, x):
        _, conv, conv_transpose, _ = layers.layers_of_dtype(None)
        for features, taps in ((2, 4), (3, 3)):
            x = conv(features, (taps, taps), 2, use_bias=taps == 3)(x)
        x = conv_transpose(4, (4, 4), (2, 2))(x)
        x = conv_transpose(4, (3, 3), (2, 2))(x)
        return strided.DoubledConv(2, (3, 3))(x)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_modules_have_the_parameters_and_values_of_flax(backend, monkeypatch):
    """The same tree, and the same initial values, on whatever backend."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 8, 3)), jnp.float32)
    desired, of_flax = Plain().init_with_output(KEY, x)
    actual, own = Fast().init_with_output(KEY, x)
    jax.tree.map(np.testing.assert_array_equal, own, of_flax)
    np.testing.assert_allclose(actual, desired, atol=1e-6)


def test_slow_windows_are_not_formed():
    """Neither dilated images nor dilated kernels, of what a gradient is made of."""

    def dilations(function, *shapes):
        def loss(*given):
            return jnp.sum(jnp.sin(function(*given)))

        text = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(*drawn(*shapes)))
        return [text.count(f"{side}_dilation=(2, 2)") for side in ("lhs", "rhs")]

    narrow, wide = [(2, 4, 4, 3), (4, 4, 3, 2)], [(2, 8, 8, 3), (4, 4, 3, 2)]
    assert dilations(plain_strided, *narrow) == [1, 1]
    own = partial(strided.convolution, strides=(2, 2), padding="SAME")
    own = partial(own, dimension_numbers=DIMENSIONS)
    assert dilations(own, *narrow) == [0, 0]
    assert dilations(own, *wide) == [1, 1]  # whose fast kernel is as fast
    assert dilations(plain_transposed, *wide) != [0, 0]
    assert dilations(strided.transposed, *wide) == [0, 0]


def test_wrong_shapes_are_errors():
    x, kernel = drawn((2, 4, 4, 3), (4, 4, 1, 2))
    functions = strided.strided, strided.transposed, strided.doubled
    wrong = (x, kernel), (x[0], kernel), (x, kernel[0])
    for function, given in itertools.product(functions, wrong):
        with pytest.raises(AssertionError):
            function(*given)


def test_examples():
    assert doctest.testmod(strided).failed == 0
    assert doctest.testmod(strided).attempted == 5
