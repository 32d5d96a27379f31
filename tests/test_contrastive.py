"""Laws of contrastive losses, and of the model that learns by them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gengen.losses.contrastive import equal_rows, infonce, sigmoid

RHO = 0.9


@pytest.mark.parametrize(("num", "wanted"), [(8, 0.679), (64, 0.806)])
def test_the_bound_on_a_gaussian_pair_is_the_known_one(num, wanted):
    """With the critic log p(c|x)/p(c): log N - L, below I = -½ log(1 - ρ²) = 0.830.

    NumPy alone gives 0.6791 ± 0.0009 and 0.8056 ± 0.0009 for 800,000 pairs.
    """
    rng = np.random.default_rng(0)
    batches = 60_000 // num
    x = rng.normal(size=(batches, num))
    c = RHO * x + np.sqrt(1 - RHO**2) * rng.normal(size=(batches, num))
    logits = -((c[:, None] - RHO * x[..., None]) ** 2) / (2 * (1 - RHO**2))
    logits += c[:, None] ** 2 / 2
    each = jax.jit(jax.vmap(lambda rows: infonce(rows, jnp.eye(num)).mean()))(
        jnp.asarray(logits, jnp.float32)
    )
    bound = np.log(num) - np.mean(each)
    np.testing.assert_allclose(bound, wanted, atol=0.012)
    assert bound < -0.5 * np.log(1 - RHO**2)


@pytest.mark.parametrize("num", [2, 5])
def test_constant_embeddings_know_nothing_and_orthonormal_ones_all(num):
    eye = jnp.eye(num)
    np.testing.assert_allclose(infonce(0 * eye + 3.0, eye), np.log(num), rtol=1e-6)
    np.testing.assert_allclose(infonce(60.0 * eye, eye), 0, atol=1e-6)
    np.testing.assert_allclose(sigmoid(60.0 * (2 * eye - 1), eye), 0, atol=1e-6)


@pytest.mark.parametrize("loss", [infonce, sigmoid])
def test_equal_captions_do_not_move_the_optimum(loss):
    """The gradient is zero where equal captions have equal images' similarity.

    With the diagonal alone as the targets it is not: that asks for a difference.
    """
    tokens = jnp.array([[1, 0], [2, 0], [1, 0]])
    same = equal_rows(tokens)

    def total(logits, targets):
        return loss(logits, targets).sum()

    right = jnp.where(same, 40.0, -40.0)
    assert np.abs(jax.grad(total)(right, same)).max() < 1e-6
    assert np.abs(jax.grad(total)(right, jnp.eye(3))).max() > 0.3
    order = jnp.array([2, 0, 1])
    shuffled = loss(right[order][:, order] / 40, same[order][:, order])
    np.testing.assert_allclose(shuffled, loss(right / 40, same)[order], rtol=1e-6)
