"""What every experiment's command line has beside the experiment's own keywords."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

positive = tyro.conf.arg(metavar="N")


@dataclasses.dataclass(frozen=True)
class Run:
    """Where a run reads, how long it lasts and what it writes."""

    workdir: Path
    """Folder for checkpoints, metrics and pictures; an old run in it is resumed."""
    dataset: str = "digits"
    """digits, mnist, fashion_mnist, folder:PATH, or any prepared TFDS name."""
    data_dir: Path | None = None
    """Where the IDX files or the prepared TFDS sets are."""
    image_size: int | None = None
    """Scale the shorter side to this and crop the centre; by default nothing is."""
    levels: int | None = None
    """Requantise pixels to this many levels; by default the data set's own."""
    seed: int = 0
    """Seed of the initial parameters, the order of the data and all noise."""
    log_every: Annotated[int, positive] = 100
    """Steps between two lines of metrics (means over those steps)."""
    sample_every: Annotated[int, positive] = 500
    """Steps between two sample grids."""
    checkpoint_every: Annotated[int, positive] = 500
    """Steps between two checkpoints; the last step is always saved."""
    keep: Annotated[int, positive] = 2
    """Checkpoints kept."""
    steps_per_call: int | None = None
    """Steps in one dispatch: 50 by default, 1 on CPU where the step convolves."""


# What makes two runs the same run, beside the experiment's keywords except `steps`.
IDENTITY = ("dataset", "image_size", "levels", "seed")


def check(run: Run, options: dict) -> None:
    """BadInput for a number that no run can have."""
    from gengen.types import BadInput

    numbers = {**dataclasses.asdict(run), **options}
    at_least_one = (
        "log_every",
        "sample_every",
        "checkpoint_every",
        "keep",
        "steps_per_call",
        "steps",
        "batch_size",
        "sampling_steps",
        "latent",
        "channels",
        "blocks",
        "conv_levels",
        "importance_samples",
    )
    for name in at_least_one:
        value = numbers.get(name)
        if value is not None and value < 1:
            option = name.replace("_", "-")
            raise BadInput(f"--{option} {value}: it must be at least 1")
    for name in ("learning_rate",):
        value = numbers.get(name)
        if value is not None and not value > 0:
            option = name.replace("_", "-")
            raise BadInput(f"--{option} {value}: it must be above 0")
    for name in ("label_dropout", "dropout", "ema_decay"):
        value = numbers.get(name)
        if value is not None and not 0 <= value < 1:
            option = name.replace("_", "-")
            raise BadInput(f"--{option} {value}: it must be at least 0 and below 1")
