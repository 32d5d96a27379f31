"""A buffer of examples from earlier steps, which a critic sees among the new ones.

A critic that sees only the newest fakes forgets what it has learned of older ones, and
the generator comes back to them. Half of the time an example is exchanged for one of
the buffer. Shrivastava et al. 2017, arXiv:1612.07828, section 2.3; as in CycleGAN, Zhu
et al. 2017, arXiv:1703.10593, section 4.

The numbers are kept as the bits of float32, which a mean over devices passes by: each
device has its own examples.
"""

import chex
import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.types import Array, Key, Tree


def empty(size: int, shape: tuple[int, ...]) -> Tree:
    """A buffer for `size` examples of this shape; BadInput for fewer than one.

    >>> int(empty(2, (3,))["num"])
    0
    """
    if size < 1:
        raise BadInput(f"a buffer of {size} examples keeps none: give 1 or more")
    return {"bits": jnp.zeros((size, *shape), jnp.int32), "num": jnp.int32(0)}


def exchanged(buffer: Tree, x: Array, key: Key) -> tuple[Array, Tree]:
    """(examples [B, …], the buffer afterwards), one example after the other.

    Until the buffer is full, an example is kept and returned. From then on it is
    returned with probability 1/2; else it takes the place of one of the buffer, drawn
    at random, which is returned.

    Args:
        buffer: what `empty` made.
        x: float32 [B, …], of the buffer's shape.
        key: for the choices.

    >>> x, buffer = exchanged(empty(2, ()), jnp.array([3.0]), jax.random.key(0))
    >>> x.tolist(), int(buffer["num"])
    ([3.0], 1)
    """
    chex.assert_shape(x, (None, *buffer["bits"].shape[1:]))
    size = len(buffer["bits"])
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)

    def step(buffer, row_key):
        row, key = row_key
        key_place, key_coin = jax.random.split(key)
        full = buffer["num"] >= size
        place = jnp.where(
            full, jax.random.randint(key_place, (), 0, size), buffer["num"]
        )
        old = buffer["bits"][place]
        swap = full & jax.random.bernoulli(key_coin)
        kept = jnp.where(swap | ~full, row, old)
        after = {
            "bits": buffer["bits"].at[place].set(kept),
            "num": jnp.minimum(buffer["num"] + 1, size),
        }
        return after, jnp.where(swap, old, row)

    buffer, rows = jax.lax.scan(step, buffer, (bits, jax.random.split(key, len(x))))
    return jax.lax.bitcast_convert_type(rows, jnp.float32), buffer
