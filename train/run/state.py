"""A run's train state before its first step."""

import functools

import jax

from gengen.step import init_train_state

from ..experiments.experiment import Experiment
from .cache import compiled_quickly
from .devices import infer_sharding
from .shared import shared_jit


def initial(model, key, batch):
    """The parameters and the state of a model that nothing has trained."""
    return model.init(key, batch)


class InitialState:
    """The train state before step 0, on the mesh: call it for the arrays.

    A function of the seed; `batch` gives shapes.
    """

    def __init__(self, experiment: Experiment, seed: int, batch, mesh):
        def start():
            key_init, key_run = jax.random.split(jax.random.key(seed))
            init = shared_jit(initial, experiment.model)
            params, state = init(key_init, batch)
            averaged = experiment.ema_decay is not None
            return init_train_state(
                key_run, params, state, experiment.optimizers, averaged
            )

        self._start, self._mesh = start, mesh

    @functools.cached_property
    def shapes(self):
        """Its shapes and types."""
        return jax.eval_shape(self._start)

    @functools.cached_property
    def _shardings(self):
        return infer_sharding(self._mesh, self.shapes)

    def __call__(self):
        start = jax.jit(
            self._start,
            out_shardings=self._shardings,
            compiler_options=compiled_quickly(),
        )
        return start()

    @functools.cached_property
    def abstract(self):
        """Its shapes, types and places, for restoring: nothing is compiled."""

        def place(leaf, sharding):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        return jax.tree.map(place, self.shapes, self._shardings)
