"""Consistency models: a diffusion model's network, taught to answer for whole paths.

The network and its parameters are those of a `Diffusion`, so that training may start
from one that is trained; what changes is the loss (`gengen.diffusion.consistency`) and
the sampler: a call ends the path, and where there are more, noise is added in between
(`Renoise`; Song et al. 2023, arXiv:2303.01469, algorithm 1). With a teacher, in
state["frozen"]["teacher"], the paths are those of its own guided ODE; without one they
are lines between data and noise.
"""

from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp

from gengen.conditions import Condition, drop
from gengen.diffusion.consistency import (
    ClosingGap,
    EvenSteps,
    consistency_loss,
    ode_jump,
)
from gengen.diffusion.process import Process, corrupt, recover
from gengen.diffusion.sampler import Sampler
from gengen.diffusion.solvers import Renoise
from gengen.diffusion.times import sample_times
from gengen.errors import BadInput, no_density
from gengen.objective import loss
from gengen.spaces import Space
from gengen.types import Array, HasFeatures, HasLatents, Model, frozen, static


@static
class Consistency(HasLatents, HasFeatures):
    """A `Diffusion` whose data prediction is to be the end of the path through z."""

    model: Model
    """A `Diffusion`: the network, its process and training; its sampler is not used."""
    schedule: ClosingGap | EvenSteps
    """How far apart the two points of a path are."""
    teacher: Model | None = None
    """A `Diffusion` of the same process and space; None learns from the data alone."""
    sampler: Sampler = Sampler(Renoise(), steps=1)
    """How many calls a sample takes, by default."""
    density: ClassVar[str] = "none"

    def __post_init__(self):
        self._own(self.sampler)
        if self.model.training.vlb_weight:
            raise BadInput(
                "a consistency model has no variances to learn: leave vlb_weight out"
            )
        if self.teacher is None:
            return
        ours, theirs = self.model, self.teacher
        if (ours.process, ours.space) != (theirs.process, theirs.space):
            raise BadInput(
                f"the student's {ours.process} in {ours.space} is not its teacher's "
                f"{theirs.process} in {theirs.space}: give both the same"
            )
        if ours.condition != theirs.condition:
            raise BadInput(
                f"the student is conditioned on {ours.condition}, its teacher on "
                f"{theirs.condition}: give both the same"
            )

    def _own(self, sampler: Sampler | None) -> Sampler:
        sampler = self.sampler if sampler is None else sampler
        if not isinstance(sampler.solver, Renoise):
            raise BadInput(
                f"a consistency model sampled by {sampler.solver}: it answers with the "
                "end of a path, not with a velocity, so take Renoise()"
            )
        if sampler.guidance.scale != 1:
            raise BadInput(
                f"a consistency model with guidance {sampler.guidance.scale}: it has "
                "no velocity to guide, so take scale 1, and a guided teacher"
            )
        return sampler

    @property
    def space(self) -> Space:
        """The type of x."""
        return self.model.space

    @property
    def condition(self) -> Condition:
        """What the network knows beside z and t."""
        return self.model.condition

    @property
    def process(self) -> Process:
        """The path, and what the network predicts."""
        return self.model.process

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one latent: noise as large as the data."""
        return self.model.latent_shape

    def init(self, key, batch=None):
        """The diffusion model's."""
        return self.model.init(key, batch)

    def losses(self):
        return {"denoiser": self.loss}

    def denoiser(self, params, c, **kwargs) -> Callable:
        """`denoise(z, t) -> x̂` with the parameters and the condition bound."""
        predict, process = self.model.predictor(params, **kwargs), self.process
        return lambda z, t: recover(process, z, predict(z, t, c), t)[0]

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

    def from_latent(self, params, state, z: Array, *, sampler=None, **given) -> Array:
        """x of noise z [B, *shape]; with more than one step, of one fixed key, too."""
        how = {"sampler": self._own(sampler), **given}
        return self.model.from_latent(params, state, z, **how)

    def sample(self, params, state, key, num, *, start_index=0, sampler=None, **given):
        """x [num, *shape]. What is not given is drawn."""
        how = {"start_index": start_index, "sampler": self._own(sampler), **given}
        return self.model.sample(params, state, key, num, **how)

    def nfe(self, sampler: Sampler | None = None) -> int:
        """Network calls per sample."""
        return self.model.nfe(self._own(sampler))

    def features(self, params, state, batch, key) -> Array:
        """The network's middle activations [B, F], as `Diffusion.features`."""
        return self.model.features(params, state, batch, key)

    def log_likelihood(self, params, state, batch, key):
        """Raises BadInput: there is no density of x."""
        no_density("a consistency model")
