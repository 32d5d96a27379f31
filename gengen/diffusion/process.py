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
- A change of the score by g moves the answer by (b/a) det g (`guidance`), and a change
  of x̂ leaves ε̂ = (z - a x̂)/b (`from_data`).
- Where det vanishes the question has no answer: noise prediction cannot recover x
  where a = 0. `usable_times` finds those ends; nothing hides them under an epsilon.

Sun, Jiang, Zhao and He 2025, arXiv:2502.13129; Ho et al. 2020, arXiv:2006.11239;
Salimans and Ho 2022, arXiv:2202.00512 (v); Lipman et al. 2023, arXiv:2210.02747.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from gengen.diffusion.paths import Path, derivatives, is_discrete
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


class Prediction(Protocol):
    """The row (c, d): what the network is asked for at time t."""

    def row(self, path: Path, t: Array) -> tuple[Array, Array]: ...


@static
class Noise:
    """r = ε. Ho et al. 2020, arXiv:2006.11239, equation 14."""

    def row(self, path: Path, t: Array) -> tuple[Array, Array]:
        return jnp.zeros_like(t), jnp.ones_like(t)


@static
class Data:
    """r = x."""

    def row(self, path: Path, t: Array) -> tuple[Array, Array]:
        return jnp.ones_like(t), jnp.zeros_like(t)


@static
class V:
    """r = a ε - b x. Salimans and Ho 2022, arXiv:2202.00512, section 4."""

    def row(self, path: Path, t: Array) -> tuple[Array, Array]:
        return -path.b(t), path.a(t)


@static
class Velocity:
    """r = a′ x + b′ ε, the time derivative of z. Lipman et al. 2023, equation 23."""

    def row(self, path: Path, t: Array) -> tuple[Array, Array]:
        return derivatives(path, t)[2:]


@static
class Score:
    """r = -ε/b, the gradient of log N(z; a x, b²). Song et al. 2021, equation 7."""

    def row(self, path: Path, t: Array) -> tuple[Array, Array]:
        return jnp.zeros_like(t), -1.0 / path.b(t)


@static
class EDM:
    """r = (b x/s - s a ε)/n, n = √(b² + s² a²): unit variance for data of std s.

    The F of D = c_skip y + c_out F. With s = 1 on a variance-preserving path it is -v.
    Karras et al. 2022, arXiv:2206.00364, equation 7 and table 1.
    """

    data_std: float = 0.5

    def row(self, path: Path, t: Array) -> tuple[Array, Array]:
        a, b, s = path.a(t), path.b(t), self.data_std
        n = jnp.hypot(b, s * a)
        return b / (s * n), -s * a / n


@static
class Process:
    """A path and what is predicted along it: the whole of the matrix."""

    path: Path
    prediction: Prediction

    def matrix(self, t: Array) -> Coefficients:
        """(a, b, c, d) at times t in [0, 1], each of the shape of t.

        Raises BadInput for known times outside.
        """
        if not isinstance(t, jax.core.Tracer):
            with jax.ensure_compile_time_eval():  # a constant within a jit, too
                if not jnp.all((t >= 0) & (t <= 1)):
                    raise BadInput(
                        f"times from {jnp.min(t)} to {jnp.max(t)}: they must be in "
                        "[0, 1], 0 the data and 1 the noise"
                    )
        a, b = self.path.a(t), self.path.b(t)
        return Coefficients(a, b, *self.prediction.row(self.path, t))


def expand(t: Array, x: Array) -> Array:
    """Times [] or [B] as [B, 1, ...], ready to meet x [B, ...]."""

    def reshaped():
        return jnp.reshape(t, jnp.shape(t) + (1,) * (x.ndim - jnp.ndim(t)))

    if isinstance(t, jax.core.Tracer):
        return reshaped()
    with jax.ensure_compile_time_eval():  # known times stay known
        return reshaped()


def corrupt(process: Process, x: Array, noise: Array, t: Array) -> tuple[Array, Array]:
    """(z, r) = (a x + b ε, c x + d ε): what is seen and what is asked; t [] or [B]."""
    a, b, c, d = process.matrix(expand(t, x))
    return a * x + b * noise, c * x + d * noise


def recover(process: Process, z: Array, r: Array, t: Array) -> tuple[Array, Array]:
    """(x̂, ε̂) = ((d z - b r)/det, (a r - c z)/det): the inverse of `corrupt`."""
    m = process.matrix(expand(t, z))
    return (m.d * z - m.b * r) / m.det, (m.a * r - m.c * z) / m.det


def convert(source: Process, target: Process, z: Array, r: Array, t: Array) -> Array:
    """The same answer in the target's prediction: recover, then apply its row.

    The two processes share their path.
    """
    x, noise = recover(source, z, r, t)
    return corrupt(target, x, noise, t)[1]


def from_data(process: Process, z: Array, x: Array, t: Array) -> Array:
    """r̂ = c x̂ + d ε̂ with the ε̂ = (z - a x̂)/b that leaves z what it is; b(t) > 0."""
    m = process.matrix(expand(t, z))
    return m.c * x + m.d * (z - m.a * x) / m.b


def loss_weight(process: Process, space: Process, t: Array) -> Array:
    """(det_space/det)², so that weight · |r̂ - r|² is the squared error in `space`."""
    return jnp.square(space.matrix(t).det / process.matrix(t).det)


def ode_velocity(process: Process, z: Array, r: Array, t: Array) -> Array:
    """ż = a′ x̂ + b′ ε̂, the probability-flow ODE."""
    x, noise = recover(process, z, r, t)
    _, _, da, db = derivatives(process.path, expand(t, z))
    return da * x + db * noise


def score(process: Process, z: Array, r: Array, t: Array) -> Array:
    """∇ log p_t(z) = -ε̂/b."""
    return -recover(process, z, r, t)[1] / expand(process.path.b(t), z)


def usable_times(
    process: Process, margin: float = 1e-3, weight: Callable | None = None
) -> tuple[float, float]:
    """(t_min, t_max): [0, 1] without the ends at which the matrix is singular.

    An end is usable if det is neither 0 nor infinite there, and a′, b′ (of a path that
    has them) and the loss' weight are finite, so that x̂, ε̂ and the ODE exist; an end
    that is not is moved inwards by `margin`.
    """

    def usable(t):
        m = process.matrix(t)
        numbers = [*m, 1.0 / m.det]
        if not is_discrete(process.path):
            numbers += derivatives(process.path, t)[2:]
        if weight is not None:
            numbers += [weight(process, t)]
        every = jnp.stack([jnp.broadcast_to(x, t.shape) for x in numbers])
        return jnp.all(jnp.isfinite(every), axis=0)

    with jax.ensure_compile_time_eval():
        ends = jnp.array([0.0, margin, 1.0 - margin, 1.0], jnp.float32)
        at_0, after_0, before_1, at_1 = usable(ends).tolist()
    low, high = 0.0 if at_0 else margin, 1.0 if at_1 else 1.0 - margin
    if not ((at_0 or after_0) and (at_1 or before_1)):
        raise BadInput(
            f"{process} is singular at t={low} or t={high}: choose a prediction "
            "whose determinant does not vanish along the path"
        )
    return low, high
