"""A student: a diffusion model whose loss asks another one, or its own samples.

Network, process and parameters are those of the `Diffusion` that it holds, so that it
may start from the teacher's. What becomes another is the loss; and the sampler, which
takes few steps.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gengen.conditions import Condition
from gengen.diffusion.paths import is_discrete
from gengen.diffusion.process import Process, recover
from gengen.diffusion.sampler import Sampler
from gengen.errors import BadInput, no_density
from gengen.spaces import Space
from gengen.types import Array, HasFeatures, HasLatents, static


@static
class Student(HasLatents, HasFeatures):
    """What students share: they are sampled as a `Diffusion`, and have no density."""

    model: Any
    """A `Diffusion`: the network, its process and training; its sampler is not used."""
    density: ClassVar[str] = "none"

    def check(self, teacher: Any = None) -> None:
        """BadInput for a model that cannot be a student, or not that teacher's."""
        process = self.model.process
        if is_discrete(process.path):
            raise BadInput(
                f"a student along {process.path}, whose times are a table's: it needs "
                "all times between, so take a path such as Linear() or Cosine()"
            )
        if self.model.training.vlb_weight:
            raise BadInput("a student has no variances to learn: leave vlb_weight out")
        if teacher is None:
            return
        if (process, self.space) != (teacher.process, teacher.space):
            raise BadInput(
                f"the student's {process} in {self.space} is not its teacher's "
                f"{teacher.process} in {teacher.space}: give both the same"
            )
        if self.condition != teacher.condition:
            raise BadInput(
                f"the student is conditioned on {self.condition}, its teacher on "
                f"{teacher.condition}: give both the same"
            )

    def sampler_of(self, sampler: Sampler | None) -> Sampler:
        """The caller's sampler or the student's own; its guidance is learned."""
        sampler = self.sampler if sampler is None else sampler
        if sampler.guidance.scale != 1:
            raise BadInput(
                f"a {type(self).__name__} with guidance {sampler.guidance.scale}: it "
                "answers as it was taught, so take scale 1, and a guided teacher"
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

    def denoiser(self, params, c, **kwargs) -> Callable:
        """`denoise(z, t) -> x̂` with the parameters and the condition bound."""
        predict, process = self.model.predictor(params, **kwargs), self.process
        return lambda z, t: recover(process, z, predict(z, t, c), t)[0]

    def losses(self):
        return {"denoiser": self.loss}

    def from_latent(self, params, state, z: Array, *, sampler=None, **given) -> Array:
        """x of noise z [B, *shape]; of a stochastic sampler, by one fixed key, too."""
        how = {"sampler": self.sampler_of(sampler), **given}
        return self.model.from_latent(params, state, z, **how)

    def sample(self, params, state, key, num, *, start_index=0, sampler=None, **given):
        """x [num, *shape]. What is not given is drawn."""
        how = {"start_index": start_index, "sampler": self.sampler_of(sampler), **given}
        return self.model.sample(params, state, key, num, **how)

    def nfe(self, sampler: Sampler | None = None) -> int:
        """Network calls per sample."""
        return self.model.nfe(self.sampler_of(sampler))

    def features(self, params, state, batch, key) -> Array:
        """The network's middle activations [B, F], as `Diffusion.features`."""
        return self.model.features(params, state, batch, key)

    def log_likelihood(self, params, state, batch, key):
        """Raises BadInput: there is no density of x."""
        no_density("a student of a diffusion model")


@static
class OneStep(Student):
    """A student that is a generator: the data that it predicts of noise alone."""

    def generate(self, params, c, num: int, key) -> Array:
        """x of fresh noise, [num, *shape], by one call."""
        key_noise, key_dropout = jax.random.split(key)
        path, high = self.process.path, self.model.training.span(self.process)[1]
        t = jnp.full(num, high, jnp.float32)
        z = path.b(t[0]) * jax.random.normal(key_noise, (num, *self.latent_shape))
        how = {"train": True, "rngs": {"dropout": key_dropout}}
        return self.denoiser(params, c, **how)(z, t)
