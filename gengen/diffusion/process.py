"""All of diffusion and flow matching as one 2×2 matrix.

Data x and noise ε ~ N(0, 1) are mixed twice: into z, which the network sees, and
into r, which it is asked for:

    [ z ]   [ a  b ] [ x ]        [ x̂ ]     1   [  d  -b ] [ z ]
    [ r ] = [ c  d ] [ ε ]   =>   [ ε̂ ] =  ---  [ -c   a ] [ r̂ ],  det = a d - b c

The path gives (a, b) as functions of time t in [0, 1], 0 data and 1 noise; the
prediction gives (c, d):

    prediction     c    d    det            what the network is asked for
    Noise          0    1    a              ε                              (DDPM)
    Data           1    0    -b             x
    V             -b    a    a² + b²        v; det = 1 if variance preserving
    Velocity       a′   b′   a b′ - b a′    dz/dt; -x + ε on the linear path
    Score          0   -1/b  -a/b           ∇ log p(z | x) = -ε/b
    EDM(s)       b/(s n) -s a/n  -n/s       Karras' F, with n = √(b² + s² a²)

What follows, each a line of code and a test:

- `corrupt` is the matrix, `recover` its inverse: recover ∘ corrupt = id.
- Another prediction is another row: `convert` recovers (x̂, ε̂) and applies that row.
- For one z, errors obey a δx + b δε = 0, hence δr₂ = (det₂/det₁) δr₁: the space in
  which a squared error is measured is the weight (det₂/det₁)², `loss_weight`.
- The probability-flow ODE is ż = a′ x̂ + b′ ε̂ (`ode_velocity`), the score -ε̂/b.
- Weights that sum to one commute with the matrix: guidance is the same for every
  prediction.
- A change of the score by g moves r̂ by (b/a) det g; one of x̂ leaves `from_data`.
- Where det vanishes the question has no answer: noise prediction cannot recover x
  where a = 0. `usable_times` finds those ends; nothing hides them under an epsilon.

Sun, Jiang, Zhao and He 2025, arXiv:2502.13129; Ho et al. 2020, arXiv:2006.11239;
Salimans and Ho 2022, arXiv:2202.00512 (v); Lipman et al. 2023, arXiv:2210.02747.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gengen.diffusion.paths import Path, derivatives, is_discrete
from gengen.diffusion.prediction import (  # noqa: F401 - users find them here, too
    EDM,
    Data,
    Noise,
    Prediction,
    Score,
    V,
    Velocity,
)
from gengen.errors import BadInput
from gengen.types import Array, static


class Coefficients(NamedTuple):
    """The matrix [[a, b], [c, d]]; each entry has the shape of t."""

    a: Array
    b: Array
    c: Array
    d: Array

    @property
    def det(self) -> Array:
        """a d - b c."""
        return self.a * self.d - self.b * self.c


@static
class Process:
    """A path and what is predicted along it: the whole of the matrix."""

    path: Path
    """(a, b): how data and noise are mixed into z."""
    prediction: Prediction
    """(c, d): what the network is asked for."""

    def matrix(self, t: Array) -> Coefficients:
        """(a, b, c, d) at times t in [0, 1], each of the shape of t.

        Raises BadInput for known times outside.
        """
        if not isinstance(t, jax.core.Tracer):
            known = np.asarray(t)
            if not np.all((known >= 0) & (known <= 1)):
                raise BadInput(
                    f"times from {known.min()} to {known.max()}: they must be in "
                    "[0, 1], 0 the data and 1 the noise"
                )
        a, b = self.path.a(t), self.path.b(t)
        return Coefficients(a, b, *self.prediction.row(self.path, t))


def expand(t: Array, x: Array) -> Array:
    """Times [] or [B] as [] or [B, 1, ...], ready to meet x [B, ...].

    Whoever takes x and t brings them together here: other shapes are an error.

    >>> expand(jnp.zeros(3), jnp.zeros((3, 8, 8, 1))).shape
    (3, 1, 1, 1)

    Args:
        t: one number for all rows, or one per row.
        x: any array with a leading axis of rows.
    """
    if jnp.ndim(t):
        chex.assert_shape(t, x.shape[:1])

    def reshaped():
        return jnp.reshape(t, jnp.shape(t) + (1,) * (x.ndim - jnp.ndim(t)))

    if isinstance(t, jax.core.Tracer):
        return reshaped()
    with jax.ensure_compile_time_eval():  # known times stay known
        return reshaped()


def corrupt(process: Process, x: Array, noise: Array, t: Array) -> tuple[Array, Array]:
    """(z, r) = (a x + b ε, c x + d ε): what is seen and what is asked, each [B, ...].

    >>> from gengen.diffusion.paths import Linear
    >>> x, noise = jnp.array([[1.0]]), jnp.array([[3.0]])
    >>> z, r = corrupt(Process(Linear(), Velocity()), x, noise, 0.5)
    >>> float(z[0, 0]), float(r[0, 0])
    (2.0, 2.0)

    Args:
        process: the path, and what the network predicts.
        x: data [B, ...], floats.
        noise: standard normal noise, of the shape of x.
        t: times in [0, 1], [] or [B].
    """
    chex.assert_equal_shape([x, noise])
    chex.assert_type([x, noise], float)
    a, b, c, d = process.matrix(expand(t, x))
    return a * x + b * noise, c * x + d * noise


def recover(process: Process, z: Array, r: Array, t: Array) -> tuple[Array, Array]:
    """(x̂, ε̂) = ((d z - b r)/det, (a r - c z)/det): the inverse of `corrupt`.

    >>> from gengen.diffusion.paths import Linear
    >>> z, r = jnp.array([[2.0]]), jnp.array([[2.0]])
    >>> x, noise = recover(Process(Linear(), Velocity()), z, r, 0.5)
    >>> float(x[0, 0]), float(noise[0, 0])
    (1.0, 3.0)

    Args:
        process: the path, and what the network predicts.
        z: what is seen at times t [B, ...], floats.
        r: what the network says, of the shape of z.
        t: times in [0, 1] where det is not 0, [] or [B].
    """
    chex.assert_equal_shape([z, r])
    chex.assert_type([z, r], float)
    m = process.matrix(expand(t, z))
    return (m.d * z - m.b * r) / m.det, (m.a * r - m.c * z) / m.det


def convert(source: Process, target: Process, z: Array, r: Array, t: Array) -> Array:
    """The same answer in the target's prediction: recover, then apply its row.

    >>> from gengen.diffusion.paths import Linear
    >>> velocity, data = (Process(Linear(), p) for p in (Velocity(), Data()))
    >>> z, r = jnp.array([[2.0]]), jnp.array([[2.0]])
    >>> float(convert(velocity, data, z, r, 0.5)[0, 0])
    1.0

    Args:
        source: the process in which r is an answer.
        target: a process of the same path.
        z: what is seen at times t [B, ...], floats.
        r: what the network says, of the shape of z.
        t: times in [0, 1] where the source's det is not 0, [] or [B].
    """
    if source.path != target.path:
        raise BadInput(
            f"an answer along {source.path} cannot be converted to one along "
            f"{target.path}: take two processes of one path"
        )
    x, noise = recover(source, z, r, t)
    return corrupt(target, x, noise, t)[1]


def from_data(process: Process, z: Array, x: Array, t: Array) -> Array:
    """r̂ = c x̂ + d ε̂ with the ε̂ = (z - a x̂)/b that leaves z what it is.

    >>> from gengen.diffusion.paths import Linear
    >>> z, x = jnp.array([[2.0]]), jnp.array([[1.0]])
    >>> float(from_data(Process(Linear(), Velocity()), z, x, 0.5)[0, 0])
    2.0

    Args:
        process: the path, and what the network predicts.
        z: what is seen at times t [B, ...], floats.
        x: x̂, of the shape of z.
        t: times in (0, 1] where b is not 0, [] or [B].
    """
    chex.assert_equal_shape([z, x])
    chex.assert_type([z, x], float)
    m = process.matrix(expand(t, z))
    return m.c * x + m.d * (z - m.a * x) / m.b


def loss_weight(process: Process, space: Process, t: Array) -> Array:
    """(det_space/det)², so that weight · |r̂ - r|² is the squared error in `space`.

    >>> from gengen.diffusion.paths import Linear
    >>> noise, data = (Process(Linear(), p) for p in (Noise(), Data()))
    >>> float(loss_weight(noise, data, jnp.array(0.75)))  # (b/a)²
    9.0

    Args:
        process: the process of the network.
        space: a process of the same path, in whose prediction the error is measured.
        t: times in [0, 1] where the process' det is not 0, of any shape.
    """
    return jnp.square(space.matrix(t).det / process.matrix(t).det)


def ode_velocity(process: Process, z: Array, r: Array, t: Array) -> Array:
    """ż = a′ x̂ + b′ ε̂ [B, ...], the probability-flow ODE.

    >>> from gengen.diffusion.paths import Linear
    >>> z, x = jnp.array([[2.0]]), jnp.array([[1.0]])
    >>> float(ode_velocity(Process(Linear(), Data()), z, x, 0.5)[0, 0])
    2.0

    Args:
        process: a continuous path, and what the network predicts.
        z: what is seen at times t [B, ...], floats.
        r: what the network says, of the shape of z.
        t: times in [0, 1] where det is not 0, [] or [B].
    """
    x, noise = recover(process, z, r, t)
    _, _, da, db = derivatives(process.path, expand(t, z))
    return da * x + db * noise


def score(process: Process, z: Array, r: Array, t: Array) -> Array:
    """∇ log p_t(z) = -ε̂/b, [B, ...].

    >>> from gengen.diffusion.paths import Linear
    >>> z, noise = jnp.array([[2.0]]), jnp.array([[3.0]])
    >>> float(score(Process(Linear(), Noise()), z, noise, 0.5)[0, 0])
    -6.0

    Args:
        process: the path, and what the network predicts.
        z: what is seen at times t [B, ...], floats.
        r: what the network says, of the shape of z.
        t: times in (0, 1] where det and b are not 0, [] or [B].
    """
    return -recover(process, z, r, t)[1] / expand(process.path.b(t), z)


@partial(jax.jit, static_argnums=(0, 1))
def _usable(process, weight, t):
    numbers = [*(m := process.matrix(t)), 1.0 / m.det]
    numbers += () if is_discrete(process.path) else derivatives(process.path, t)[2:]
    numbers += () if weight is None else (weight(process, t),)
    return sum(jnp.isfinite(x) for x in numbers) == len(numbers)


def usable_times(
    process: Process, margin: float = 1e-3, weight: Callable | None = None
) -> tuple[float, float]:
    """(t_min, t_max): [0, 1] without the ends at which the matrix is singular.

    An end is usable if det is neither 0 nor infinite there, and a′, b′ (of a path that
    has them) and the loss' weight are finite. Another end is moved inwards by `margin`.
    Raises BadInput if that does not help.

    >>> from gengen.diffusion.paths import Linear
    >>> usable_times(Process(Linear(), Velocity()))
    (0.0, 1.0)
    >>> usable_times(Process(Linear(), Noise()))
    (0.0, 0.999)

    Args:
        process: the path, and what the network predicts.
        margin: how far an end is moved.
        weight: (process, t) -> the weight of the loss, or None.
    """

    ends = np.array([0.0, margin, 1.0 - margin, 1.0], np.float32)
    with jax.ensure_compile_time_eval():
        at_0, after_0, before_1, at_1 = _usable(process, weight, ends).tolist()
    low, high = 0.0 if at_0 else margin, 1.0 if at_1 else 1.0 - margin
    if not ((at_0 or after_0) and (at_1 or before_1)):
        raise BadInput(
            f"{process} is singular at t={low} or t={high}: choose a prediction "
            "whose determinant does not vanish along the path"
        )
    return low, high
