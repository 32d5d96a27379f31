"""An experiment: a model, one optimiser per player, and how long it is trained."""

import dataclasses
from typing import Any


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

    frozen: the runs whose arrays the losses and the sampler read as
    `state["frozen"][name]`, such as an autoencoder or a teacher.
    """

    model: Any
    optimizers: dict[str, Any]
    batch_size: int
    steps: int
    ema_decay: float | None = None
    order: tuple[str, ...] | None = None
    frozen: dict[str, Reference] = dataclasses.field(default_factory=dict)
