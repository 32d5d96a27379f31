"""Diffusion and flow matching: regression onto one row of a 2×2 matrix.

Data x and noise ε are mixed into z = a(t) x + b(t) ε; a network sees (z, t, c) and is
asked for r = c x + d ε. Its optimum is the conditional mean E[r | z], which knows the
score of every noised density, and so an ODE (or SDE) that carries noise to data. Every
method of the literature is a choice of values, see `diffusion.process` and `presets`:

    Process(Linear(), Velocity()), LogitNormal, Euler               flow matching
    Process(DDPMSchedule(), Noise()), Steps, DDPM                   DDPM
    Process(VarianceExploding(), Score()), ErrorIn(Noise()), PredictorCorrector
                                                                    score SDE
    Process(Karras(s), EDM(s)), LogNormal, EDMSampler               EDM

Four views of the same object, each of which is a method:

    a deep latent-variable model   `log_likelihood`, a bound on log p(x) term by term
    a score, a field to walk along `predictor` and `process.score`
    an SDE and its ODE             `sample` by any solver, `to_latent` and back
    regression                     `loss`

The condition is null in a share of the rows in training, so that one network is both
conditional and unconditional: classifier-free guidance.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import (
    Condition,
    Nothing,
    Scalar,
    check_batch,
    drop,
    union,
)
from gengen.diffusion.guidance import Guidance
from gengen.diffusion.inverse import inverse_solver
from gengen.diffusion.likelihood import LikelihoodEstimator, VariationalBound
from gengen.diffusion.parallel import solve_parallel
from gengen.diffusion.predictors import check_guidance, dry_run, means, nested
from gengen.diffusion.process import Process, corrupt
from gengen.diffusion.sampler import Sampler
from gengen.diffusion.solve import denoise, invert, solve_to_data
from gengen.diffusion.training import Training
from gengen.errors import BadInput
from gengen.nets.conditioning import agree
from gengen.objective import loss
from gengen.scan import fold_in, normal, sample_keys
from gengen.spaces import Space, Symbols
from gengen.types import (
    Array,
    Completes,
    Completion,
    HasFeatures,
    HasLatents,
    Inverts,
    frozen,
    static,
)


@static
class Diffusion(HasLatents, Inverts, HasFeatures, Completes):
    """A network (z, t, c) -> r̂, and what is asked of it.

    In every method `sampler` is a `Sampler` in the place of the model's own, and
    `**given` is the condition by name: one value for all rows, or one per row.
    """

    net: nn.Module
    """(z, t, c) -> r̂; with a learned variance, of twice the channels of z."""
    process: Process
    """The path and what is predicted along it."""
    space: Space
    """The type of x."""
    condition: Condition = Nothing()
    """What the network knows beside z and t."""
    training: Training = Training()
    """What the loss draws and weighs."""
    sampler: Sampler = Sampler()
    """How noise is carried to data, by default."""
    likelihood: LikelihoodEstimator = VariationalBound()
    """What `log_likelihood` estimates."""
    density: ClassVar[str] = "bound"

    def __post_init__(self):
        agree(self.net, self.condition)
        if isinstance(self.space, Symbols):
            raise BadInput(
                f"{self.space} has symbols without order, between which nothing can be "
                "mixed: take an autoregressive model, or Reals of their embedding"
            )

    @property
    def likelihood_kind(self) -> str:
        """What `log_likelihood` is: "VLB", "PF-ODE, uniform dequantisation", …"""
        return self.likelihood.kind

    def init(self, key, batch=None):
        """Parameters and state; a batch is checked and not needed."""
        check_batch(self.space, self.condition, batch)
        x, c = self.space.zeros(1), self.condition.zeros(1)
        params = self.net.init(key, x, jnp.zeros(1), c)["params"]
        return {"denoiser": params}, self.training.init()

    def losses(self):
        return {"denoiser": self.loss}

    def predictor(self, params, **kwargs) -> Callable:
        """`predict(z, t, c) -> r̂` with the parameters bound; t [] or [B].

        The network sees its own entries of c, and no other's. The r̂ of a network that
        learns variances has twice the channels of z.
        """
        weights = {"params": params["denoiser"]}

        def predict(z, t, c):
            t = jnp.broadcast_to(t, z.shape[:1])
            own = {name: c[name] for name in self.condition.names if name in c}
            return self.net.apply(weights, z, t, own, **kwargs)

        return predict

    @loss
    def loss(self, params, state, batch, key):
        """Mean of `matching_loss` over fresh noise, times and dropped conditions."""
        key_noise, key_time, key_c, key_dropout, key_pair = jax.random.split(key, 5)
        x, c = self.space.read(batch), self.condition.read(batch)
        noise = jax.random.normal(key_noise, x.shape)
        noise = self.training.coupling(key_pair, x, noise, c)
        c = drop(self.condition, key_c, self.training.condition_dropout, c)
        network = self.predictor(params, train=True, rngs={"dropout": key_dropout})

        def predict(z, t):
            return network(z, t, c)

        def loss(t):
            return self.training.each(predict, self.process, x, noise, t)

        ask = loss, self.process, key_time, len(x), state
        value, state = self.training.mean(*ask)
        return value, (state, {})

    # ------------------------------------------------------------ sampling

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one latent: noise as large as the data."""
        return self.space.shape

    def sampling_condition(self, sampler: Sampler | None = None) -> Condition:
        """What a sample can be asked for: the model's condition, and what guides read.

        A guiding model adds its own condition, a scale of None the number "guidance".
        """
        sampler = sampler or self.sampler
        parts = [self.condition, *(guide.condition for guide in sampler.guides)]
        if sampler.guidance.model is not None:
            parts.append(sampler.guidance.model.condition)
        if sampler.guidance.scale is None and "guidance" not in self.condition.names:
            parts.append(Scalar("guidance"))
        return union(*parts)

    def guided_predictor(
        self, params, state, sampler: Sampler | None = None
    ) -> Callable:
        """`predict(z, t, c)` as the sampler guides it, and as its solver wants it."""
        sampler = sampler or self.sampler
        guidance, predict = sampler.guidance, self.predictor(params)
        self._refuse_guidance(guidance)
        predictors = nested(predict, guidance, self.condition)
        if guidance.scales and guidance.model is not None:
            guiding = guidance.model.predictor(frozen(state, "guide").params)
            predictors = [guiding, predict]
        predict = guidance(self.process, predictors)
        for guide in sampler.guides:
            predict = guide(predict, self.process, state)
        wanted = sampler.solver.traits.wants_variance
        return predict if wanted else means(predict)

    def _refuse_guidance(self, guidance: Guidance) -> None:
        dropout = self.training.condition_dropout
        check_guidance(guidance, self.process, self.condition, dropout)

    def _given(self, sampler, given, num, keys=None):
        """c of a sampler, from what the caller gives."""
        known = self.training.condition_dropout > 0
        return self.sampling_condition(sampler).given(given, num, keys, known)

    def _carry(self, params, state, z, keys, c, sampler) -> Array:
        """z at the first time of the sampler's plan -> x."""
        plan = sampler.plan(self.process)
        predict = self.guided_predictor(params, state, sampler)
        ask = sampler.solver, keys, predict, self.process, z, plan.times, c
        return solve_to_data(*ask)

    def from_latent(
        self,
        params,
        state,
        z: Array,
        *,
        keys: Array | None = None,
        sampler: Sampler | None = None,
        **given,
    ) -> Array:
        """Carry noise z [B, *shape] to x: the solver along the grid of times.

        keys [B]: for a stochastic solver; by default all rows share one, so that this
        is a function of z.
        """
        sampler = sampler or self.sampler
        c = self._given(sampler, given, len(z))
        if keys is None:
            keys = jnp.broadcast_to(jax.random.key(0), z.shape[:1])
        z = sampler.plan(self.process).first_b * z
        return self._carry(params, state, z, keys, c, sampler)

    def to_latent(
        self, params, state, x: Array, *, sampler: Sampler | None = None, **given
    ) -> Array:
        """Carry x [B, *shape] to noise: `from_latent` backwards, DDIM inversion.

        The solver is deterministic, and there is no guidance: so the two are inverse up
        to the steps' error.
        """
        sampler = dataclasses.replace(sampler or self.sampler, guidance=Guidance())
        plan, c = sampler.plan(self.process), self._given(sampler, given, len(x))
        predict, z = self.guided_predictor(params, state, sampler), plan.last_a * x
        z = invert(sampler.solver, predict, self.process, z, plan.times, c)
        return z / plan.first_b

    def sample(
        self,
        params,
        state,
        key,
        num,
        *,
        start_index=0,
        sampler: Sampler | None = None,
        **given,
    ) -> Array:
        """x [num, *shape]: `from_latent` of noise. What is not given is drawn."""
        sampler = sampler or self.sampler
        keys = sample_keys(key, num, start_index)
        c = self._given(sampler, given, num, keys)
        z = sampler.plan(self.process).first_b * normal(keys, self.latent_shape)
        return self._carry(params, state, z, fold_in(keys, 1), c, sampler)

    def complete(
        self,
        params,
        state,
        key,
        batch,
        observed,
        *,
        start_index=0,
        method: str = "repaint",
        repeats: int = 10,
        sampler: Sampler | None = None,
    ) -> Completion:
        """Samples that agree with the observed pixels, which stay exactly.

        Approximate, by every method; each sample is one particle.

        Args:
            batch: the examples and their conditions.
            observed: bool, which broadcasts to [B, *shape].
            method: "repaint", of `repeats` draws per step; "replace", of one;
                "posterior" or "projection", a guide: see `diffusion.inverse`.
        """
        sampler, x = sampler or self.sampler, self.space.read(batch)
        observed = jnp.asarray(observed)
        solver, more = inverse_solver(method, sampler.solver, x, observed, repeats)
        guides = *sampler.guides, *more
        sampler = dataclasses.replace(sampler, solver=solver, guides=guides)
        given = self.sampling_condition(sampler).read(batch)
        ask = params, state, key, len(x)
        new = self.sample(*ask, start_index=start_index, sampler=sampler, **given)
        return Completion(jnp.where(observed, x, new), jnp.ones(len(x)))

    def sample_parallel(
        self,
        params,
        state,
        key,
        num,
        *,
        start_index=0,
        window: int | None = None,
        tolerance: float = 1e-2,
        sampler: Sampler | None = None,
        **given,
    ) -> tuple[Array, Array]:
        """(`sample`'s own samples within the tolerance, sweeps), by Picard's iteration.

        window: steps that are taken at once, None for all; see `solve_parallel`.
        """
        sampler, process = sampler or self.sampler, self.process
        keys, plan = sample_keys(key, num, start_index), sampler.plan(process)
        c = self._given(sampler, given, num, keys)
        predict = self.guided_predictor(params, state, sampler)
        z = plan.first_b * normal(keys, self.latent_shape)
        ask = sampler.solver, fold_in(keys, 1), predict, process, z, plan.times
        z, sweeps = solve_parallel(*ask, window, tolerance, c)
        return denoise(predict, process, z, plan.times[-1], c), sweeps

    def parallel(self, sampler: Sampler | None = None) -> bool:
        """Whether the solver has a parallel form: it must have no memory."""
        traits = (sampler or self.sampler).solver.traits
        return not (traits.adaptive or traits.has_memory)

    def nfe(self, sampler: Sampler | None = None) -> int | None:
        """Network calls per sample: those of all steps and of a last jump, guided.

        An upper bound if guidance is limited to an interval; None for adaptive solvers.
        Gradients of the network count as one call; a guide's own network is not
        counted.
        """
        sampler = sampler or self.sampler
        self._refuse_guidance(sampler.guidance)
        plan = sampler.plan(self.process)
        calls = sampler.solver.nfe(len(plan.times) - 1)
        if calls is None:
            return None
        more = math.prod(1 + guide.extra_calls for guide in sampler.guides)
        return (calls + plan.jump) * sampler.guidance.calls * more

    def refuse(self) -> None:
        """BadInput if training, sampling or likelihood cannot be: nothing is computed.

        A process that is singular, a solver or a bound that wants derivatives of a
        table or variances that are not learned, guidance without a null condition.
        """
        self.training.span(self.process)
        self.nfe()
        variances = bool(self.training.vlb_weight)
        own = self.process, self.space, self.sampler, self.likelihood
        dry_run(*own, variances)

    # ------------------------------------------------------------ likelihood, features

    def log_likelihood(self, params, state, batch, key) -> Array:
        """[B] nats of the data, given its condition: what `likelihood` says."""
        data, c = self.space.data(batch), self.condition.read(batch)
        keys, predict = sample_keys(key, len(data)), means(self.predictor(params))
        return self.likelihood(keys, predict, self.process, data, self.space, c)

    def features(self, params, state, batch, key, t: float = 0.1) -> Array:
        """The network's middle activations [B, F] at time t, without a condition.

        Needs a net that sows "features". Baranchuk et al. 2022, arXiv:2112.03126;
        Xiang et al. 2023, arXiv:2303.09769.
        """
        x = self.space.read(batch)
        noise, t = jax.random.normal(key, x.shape), jnp.full(x.shape[0], t)
        z, _ = corrupt(self.process, x, noise, t)
        weights = {"params": params["denoiser"]}
        _, sown = self.net.apply(weights, z, t, mutable="intermediates")
        return sown["intermediates"]["features"][0].reshape(x.shape[0], -1)
