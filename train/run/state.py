"""A run's train state before its first step."""

import jax

from gengen.step import init_train_state

from ..experiments.experiment import Experiment
from .devices import infer_sharding


def initial_state(experiment: Experiment, seed: int, batch, mesh):
    """The compiled `start()`: the train state before step 0, on the mesh.

    A function of the seed; `batch` gives shapes.
    """

    def start():
        key_init, key_run = jax.random.split(jax.random.key(seed))
        params, state = experiment.model.init(key_init, batch)
        averaged = experiment.ema_decay is not None
        return init_train_state(key_run, params, state, experiment.optimizers, averaged)

    shapes = jax.eval_shape(start)
    return jax.jit(start, out_shardings=infer_sharding(mesh, shapes))
