"""Quantisers: vectors become codes of a finite book, and the gradient passes through.

    z [..., D]  ->  code in 0 … size - 1  ->  e(code) [..., D]

Rounding has no gradient, so the straight-through estimator hands that of the output to
the input (Bengio, Léonard and Courville 2013, arXiv:1308.3432):

    quantised = z + stop_gradient(e - z).

    quantiser        its book                        what moves the book
    VectorQuantizer  K vectors, the nearest counts   a moving average of what they got
    FiniteScalar     a grid of L_d values per dim    nothing: z moves instead

Van den Oord, Vinyals and Kavukcuoglu 2017, arXiv:1711.00937 (VQ); Mentzer et al. 2023,
arXiv:2309.15505 (FSQ).
"""

import math
from typing import NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.types import Array, Key, Tree, static


class Quantized(NamedTuple):
    """Vectors after quantisation."""

    z: Array
    """The book's vectors [..., D], with the gradient of the input."""
    codes: Array
    """Their numbers in the book, int32 [...]."""
    distance: Array
    """|z - stop_gradient(e)|², [...]: what draws the encoder to the book."""


class Quantizer(Protocol):
    """Vectors <-> codes. A quantiser is a `static` value; its book is in `state`."""

    size: int
    dim: int

    def init(self) -> Tree:
        """The book before training; {} if it never changes."""

    def __call__(self, state: Tree, z: Array) -> Quantized:
        """The quantised z [..., D]; AssertionError for another D."""

    def embed(self, state: Tree, codes: Array) -> Array:
        """Codes [...] -> vectors [..., D]."""

    def update(self, state: Tree, z: Array, key: Key) -> Tree:
        """The book after it has seen the vectors z [..., D] of one batch."""


def straight_through(value: Array, z: Array) -> Array:
    """`value` with the gradient of z.

    >>> jax.grad(lambda z: straight_through(jnp.round(z), z))(0.7).item()
    1.0
    """
    chex.assert_equal_shape([value, z])
    return z + jax.lax.stop_gradient(value - z)


def index_of(digits: Array, levels: tuple[int, ...]) -> Array:
    """Digits [..., D], digit d in 0 … levels[d] - 1, as one number; the first is least.

    >>> index_of(jnp.array([[2, 1], [0, 3]]), (3, 4)).tolist()
    [5, 9]
    """
    chex.assert_axis_dimension(digits, -1, len(levels))
    strides = jnp.array([math.prod(levels[:d]) for d in range(len(levels))], jnp.int32)
    return jnp.sum(digits.astype(jnp.int32) * strides, axis=-1)


def digits_of(index: Array, levels: tuple[int, ...]) -> Array:
    """The inverse of `index_of`: int32 [..., D].

    >>> digits_of(jnp.array([5, 9]), (3, 4)).tolist()
    [[2, 1], [0, 3]]
    """
    chex.assert_type(index, int)
    strides = jnp.array([math.prod(levels[:d]) for d in range(len(levels))], jnp.int32)
    return index[..., None] // strides % jnp.array(levels, jnp.int32)


@static
class FiniteScalar:
    """Each dimension is squashed and rounded to its own few values (FSQ).

    With h = (L - 1)(1 + ε)/2, an offset o = ½ for even L and else 0, and the shift
    atanh(o/h), which puts z = 0 on a value,

        e = round(h tanh(z + shift) - o)/⌊L/2⌋,

    so that L values between -1 and 1 are taken. There is no book to collapse: all
    products of values are codes. Mentzer et al. 2023, arXiv:2309.15505, section 3.1 and
    appendix A; their sizes: 2⁸ (8, 6, 5), 2¹⁰ (8, 5, 5, 5), 2¹² (7, 5, 5, 5, 5).

    >>> book = FiniteScalar((3, 4))
    >>> quantised = book({}, jnp.array([[-9.0, 0.0]]))
    >>> quantised.z.tolist(), quantised.codes.tolist()
    ([[-1.0, 0.0]], [6])
    """

    levels: tuple[int, ...]
    """L of each dimension, at least 3."""

    def __post_init__(self):
        if not self.levels or min(self.levels) < 3 or self.size >= 2**31:
            raise BadInput(
                f"levels={self.levels}: each dimension of z takes at least 3 values, "
                "and there are fewer than 2³¹ codes in all"
            )

    @property
    def size(self) -> int:
        """The number of codes: the product of the levels."""
        return math.prod(self.levels)

    @property
    def dim(self) -> int:
        """D, the dimensions of z."""
        return len(self.levels)

    def init(self) -> Tree:
        """{}: the grid is fixed."""
        return {}

    def __call__(self, state: Tree, z: Array) -> Quantized:
        """The nearest values of the squashed z."""
        chex.assert_axis_dimension(z, -1, self.dim)
        levels = jnp.array(self.levels)
        half = (levels - 1) * (1.0 + 1e-3) / 2.0
        offset = jnp.where(levels % 2 == 0, 0.5, 0.0)
        squashed = jnp.tanh(z + jnp.arctanh(offset / half)) * half - offset
        low, high = -(levels // 2), (levels - 1) // 2
        whole = jnp.clip(jnp.round(squashed), low, high)
        codes = index_of(whole + levels // 2, self.levels)
        value = straight_through(whole, squashed) / (levels // 2)
        return Quantized(value, codes, jnp.zeros(codes.shape, z.dtype))

    def embed(self, state: Tree, codes: Array) -> Array:
        """The values of the codes' digits."""
        half = jnp.array(self.levels) // 2
        return (digits_of(codes, self.levels) - half) / half

    def update(self, state: Tree, z: Array, key: Key) -> Tree:
        """The same state."""
        return state


@static
class VectorQuantizer:
    """The nearest of K vectors; each is the moving average of what it was nearest to.

    The state holds a count and a sum per code, and the vector is their ratio e = s/n:

        n ← γ n + (1 - γ) n_batch,      s ← γ s + (1 - γ) s_batch.

    The first batch gives the first book. A code that gets less than `dead` of its even
    share, a count below dead · N/K for N vectors a batch, starts again at a vector of
    the batch, with an even share. Van den Oord et al. 2017, arXiv:1711.00937, appendix
    A.1; restarts: Dhariwal et al. 2020, arXiv:2005.00341, section 3.1.

    >>> book = VectorQuantizer(2, dim=1, decay=0.0)
    >>> z = jnp.array([[0.0], [10.0]])
    >>> state = book.update(book.init(), z, jax.random.key(0))
    >>> book.embed(state, book(state, z).codes).tolist()
    [[0.0], [10.0]]
    """

    size: int
    """K, the number of codes."""
    dim: int
    """D, the dimensions of a vector."""
    decay: float = 0.99
    """γ of the moving averages, in [0, 1)."""
    dead: float = 0.1
    """The share of N/K below which a code starts again; 0 never restarts one."""
    axis_name: str | None = None
    """The mapped axis (pmap) whose vectors are one batch, if there is one."""

    def __post_init__(self):
        if self.size < 2 or self.dim < 1:
            raise BadInput(
                f"size={self.size}, dim={self.dim}: a book has at least 2 codes of at "
                "least 1 dimension"
            )
        if not 0 <= self.decay < 1 or not 0 <= self.dead < 1:
            raise BadInput(
                f"decay={self.decay}, dead={self.dead}: both are at least 0 and below 1"
            )

    def init(self) -> Tree:
        """Counts of one, and no vectors yet."""
        return {
            "counts": jnp.ones(self.size),
            "sums": jnp.zeros((self.size, self.dim)),
            "started": jnp.zeros((), jnp.int32),
        }

    def book(self, state: Tree) -> Array:
        """The vectors of all codes, [K, D]."""
        return state["sums"] / state["counts"][:, None]

    def nearest(self, state: Tree, z: Array) -> Array:
        """The code of the nearest vector, int32 [...]: argmin |e|² - 2 z·e."""
        chex.assert_axis_dimension(z, -1, self.dim)
        book = self.book(state)
        inner = jnp.matmul(z, book.T, precision=jax.lax.Precision.HIGHEST)
        scores = jnp.sum(book**2, axis=-1) - 2.0 * inner
        return jnp.argmin(scores, axis=-1).astype(jnp.int32)

    def __call__(self, state: Tree, z: Array) -> Quantized:
        """The nearest vector; gradients pass to z, not to the book.

        Before the first batch there is no book, and z passes as it is.
        """
        codes = self.nearest(state, z)
        e = jnp.where(state["started"] == 0, z, self.embed(state, codes))
        e = jax.lax.stop_gradient(e)
        distance = jnp.sum(jnp.square(z - e), axis=-1)
        return Quantized(straight_through(e, z), codes, distance)

    def embed(self, state: Tree, codes: Array) -> Array:
        """The book's rows."""
        chex.assert_type(codes, int)
        return self.book(state)[codes]

    def update(self, state: Tree, z: Array, key: Key) -> Tree:
        """The moving averages after the batch z, or the first book."""
        z = jax.lax.stop_gradient(z.reshape(-1, self.dim))
        if self.axis_name is not None:  # all devices see all vectors, and one key
            z = jax.lax.all_gather(z, self.axis_name, tiled=True)
            words = jax.lax.pmax(jax.random.key_data(key), self.axis_name)
            key = jax.random.wrap_key_data(words, impl=jax.random.key_impl(key))
        key_first, key_dead = jax.random.split(key)
        share = len(z) / self.size
        first = {
            **state,
            "counts": jnp.full(self.size, share),
            "sums": share * self._rows(key_first, z),
        }
        state = jax.tree.map(
            lambda new, old: jnp.where(state["started"] == 0, new, old), first, state
        )
        taken = jax.nn.one_hot(self.nearest(state, z), self.size, dtype=z.dtype)
        got = {"counts": jnp.sum(taken, axis=0), "sums": taken.T @ z}
        # A code without a vector keeps its own where nothing older is remembered.
        moved = {
            name: self.decay * state[name] + (1.0 - self.decay) * got[name]
            for name in got
        }
        seen = moved["counts"] > 1e-6
        counts = jnp.where(seen, moved["counts"], state["counts"])
        sums = jnp.where(seen[:, None], moved["sums"], state["sums"])
        alive = counts >= self.dead * share
        return {
            "counts": jnp.where(alive, counts, share),
            "sums": jnp.where(alive[:, None], sums, share * self._rows(key_dead, z)),
            "started": state["started"] + 1,
        }

    def _rows(self, key: Key, z: Array) -> Array:
        """K of the vectors z, different ones if there are so many, [K, D]."""
        num = len(z)
        places = jax.random.permutation(key, max(num, self.size))[: self.size] % num
        return z[places]
