"""Guidance distillation: a student that knows the guidance scale, one call per step.

    |r̂(z, t, c + w) - r̂_guided(z, t, c + w)|²,   w = c["guidance"] ~ U(span)

Teacher and student read the same c: the teacher's `Guidance(scale=None)` takes w from
it, the student's condition has `Scalar("guidance")`. So both are sampled alike,
`sample(guidance=2.0)`, and the student at half the price.

Meng et al. 2023, arXiv:2210.03142, section 3.1.
"""

import jax
import jax.numpy as jnp

from gengen.conditions import Scalar, parts_of
from gengen.diffusion.process import corrupt
from gengen.diffusion.times import sample_times
from gengen.errors import BadInput
from gengen.types import Model, frozen, static


@static
class DistilledGuidance:
    """The loss of a student `Diffusion`; the teacher is state["frozen"]["teacher"]."""

    student: Model
    """A `Diffusion` whose condition is the teacher's and `Scalar("guidance")`."""
    teacher: Model
    """A `Diffusion` of the same process and space, whose guidance has scale None."""
    span: tuple[float, float] = (1.0, 4.0)
    """The least and the greatest scale that the student learns."""

    def __post_init__(self):
        student, teacher = self.student, self.teacher
        if (student.process, student.space) != (teacher.process, teacher.space):
            raise BadInput("student and teacher differ in process or space: match them")
        own, wanted = parts_of(student.condition), parts_of(teacher.condition)
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

    def __call__(self, params, state, batch, key):
        key_noise, key_time, key_scale, key_dropout = jax.random.split(key, 4)
        student, training = self.student, self.student.training
        x, c = student.space.read(batch), self.teacher.condition.read(batch)
        num, process = len(x), student.process
        c = {**c, "guidance": jax.random.uniform(key_scale, (num,), None, *self.span)}
        noise = jax.random.normal(key_noise, x.shape)
        span = training.span(process)
        draw = training.times, process.path, key_time, num, span, training.uniforms
        t = sample_times(*draw)
        z, _ = corrupt(process, x, noise, t)
        own = frozen(state, "teacher")
        wanted = self.teacher.guided_predictor(own.params, own.state)(z, t, c)
        rngs = {"dropout": key_dropout}
        found = student.predictor(params, train=True, rngs=rngs)(z, t, c)
        error = jnp.square(found - jax.lax.stop_gradient(wanted))
        each = jnp.mean(error.reshape(num, -1), axis=-1)
        return jnp.mean(training.weight(process, t) * each), (state, {})
