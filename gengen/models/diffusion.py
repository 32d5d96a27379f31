"""Diffusion and flow matching: regression onto one row of a 2×2 matrix.

Data x and noise ε are mixed into z = a(t) x + b(t) ε; a network sees (z, t) and is
asked for r = c x + d ε. Its optimum is the conditional mean E[r | z], which knows the
score of every noised density, and so an ODE (or SDE) that carries noise to data. Every
method of the literature is a choice of values, see `diffusion.process`:

    Process(Linear(), Velocity()), LogitNormal, Euler          flow matching
    Process(Table(), Noise()), Steps, DDPM                     DDPM
    Process(VarianceExploding(), Score()), In(Noise()), PredictorCorrector   score SDE
    Process(Karras(s), EDM(s)), LogNormal, EDMSampler      EDM

Four views of the same object, each of which is a method:

    a deep latent-variable model   `log_likelihood`, a bound on log p(x) term by term
    a score, a field to walk along `predictor` and `process.score`
    an SDE and its ODE             `sample` by any solver, `to_latent` and back
    regression                     `loss`

Labels are dropped with probability `label_dropout` in training, so that one network is
both conditional and, at the null label, unconditional: classifier-free guidance.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.diffusion.couplings import Coupling, Independent
from gengen.diffusion.grids import Even, Grid, starting_at, times_of
from gengen.diffusion.guidance import Guidance
from gengen.diffusion.inverse import inverse_solver
from gengen.diffusion.likelihood import LikelihoodEstimator, VariationalBound
from gengen.diffusion.matching import matching_loss
from gengen.diffusion.parallel import solve_parallel
from gengen.diffusion.posterior import ddim_mean, posterior_kl, step_logvar, transition
from gengen.diffusion.process import Process, corrupt, expand, recover, usable_times
from gengen.diffusion.solve import invert, solve
from gengen.diffusion.solvers import Euler, Solver
from gengen.diffusion.times import (
    Times,
    Uniform,
    histogram_quantile,
    importance,
    independent,
    sample_times,
)
from gengen.diffusion.weights import Unweighted, Weight
from gengen.images import to_unit
from gengen.labels import given_labels, sample_labels
from gengen.objective import Bind
from gengen.scan import fold_in, normal, sample_keys
from gengen.types import Array, BadInput, Completion, static

# b/a at which guides that divide by a begin: the error of a network's gradient grows
# with it. Of digits the unseen half is missed by 1.27 (root mean square) from 1000 on,
# by 0.50 from 50 on, and from 20 on.
MOST_NOISE = 50.0


def _means(predict: Callable) -> Callable:
    """r̂ without the learned variances behind it, if there are any."""
    return lambda z, t: predict(z, t)[..., : z.shape[-1]]


def _averaged(moment: Array, bins: Array, square: Array, decay: float = 0.99) -> Array:
    """The running mean of `square` [B] in each of K bins that was seen."""
    seen = jnp.zeros_like(moment).at[bins].add(1.0)
    total = jnp.zeros_like(moment).at[bins].add(square)
    mean = total / jnp.maximum(seen, 1.0)
    return jnp.where(seen > 0, decay * moment + (1.0 - decay) * mean, moment)


def each_row(function: Callable, *rows):
    """`function(*rows)` a row at a time, under vmap: for adaptive steps."""

    def alone(*row):
        return function(*jax.tree.map(lambda x: x[None], row))[0]

    return jax.vmap(alone)(*rows)


class Plan(NamedTuple):
    """A sampler's values, all known: its solver, its guidance, its guides and times.

    first_b, last_a: of the path at both ends. jump: whether the times stop short of the
    data, so that one more evaluation is due.
    """

    solver: Solver
    guidance: Guidance
    guides: tuple
    times: Array
    first_b: float
    last_a: float
    jump: bool

    def each(self, function: Callable, *rows):
        """`function(*rows)`; of an adaptive solver each row by itself."""
        if self.solver.traits.adaptive:
            return each_row(function, *rows)
        return function(*rows)


@static
class Diffusion:
    """net (z, t, label) -> r̂, and what is asked of it.

    shape (H, W, C) and levels describe the data. Of training: times, the distribution
    of t, drawn from `uniforms`; weight, of the squared error; coupling, of noise with
    images; importance_bins: K > 0 for times drawn by their loss in K bins of time;
    vlb_weight: above 0 the network has twice the channels and learns the variance of a
    step of 1/variance_steps, too. num_classes: 0 for unconditional; label num_classes
    is the null label. Of sampling, all of them defaults: solver, grid, steps, guidance,
    guides (`guidance.Guide`, each of which wraps the network). worse: a model of the
    same process that takes the null label's place in guidance, with its parameters in
    state["worse"] (autoguidance). likelihood: what `log_likelihood` estimates.
    """

    net: nn.Module
    process: Process
    shape: tuple[int, int, int]
    levels: int = 256
    times: Times = Uniform()
    uniforms: Callable = independent
    weight: Weight = Unweighted()
    coupling: Coupling = Independent()
    importance_bins: int = 0
    vlb_weight: float = 0.0
    variance_steps: int = 1000
    num_classes: int = 0
    label_dropout: float = 0.1
    solver: Solver = Euler()
    grid: Grid = Even()
    steps: int = 50
    guidance: Guidance = Guidance()
    guides: tuple = ()
    worse: Any = None
    likelihood: LikelihoodEstimator = VariationalBound()
    density: ClassVar[str] = "bound"

    def __post_init__(self):
        if self.worse is not None and self.worse.process != self.process:
            raise BadInput(
                f"the worse model is of {self.worse.process}, this one of "
                f"{self.process}: guidance needs two of one path and prediction"
            )

    @property
    def likelihood_kind(self) -> str:
        """What `log_likelihood` is: "VLB", "PF-ODE, uniform dequantisation", …"""
        return self.likelihood.kind

    def init(self, key, batch):
        x = to_unit(batch["image"][:1], self.levels)
        label = batch["label"][:1] if self.num_classes else None
        params = self.net.init(key, x, jnp.zeros(1), label)["params"]
        state = {}
        if self.importance_bins:
            state["second_moment"] = jnp.ones(self.importance_bins)
        return {"denoiser": params}, state

    def losses(self):
        return {"denoiser": Bind(Diffusion.loss, self)}

    def predictor(self, params, label=None, **kwargs):
        """`predict(z, t) -> r̂` with parameters and label bound; t [] or [B].

        Of a network that learns variances r̂ has twice the channels of z.
        """
        weights = {"params": params["denoiser"]}

        def predict(z, t):
            t = jnp.broadcast_to(t, z.shape[:1])
            return self.net.apply(weights, z, t, label, **kwargs)

        return predict

    # ------------------------------------------------------------ training

    def training_times(self) -> tuple[float, float]:
        """(t_min, t_max): where the process, and the weight of its loss, is regular."""
        return usable_times(self.process, weight=self.weight)

    def loss(self, params, state, batch, key):
        """Mean of `matching_loss` over fresh noise, times and dropped labels."""
        key_noise, key_time, key_label, key_dropout, key_pair = jax.random.split(key, 5)
        x = to_unit(batch["image"], self.levels)
        noise = jax.random.normal(key_noise, x.shape)
        known = batch["label"] if self.num_classes else None
        noise = self.coupling(key_pair, x, noise, known)
        label = None
        if self.num_classes:
            drop = jax.random.bernoulli(key_label, self.label_dropout, x.shape[:1])
            label = jnp.where(drop, self.num_classes, batch["label"])
        rngs = {"dropout": key_dropout}
        predict = self.predictor(params, label, train=True, rngs=rngs)

        def loss(t):
            if not self.vlb_weight:
                return matching_loss(predict, self.process, x, noise, t, self.weight)
            return self._hybrid(predict, x, noise, t)

        span, num = self.training_times(), x.shape[0]
        if not self.importance_bins:
            t = sample_times(
                self.times, self.process.path, key_time, num, span, self.uniforms
            )
            return jnp.mean(loss(t)), (state, {})
        moment = state["second_moment"]
        u = self.uniforms(key_time, num)
        where, bins, correction = histogram_quantile(u, importance(moment))
        t = self.times.quantile(where, self.process.path)
        each = loss(span[0] + (span[1] - span[0]) * t)
        moment = _averaged(moment, bins, jax.lax.stop_gradient(each) ** 2)
        state = {**state, "second_moment": moment}
        return jnp.mean(correction * each), (state, {})

    def _hybrid(self, predict, x, noise, t) -> Array:
        """L_simple + vlb_weight · T KL(q(z_s | z_t, x) ‖ N(mean, σ²))/D, s = t - 1/T.

        The mean is stopped in the second. Nichol and Dhariwal 2021, section 3.1.
        """
        process, path = self.process, self.process.path
        z, _ = corrupt(process, x, noise, t)
        out = predict(z, t)
        r, v = jnp.split(out, 2, axis=-1)
        simple = matching_loss(lambda z, t: r, process, x, noise, t, self.weight)
        s = t - 1.0 / self.variance_steps
        known = (s > 0) & (path.b(jnp.maximum(s, 0.0)) > 0)
        # Another stands in where there is none: `where` alone lets NaN gradients by.
        t, s = jnp.where(known, t, 0.5), jnp.where(known, s, 0.25)
        clean, eps = recover(process, z, jax.lax.stop_gradient(r), t)
        logvar = step_logvar(path, (v + 1.0) / 2.0, expand(t, z), expand(s, z))
        _, spread = transition(path, expand(t, z), expand(s, z))
        mean = ddim_mean(process, clean, eps, expand(s, z), spread)
        kl = posterior_kl(process, x, z, t, s, mean, logvar) / x[0].size
        return simple + jnp.where(known, self.vlb_weight * self.variance_steps * kl, 0)

    # ------------------------------------------------------------ sampling

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one latent: noise as large as the data."""
        return self.shape

    @property
    def sample_classes(self) -> int:
        """How many classes a sample can be asked for: its own, or a guide's."""
        return self._classes(self.guides)

    def _classes(self, guides) -> int:
        return self.num_classes or max((g.num_classes for g in guides), default=0)

    def plan(
        self,
        steps: int | None = None,
        solver=None,
        grid=None,
        guidance=None,
        guides: tuple | None = None,
        strength: float = 1.0,
        **of_guidance,
    ) -> "Plan":
        """What a sampler does, from its own keywords and the model's defaults.

        strength: in (0, 1], the share of the times, of which the later are left out.
        of_guidance: interval, rescale or threshold in the place of the guidance's own.
        """
        solver = self.solver if solver is None else solver
        grid = self.grid if grid is None else grid
        guidance = self.guidance if guidance is None else guidance
        guidance = dataclasses.replace(guidance, **of_guidance)
        guides = self.guides if guides is None else guides
        steps = self.steps if steps is None else steps
        path = self.process.path
        low, high = usable_times(self.process)
        if not 0 < strength <= 1:
            raise BadInput(f"strength={strength}: it must be above 0, and 1 at most")
        if solver.traits.adaptive and any(isinstance(g, tuple) for g in guides):
            raise BadInput(
                f"{solver} takes each image by itself, and a guide that holds arrays "
                "takes all at once: take a solver of fixed steps"
            )
        with jax.ensure_compile_time_eval():
            if solver.traits.divides_by_a and path.a(jnp.float32(high)) == 0:
                high = 1.0 - 1e-3
            if any(guide.divides_by_a for guide in guides):
                latest = path.time_of_ratio(jnp.float32(1.0), jnp.float32(MOST_NOISE))
                high = min(high, float(latest))
            times = times_of(grid, path, steps, (low, high))
            if strength < 1:
                start = times[-1] + strength * (times[0] - times[-1])
                times = starting_at(times, start, path)
            first, last = times[0], times[-1]
            ends = float(path.b(first)), float(path.a(last)), bool(path.b(last) > 0)
        return Plan(solver, guidance, guides, times, *ends)

    def _carry(self, params, state, z, keys, label, plan, scale) -> Array:
        """z at the plan's first time -> data."""

        def carry(z, keys, label):
            predict = self._predictor(params, state, label, plan, scale)
            z = solve(plan.solver, keys, predict, self.process, z, plan.times)
            return self._to_data(predict, z, plan)

        return plan.each(carry, z, keys, label)

    def from_latent(
        self,
        params,
        state,
        z: Array,
        *,
        label=None,
        keys: Array | None = None,
        guidance_scale=None,
        **sampler,
    ) -> Array:
        """Carry noise z [B, H, W, C] to data: the solver along the grid of times.

        label: int or [B], of a conditional model. keys [B]: for a stochastic solver; by
        default all rows share one, so that this is a function of z. guidance_scale: in
        the place of the guidance's own; 1 for none (one network call), else two calls.
        sampler: steps, solver, grid, guidance, guides. Raises BadInput for guidance
        without a null label.
        """
        plan = self.plan(**sampler)
        label = given_labels(label, z.shape[0], self._classes(plan.guides))
        if keys is None:
            keys = jnp.broadcast_to(jax.random.key(0), z.shape[:1])
        z = plan.first_b * z
        return self._carry(params, state, z, keys, label, plan, guidance_scale)

    def to_latent(
        self,
        params,
        state,
        x: Array,
        *,
        label=None,
        guidance_scale=1.0,
        **sampler,
    ) -> Array:
        """Carry images x in [-1, 1] to noise: `from_latent` backwards, DDIM inversion.

        By a deterministic solver, and by default without guidance, where the two are
        inverse up to the steps' error. sampler: steps, solver, grid, guidance.
        """
        plan = self.plan(**sampler)
        label = given_labels(label, x.shape[0], self._classes(plan.guides))

        def carry(x, label):
            predict = self._predictor(params, state, label, plan, guidance_scale)
            z = plan.last_a * x
            return invert(plan.solver, predict, self.process, z, plan.times)

        return plan.each(carry, x, label) / plan.first_b

    def sample(self, params, state, key, num, *, start_index=0, label=None, **sampler):
        """[num, H, W, C] in data space: `from_latent` of noise, with its keywords.

        label: int or [num], uniform if None.
        """
        z, keys, label = self._start(
            key, num, start_index, label, sampler.get("guides")
        )
        return self.from_latent(params, state, z, label=label, keys=keys, **sampler)

    def _start(self, key, num, start_index, label, guides=None):
        keys = sample_keys(key, num, start_index)
        classes = self._classes(self.guides if guides is None else guides)
        label = sample_labels(keys, label, classes)
        return normal(keys, self.latent_shape), fold_in(keys, 1), label

    def edit(
        self,
        params,
        state,
        key,
        x: Array,
        strength: float = 0.5,
        *,
        start_index=0,
        label=None,
        guidance_scale=None,
        **sampler,
    ) -> Array:
        """Images x in [-1, 1], noised to a time and drawn again from there: SDEdit.

        strength: in (0, 1], how much of the times is drawn again; 1 is a sample that
        knows nothing of x. label: what it is to become, int or [B]; uniform if None.
        sampler: as of `from_latent`. Meng et al. 2022, arXiv:2108.01073, algorithm 1.
        """
        plan = self.plan(strength=strength, **sampler)
        noise, keys, label = self._start(key, len(x), start_index, label, plan.guides)
        z = self.process.path.a(plan.times[0]) * x + plan.first_b * noise
        return self._carry(params, state, z, keys, label, plan, guidance_scale)

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
        **sampler,
    ) -> Completion:
        """Samples that agree with the observed pixels, which stay exactly.

        observed: bool, broadcasts to [B, H, W, C]. method: "repaint", of `repeats`
        draws a step; "replace", of one; "posterior" or "projection", a guide: see
        `diffusion.inverse`. Approximate, all of them. sampler: as of `from_latent`.
        Each sample is one particle.
        """
        x, observed = to_unit(batch["image"], self.levels), jnp.asarray(observed)
        plan = self.plan(**{k: v for k, v in sampler.items() if k != "guidance_scale"})
        label = batch["label"] if self._classes(plan.guides) else None
        solver, more = inverse_solver(method, plan.solver, x, observed, repeats)
        sampler |= {"solver": solver, "guides": (*plan.guides, *more)}
        new = self.sample(
            params, state, key, len(x), start_index=start_index, label=label, **sampler
        )
        return Completion(jnp.where(observed, x, new), jnp.ones(len(x)))

    def sample_parallel(
        self,
        params,
        state,
        key,
        num,
        *,
        start_index=0,
        label=None,
        window: int | None = None,
        tolerance: float = 1e-2,
        guidance_scale=None,
        **sampler,
    ) -> tuple[Array, Array]:
        """(`sample`'s own samples within the tolerance, sweeps), by Picard's iteration.

        window: steps that are taken at once, None for all; see `solve_parallel`.
        """
        plan, process = self.plan(**sampler), self.process
        z, keys, label = self._start(key, num, start_index, label, plan.guides)
        predict = self._predictor(params, state, label, plan, guidance_scale)
        ask = plan.solver, keys, predict, process, plan.first_b * z, plan.times
        z, sweeps = solve_parallel(*ask, window, tolerance)
        return self._to_data(predict, z, plan), sweeps

    def parallel(self, guidance_scale=None, **sampler) -> bool:
        """Whether the solver has a parallel form: it must have no memory."""
        solver = self.plan(**sampler).solver
        return not (solver.traits.adaptive or solver.traits.has_memory)

    def _to_data(self, predict, z, plan):
        """z itself at the data; where the grid stops short of them E[x | z]."""
        if not plan.jump:
            return z
        t = plan.times[-1]
        return recover(self.process, z, _means(predict)(z, t), t)[0]

    def _predictor(self, params, state, label, plan, scale):
        """`predict` as the plan guides it and its solver wants it."""
        scale, null = plan.guidance.scale if scale is None else scale, None
        own = label if self.num_classes else None
        predict = self.predictor(params, own)
        if self._guided(scale) and self.worse is not None:
            other = label if self.worse.num_classes else None
            null = self.worse.predictor(state["worse"], other)
        elif self._guided(scale):
            null = self.predictor(params, jnp.full_like(own, self.num_classes))
        predict = plan.guidance(self.process, predict, null, scale)
        for guide in plan.guides:
            predict = guide(predict, self.process, state, label)
        return predict if plan.solver.traits.wants_variance else _means(predict)

    def _guided(self, guidance_scale) -> bool:
        traced = isinstance(guidance_scale, jax.core.Tracer)
        if not traced and float(guidance_scale) == 1:
            return False
        if self.worse is None and (self.num_classes == 0 or self.label_dropout == 0):
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

    def nfe(self, *, guidance_scale=None, **sampler) -> int | None:
        """Network calls a sample: of all steps and a last jump, × 2 if guided.

        At most, where guidance is for an interval of times only; None of an adaptive
        solver, which decides as it goes. A gradient of the network counts as a call, a
        guide's own network not at all. sampler: as of `plan`.
        """
        plan = self.plan(**sampler)
        scale = plan.guidance.scale if guidance_scale is None else guidance_scale
        guided = self._guided(scale)
        if plan.solver.traits.adaptive:
            return None
        calls = plan.solver.nfe(len(plan.times) - 1) + plan.jump
        calls = calls * (2 if guided else 1)
        return calls * math.prod(1 + guide.evaluations for guide in plan.guides)

    def refuse(self) -> None:
        """BadInput if training, sampling or likelihood cannot be: nothing is computed.

        A process that is singular, a solver or a bound that wants derivatives of a
        table or variances that are not learned, guidance without a null label.
        """
        self.training_times()
        self.nfe()
        plan, channels = self.plan(), 2 if self.vlb_weight else 1

        def predict(z, t):
            return jnp.concatenate([z] * channels, axis=-1)

        def sample(keys, z):
            return solve(plan.solver, keys, predict, self.process, z, plan.times)

        def likelihood(keys, image):
            return self.likelihood(
                keys, _means(predict), self.process, image, self.levels
            )

        keys = jax.random.split(jax.random.key(0), 1)
        z = jax.ShapeDtypeStruct((1, *self.shape), jnp.float32)
        jax.eval_shape(sample, keys, z)
        image = jax.ShapeDtypeStruct(z.shape, jnp.uint8)
        jax.eval_shape(likelihood, keys, image)

    # ------------------------------------------------------------ likelihood, features

    def log_likelihood(self, params, state, batch, key) -> Array:
        """[B] nats of the levels, a bound: what `likelihood` says, without guidance.

        Of a conditional model, of x given its label.
        """
        image = batch["image"]
        label = batch["label"] if self.num_classes else None
        keys = sample_keys(key, image.shape[0])

        def nats(keys, image, label):
            predict = _means(self.predictor(params, label))
            return self.likelihood(keys, predict, self.process, image, self.levels)

        rows = keys, image, label
        return each_row(nats, *rows) if self.likelihood.adaptive else nats(*rows)

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
