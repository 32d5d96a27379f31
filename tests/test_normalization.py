"""`GroupNorm` equals flax's: parameters, values and gradients, in each type."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import close

from gengen.nets.normalization import GroupNorm

KEY = jax.random.key(0, impl="rbg")


@pytest.mark.parametrize("shape", [(2, 3, 5, 6), (3, 4, 6), (2, 6)])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_it_is_group_norm(shape, groups):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(1.0 + 2.0 * rng.normal(size=shape))
        params = {name: jnp.asarray(rng.normal(size=6)) for name in ("scale", "bias")}
        results = []
        for net in (GroupNorm(groups), nn.GroupNorm(groups)):

            def value(params, x, net=net):
                return net.apply({"params": params}, x)

            def loss(*given, value=value):
                return jnp.sum(jnp.sin(3.0 * value(*given)))

            gradient = jax.jit(jax.grad(loss, (0, 1)))(params, x)
            results.append((value(params, x), gradient))
        for actual, desired in zip(*map(jax.tree.leaves, results), strict=True):
            assert actual.dtype == desired.dtype == jnp.float64
            close(actual, desired)


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
@pytest.mark.parametrize("given", ["float32", "bfloat16"])
def test_it_has_the_parameters_and_types_of_group_norm(dtype, given):
    x = jnp.asarray(np.random.default_rng(0).normal(3.0, 2.0, (2, 4, 4, 6)), given)
    actual, own = GroupNorm(3, dtype).init_with_output(KEY, x)
    desired, of_flax = nn.GroupNorm(3, dtype=dtype).init_with_output(KEY, x)
    jax.tree.map(np.testing.assert_array_equal, own, of_flax)
    assert actual.dtype == desired.dtype
    bound = 1e-2 if actual.dtype == jnp.bfloat16 else 4e-6  # of values of 3
    np.testing.assert_allclose(
        actual.astype("f4"), desired.astype("f4"), atol=bound, rtol=0
    )


def test_a_constant_image_stays_finite():
    x = jnp.full((1, 3, 3, 4), 1e3)
    y, _ = GroupNorm(2).init_with_output(KEY, x)
    assert jnp.max(jnp.abs(y)) < 1.0
