"""Progressive distillation: each student takes one step where its teacher took two.

In round k a student learns to take `steps` · 2^(rounds - 1 - k) steps. Its teacher is
in the first round the guided model in state["frozen"]["teacher"], and in every later
one the student's own average of the round's first step, which state["round"] keeps: so
the student becomes the teacher within the loss, and nothing else of training knows it.

Salimans and Ho 2022, arXiv:2202.00512, algorithm 2. Guidance is learned in the first
round (Meng et al. 2023, arXiv:2210.03142, at one scale).
"""

import jax
import jax.numpy as jnp

from gengen.diffusion.distillation import halved_steps
from gengen.diffusion.process import corrupt
from gengen.diffusion.sampler import Sampler
from gengen.diffusion.solvers import DDIM
from gengen.errors import BadInput
from gengen.models.combinators.student import Student
from gengen.objective import loss
from gengen.types import Model, frozen, static


@static
class Progressive(Student):
    """A `Diffusion` that learns two of its teacher's steps as one, in rounds."""

    teacher: Model
    """A `Diffusion` of the same process, space and condition."""
    every: int
    """Training steps of a round."""
    rounds: int = 5
    """How often the number of steps halves."""
    sampler: Sampler = Sampler(DDIM(), steps=1)
    """Its steps are those of the last round's student."""

    def __post_init__(self):
        self.check(self.teacher)
        self.sampler_of(self.sampler)
        if self.every < 1 or self.rounds < 1:
            raise BadInput(
                f"every={self.every}, rounds={self.rounds}: a round has a training "
                "step, and there is one round at least"
            )

    def init(self, key, batch=None):
        """The diffusion model's, and the teacher of the rounds after the first."""
        params, state = self.model.init(key, batch)
        return params, {**state, "round": params["denoiser"]}

    def _teacher(self, state, number, c):
        """(z, t) -> r̂ of the round's teacher."""
        first = frozen(state, "teacher")
        guided = self.teacher.guided_predictor(first.params, first.state)
        later = self.model.predictor({"denoiser": state["round"]})

        def predict(z, t):
            return jax.lax.cond(number == 0, guided, later, z, t, c)

        return predict

    @loss
    def loss(self, params, state, batch, key):
        """|r̂ - `halved_steps`|² at the student's own times; metric "steps": its own."""
        key_noise, key_time, key_dropout = jax.random.split(key, 3)
        process, training = self.process, self.model.training
        x, c = self.space.read(batch), self.condition.read(batch)
        number = jnp.minimum(state["step"] // self.every, self.rounds - 1)
        begins = (state["step"] == number * self.every) & (number > 0)
        teacher = jax.tree.map(
            lambda new, old: jnp.where(begins, new, old),
            state["ema"]["denoiser"],
            state["round"],
        )
        state = {**state, "round": jax.lax.stop_gradient(teacher)}
        steps = self.sampler.steps * 2 ** (self.rounds - 1 - number)
        place = jax.random.randint(key_time, (len(x),), 1, steps + 1)
        low, high = training.span(process)
        t, s = (low + (high - low) * i / steps for i in (place, place - 1))
        z, _ = corrupt(process, x, jax.random.normal(key_noise, x.shape), t)
        target = halved_steps(process, self._teacher(state, number, c), z, t, s)
        how = {"train": True, "rngs": {"dropout": key_dropout}}
        found = self.model.predictor(params, **how)(z, t, c)
        error = jnp.square(found - jax.lax.stop_gradient(target))
        each = training.weight(process, t) * error.reshape(len(x), -1).mean(axis=-1)
        return jnp.mean(each), (state, {"steps": steps.astype(jnp.float32)})
