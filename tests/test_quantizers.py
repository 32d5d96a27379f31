"""Codes and their books: bijections by enumeration, updates against NumPy."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gengen.errors import BadInput
from gengen.latent.fitted import fitted_gaussian
from gengen.latent.quantizers import (
    FiniteScalar,
    VectorQuantizer,
    digits_of,
    index_of,
)
from gengen.metrics.codebook import (
    codebook_perplexity,
    codebook_usage,
    count_codes,
)

KEY = jax.random.key(0)
PUBLISHED = [(5, 3), (8, 6, 5), (8, 5, 5, 5), (7, 5, 5, 5, 5), (8, 8, 8, 6, 5)]
PUBLISHED += [(8, 8, 8, 5, 5, 5)]


@pytest.mark.parametrize("levels", PUBLISHED)
def test_every_published_set_of_levels_has_a_bijection_of_codes_and_values(levels):
    book = FiniteScalar(levels)
    codes = jnp.arange(book.size)
    values = book.embed({}, codes)
    assert len(np.unique(np.asarray(values), axis=0)) == book.size == math.prod(levels)
    np.testing.assert_array_equal(index_of(digits_of(codes, levels), levels), codes)
    for d, num in enumerate(levels):
        assert len(np.unique(values[:, d])) == num
    # What is rounded to a value has the value's code: atanh of the middles of the bins.
    whole = values * (jnp.array(levels) // 2)
    half = (jnp.array(levels) - 1) * 1.001 / 2
    offset = jnp.where(jnp.array(levels) % 2 == 0, 0.5, 0.0)
    inside = jnp.clip((whole + offset) / half, -0.9999, 0.9999)
    z = jnp.arctanh(inside) - jnp.arctanh(offset / half)
    quantised = book({}, z)
    np.testing.assert_array_equal(quantised.codes, codes)
    np.testing.assert_allclose(quantised.z, values, atol=1e-6)


@pytest.mark.parametrize("num", range(3, 9))
def test_zero_is_a_value_and_all_levels_are_reached(num):
    book = FiniteScalar((num,))
    assert book({}, jnp.zeros((1, 1))).z.item() == 0.0
    z = jnp.linspace(-8.0, 8.0, 4001)[:, None]
    assert len(np.unique(book({}, z).codes)) == num


def test_the_gradient_of_rounding_is_that_of_the_squashing():
    book, z = FiniteScalar((5, 4)), jnp.array([0.3, -0.7])
    slope = jax.jacobian(lambda z: book({}, z).z)(z)
    levels, offset = jnp.array([5, 4]), jnp.array([0.0, 0.5])
    half = (levels - 1) * 1.001 / 2
    squash = 1.0 - jnp.tanh(z + jnp.arctanh(offset / half)) ** 2
    np.testing.assert_allclose(
        slope, jnp.diag(squash * half / (levels // 2)), rtol=1e-5
    )


def numpy_update(book, counts, sums, z, decay):
    """The moving averages, one vector at a time."""
    nearest = [
        int(np.argmin(((sums / counts[:, None]) - x[None]) ** 2 @ np.ones(2)))
        for x in z
    ]
    n, s = np.zeros_like(counts), np.zeros_like(sums)
    for code, x in zip(nearest, z, strict=True):
        n[code] += 1
        s[code] += x
    return decay * counts + (1 - decay) * n, decay * sums + (1 - decay) * s


def test_the_book_moves_as_numpy_says():
    book = VectorQuantizer(4, dim=2, decay=0.9, dead=0.0)
    draw = np.random.default_rng(0)
    z = draw.normal(size=(64, 2)).astype(np.float32)
    state = book.update(book.init(), jnp.array(z), KEY)
    for _ in range(3):
        z = draw.normal(size=(64, 2)).astype(np.float32)
        counts, sums = np.asarray(state["counts"]), np.asarray(state["sums"])
        counts, sums = numpy_update(book, counts, sums, z, 0.9)
        state = book.update(state, jnp.array(z.reshape(8, 8, 2)), KEY)
        np.testing.assert_allclose(state["counts"], counts, rtol=1e-5)
        np.testing.assert_allclose(state["sums"], sums, rtol=1e-4, atol=1e-5)


def test_without_memory_an_update_is_a_step_of_k_means():
    from sklearn.cluster import KMeans

    draw = np.random.default_rng(1)
    z = draw.normal(size=(200, 2)).astype(np.float32) + 4 * draw.integers(
        2, size=(200, 1)
    )
    book = VectorQuantizer(3, dim=2, decay=0.0, dead=0.0)
    start = z[:3]
    state = {"counts": jnp.ones(3), "sums": jnp.array(start), "started": jnp.int32(1)}
    state = book.update(state, jnp.array(z), KEY)
    own = KMeans(3, init=start, n_init=1, max_iter=1).fit(z)
    # scikit-learn's labels of one iteration are those of the moved centres; the centres
    # are the means of what was nearest before.
    nearest = np.argmin(((z[:, None] - start) ** 2).sum(-1), axis=1)
    means = np.stack([z[nearest == k].mean(0) for k in range(3)])
    np.testing.assert_allclose(book.book(state), means, rtol=1e-5)
    np.testing.assert_allclose(own.cluster_centers_, means, rtol=1e-5)


def test_the_first_book_is_the_first_batch_and_dead_codes_start_again():
    book = VectorQuantizer(3, dim=1, decay=0.5, dead=0.5)
    z = jnp.array([[1.0], [2.0], [3.0]])
    state = book.update(book.init(), z, KEY)
    assert sorted(book.book(state).ravel().tolist()) == [1.0, 2.0, 3.0]
    far = {**state, "sums": state["sums"].at[0].set(1e3 * state["counts"][0])}
    for _ in range(5):  # nothing is near a thousand: its count halves until it is dead
        far = book.update(far, z, KEY)
    assert float(jnp.max(book.book(far))) <= 3.0
    never = VectorQuantizer(3, dim=1, decay=0.5, dead=0.0)
    kept = {**state, "sums": state["sums"].at[0].set(1e3 * state["counts"][0])}
    for _ in range(5):
        kept = never.update(kept, z, KEY)
    assert float(jnp.max(never.book(kept))) == 1e3


def test_gradients_pass_through_to_the_encoder_and_not_to_the_book():
    book = VectorQuantizer(2, dim=2)
    sums = jnp.array([[0.0, 0.0], [1.0, 1.0]])
    state = {"counts": jnp.ones(2), "sums": sums, "started": jnp.int32(1)}
    weight = jnp.array([2.0, -3.0])

    def loss(z, sums):
        quantised = book({**state, "sums": sums}, z)
        return jnp.sum(weight * quantised.z) + quantised.distance

    at = jnp.array([0.9, 0.8])
    to_z, to_book = jax.grad(loss, (0, 1))(at, sums)
    np.testing.assert_allclose(to_z, weight + 2 * (at - 1.0), rtol=1e-6)
    np.testing.assert_array_equal(to_book, 0.0)


def test_a_book_rests_when_all_codes_are_used():
    """Also where an even share of a batch is far above one vector."""
    book = VectorQuantizer(16, dim=2)
    draw = np.random.default_rng(0)
    batches = jnp.array(draw.normal(size=(40, 800, 2)), jnp.float32)
    state, update = book.init(), jax.jit(book.update)
    for i, z in enumerate(batches):
        before = book.book(state) if i else None
        state = update(state, z, jax.random.key(i))
        if i > 20:
            assert np.max(np.abs(book.book(state) - before)) < 0.2  # none has jumped


def test_devices_share_one_book():
    """As one device would have it, and made of vectors of the batch at first."""
    num = jax.device_count()
    book = VectorQuantizer(4, dim=1, axis_name="data")
    z = jnp.arange(8.0 * num).reshape(num, 8, 1)
    state = jax.tree.map(lambda x: jnp.stack([x] * num), book.init())
    keys = jax.random.split(KEY, num)
    state = jax.pmap(book.update, "data")(state, z, keys)
    rows = book.book(jax.tree.map(lambda x: x[0], state))
    shared = jax.tree.map(lambda x: np.all(x == x[:1]), state)
    assert all(jax.tree.leaves(shared)) and np.all(np.isfinite(rows))


def test_fewer_vectors_than_codes_still_make_a_book():
    book = VectorQuantizer(5, dim=1)
    state = book.update(book.init(), jnp.array([[1.0], [2.0]]), KEY)
    assert set(np.unique(book.book(state))) <= {1.0, 2.0}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FiniteScalar(()), "at least 3"),
        (lambda: FiniteScalar((5, 2)), "(5, 2)"),
        (lambda: VectorQuantizer(1, 2), "size=1"),
        (lambda: VectorQuantizer(4, 2, decay=1.0), "decay=1.0"),
    ],
)
def test_books_that_cannot_be_are_refused(make, words):
    with pytest.raises(BadInput, match=words.replace("(", r"\(").replace(")", r"\)")):
        make()


def test_vectors_of_another_width_are_refused():
    for book, size in itertools.product(
        (FiniteScalar((3, 3)), VectorQuantizer(3, 2)), (1, 3)
    ):
        with pytest.raises(AssertionError):
            book(book.init(), jnp.zeros((4, size)))


def test_before_the_first_batch_vectors_pass_as_they_are():
    """A book of zeros would make every map constant, and its norm's slope infinite."""
    book, z = VectorQuantizer(3, 2), jax.random.normal(KEY, (5, 2))
    quantised = book(book.init(), z)
    np.testing.assert_array_equal(quantised.z, z)
    np.testing.assert_array_equal(quantised.distance, np.zeros(5))


def test_the_nearest_code_is_not_found_in_rounded_products():
    book = VectorQuantizer(3, 2)
    trace = str(jax.make_jaxpr(book.nearest)(book.init(), jnp.zeros((5, 2))))
    assert "Precision.HIGHEST" in trace


def test_the_use_of_a_book_is_counted_over_an_epoch():
    codes = np.random.default_rng(0).integers(0, 300, (40, 10))
    counts = count_codes(codes, 300)
    entropy = stats.entropy(np.unique(codes, return_counts=True)[1])
    assert codebook_perplexity(counts) == pytest.approx(np.exp(entropy))
    assert codebook_usage(counts) == len(np.unique(codes)) / 300
    each = [codebook_perplexity(count_codes(row, 300)) for row in codes]
    assert max(each) <= 10 < codebook_perplexity(counts)  # a batch cannot say it
    with pytest.raises(BadInput, match="code 300 is out of range.*0 to 299"):
        count_codes([3, 300], 300)
    with pytest.raises(BadInput, match="code -1 is out of range"):
        count_codes([-1, 2], 300)


def test_a_fitted_gaussian_has_the_moments_of_the_codes():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3)) + rng.normal(size=3)
    fitted = fitted_gaussian(codes)
    factor = np.array(fitted.factor)
    np.testing.assert_allclose(factor @ factor.T, np.cov(codes.T, bias=True))
    draws = np.asarray(fitted.sample(KEY, 50_000))
    np.testing.assert_allclose(draws.mean(0), codes.mean(0), atol=0.05)
    np.testing.assert_allclose(np.cov(draws.T), factor @ factor.T, atol=0.1)
    with pytest.raises(BadInput, match="singular: give more codes"):
        fitted_gaussian(codes[:3])
