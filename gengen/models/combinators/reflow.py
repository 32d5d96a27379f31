"""Rectified flow: a flow of its teacher's own pairs of noise and sample.

    ε ~ N(0, 1),    x = the end of the teacher's ODE from ε

Then flow matching, of x with its own ε. Pairs of an ODE do not cross on their way as
independent ones do, so that lines between them are nearly what the new flow follows:
one step of it is nearly exact. The pairs are drawn once, before the first step
(`prepared`), and are state["frozen"]["pairs"].

Liu et al. 2022, arXiv:2209.03003 (2-rectified flow).
"""

import jax

from gengen.diffusion.sampler import Sampler
from gengen.errors import BadInput
from gengen.models.combinators.student import Student
from gengen.objective import loss
from gengen.types import Key, Model, Variables, frozen, static


@static
class Reflow(Student):
    """A `Diffusion` of the pairs (ε, x) of a teacher's deterministic sampler."""

    teacher: Model
    """A `Diffusion` of the same process, space and condition."""
    num: int = 10_000
    """How many pairs there are."""
    batch_size: int = 250
    """How many of them are drawn at once, a divisor of their number."""
    sampler: Sampler = Sampler(steps=1)
    """How noise is carried to data, by default."""

    def __post_init__(self):
        self.check(self.teacher)
        self.sampler_of(self.sampler)
        if not self.teacher.sampler.solver.traits.deterministic:
            raise BadInput(
                f"pairs of {self.teacher.sampler.solver}, which draws noise of its "
                "own: give the teacher a deterministic solver, such as Euler()"
            )
        if self.num < 1 or self.num % self.batch_size:
            raise BadInput(
                f"{self.num} pairs, {self.batch_size} at a time: take a multiple"
            )

    def prepared(self, key: Key, state) -> dict[str, Variables]:
        """The pairs, for state["frozen"]: {"pairs": (noise, x, and c by name)}."""
        own = frozen(state, "teacher")

        def draw(key):
            key_noise, key_c = jax.random.split(key)
            noise = jax.random.normal(key_noise, (self.batch_size, *self.latent_shape))
            keys = jax.random.split(key_c, self.batch_size)
            c = self.condition.given({}, self.batch_size, keys)
            return noise, self.teacher.from_latent(*own, noise, **c), c

        keys = jax.random.split(key, self.num // self.batch_size)
        noise, x, c = jax.lax.map(draw, keys)
        made = {"noise": noise, "x": x, "c": c}
        made = jax.tree.map(lambda a: a.reshape(self.num, *a.shape[2:]), made)
        return {"pairs": Variables(made, {})}

    @loss
    def loss(self, params, state, batch, key):
        """The mean of `matching_loss` over drawn pairs, as many as the batch's rows."""
        key_row, key_time, key_dropout = jax.random.split(key, 3)
        training, process = self.model.training, self.process
        num, pairs = len(self.space.data(batch)), frozen(state, "pairs").params
        rows = jax.random.randint(key_row, (num,), 0, self.num)
        noise, x, c = (
            jax.tree.map(lambda a: a[rows], pairs[name]) for name in ("noise", "x", "c")
        )
        how = {"train": True, "rngs": {"dropout": key_dropout}}
        network = self.model.predictor(params, **how)

        def loss(t):
            return training.each(lambda z, t: network(z, t, c), process, x, noise, t)

        value, state = training.mean(loss, process, key_time, num, state)
        return value, (state, {})
