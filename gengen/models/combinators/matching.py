"""Distribution matching: a generator whose noised samples are a teacher's.

Two players: the generator is the student's network at the last time, x = x̂(ε, t_max),
and "fake" is a diffusion model of its samples, trained beside it. The difference of
what the teacher and "fake" say of noised samples is the generator's gradient
(`matching_direction`); it vanishes where the two densities are one.

Yin et al. 2023, arXiv:2311.18828; several turns of "fake" for one of the generator, and
no pairs of the teacher's: Yin et al. 2024, arXiv:2405.14867, section 4.
"""

import jax
import jax.numpy as jnp

from gengen.diffusion.distillation import direction_loss, matching_direction
from gengen.diffusion.process import corrupt, recover
from gengen.diffusion.sampler import Sampler
from gengen.diffusion.solvers import Renoise
from gengen.errors import BadInput
from gengen.models.combinators.student import OneStep
from gengen.objective import loss
from gengen.types import Model, frozen, static


@static
class DistributionMatching(OneStep):
    """A `Diffusion` as a one-step generator, and a second one of its samples."""

    teacher: Model
    """A `Diffusion` of the same process, space and condition."""
    span: tuple[float, float] = (0.02, 0.98)
    """The shares of the time between which samples are noised to be compared."""
    sampler: Sampler = Sampler(Renoise(), steps=1)
    """One call."""

    def __post_init__(self):
        self.check(self.teacher)
        self.sampler_of(self.sampler)
        low, high = self.span
        if not 0 <= low < high <= 1:
            raise BadInput(f"span={self.span}: two rising shares, from 0 to 1")

    def init(self, key, batch=None):
        """The diffusion model's, twice: both players start as one."""
        params, state = self.model.init(key, batch)
        return {"fake": params["denoiser"], **params}, state

    def losses(self):
        return {"fake": self.play_fake, "denoiser": self.play_generator}

    @loss
    def play_fake(self, params, state, batch, key):
        """The loss of a diffusion model of the generator's samples."""
        key_x, key_noise, key_time, key_dropout = jax.random.split(key, 4)
        training, process = self.model.training, self.process
        c, num = self.condition.read(batch), len(self.space.data(batch))
        x = jax.lax.stop_gradient(self.generate(params, c, num, key_x))
        noise = jax.random.normal(key_noise, x.shape)
        own = {"denoiser": params["fake"]}
        how = {"train": True, "rngs": {"dropout": key_dropout}}
        network = self.model.predictor(own, **how)

        def loss(t):
            return training.each(lambda z, t: network(z, t, c), process, x, noise, t)

        value, state = training.mean(loss, process, key_time, num, state)
        return value, (state, {})

    @loss
    def play_generator(self, params, state, batch, key):
        """`direction_loss` along `matching_direction`; metric "direction": its size."""
        key_x, key_noise, key_time = jax.random.split(key, 3)
        process, own = self.process, frozen(state, "teacher")
        c, num = self.condition.read(batch), len(self.space.data(batch))
        x = self.generate(params, c, num, key_x)
        low, high = self.model.training.span(process)
        share = jax.random.uniform(key_time, (num,), None, *self.span)
        t = low + (high - low) * share
        z, _ = corrupt(process, x, jax.random.normal(key_noise, x.shape), t)
        teacher = self.teacher.guided_predictor(own.params, own.state)
        real = recover(process, z, teacher(z, t, c), t)[0]
        fake = self.denoiser({"denoiser": params["fake"]}, c)(z, t)
        direction = jax.lax.stop_gradient(matching_direction(x, real, fake))
        size = jnp.sqrt(jnp.mean(jnp.square(direction)))
        return jnp.mean(direction_loss(x, direction)), (state, {"direction": size})
