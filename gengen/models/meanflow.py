"""MeanFlow: the average velocity over an interval of time, so that one step samples.

With velocity v = dz/dt along the flow, the average from r to t is

    u(z_t, t, r) = (z_t - z_r)/(t - r) = 1/(t - r) ∫_r^t v(z_τ, τ) dτ,

and differentiating (t - r) u in t gives the MeanFlow identity

    u = v - (t - r) du/dt,    du/dt = v · ∂_z u + ∂_t u.                    (equation 6)

A network that knows a second time r regresses u onto the right side, gradient stopped,
with the conditional velocity a′x + b′ε in the place of its mean v: one `jax.jvp` of the
network. At r = t the target is v itself, which is flow matching. Then a sample is

    x = z_1 - u(z_1, 1, 0),

and n steps are n such jumps. Geng et al. 2025, arXiv:2505.13447.
"""

from collections.abc import Callable
from typing import ClassVar

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import (
    Condition,
    Given,
    Nothing,
    Scalar,
    both,
    check_batch,
    drop,
)
from gengen.diffusion.process import Process, Velocity, corrupt, expand
from gengen.diffusion.times import LogitNormal, Times
from gengen.errors import BadInput, no_density
from gengen.nets.conditioning import agree, init_params
from gengen.objective import loss
from gengen.scan import normal, sample_keys
from gengen.spaces import Space
from gengen.types import Array, HasFeatures, HasLatents, static

SECOND_TIME = Scalar("r")


def meanflow_loss(
    predict: Callable,
    process: Process,
    x: Array,
    noise: Array,
    r: Array,
    t: Array,
    c: Given,
) -> Array:
    """|u(z, t, c + r) - stop(v - (t - r) du/dt)|², a mean over dimensions: [B].

    Geng et al. 2025, equations 9 to 11.

    Args:
        predict: (z, t, c) -> u, which reads c["r"]; differentiated along (v, 1, 0).
        process: a path with the velocity as its prediction.
        x: data [B, ...].
        noise: like x.
        r: the earlier times [B], in [0, t].
        t: the later times [B].
        c: the condition, without r.

    >>> from gengen.diffusion.paths import Linear
    >>> exact = lambda z, t, c: z / t[:, None]  # of data at 0: u = v = ε
    >>> flow, one = Process(Linear(), Velocity()), jnp.ones((1, 1))
    >>> meanflow_loss(exact, flow, 0 * one, one, 0.2 * one[0], 0.5 * one[0], {}).item()
    0.0
    """
    chex.assert_equal_shape((x, noise))
    chex.assert_shape((r, t), x.shape[:1])
    z, v = corrupt(process, x, noise, t)

    def u(z, t, r):
        return predict(z, t, {**c, SECOND_TIME.key: r})

    along = v, jnp.ones_like(t), jnp.zeros_like(r)
    value, slope = jax.jvp(u, (z, t, r), along)
    target = jax.lax.stop_gradient(v - expand(t - r, z) * slope)
    return jnp.mean(jnp.square(value - target).reshape(len(z), -1), axis=-1)


@static
class MeanFlow(HasLatents, HasFeatures):
    """A network (z, t, c with c["r"]) -> the average velocity from t down to r."""

    net: nn.Module
    """(z, t, c) -> u; its own condition is the model's and `SECOND_TIME`."""
    process: Process
    """A path, with the velocity predicted."""
    space: Space
    """The type of x."""
    condition: Condition = Nothing()
    """What the network knows beside z, t and r."""
    times: Times = LogitNormal(-0.4, 1.0)
    """The distribution of both times, of which the greater is t (table 1d)."""
    equal: float = 0.75
    """The share of rows with r = t, which learn the velocity (table 1a)."""
    power: float = 1.0
    """Each row's loss L is weighed by (L + 0.001)^-power, gradient stopped (eq. 22)."""
    condition_dropout: float = 0.1
    """The share of rows whose condition is null."""
    steps: int = 1
    """The jumps of a sample."""
    density: ClassVar[str] = "none"

    def __post_init__(self):
        agree(self.net, self.condition, SECOND_TIME)
        if self.process.prediction != Velocity():
            raise BadInput(
                f"a MeanFlow of {self.process.prediction}: averages are of the "
                "velocity, so take Process(path, Velocity())"
            )
        path = self.process.path
        with jax.ensure_compile_time_eval():
            ends = [
                float(f(jnp.float32(t))) for t in (0.0, 1.0) for f in (path.a, path.b)
            ]
        if ends != [1.0, 0.0, 0.0, 1.0]:
            raise BadInput(
                f"a MeanFlow on {path}, which does not go from the data to noise of "
                "variance 1: take Linear()"
            )
        if self.steps < 1 or not 0 <= self.equal <= 1:
            raise BadInput(
                f"steps={self.steps}, equal={self.equal}: at least one step, and a "
                "share from 0 to 1"
            )

    def init(self, key, batch=None):
        """Parameters; a batch is checked and not needed."""
        check_batch(self.space, self.condition, batch)
        c = both(self.condition, SECOND_TIME).zeros(1)
        params = init_params(self.net, key, self.space.zeros(1), jnp.zeros(1), c)
        return {"denoiser": params}, {}

    def losses(self):
        return {"denoiser": self.loss}

    def predictor(self, params, **kwargs) -> Callable:
        """`predict(z, t, c) -> u` with the parameters bound; c holds r, too."""
        weights = {"params": params["denoiser"]}

        def predict(z, t, c):
            t = jnp.broadcast_to(t, z.shape[:1])
            return self.net.apply(weights, z, t, c, **kwargs)

        return predict

    @loss
    def loss(self, params, state, batch, key):
        """The adaptively weighed mean of `meanflow_loss`; metric "error": unweighed."""
        key_noise, key_t, key_r, key_equal, key_c, key_dropout = jax.random.split(
            key, 6
        )
        x, c = self.space.read(batch), self.condition.read(batch)
        c, num = drop(self.condition, key_c, self.condition_dropout, c), len(x)
        noise = jax.random.normal(key_noise, x.shape)
        one, other = (
            self.times.quantile(jax.random.uniform(k, (num,)), self.process.path)
            for k in (key_t, key_r)
        )
        t, r = jnp.maximum(one, other), jnp.minimum(one, other)
        r = jnp.where(jax.random.bernoulli(key_equal, self.equal, (num,)), t, r)
        predict = self.predictor(params, train=True, rngs={"dropout": key_dropout})
        each = meanflow_loss(predict, self.process, x, noise, r, t, c)
        weight = jax.lax.stop_gradient((each + 1e-3) ** -self.power)
        return jnp.mean(weight * each), (state, {"error": jnp.mean(each)})

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one latent: noise as large as the data."""
        return self.space.shape

    def from_latent(self, params, state, z: Array, **given) -> Array:
        """x of noise z [B, *shape]: z ← z - (t - r) u along even times from 1 to 0."""
        c, predict = self.condition.given(given, len(z), None), self.predictor(params)
        return self._jumps(predict, z, c)

    def _jumps(self, predict, z, c) -> Array:
        times = jnp.linspace(1.0, 0.0, self.steps + 1, dtype=z.dtype)

        def jump(z, t_r):
            t, r = (jnp.full(len(z), time) for time in t_r)
            mean = predict(z, t, {**c, SECOND_TIME.key: r})
            return z - expand(t - r, z) * mean, None

        return jax.lax.scan(jump, z, (times[:-1], times[1:]))[0]

    def sample(self, params, state, key, num, *, start_index=0, **given) -> Array:
        """x [num, *shape]: `from_latent` of noise. What is not given is drawn."""
        keys = sample_keys(key, num, start_index)
        c = self.condition.given(given, num, keys, self.condition_dropout > 0)
        return self._jumps(self.predictor(params), normal(keys, self.latent_shape), c)

    def features(self, params, state, batch, key, t: float = 0.1) -> Array:
        """The network's middle activations [B, F] at r = t, without a condition.

        It needs a net that sows "features", as `Diffusion.features` does.
        """
        x = self.space.read(batch)
        noise, t = jax.random.normal(key, x.shape), jnp.full(len(x), t)
        z, _ = corrupt(self.process, x, noise, t)
        weights, c = {"params": params["denoiser"]}, {SECOND_TIME.key: t}
        _, sown = self.net.apply(weights, z, t, c, mutable="intermediates")
        return sown["intermediates"]["features"][0].reshape(len(x), -1)

    def log_likelihood(self, params, state, batch, key):
        """Raises BadInput: averages of the velocity have no divergence to integrate."""
        no_density("a MeanFlow")

    def nfe(self) -> int:
        """Network calls per sample."""
        return self.steps
