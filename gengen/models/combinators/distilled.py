"""Guidance distillation: a student that knows the guidance scale, one call per step.

    |r̂(z, t, c + w) - r̂_guided(z, t, c + w)|²,   w = c["guidance"] ~ U(span)

Teacher and student read the same c: the teacher's `Guidance(scale=None)` takes w from
it, the student's network has `Scalar("guidance")`. So both are sampled alike, and the
student at half the price: the scale of its sampler is what its network is told.

Meng et al. 2023, arXiv:2210.03142, section 3.1.
"""

import jax
import jax.numpy as jnp

from gengen.conditions import Condition, Scalar, check_batch, parts_of
from gengen.diffusion.guidance import Guidance
from gengen.diffusion.process import corrupt
from gengen.diffusion.sampler import Sampler
from gengen.diffusion.times import sample_times
from gengen.errors import BadInput
from gengen.models.combinators.student import Student
from gengen.objective import loss
from gengen.types import Model, frozen, static


@static
class DistilledGuidance(Student):
    """A `Diffusion` whose condition is its teacher's and `Scalar("guidance")`."""

    teacher: Model
    """A `Diffusion` of the same process and space, whose guidance has scale None; its
    arrays are state["frozen"]["teacher"]."""
    span: tuple[float, float] = (1.0, 4.0)
    """The least and the greatest scale that the student learns."""
    sampler: Sampler = Sampler(guidance=Guidance(2.0))
    """How noise is carried to data, by default, and the scale of guidance."""

    def __post_init__(self):
        teacher, own = self.teacher, parts_of(self.model.condition)
        self.check(teacher)
        wanted = parts_of(teacher.condition)
        scale = [p for p in own if isinstance(p, Scalar) and p.key == "guidance"]
        if not scale or {*own} - {*scale} != {*wanted}:
            raise BadInput(
                f"the student is conditioned on {', '.join(map(str, own))}: it must be "
                f"on {', '.join(map(str, wanted))} and Scalar('guidance')"
            )
        if teacher.sampler.guidance.scale is not None:
            raise BadInput(
                f"the teacher's guidance has scale {teacher.sampler.guidance.scale}: "
                "give it Guidance(scale=None), which reads the scale from c"
            )
        low, high = self.span
        if not low < high:
            raise BadInput(f"span={self.span}: two rising scales")

    @property
    def condition(self) -> Condition:
        """The teacher's: the scale of guidance is the sampler's."""
        return self.teacher.condition

    def init(self, key, batch=None):
        """The diffusion model's; a batch is checked, which holds no scale."""
        check_batch(self.space, self.condition, batch)
        return self.model.init(key)

    def sampler_of(self, sampler: Sampler | None) -> Sampler:
        """The caller's sampler, or the student's own; its scale is one learned."""
        sampler = self.sampler if sampler is None else sampler
        scale, (low, high) = sampler.guidance.scale, self.span
        if not isinstance(scale, int | float) or not low <= scale <= high:
            raise BadInput(
                f"guidance {scale}: this student has learned one number from {low} to "
                f"{high}; take one of those"
            )
        return sampler

    def _told(self, sampler: Sampler | None) -> dict:
        """The student's network as the sampler asks for it: w as its condition."""
        sampler = self.sampler_of(sampler)
        scale = sampler.guidance.scale
        return {"sampler": sampler.replace(scale=1.0), "guidance": float(scale)}

    def from_latent(self, params, state, z, *, sampler=None, **given):
        """x of noise z [B, *shape]."""
        how = {**self._told(sampler), **given}
        return self.model.from_latent(params, state, z, **how)

    def sample(self, params, state, key, num, *, start_index=0, sampler=None, **given):
        """x [num, *shape]. What is not given is drawn."""
        how = {"start_index": start_index, **self._told(sampler), **given}
        return self.model.sample(params, state, key, num, **how)

    def nfe(self, sampler: Sampler | None = None) -> int:
        """Network calls per sample."""
        return self.model.nfe(self._told(sampler)["sampler"])

    @loss
    def loss(self, params, state, batch, key):
        """|r̂ - r̂_guided|² at the same (z, t, c + w)."""
        key_noise, key_time, key_scale, key_dropout = jax.random.split(key, 4)
        training, process = self.model.training, self.process
        x, c = self.space.read(batch), self.condition.read(batch)
        num = len(x)
        c = {**c, "guidance": jax.random.uniform(key_scale, (num,), None, *self.span)}
        noise = jax.random.normal(key_noise, x.shape)
        span = training.span(process)
        draw = training.times, process.path, key_time, num, span, training.uniforms
        t = sample_times(*draw)
        z, _ = corrupt(process, x, noise, t)
        own = frozen(state, "teacher")
        wanted = self.teacher.guided_predictor(own.params, own.state)(z, t, c)
        rngs = {"dropout": key_dropout}
        found = self.model.predictor(params, train=True, rngs=rngs)(z, t, c)
        error = jnp.square(found - jax.lax.stop_gradient(wanted))
        each = jnp.mean(error.reshape(num, -1), axis=-1)
        return jnp.mean(training.weight(process, t) * each), (state, {})
