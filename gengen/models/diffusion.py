"""Diffusion and flow matching: regression onto one row of a 2×2 matrix.

Data x and noise ε are mixed into z = a(t) x + b(t) ε; a network sees (z, t) and is
asked for r = c x + d ε. Its optimum is the conditional mean E[r | z], which knows the
score of every noised density, and so an ODE (or SDE) that carries noise to data. Which
path, which row, which times, which solver: four values, see `diffusion.process`.

    Process(Linear(), Velocity()), Uniform, Euler       flow matching
    Process(VariancePreserving(), Noise()), DDPM        denoising diffusion

Labels are dropped with probability `label_dropout` in training, so that one network is
both conditional and, at the null label, unconditional: classifier-free guidance.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.diffusion.guidance import guided
from gengen.diffusion.matching import matching_loss
from gengen.diffusion.process import Process, corrupt, recover, usable_times
from gengen.diffusion.solvers import Euler, Solver, solve
from gengen.diffusion.times import Times, Uniform, draw, uniform_grid
from gengen.images import to_unit
from gengen.labels import given_labels, sample_labels
from gengen.objective import Bind
from gengen.scan import fold_in, normal, sample_keys
from gengen.types import Array, BadInput, no_density, static


@static
class Diffusion:
    """net (z, t, label) -> r̂, and what is asked of it.

    shape (H, W, C) and levels describe the data. times: the distribution of training
    times. space: the prediction in which the error is measured, None for the
    process' own. solver, steps and guidance_scale: the sampler's defaults.
    num_classes: 0 for unconditional; label num_classes is the null label.
    """

    net: nn.Module
    process: Process
    shape: tuple[int, int, int]
    levels: int = 256
    times: Times = Uniform()
    space: Process | None = None
    num_classes: int = 0
    label_dropout: float = 0.1
    solver: Solver = Euler()
    steps: int = 50
    guidance_scale: float = 1.0
    density: ClassVar[str] = "none"

    def init(self, key, batch):
        x = to_unit(batch["image"][:1], self.levels)
        label = batch["label"][:1] if self.num_classes else None
        params = self.net.init(key, x, jnp.zeros(1), label)["params"]
        return {"denoiser": params}, {}

    def losses(self):
        return {"denoiser": Bind(Diffusion.loss, self)}

    def denoiser(self, params, label=None, **kwargs):
        """`denoise(z, t) -> r̂` with parameters and label bound; t [] or [B]."""
        weights = {"params": params["denoiser"]}

        def denoise(z, t):
            t = jnp.broadcast_to(t, z.shape[:1])
            return self.net.apply(weights, z, t, label, **kwargs)

        return denoise

    def training_times(self) -> tuple[float, float]:
        """(t_min, t_max): where the process, and the space of its loss, is regular."""
        spans = [usable_times(p) for p in (self.process, self.space) if p is not None]
        return max(low for low, _ in spans), min(high for _, high in spans)

    def loss(self, params, state, batch, key):
        """Mean of `matching_loss` over fresh noise, times and dropped labels."""
        key_noise, key_time, key_label, key_dropout = jax.random.split(key, 4)
        x = to_unit(batch["image"], self.levels)
        t = draw(self.times, key_time, x.shape[0], self.training_times())
        label = None
        if self.num_classes:
            drop = jax.random.bernoulli(key_label, self.label_dropout, t.shape)
            label = jnp.where(drop, self.num_classes, batch["label"])
        rngs = {"dropout": key_dropout}
        denoise = self.denoiser(params, label, train=True, rngs=rngs)
        noise = jax.random.normal(key_noise, x.shape)
        loss = matching_loss(denoise, self.process, x, noise, t, self.space)
        return jnp.mean(loss), (state, {})

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one latent: noise as large as the data."""
        return self.shape

    def from_latent(
        self,
        params,
        state,
        z: Array,
        *,
        label=None,
        keys: Array | None = None,
        guidance_scale=None,
        steps: int | None = None,
        solver: Solver | None = None,
    ) -> Array:
        """Carry noise z [B, H, W, C] to data: the solver along an even grid of times.

        label: int or [B], of a conditional model. guidance_scale: 1 for none (one
        network call), else two calls. keys [B]: for a stochastic solver; by default
        all rows share one, so that this is a function of z. Raises BadInput for
        guidance without a null label.
        """
        solver = self.solver if solver is None else solver
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        if keys is None:
            keys = jnp.broadcast_to(jax.random.key(0), z.shape[:1])
        label = given_labels(label, z.shape[0], self.num_classes)
        denoise = self.denoiser(params, label)
        if self._guided(scale):
            null = jnp.full_like(label, self.num_classes)
            denoise = guided(denoise, self.denoiser(params, null), scale)
        span = usable_times(self.process)
        grid = uniform_grid(self.steps if steps is None else steps, span)
        x = solve(solver, keys, denoise, self.process, z, grid)
        if span[0] > 0:  # The grid stops short of the data: jump to E[x | z].
            x = recover(self.process, x, denoise(x, grid[-1]), grid[-1])[0]
        return x

    def sample(self, params, state, key, num, *, first=0, label=None, **sampler):
        """[num, H, W, C] in data space: `from_latent` of noise, with its keywords.

        label: int or [num], uniform if None.
        """
        keys = sample_keys(key, num, first)
        label = sample_labels(keys, label, self.num_classes)
        z, keys = normal(keys, self.latent_shape), fold_in(keys, 1)
        return self.from_latent(params, state, z, label=label, keys=keys, **sampler)

    def log_likelihood(self, params, state, batch, key):
        """Raises BadInput: there is no density of x."""
        no_density("this diffusion model")

    def features(self, params, state, batch, key, t: float = 0.1) -> Array:
        """The network's middle activations [B, F] at time t, without a label.

        Needs a net that sows "features". Baranchuk et al. 2022, arXiv:2112.03126;
        Xiang et al. 2023, arXiv:2303.09769.
        """
        x = to_unit(batch["image"], self.levels)
        noise, t = jax.random.normal(key, x.shape), jnp.full(x.shape[0], t)
        z, _ = corrupt(self.process, x, noise, t)
        weights = {"params": params["denoiser"]}
        _, sown = self.net.apply(weights, z, t, mutable="intermediates")
        return sown["intermediates"]["features"][0].reshape(x.shape[0], -1)

    def _guided(self, guidance_scale) -> bool:
        traced = isinstance(guidance_scale, jax.core.Tracer)
        if not traced and float(guidance_scale) == 1:
            return False
        if self.num_classes == 0 or self.label_dropout == 0:
            reason = (
                "the model is unconditional"
                if self.num_classes == 0
                else "it was trained with label_dropout=0, so it has no null label"
            )
            raise BadInput(
                f"guidance_scale={guidance_scale}: {reason}; leave it at 1, or train "
                "with labels and label_dropout > 0"
            )
        return True

    def evaluations(
        self, *, guidance_scale=None, steps: int | None = None, solver=None
    ) -> int:
        """Network calls a sample: steps × solver's × 2 if guided, and a last jump."""
        solver = self.solver if solver is None else solver
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        calls = solver.evaluations * (self.steps if steps is None else steps)
        calls += usable_times(self.process)[0] > 0
        return calls * (2 if self._guided(scale) else 1)
