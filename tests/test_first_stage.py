"""Laws of first stages of latent models: the game, its weight, its start."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from gengen.errors import BadInput
from gengen.latent.objectives import ELBO
from gengen.latent.quantizers import FiniteScalar
from gengen.losses.adversarial import Wasserstein
from gengen.losses.perceptual import perceptual_distance
from gengen.models.first_stage import VQGAN, AutoencoderKL
from gengen.models.vqvae import VQVAE
from gengen.nets.maps import Halves
from gengen.objective import Delayed
from gengen.observations.laplace import Laplace
from gengen.spaces import Reals
from gengen.types import Variables, static
from train.data.dataset import Spec
from train.run.samples import Restored, picture


class Linear(nn.Module):
    """A linear map of images of one pixel, whose last layer is all there is."""

    features: int
    last_layer = ("Dense_0", "kernel")

    @nn.compact
    def __call__(self, x, c=None, train=False):
        del c, train
        return nn.Dense(self.features, use_bias=False)(x)


class Unnamed(Linear):
    """Its last layer is somewhere else."""

    last_layer = ("Dense_1", "kernel")


class Critic(nn.Module):
    """w · x: linear, so that a game's gradient is known."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1, use_bias=False)(x)[..., 0]


def model(**more):
    return AutoencoderKL(
        Halves(Linear(4)), Linear(3), Laplace(), Reals((1, 1, 3)), (1, 1, 2), **more
    )


GAME = {"discriminator": Critic(), "game": Wasserstein()}


def problem(**more):
    made, key = model(**more), jax.random.key(0)
    params, state = made.init(key)
    x = jax.random.normal(jax.random.key(1), (5, 1, 1, 3))
    return made, params, {**state, "step": jnp.int32(3)}, {"latent": x}, key


@pytest.mark.parametrize("most", [1e6, 0.01])
def test_the_weight_of_the_game_is_the_ratio_by_hand(most):
    """A last layer hK is linear: ∇ of mean |x - hK|/D and of -mean hKw are known."""
    made, params, state, batch, key = problem(**GAME, weight=0.3, most=most)
    value, (_, metrics) = jax.jit(made.loss)(params, state, batch, key)
    x = np.asarray(batch["latent"], np.float64)[:, 0, 0]
    own = params["vae"]
    mean, logvar = (
        np.asarray(a, np.float64)[:, 0, 0] for a in made.posterior(params, batch)
    )
    noise = jax.random.normal(jax.random.split(key)[0], (5, 1, 1, 2))[:, 0, 0]
    h = mean + np.exp(logvar / 2) * noise
    kernel = np.asarray(own["decoder"]["Dense_0"]["kernel"], np.float64)
    w = np.asarray(params["discriminator"]["Dense_0"]["kernel"], np.float64)
    error = h @ kernel - x
    of_error = h.T @ np.sign(error) / x.size  # s = 1, the mean over 5 × 3
    of_game = -np.mean(h, 0)[:, None] @ w.T
    norm = np.linalg.norm
    ratio = min(norm(of_error) / (norm(of_game) + 1e-4), most)
    np.testing.assert_allclose(metrics["balance"], ratio, rtol=1e-5)
    kl = 0.5 * (np.exp(logvar) + mean**2 - 1 - logvar).sum(1).mean()
    np.testing.assert_allclose(metrics["kl"], kl, rtol=1e-5)
    nats = np.abs(error).mean() + np.log(2) + 1e-4 * kl / 3
    game = -np.mean(h @ kernel @ w)
    np.testing.assert_allclose(value, nats + 0.3 * ratio * game, rtol=1e-5)


@static
class Channels:
    """A network whose maps are the image, and its square."""

    def maps(self, params, state, x):
        return [x, params["scale"] * jnp.square(x)]


def test_the_perceptual_distance_is_added_and_balanced_with_the_error():
    """2 (1 - cos) of each map, by hand; what the game is held against includes it."""
    more = {"perceptual": Channels(), "perceptual_weight": 0.7}
    made, params, state, batch, key = problem(**GAME, **more)
    state["frozen"] = {"perceptual": Variables({"scale": 2.0}, {})}
    plain = model(**GAME)

    @jax.jit
    def losses():
        restored = made.restored(params, state, batch, key)[1]
        found, plainly = (m.loss(params, state, batch, key) for m in (made, plain))
        return restored, found, plainly

    restored, (value, (_, said)), (without, (_, other)) = losses()
    x, y = (np.asarray(a, float)[:, 0, 0] for a in (batch["latent"], restored))

    def apart(u, v):
        norms = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
        return 2 - 2 * np.sum(u * v, axis=1) / norms

    by_hand = np.mean(apart(x, y) + apart(x**2, y**2))
    np.testing.assert_allclose(said["perceptual"], by_hand, rtol=1e-4)
    assert said["balance"] != other["balance"]
    more = 0.5 * (said["balance"] - other["balance"]) * said["game"]
    np.testing.assert_allclose(value, without + 0.7 * by_hand + more, rtol=1e-4)


def test_a_distance_of_maps_has_a_gradient_at_zero_and_no_units():
    u, v = jax.random.normal(jax.random.key(0), (2, 3, 2, 2, 4))
    zero = jnp.zeros_like(u)
    slope = jax.jit(jax.grad(lambda u, v: perceptual_distance([u], [v]).sum()))
    assert np.isfinite(slope(zero, zero)).all() and np.isfinite(slope(zero, v)).all()
    pairs = [(u, v), (9 * v, u), (u, 3 * u)]
    apart = jax.jit(lambda pairs: [perceptual_distance([a], [b]) for a, b in pairs])
    one, other, same = apart(pairs)
    np.testing.assert_allclose(one, other, rtol=1e-5)
    np.testing.assert_allclose(same, 0, atol=1e-6)


def test_a_first_stage_shows_what_it_restores():
    spec = Spec("noise", (8, 8, 1), 17, 0, ())
    batches = [{"image": np.zeros((4, 8, 8, 1), np.uint8)}]
    assert isinstance(picture(model(), spec, 0, 4, batches, None), Restored)


def test_before_its_start_the_game_moves_nothing_but_the_critic():
    """The same loss and gradient as without a critic, whose own gradient is there."""
    late = problem(**GAME, weight=Delayed(0.5, 4))
    made, params, state, batch, key = late
    plain = model()
    own = {"vae": params["vae"]}
    there = jax.jit(jax.value_and_grad(made.loss, has_aux=True))(
        params, state, batch, key
    )
    without = jax.jit(jax.value_and_grad(plain.loss, has_aux=True))(
        own, state, batch, key
    )
    np.testing.assert_allclose(there[0][0], without[0][0], rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7),
        there[1]["vae"],
        without[1]["vae"],
    )
    critic = jax.grad(lambda p: made.play_discriminator(p, state, batch, key)[0])
    gradient = jax.device_get(jax.jit(critic)(params))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["vae"]))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient["discriminator"]))
    later = {**state, "step": np.int32(4)}
    after = jax.jit(made.loss)(params, later, batch, key)[0]
    assert after != there[0][0]


def test_a_vqgan_without_a_critic_is_a_vqvae_per_dimension():
    """And with one before its start; the book moves in the same way."""
    own = Linear(2), Linear(3), FiniteScalar((3, 3)), Laplace(), Reals((1, 1, 3))
    plain, gan = (kind(*own, (1, 1), 0.5) for kind in (VQVAE, VQGAN))
    late = dataclasses.replace(gan, **GAME, weight=Delayed(0.5, 4))
    x, key = jax.random.normal(jax.random.key(1), (5, 1, 1, 3)), jax.random.key(0)

    @jax.jit
    def losses():
        params, state = late.init(key)
        state = {**state, "step": jnp.int32(3)}
        pairs = [(plain, own := {"vqvae": params["vqvae"]}), (gan, own), (late, params)]
        return [m.loss(p, state, {"latent": x}, key)[0] for m, p in pairs]

    nats, *values = losses()
    np.testing.assert_allclose(values, [nats / 3] * 2, rtol=1e-6)


def test_a_laplace_density_is_one_and_its_scale_the_mean_error():
    params, feature = {"log_scale": jnp.float32(-0.4)}, jnp.array([0.3])
    grid = np.linspace(-12, 12, 24_001)
    log_p = Laplace().log_prob(params, jnp.broadcast_to(feature, (24_001, 1)), grid)
    np.testing.assert_allclose(integrate.simpson(np.exp(log_p), x=grid), 1, atol=1e-5)
    data = jnp.array([0.0, 1.0, -2.0])
    best = jnp.log(jnp.mean(jnp.abs(data)))

    def nats(scale):
        return -Laplace().log_prob({"log_scale": scale}, jnp.zeros((3, 1)), data).sum()

    assert abs(jax.grad(nats)(best)) < 1e-6
    keys = jax.random.split(jax.random.key(0), 4_000)
    drawn, _ = Laplace().sample(params, keys, jnp.zeros((4_000, 1, 1)))
    np.testing.assert_allclose(jnp.mean(jnp.abs(drawn)), np.exp(-0.4), rtol=0.06)


def test_what_makes_no_first_stage_is_refused():
    with pytest.raises(BadInput, match="an ELBO with a β alone"):
        model(objective=ELBO(free_nats=1.0))
    made = dataclasses.replace(model(**GAME), decoder=Unnamed(3))
    with pytest.raises(BadInput, match="Unnamed does not say where its last layer"):
        made.init(jax.random.key(0))
