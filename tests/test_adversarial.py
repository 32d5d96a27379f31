"""Laws of the two-player game: optima, dynamics, penalties and augmentations.

Distributions are enumerated, critics are linear or quadratic, so that every number has
a closed form.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats
from scipy.spatial.distance import jensenshannon

from gengen.augment import Colour, Cutout, Flip, Gated, InstanceNoise, Shift
from gengen.errors import BadInput
from gengen.gradients import clip_weights
from gengen.losses.adversarial import (
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Relativistic,
    Smoothed,
    Wasserstein,
)
from gengen.losses.penalty import (
    Consistency,
    GradientPenalty,
    points,
    r1,
    r1_r2,
    r2,
    squared_gradients,
    wgan_gp,
)
from gengen.models.gan import Adaptive

KEY = jax.random.key(5)
P = np.array([0.1, 0.2, 0.3, 0.15, 0.25])
Q = np.array([0.4, 0.1, 0.1, 0.35, 0.05])
GAMES = {
    "minimax": Minimax(),
    "non-saturating": NonSaturating(),
    "least squares": LeastSquares(),
    "hinge": Hinge(),
    "wasserstein": Wasserstein(),
    "relativistic": Relativistic(),
    "relativistic hinge": Relativistic(Hinge()),
    "smoothed": Smoothed(NonSaturating(), 0.1),
}
games = pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)


def close(got, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


def expected(player, logits, p=P, q=Q):
    """E over real ~ p and fake ~ q of a player's loss; logits by symbol."""
    real, fake = jnp.repeat(logits, len(q)), jnp.tile(logits, len(p))
    return jnp.sum(jnp.outer(p, q).ravel() * player(real, fake))


# ------------------------------------------------------------------- optimal critics

JS = jensenshannon(P, Q) ** 2
OPTIMA = {  # game -> (the best logits, the critic's loss there)
    "minimax": (np.log(P / Q), np.log(4) - 2 * JS),
    "non-saturating": (np.log(P / Q), np.log(4) - 2 * JS),
    "least squares": (P / (P + Q), np.sum(P * Q / (P + Q)) / 2),
    "smoothed": (scipy.special.logit(0.9 * P / (P + Q)), None),
}


@pytest.mark.parametrize("name", OPTIMA)
def test_the_best_critic_is_p_over_p_plus_q(name):
    best, value = OPTIMA[name]
    game, best = GAMES[name], jnp.asarray(best, jnp.float32)
    found, slope = jax.value_and_grad(lambda x: expected(game.discriminator, x))(best)
    close(slope, np.zeros(5))
    assert value is None or abs(found - value) < 1e-6
    if hasattr(game, "probability"):
        close(game.probability(game.margin(best, best)), P / (P + Q))
    # Of separable games the curvature is diagonal: above 0 at every symbol.
    ahead = jax.grad(lambda x: expected(game.discriminator, x))(best + 0.1)
    assert np.all(np.asarray(ahead) > 1e-4)


def test_the_best_hinge_critic_says_plus_or_minus_one():
    best = jnp.asarray(np.sign(P - Q), jnp.float32)
    value = expected(Hinge().discriminator, best)
    close(value, 2 * np.minimum(P, Q).sum())  # 2 - 2 TV(p, q)
    for other in np.random.default_rng(0).normal(size=(20, 5)):
        moved = expected(Hinge().discriminator, jnp.asarray(other, jnp.float32))
        assert moved >= value - 1e-6


def test_the_best_lipschitz_critic_measures_the_wasserstein_distance():
    """On a line its slope is the sign of the difference of the two CDFs."""
    places = np.array([0.0, 0.5, 2.0, 2.5, 4.0])
    slope = np.sign(np.cumsum(Q) - np.cumsum(P))[:-1]
    critic = np.concatenate([[0.0], np.cumsum(slope * np.diff(places))])
    value = expected(Wasserstein().discriminator, jnp.asarray(critic, jnp.float32))
    close(-value, scipy.stats.wasserstein_distance(places, places, P, Q))
    # Point masses at 0 and θ: |θ|, with a slope for the generator everywhere.
    one = jnp.array([1.0])
    for theta in (-3.0, 0.5):
        fake = -np.sign(theta) * theta * one  # D(x) = -sign(θ) x
        close(Wasserstein().discriminator(0 * one, fake), [-abs(theta)])
        close(Wasserstein().generator(0 * one, fake), [abs(theta)])


# ------------------------------------------------------------------------- generators

LOGITS = jnp.array([-20.0, -3.0, 0.0, 1.0, 20.0])
EXPIT, LOG_EXPIT = scipy.special.expit, scipy.special.log_expit
GENERATORS = {  # what the generator minimises, and its slope
    "minimax": (lambda x: LOG_EXPIT(-x), lambda x: -EXPIT(x)),  # flat where D wins
    "non-saturating": (lambda x: -LOG_EXPIT(x), lambda x: -EXPIT(-x)),
    "least squares": (lambda x: (x - 1) ** 2 / 2, lambda x: x - 1),
    "hinge": (lambda x: -x, lambda x: -np.ones(5)),
    "wasserstein": (lambda x: -x, lambda x: -np.ones(5)),
    "smoothed": (lambda x: -LOG_EXPIT(x), lambda x: -EXPIT(-x)),
    "relativistic": (lambda x: -LOG_EXPIT(x - 0.3), lambda x: -EXPIT(0.3 - x)),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_generator_losses_and_their_slopes(name):
    value, slope = GENERATORS[name]
    exact, real = np.asarray(LOGITS, float), jnp.full(5, 0.3)
    loss = GAMES[name].generator(real, LOGITS)
    close(loss, value(exact))
    slopes = jax.grad(lambda fake: jnp.sum(GAMES[name].generator(real, fake)))(LOGITS)
    close(slopes, slope(exact), atol=1e-12)


def test_the_minimax_generator_loses_what_the_critic_gains_from_fakes():
    real, game = jnp.full(5, 0.3), Minimax()
    total = game.discriminator(real, LOGITS) + game.generator(real, LOGITS)
    close(total, jax.nn.softplus(-real))


@games
def test_extreme_logits_have_finite_losses_and_gradients(game):
    def total(logit):
        pair = logit, -logit
        return jnp.sum(game.discriminator(*pair) + game.generator(*pair))

    for value in jax.value_and_grad(total)(jnp.array([-1e9, -1e4, 1e4, 1e9])):
        assert np.all(np.isfinite(value))


@games
def test_logits_are_one_float_per_example(game):
    row = jnp.zeros(4)
    for wrong in (jnp.zeros(3), jnp.zeros((4, 1)), jnp.zeros(4, int)):
        for player in (game.discriminator, game.generator, game.margin):
            for pair in ((row, wrong), (wrong, row)):
                with pytest.raises(AssertionError):
                    player(*pair)


def test_a_margin_is_above_zero_where_the_critic_is_right_on_a_real_example():
    real, fake = jnp.array([0.8, 0.2, -0.2]), jnp.array([0.3, 0.3, 0.3])
    signs = {name: np.sign(game.margin(real, fake)) for name, game in GAMES.items()}
    for name in ("minimax", "non-saturating", "hinge", "smoothed"):
        close(signs[name], [1, 1, -1])
    for name in ("least squares", "wasserstein", "relativistic"):
        close(signs[name], [1, -1, -1])


# ----------------------------------------------------------------------- relativistic


@pytest.mark.parametrize("game", [Relativistic(), Relativistic(Hinge())])
def test_a_relativistic_game_does_not_see_the_level_of_the_critic(game):
    real, fake = jnp.asarray(P, jnp.float32), jnp.asarray(Q, jnp.float32)
    for player in (game.discriminator, game.generator):
        close(player(real + 2.0, fake + 2.0), player(real, fake))
        bias = jax.grad(lambda c, f=player: jnp.sum(f(real + c, fake + c)))(0.0)
        assert bias == 0.0
    close(game.discriminator(real, fake), game.generator(fake, real))


def test_a_relativistic_game_is_log_2_at_best_where_p_is_q():
    def loss(logits):
        return expected(Relativistic().discriminator, logits, P, P)

    value, slope = jax.value_and_grad(loss)(jnp.full(5, 3.0))
    close(value, np.log(2))
    close(slope, np.zeros(5))
    for other in np.random.default_rng(0).normal(size=(5, 5)):
        assert loss(jnp.asarray(other, jnp.float32)) > np.log(2)


# -------------------------------------------------------------------------- Dirac-GAN


def field(game, penalty, players):
    """(-∂θ of the generator's loss, -∂ψ of the critic's): data at 0, D(x) = ψ x."""
    theta, psi = players
    real, zero = jnp.zeros((1, 1)), jnp.zeros(1)

    def generator(theta):
        return game.generator(zero, psi * theta[None])[0]

    def critic(psi):
        loss = game.discriminator(psi * real[:, 0], psi * theta[None])
        penalised = penalty(lambda x: psi * x[:, 0], real, theta[None, None], KEY)
        return (loss + penalised)[0]

    return -jnp.stack([jax.grad(generator)(theta), jax.grad(critic)(psi)])


@pytest.mark.parametrize("penalty", [r1, r2, lambda gamma: r1_r2(gamma / 2)])
@pytest.mark.parametrize("name", ["minimax", "relativistic"])
def test_dirac_gan_circles_without_a_penalty_and_converges_with_one(name, penalty):
    """Eigenvalues of the linearised dynamics: Mescheder et al. 2018, section 4.1."""

    @jax.jit
    def linearised(gamma):
        play = partial(field, GAMES[name], penalty(gamma))
        return jax.jacobian(play)(jnp.zeros(2))

    for gamma in (0.0, 0.3, 1.0, 2.0):
        exact = np.sqrt(complex(gamma**2 / 4 - 1 / 4))
        exact = np.sort_complex([-gamma / 2 + exact, -gamma / 2 - exact])
        found = np.sort_complex(np.linalg.eigvals(linearised(gamma)))
        close(found, exact, atol=1e-3)


# -------------------------------------------------------------------------- penalties

RNG = np.random.default_rng(0)
REAL, FAKE = (jnp.asarray(RNG.normal(size=(3, 2, 2, 1)), jnp.float32) for _ in "rf")
MATRIX = jnp.asarray(RNG.normal(size=(4, 4)), jnp.float32)
W = MATRIX[0]


def linear(x, w=W):
    return x.reshape(len(x), -1) @ w + 7.0


def quadratic(x):
    flat = x.reshape(len(x), -1)
    return jnp.einsum("bi,ij,bj->b", flat, MATRIX, flat)


def slopes(x):
    """|∇D|² of the quadratic critic, by hand."""
    flat = np.asarray(x, float).reshape(len(x), -1)
    return np.sum((flat @ np.asarray(MATRIX + MATRIX.T, float)) ** 2, axis=1)


def test_penalties_of_a_linear_critic():
    norm = float(jnp.sum(W**2))
    for penalty, value in {
        r1(3.0): 1.5 * norm,
        r2(3.0): 1.5 * norm,
        r1_r2(3.0): 3.0 * norm,
        wgan_gp(10.0): 10.0 * (norm**0.5 - 1) ** 2,
    }.items():
        close(penalty(linear, REAL, FAKE, KEY), [value] * 3)
    # The critic's parameters feel it: γ w for each example.
    slope = jax.grad(
        lambda w: jnp.sum(r1(3.0)(lambda x: linear(x, w), REAL, FAKE, KEY))
    )(W)
    close(slope, 3 * 3.0 * W)


def test_penalties_of_a_quadratic_critic_are_each_examples_own():
    """A norm over the whole batch would be another number: see the last line."""
    real, fake = slopes(REAL), slopes(FAKE)
    close(r1(2.0)(quadratic, REAL, FAKE, KEY), real)
    close(r2(2.0)(quadratic, REAL, FAKE, KEY), fake)
    close(r1_r2(2.0)(quadratic, REAL, FAKE, KEY), real + fake)
    between = points(("between",), REAL, FAKE, jax.random.split(KEY)[0])
    norms = np.sqrt(slopes(between))
    found = wgan_gp(2.0)(quadratic, REAL, FAKE, KEY)
    close(found, 2 * (norms - 1) ** 2)
    assert abs(np.sum(found) - 2 * (np.sqrt(np.sum(norms**2)) - 1) ** 2) > 1


def test_points_between_lie_on_the_segment_of_each_pair():
    between = points(("between",), REAL, FAKE, KEY)
    u = (between - FAKE) / (REAL - FAKE)
    close(u, u[:, :1, :1, :1] * jnp.ones_like(REAL), atol=1e-4)
    assert np.all((u > 0) & (u < 1)) and np.ptp(u[:, 0, 0, 0]) > 0.01
    both = points(("fake", "real"), REAL, FAKE, KEY)
    close(both, np.concatenate([FAKE, REAL]))


def test_a_flat_critic_has_a_finite_penalty_gradient():
    def total(w):
        return jnp.sum(wgan_gp(1.0)(lambda x: linear(x, w), REAL, FAKE, KEY))

    value, slope = jax.value_and_grad(total)(jnp.zeros(4))
    close(value, 3.0)
    close(slope, np.zeros(4))


def test_both_penalties_are_one_pass_over_the_joined_batch():
    calls = []

    def critic(x):
        calls.append(x.shape)
        return linear(x)

    jax.make_jaxpr(lambda x: r1_r2(1.0)(critic, x, FAKE, KEY))(REAL)
    assert calls == [(6, 2, 2, 1)]


def test_consistency_of_a_linear_critic():
    def shifted(x, key):
        return x + 0.5

    each = (0.5 * float(jnp.sum(W))) ** 2
    close(Consistency(shifted, 2.0)(linear, REAL, FAKE, KEY), [2 * each] * 3)
    both = Consistency(shifted, 2.0, ("real", "fake"))
    close(both(linear, REAL, FAKE, KEY), [4 * each] * 3)


def test_clipped_weights_stay_in_their_bounds():
    clip, params = clip_weights(0.5), {"a": jnp.array([0.2, -0.4, 3.0])}
    optimizer = optax.chain(optax.sgd(1.0), clip)
    grads = {"a": jnp.array([0.1, 0.3, 0.0])}
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    close(optax.apply_updates(params, updates)["a"], [0.1, -0.5, 0.5])
    with pytest.raises(BadInput, match=r"clip_weights\(0.0\)"):
        clip_weights(0.0)


def test_a_regulariser_says_where_it_looks():
    for make in (GradientPenalty, lambda w, at: Consistency(None, w, at)):
        for at in ((), ("fakes",)):
            with pytest.raises(BadInput, match="looks at some of real, fake, between"):
                make(1.0, at)


def test_squared_gradients_take_one_number_per_example():
    x = jnp.zeros((4, 3))
    for critic in (lambda x: x, lambda x: x[:, :1], jnp.sum):
        with pytest.raises(AssertionError):
            squared_gradients(critic, x)
    with pytest.raises(AssertionError):
        squared_gradients(lambda x: x[:, 0], x.astype(int))


# ---------------------------------------------------------------------- augmentations


def kernel(p):
    """Images of two pixels are mirrored with probability p/2: [2, 2]."""
    image = jnp.asarray([[0.0, 1.0], [1.0, 0.0]]).reshape(2, 1, 2, 1)
    many = jnp.repeat(image, 4_000, axis=0)
    seen = np.asarray(Gated((Flip(),))(many, KEY, p))[:, 0, 0, 0].reshape(2, -1)
    found = seen.mean(axis=1)  # P(second symbol)
    return np.stack([1 - found, found], axis=1)


def test_augmenting_both_by_a_group_leaves_the_optimum_where_it_was():
    """The generator's best fakes q are q = p; augmenting data alone moves them."""
    close(kernel(0.6), [[0.7, 0.3], [0.3, 0.7]], atol=0.03)
    k, p = np.array([[0.7, 0.3], [0.3, 0.7]]), np.array([0.9, 0.1])
    grid = np.linspace(0.01, 0.99, 99)
    fakes = np.stack([grid, 1 - grid], axis=1)
    both = [jensenshannon(p @ k, q @ k) for q in fakes]
    only_real = [jensenshannon(p @ k, q) for q in fakes]
    close(grid[np.argmin(both)], 0.9)
    close(grid[np.argmin(only_real)], (p @ k)[0])  # 0.66: it leaks into the samples


CHANGES = (Shift(1, fill=-1), Flip(), Cutout(), Colour())


def test_gated_changes_are_differentiable_and_as_often_as_asked():
    x = np.random.default_rng(0).uniform(0.2, 0.9, (300, 4, 4, 1)).astype(np.float32)

    @jax.jit
    def seen(p):
        changes = [Gated(CHANGES), Gated(CHANGES[2:3])]
        slope = jax.grad(lambda x: jnp.sum(jnp.square(changes[0](x, KEY, p))))(x)
        return [*(change(x, KEY, p) for change in changes), slope]

    close(seen(0.0)[0], x)
    cut = np.asarray(seen(0.25)[1] == 0).sum(axis=(1, 2, 3))
    assert abs(np.mean(cut > 0) - 0.25) < 0.08
    assert set(cut.tolist()) == {0, 4}  # half of either side
    slope = seen(1.0)[2]
    assert np.all(np.isfinite(slope)) and np.any(slope != 0)


def test_instance_noise_has_the_standard_deviation_asked_for():
    x = jnp.zeros((100, 100))
    for p in (0.0, 0.5):
        assert abs(np.std(InstanceNoise(0.2)(x, KEY, p)) - 0.2 * p) < 2e-3


def test_the_adaptive_probability_rises_only_where_the_critic_overfits():
    ada, p = Adaptive(target=0.6, examples=1_000), jnp.float32(0.5)
    assert ada.moved(p, jnp.ones(10)) > p
    right = jnp.array([1.0] * 7 + [-1.0] * 3)  # E sign = 0.4
    close(ada.moved(p, right), 0.5 - 0.01)
    close(ada.moved(jnp.float32(0.0), -jnp.ones(10)), 0.0)
    close(ada.moved(jnp.float32(0.995), jnp.ones(10)), 1.0)
