"""Caches in segments: attention over them is attention over one array; types stay."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import close

from gengen.nets import cache
from gengen.nets.attention import attend
from gengen.nets.transformer import Transformer

KEY = jax.random.key(0, impl="rbg")
LENGTH = 7


@pytest.mark.parametrize("segment", [1, 3, 4, 7, 9])
def test_attention_over_segments_is_attention_over_all_so_far(segment):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        q, k, v = rng.normal(size=(3, 2, LENGTH, 3, 5))  # [B, L, N, d]
        causal = np.tril(np.ones((LENGTH, LENGTH), bool))
        every = np.asarray(jax.jit(attend)(q, k, v, causal))
        keys = values = cache.empty_cache(2, 3, LENGTH, 5, segment, jnp.float64)
        assert [part.shape[2] for part in keys[:-1]] == [segment] * (len(keys) - 1)
        step = jax.jit(
            lambda q, k, v, t, keys, values: (
                keys := cache.write(keys, k, t),
                values := cache.write(values, v, t),
                cache.attend_cached(q, keys, values, t),
            )
        )
        for t in range(LENGTH):
            keys, values, mixed = step(q[:, t], k[:, t], v[:, t], t, keys, values)
            close(mixed, every[:, t])
        held = np.concatenate(keys, axis=2)
        np.testing.assert_array_equal(held, k.swapaxes(1, 2))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("segment", [2, 4])
def test_decoding_keeps_the_type_of_the_parameters(segment, dtype):
    """Both views in it: float64 to its own precision, even where x64 is enabled."""
    with jax.enable_x64(True):
        layers = "bfloat16" if dtype == "bfloat16" else None
        net = Transformer(3, 5, 3, 8, 2, 2, segment=segment, dtype=layers)
        x = np.random.default_rng(0).integers(0, 3, (2, 5)).astype(np.int32)
        shapes = jax.eval_shape(net.init, KEY, x)
        rng, kind = np.random.default_rng(1), "float32" if layers else dtype
        variables = jax.tree.map(
            lambda leaf: (0.5 * rng.normal(size=leaf.shape)).astype(kind), shapes
        )
        start = jax.jit(lambda variables: net.apply(variables, 2, method="start"))
        every, held = np.asarray(jax.jit(net.apply)(variables, x)), start(variables)
        assert every.dtype == kind
        parts = jax.tree.leaves(held)
        assert {part.dtype.name for part in parts} == {dtype}

        @jax.jit
        def decode(variables, symbol, t, held):
            return net.apply(variables, symbol, t, held, method="decode")

        close_to = {"float32": 2e-6, "float64": 1e-13, "bfloat16": 5e-2}[dtype]
        for t in range(5):
            features, held = decode(variables, x[:, max(t - 1, 0)], t, held)
            np.testing.assert_allclose(features, every[:, t], atol=close_to, rtol=0)
            assert features.dtype == kind


def test_wrong_shapes_and_types_are_errors():
    keys = cache.empty_cache(2, 3, 4, 5, 2, jnp.float32)
    x = jnp.zeros((2, 3, 5))
    for wrong in (x[0], x[:1], x.astype(jnp.bfloat16)):
        with pytest.raises(AssertionError):
            cache.write(keys, wrong, 0)
    with pytest.raises(AssertionError):
        cache.attend_cached(x, keys, keys[:1], 0)


def test_examples():
    assert doctest.testmod(cache).failed == 0
    assert doctest.testmod(cache).attempted == 6
