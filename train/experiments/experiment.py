"""An experiment: a model, one optimiser per player, and how long it is trained."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from gengen.errors import BadInput

from ..data.dataset import Spec


@dataclasses.dataclass(frozen=True)
class Reference:
    """Another run, whose arrays (averaged, if it keeps an average) are read."""

    workdir: str
    """Its folder; in a record, as seen from the folder of the run that refers to it."""
    step: int | None = None
    """The step of its checkpoint; None for the last one."""
    digest: str | None = None
    """The digest of its arrays, as of `digest_of` in run/digests.py; None for any."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What the loop needs to know: a model, and one optimiser (optax) per player.

    learning_rate: that of a step, to be logged; None where nobody says it.
    taught: makes the experiment of the model of --teacher, where it has one; then this
        is not yet an experiment, and its model is None.
    start: the parameters of --teacher -> those by which this one starts, by player.
    """

    model: Any
    optimizers: dict[str, Any]
    batch_size: int
    steps: int
    ema_decay: float | None = None
    order: tuple[str, ...] | None = None
    learning_rate: Callable[[int], float] | None = None
    taught: Callable[[Any], "Experiment"] | None = None
    start: Callable[[dict], dict] | None = None


def second_stage(experiment: Experiment, autoencoder: Any) -> Experiment:
    """An experiment on the latents of an autoencoder as one on the data.

    Its model draws data by the autoencoder's decoder, whose arrays are
    state["frozen"]["autoencoder"].
    """
    from gengen.models.combinators.latent import Coded, Latent
    from gengen.types import HasCodes

    kind = Coded if isinstance(autoencoder, HasCodes) else Latent
    return dataclasses.replace(experiment, model=kind(experiment.model, autoencoder))


def with_teacher(experiment: Experiment, teacher: Any, name: str) -> Experiment:
    """The experiment `name` once the model of its --teacher is known, if it has one."""
    if experiment.taught is None:
        if teacher is not None:
            raise BadInput(
                f"--teacher: {name} learns from the data alone; leave it out, or take "
                "distill"
            )
        return experiment
    if teacher is None:
        raise BadInput(
            f"{name} learns from another run: give its folder with --teacher"
        )
    return experiment.taught(teacher)


def with_perceptual(experiment: Experiment, classifier: Any, name: str) -> Experiment:
    """The experiment `name` with the model of its --perceptual, if it has one."""
    if classifier is None:
        return experiment
    if not hasattr(experiment.model, "perceptual"):
        raise BadInput(
            f"--perceptual: {name} compares no images; leave it out, or take "
            "autoencoder_kl or vqgan"
        )
    if not hasattr(classifier, "maps"):
        raise BadInput(
            f"--perceptual holds a {type(classifier).__name__}, which has no maps of "
            "features: take the run of a classifier"
        )
    model = dataclasses.replace(experiment.model, perceptual=classifier)
    return dataclasses.replace(experiment, model=model)


def takes(options: type, reads: dict[str, str] | None = None) -> Callable:
    """Make `build(data, options)` a function of the data and the options' keywords.

    Its signature and type hints are those of the fields; `function.options` is the
    dataclass, from which the command line is made. `function.reads` is what it cannot
    do without: {option that names another run: the experiment of such a run}.
    """

    def decorate(build: Callable[[Spec, Any], Experiment]):
        @functools.wraps(build)
        def function(data: Spec, **keywords) -> Experiment:
            return build(data, options(**keywords))

        hints = get_type_hints(options, include_extras=True)
        data = inspect.Parameter("data", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        fields = [
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default
            )
            for field in dataclasses.fields(options)
        ]
        function.__signature__ = inspect.Signature([data, *fields])
        function.__annotations__ = {"data": Spec, **hints, "return": Experiment}
        function.options, function.reads = options, reads or {}
        return function

    return decorate
