"""What every experiment's command line has beside the experiment's own keywords."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Literal

import tyro

positive = tyro.conf.arg(metavar="N")


@dataclasses.dataclass(frozen=True)
class RunToOpen:
    """The run that a command opens."""

    workdir: Path
    """The run's folder."""
    step: int | Literal["best"] | None = None
    """Step of the checkpoint that is read, or best, of a run with --keep-best; by
    default the last one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run reads, how long it lasts and what it writes."""

    workdir: Path
    """Folder for checkpoints, metrics and pictures; an old run in it is resumed."""
    fresh: bool = False
    """Start again from step 0: a run that is in the workdir is moved aside first, to
    WORKDIR.old-1, .old-2, …"""
    dataset: str = "digits"
    """digits, mnist, fashion_mnist, folder:PATH (images), npz:FILE (arrays image and
    label), text:PATH (a file or folder; text alone is Python's language reference), or
    any prepared TFDS name."""
    data_dir: Path | None = None
    """Where the IDX files or the prepared TFDS sets are."""
    image_size: int | None = None
    """Scale the shorter side to this and crop the centre; by default nothing is."""
    levels: int | None = None
    """Requantise pixels to this many levels; by default the data set's own."""
    length: int | None = None
    """Bytes of a window of text; by default 256."""
    augment: tuple[Literal["flip", "shift"], ...] = ()
    """Change each training image at random: flip mirrors half of them left to right
    (digits and letters are not their mirror images), shift moves them by up to an
    eighth of their shorter side, with level 0 behind them."""
    seed: int = 0
    """Seed of the initial parameters, the order of the data and all noise."""
    on_bad_record: Literal["refuse", "skip"] = "refuse"
    """A file or record that cannot be read ends the run, or is left out: then all are
    read once at the start, and the order is that of the good ones."""
    workers: int = 0
    """Processes that read ahead where the set is not on the device; 0 is a thread.
    They pay off where a run says that it waits for data."""
    resident_bytes: int = 2**30
    """A set of no more bytes of pixels is put on the device once, and then costs the
    steps nothing."""
    minutes: float | None = None
    """Stop, and save, after this much time in training steps, all starts together
    (compilation and pictures do not count); by default only --steps ends a run."""
    log_every: Annotated[int, positive] = 100
    """Steps between two lines of metrics (means over those steps)."""
    sample_every: Annotated[int, positive] = 500
    """Steps between two sample grids."""
    evaluate_every: int = 0
    """Steps between two measurements of sample quality, by the classifier beside the
    run, which is trained first where there is none; 0 for none."""
    checkpoint_every: Annotated[int, positive] = 500
    """Steps between two checkpoints; the last step is always saved."""
    keep: Annotated[int, positive] = 2
    """Checkpoints kept."""
    keep_best: str | None = None
    """A figure, such as quality/frechet_distance: the checkpoint with the best is kept
    beside the last ones, as --step best."""
    max_skipped: Annotated[int, positive] = 20
    """Steps in a row whose loss or gradient is not finite, after which the run ends;
    each of them changes nothing and is counted."""
    parallel: Literal["jit", "pmap"] = "jit"
    """One program over all devices, or one a device, each with its own noise."""
    mesh: str | None = None
    """Devices as data=N,model=M: batches are split over N, large parameters over M; by
    default all are along data."""
    accumulate: Annotated[int, positive] = 1
    """Parts into which a batch is cut, one after the other: the memory of one. A loop,
    in which convolutions are slow on CPU."""
    steps_per_call: int | None = None
    """Steps in one dispatch: 50 by default, 1 on CPU where the step convolves."""
    profile: bool = False
    """Write a trace of some steps, for JAX's profiler, to WORKDIR/profile."""
    coordinator: str | None = None
    """HOST:PORT where process 0 runs, of a run of several processes, or auto: what the
    cluster's environment says (Slurm, Open MPI, TPU, Kubernetes)."""
    num_processes: int | None = None
    """How many processes there are; --workdir must be a folder that they share."""
    process_id: int | None = None
    """Which of them this one is: 0 to N-1."""
    patience: Annotated[int, positive] = 100
    """Seconds to wait for another process: until it starts, then for a sign of life."""


# What makes two runs the same run, beside the experiment's keywords except `steps`.
IDENTITY = ("dataset", "image_size", "levels", "length", "seed")

# What may differ between the processes of one run.
OWN = ("process_id", "data_dir")


AT_LEAST_ONE = (
    "accumulate",
    "annealing_steps",
    "attention",
    "batch_size",
    "blocks",
    "channels",
    "checkpoint_every",
    "components",
    "conv_levels",
    "evaluations",
    "heads",
    "hidden",
    "importance_samples",
    "keep",
    "latent",
    "layers",
    "log_every",
    "max_skipped",
    "multipliers",
    "num",
    "num_processes",
    "patch",
    "particles",
    "patience",
    "r1_interval",
    "repeats",
    "resolutions",
    "sample_every",
    "sampling_steps",
    "steps",
    "steps_per_call",
    "top_k",
    "width",
)
AT_LEAST_ZERO = (
    "beta",
    "classifier_scale",
    "evaluate_every",
    "guidance_scale",
    "importance_bins",
    "process_id",
    "r1_weight",
    "resident_bytes",
    "shift",
    "workers",
)
ABOVE_ZERO = ("data_std", "learning_rate", "minutes", "seconds", "temperature", "top_p")
BELOW_ONE = ("dropout", "ema_decay", "label_dropout", "label_smoothing")


def check_numbers(options: dict) -> None:
    """BadInput for a number that no run can have; None is always allowed."""
    from gengen.errors import BadInput

    def refuse(name, value, rule):
        raise BadInput(f"--{name.replace('_', '-')} {value}: it must be {rule}")

    for name, given in options.items():
        values = given if isinstance(given, tuple) else (given,)
        if name == "multipliers" and not values:
            refuse(name, "(nothing)", "at least one number")
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                refuse(name, value, "an integer of 64 bits")
            if not math.isfinite(value):
                refuse(name, value, "a finite number")
            if name in AT_LEAST_ONE and value < 1:
                refuse(name, value, "at least 1")
            if name in AT_LEAST_ZERO and value < 0:
                refuse(name, value, "at least 0")
            if name in ABOVE_ZERO and value <= 0:
                refuse(name, value, "above 0")
            if name in BELOW_ONE and not 0 <= value < 1:
                refuse(name, value, "at least 0 and below 1")


def at_least(options, **least: int) -> None:
    """BadInput for an option below its least value."""
    from gengen.errors import BadInput

    for name, value in least.items():
        if (given := getattr(options, name)) < value:
            option = name.replace("_", "-")
            raise BadInput(f"--{option} {given}: it must be at least {value}")


def check_png(out: Path) -> None:
    """BadInput for another kind of file."""
    from gengen.errors import BadInput

    if out.suffix != ".png":
        raise BadInput(f"--out {out}: end it in .png")
