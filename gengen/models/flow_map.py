"""One jump from noise to data: a network of the average velocity over an interval.

The network knows a second time r, and its answer carries z from t to r in one call:

    z_r = z_t - (t - r) u(z_t, t, r)

so that x = z_1 - u(z_1, 1, 0) is a sample, and n steps are n such jumps. What u is
taught is a value (`gengen.diffusion.flow_maps`):

    FlowMap(net, ..., objective=meanflow_loss)                  MeanFlow
    FlowMap(net, ..., objective=improved_meanflow_loss)         improved MeanFlow
    FlowMap(net, ..., objective=shortcut_loss, pairs=DyadicTimes())   shortcut models

A loss says little of the samples (it stays where it is while they improve), because its
target moves with the network: look at samples, or measure them.

Geng et al. 2025, arXiv:2505.13447, arXiv:2512.02012; Frans et al. 2024,
arXiv:2410.12557.
"""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import Condition, Given, Nothing, both, check_batch, drop
from gengen.diffusion.flow_maps import (
    SECOND_TIME,
    DyadicTimes,
    SortedTimes,
    jump,
    meanflow_loss,
    shortcut_loss,
)
from gengen.diffusion.process import Process, Velocity, corrupt
from gengen.errors import BadInput, no_density
from gengen.nets.conditioning import agree, init_params
from gengen.objective import loss
from gengen.scan import normal, sample_keys
from gengen.spaces import Space
from gengen.types import Array, HasFeatures, HasLatents, static


@static
class Jumps:
    """A sampler of flow maps: jumps of equal length from noise to data."""

    steps: int = 1
    """Their number."""

    def __post_init__(self):
        if not isinstance(self.steps, int) or self.steps < 1:
            raise BadInput(f"steps={self.steps!r}: a sample takes one jump or more")


@static
class FlowMap(HasLatents, HasFeatures):
    """A network (z, t, c with c["r"]) -> the average velocity from t down to r."""

    net: nn.Module
    """(z, t, c) -> u; its own condition is the model's and `SECOND_TIME`."""
    process: Process
    """A path, with the velocity predicted."""
    space: Space
    """The type of x."""
    condition: Condition = Nothing()
    """What the network knows beside z, t and r."""
    objective: Callable = meanflow_loss
    """`meanflow_loss`, `improved_meanflow_loss` or `shortcut_loss`."""
    pairs: SortedTimes | DyadicTimes = SortedTimes()
    """How the two times of a row are drawn."""
    power: float = 1.0
    """Each row's loss L is weighed by (L + 0.001)^-power, gradient stopped (Geng et al.
    2025, arXiv:2505.13447, equation 22)."""
    condition_dropout: float = 0.1
    """The share of rows whose condition is null."""
    scale: float = 1.0
    """Guidance, learned: the map is of the velocity v₀ + scale · (v - v₀), with v₀ the
    network's own without its condition (Geng et al. 2025, arXiv:2505.13447, equation
    19), so that a sample is guided without a second call. 1 is none."""
    sampler: Jumps = Jumps()
    """How many jumps a sample takes, by default."""
    density: ClassVar[str] = "none"

    def __post_init__(self):
        agree(self.net, self.condition, SECOND_TIME)
        if self.process.prediction != Velocity():
            raise BadInput(
                f"a flow map of {self.process.prediction}: averages are of the "
                "velocity, so take Process(path, Velocity())"
            )
        path = self.process.path
        with jax.ensure_compile_time_eval():
            ends = [
                float(f(jnp.float32(t))) for t in (0.0, 1.0) for f in (path.a, path.b)
            ]
        if ends != [1.0, 0.0, 0.0, 1.0]:
            raise BadInput(
                f"a flow map on {path}, which does not go from the data to noise of "
                "variance 1: take Linear()"
            )
        half = getattr(self.net, "dtype", None) not in (None, jnp.float32)
        if half and self.objective is not shortcut_loss:
            raise BadInput(
                f"a derivative in time through layers of {jnp.dtype(self.net.dtype)}, "
                "which ends in NaN: take float32, or shortcut_loss, which has none"
            )
        learns_null = self.condition.droppable and self.condition_dropout > 0
        if self.scale != 1 and not learns_null:
            raise BadInput(
                f"scale={self.scale}: guidance is away from samples without a "
                "condition, which this map never learns; give a condition with a null, "
                "and condition_dropout above 0"
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

    @staticmethod
    def _average(predict: Callable, c: Given) -> Callable:
        """(z, t, r) -> u, of a condition."""
        return lambda z, t, r: predict(z, t, {**c, SECOND_TIME.key: r})

    @loss
    def loss(self, params, state, batch, key):
        """The adaptively weighed mean of the objective; metric "error": unweighed."""
        key_noise, key_times, key_c, key_dropout = jax.random.split(key, 4)
        x, c = self.space.read(batch), self.condition.read(batch)
        c = drop(self.condition, key_c, self.condition_dropout, c)
        noise = jax.random.normal(key_noise, x.shape)
        r, t = self.pairs.draw(key_times, self.process.path, len(x))
        z, v = corrupt(self.process, x, noise, t)
        predict = self.predictor(params, train=True, rngs={"dropout": key_dropout})
        u = self._average(predict, c)
        if self.scale != 1:
            null = self._average(predict, self.condition.null(c))(z, t, t)
            v = jax.lax.stop_gradient(null + self.scale * (v - null))
        each = self.objective(u, z, v, r, t)
        weight = jax.lax.stop_gradient((each + 1e-3) ** -self.power)
        return jnp.mean(weight * each), (state, {"error": jnp.mean(each)})

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one latent: noise as large as the data."""
        return self.space.shape

    def from_latent(
        self, params, state, z: Array, *, sampler: Jumps | None = None, **given
    ) -> Array:
        """x of noise z [B, *shape]: z ← z - (t - r) u along even times from 1 to 0."""
        c = self.condition.given(given, len(z), None)
        return self._carried(params, z, c, sampler)

    def _carried(self, params, z, c, sampler) -> Array:
        steps = (sampler or self.sampler).steps
        times = jnp.linspace(1.0, 0.0, steps + 1, dtype=z.dtype)
        u = self._average(self.predictor(params), c)

        def step(z, t_r):
            return jump(u, z, *(jnp.full(len(z), time) for time in t_r)), None

        return jax.lax.scan(step, z, (times[:-1], times[1:]))[0]

    def sample(
        self,
        params,
        state,
        key,
        num,
        *,
        start_index=0,
        sampler: Jumps | None = None,
        **given,
    ) -> Array:
        """x [num, *shape]: `from_latent` of noise. What is not given is drawn."""
        keys = sample_keys(key, num, start_index)
        c = self.condition.given(given, num, keys, self.condition_dropout > 0)
        return self._carried(params, normal(keys, self.latent_shape), c, sampler)

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
        no_density("a flow map")

    def nfe(self, sampler: Jumps | None = None) -> int:
        """Network calls per sample."""
        return (sampler or self.sampler).steps
