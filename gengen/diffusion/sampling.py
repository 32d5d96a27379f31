"""The sampling half of a diffusion model: from noise to data, back, and around data.

Latents are noise as large as the data. A sampler's plan says at which times a solver
carries them, and its guidance and guides what the network's answer becomes.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gengen.conditions import (
    Condition,
    Given,
    Scalar,
    parts_of,
    refuse_unknown,
    union,
)
from gengen.diffusion.guidance import Guidance
from gengen.diffusion.inverse import inverse_solver
from gengen.diffusion.parallel import solve_parallel
from gengen.diffusion.predictors import check_guidance, means, nested
from gengen.diffusion.process import Process
from gengen.diffusion.sampler import Sampler
from gengen.diffusion.solve import denoise, invert, solve_to_data
from gengen.diffusion.training import Training
from gengen.errors import BadInput
from gengen.scan import fold_in, normal, sample_keys
from gengen.spaces import Space
from gengen.types import Array, Completes, Completion, HasLatents, Inverts, frozen

FIELDS = {f.name for kind in (Sampler, Guidance) for f in dataclasses.fields(kind)}


class Samples(HasLatents, Inverts, Completes):
    """What samples by a process, a sampler and `predictor(params)`, all of its own.

    In every method `sampler` is a `Sampler` in the place of the model's own, and
    `**given` is the condition by name: one value for all rows, or one per row.
    """

    process: Process
    space: Space
    condition: Condition
    training: Training
    sampler: Sampler

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one latent: noise as large as the data."""
        return self.space.shape

    def sampling_condition(self, sampler: Sampler | None = None) -> Condition:
        """What a sample can be asked for: the model's condition, and what guides read.

        A guiding model adds its own condition, a scale of None the number "guidance".
        """
        sampler = self._own(sampler)
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
        sampler = self._own(sampler)
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

    def _own(self, sampler: Sampler | None) -> Sampler:
        """The caller's sampler, or the model's own. BadInput for anything else."""
        if sampler is not None and not isinstance(sampler, Sampler):
            raise BadInput(
                f"sampler={sampler!r} is not a Sampler: give model.sampler.replace("
                "steps=10, solver=Heun()), for example"
            )
        return self.sampler if sampler is None else sampler

    def check_array(self, z: Array, what: str) -> None:
        """BadInput for arrays that are not floats [B, *shape]."""
        if z.shape[1:] != self.space.shape or not jnp.issubdtype(z.dtype, jnp.floating):
            raise BadInput(
                f"{what} is {z.dtype}{list(z.shape)} and the model's are floats "
                f"[B, {', '.join(map(str, self.space.shape))}]: data become x by "
                "space.to_model"
            )

    def sampling_c(
        self,
        sampler: Sampler,
        given: Mapping[str, Any],
        num: int,
        keys: Array | None = None,
    ) -> Given:
        """c of `num` rows for a sampler: what the caller gives, and the rest drawn.

        The model's own parts go by how they were dropped in its training; what guides
        read beside them was not dropped with them.
        """
        every, own = self.sampling_condition(sampler), self.condition
        for name in sorted((given.keys() - {*every.names}) & FIELDS):
            raise BadInput(
                f"{name}={given[name]!r} is the sampler's: give "
                f"sampler=model.sampler.replace({name}={given[name]!r})"
            )
        refuse_unknown(given, every.names)
        others = union(*(p for p in parts_of(every) if p.key not in own.names))
        c, null_known = {}, self.training.condition_dropout > 0
        for condition in (own, others):
            values = {name: given.get(name) for name in condition.names}
            c |= condition.given(values, num, keys, null_known)
        return c

    def carry(self, params, state, z, keys, c, sampler: Sampler) -> Array:
        """z [B, *shape] at the first time of the sampler's plan -> x."""
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
        self.check_array(z, "a latent")
        sampler = self._own(sampler)
        c = self.sampling_c(sampler, given, len(z))
        if keys is None:
            keys = jnp.broadcast_to(jax.random.key(0), z.shape[:1])
        z = sampler.plan(self.process).first_b * z
        return self.carry(params, state, z, keys, c, sampler)

    def to_latent(
        self, params, state, x: Array, *, sampler: Sampler | None = None, **given
    ) -> Array:
        """Carry x [B, *shape] to noise: `from_latent` backwards, DDIM inversion.

        The solver is deterministic, and there is no guidance: so the two are inverse up
        to the steps' error.
        """
        self.check_array(x, "x")
        sampler = dataclasses.replace(self._own(sampler), guidance=Guidance())
        plan, c = sampler.plan(self.process), self.sampling_c(sampler, given, len(x))
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
        sampler = self._own(sampler)
        keys = sample_keys(key, num, start_index)
        c = self.sampling_c(sampler, given, num, keys)
        z = sampler.plan(self.process).first_b * normal(keys, self.latent_shape)
        return self.carry(params, state, z, fold_in(keys, 1), c, sampler)

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
        sampler, x = self._own(sampler), self.space.read(batch)
        observed = jnp.asarray(self.space.mask(observed, len(x)))
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
        sampler, process = self._own(sampler), self.process
        keys, plan = sample_keys(key, num, start_index), sampler.plan(process)
        c = self.sampling_c(sampler, given, num, keys)
        predict = self.guided_predictor(params, state, sampler)
        z = plan.first_b * normal(keys, self.latent_shape)
        ask = sampler.solver, fold_in(keys, 1), predict, process, z, plan.times
        z, sweeps = solve_parallel(*ask, window, tolerance, c)
        return denoise(predict, process, z, plan.times[-1], c), sweeps

    def parallel(self, sampler: Sampler | None = None) -> bool:
        """Whether the solver has a parallel form: it must have no memory."""
        traits = self._own(sampler).solver.traits
        return not (traits.adaptive or traits.has_memory)

    def nfe(self, sampler: Sampler | None = None) -> int | None:
        """Network calls per sample: those of all steps and of a last jump, guided.

        An upper bound if guidance is limited to an interval; None for adaptive solvers.
        Gradients of the network count as one call; a guide's own network is not
        counted.
        """
        sampler = self._own(sampler)
        self._refuse_guidance(sampler.guidance)
        plan = sampler.plan(self.process)
        calls = sampler.solver.nfe(len(plan.times) - 1)
        if calls is None:
            return None
        more = math.prod(1 + guide.extra_calls for guide in sampler.guides)
        return (calls + plan.jump) * sampler.guidance.calls * more
