"""The program that all of a run executes: its steps, compiled once."""

import jax

from gengen.multi_step import multi_step
from gengen.step import make_train_step

from ..cli.options import RunOptions
from ..data.augment import augmented
from ..data.dataset import Spec
from ..experiments.experiment import Experiment
from .devices import Global, convolves, with_axis_name


def make_step(run: RunOptions, experiment: Experiment, view: Global, spec: Spec):
    """The jitted training step: traced once, wherever it is called from."""
    losses = with_axis_name(experiment.model, view.axis_name).losses()
    return jax.jit(
        make_train_step(
            augmented(losses, run.augment, spec),
            experiment.optimizers,
            experiment.order,
            experiment.ema_decay,
            view.axis_name,
            accumulate=run.accumulate,
        )
    )


def compiled_steps(run: RunOptions, step, feed, train_state, data, view, frozen):
    """(compiled `many`, its length, why): the program that all of the run executes."""
    length = 1 if run.steps_per_call is None else run.steps_per_call
    why = ""

    def program(length):
        many = view.mapped(multi_step(step, feed.fetch, length), train_state)
        # As shapes, so that the loss is not traced again for arrays on a mesh.
        feeds = jax.eval_shape(lambda x: x, (data, view.items(feed.example(length))))
        return many, (train_state, *feeds, length, frozen)

    many, arguments = program(length)
    if run.steps_per_call is None:
        on_cpu = jax.default_backend() == "cpu"
        if on_cpu and convolves(jax.make_jaxpr(many)(*arguments)):
            why = " (convolutions on CPU are slow inside a loop)"
        else:
            length = min(50, run.log_every)
            many, arguments = program(length)
    return many.lower(*arguments).compile(), length, why
