"""Consistency models: a diffusion model's network, taught to answer for whole paths.

The network and its parameters are those of a `Diffusion`, so that training may start
from one that is trained; what changes is the loss (`gengen.diffusion.consistency`) and
the sampler: a call ends the path, and where there are more, noise is added in between
(`Renoise`; Song et al. 2023, arXiv:2303.01469, algorithm 1). With a teacher, in
state["frozen"]["teacher"], the paths are those of its own guided ODE; without one they
are lines between data and noise.
"""

import jax
import jax.numpy as jnp

from gengen.conditions import drop
from gengen.diffusion.consistency import (
    ClosingGap,
    EvenSteps,
    consistency_loss,
    ode_jump,
)
from gengen.diffusion.process import corrupt
from gengen.diffusion.sampler import Sampler
from gengen.diffusion.solvers import Renoise
from gengen.diffusion.times import sample_times
from gengen.errors import BadInput
from gengen.models.combinators.student import Student
from gengen.objective import loss
from gengen.types import Model, frozen, static


@static
class Consistency(Student):
    """A `Diffusion` whose data prediction is to be the end of the path through z."""

    schedule: ClosingGap | EvenSteps
    """How far apart the two points of a path are."""
    teacher: Model | None = None
    """A `Diffusion` of the same process and space; None learns from the data alone."""
    sampler: Sampler = Sampler(Renoise(), steps=1)
    """How many calls a sample takes, by default."""

    def __post_init__(self):
        self.sampler_of(self.sampler)
        self.check(self.teacher)

    def sampler_of(self, sampler: Sampler | None) -> Sampler:
        """`Student.sampler_of`; BadInput unless its solver is `Renoise`."""
        sampler = super().sampler_of(sampler)
        if not isinstance(sampler.solver, Renoise):
            raise BadInput(
                f"a consistency model sampled by {sampler.solver}: it answers with the "
                "end of a path, not with a velocity, so take Renoise()"
            )
        return sampler

    @loss
    def loss(self, params, state, batch, key):
        """The mean of `consistency_loss`; metric "gap": the mean of t - s."""
        key_noise, key_time, key_c, key_dropout = jax.random.split(key, 4)
        training, process, path = self.model.training, self.process, self.process.path
        x, c = self.space.read(batch), self.condition.read(batch)
        c = drop(self.condition, key_c, training.condition_dropout, c)
        draw = training.times, path, key_time, len(x), training.span(process)
        t = sample_times(*draw, training.uniforms)
        s = self.schedule.earlier(path, t, state["step"])
        noise = jax.random.normal(key_noise, x.shape)
        z = corrupt(process, x, noise, t)[0]
        if self.teacher is None:
            z_s = corrupt(process, x, noise, s)[0]
        else:
            own = frozen(state, "teacher")
            predict = self.teacher.guided_predictor(own.params, own.state)
            z_s = ode_jump(process, z, predict(z, t, c), t, s)
        # One key for both calls: the same dropout mask on both sides.
        how = {"train": True, "rngs": {"dropout": key_dropout}}
        each = consistency_loss(self.denoiser(params, c, **how), path, z, t, z_s, s)
        return jnp.mean(each), (state, {"gap": jnp.mean(t - s)})
