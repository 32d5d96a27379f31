"""Data as a network of noisy data sees them: mixed along a path, at variance one."""

import jax
import jax.numpy as jnp

from gengen.diffusion.paths import Path
from gengen.diffusion.process import expand
from gengen.types import Array, Key


def noisy(path: Path | None, x: Array, key: Key) -> tuple[Array, Array | None]:
    """(z = a(t) x + b(t) ε, t [B]) at uniform times; (x, None) without a path.

    >>> noisy(None, jnp.ones((2, 3)), jax.random.key(0))[1] is None
    True
    """
    if path is None:
        return x, None
    key_time, key_noise = jax.random.split(key)
    t = jax.random.uniform(key_time, x.shape[:1])
    noise = jax.random.normal(key_noise, x.shape)
    return expand(path.a(t), x) * x + expand(path.b(t), x) * noise, t


def clean(path: Path | None, x: Array) -> tuple[Array, Array | None]:
    """(z, t [B]) of data without noise: at time 0; (x, None) without a path.

    >>> from gengen.diffusion.paths import Linear
    >>> clean(Linear(), jnp.ones((2, 3)))[1].tolist()
    [0.0, 0.0]
    """
    return (x, None) if path is None else (path.a(0 * x) * x, jnp.zeros(len(x)))


def unit_variance(path: Path | None, z: Array, t: Array | None) -> tuple[Array, dict]:
    """(z/√(a² + b²), {"t": t}): what a network of noisy data takes; (x, {}) without.

    >>> from gengen.diffusion.paths import Linear
    >>> z, t = jnp.ones((1, 1)), jnp.array([0.5])
    >>> round(unit_variance(Linear(), z, t)[0].item(), 3)
    1.414
    """
    if path is None:
        return z, {}
    a, b = (expand(f(t), z) for f in (path.a, path.b))
    return z / jnp.hypot(a, b), {"t": t}
