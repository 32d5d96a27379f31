"""What every experiment's command line has beside the experiment's own keywords."""

from pathlib import Path
from typing import Annotated, Literal

from gengen.errors import BadInput

from .bounds import (
    AtLeast,
    AtMost,
    Bytes,
    Count,
    Levels,
    Positive,
    Seed,
    Step,
    Steps,
    Width,
    Workers,
)
from .groups import group


@group()
class RunToOpen:
    """The run that a command opens."""

    workdir: Path
    """The run's folder."""
    step: Step | Literal["best"] | None = None
    """Step of the checkpoint that is read, or best, of a run with --keep-best; by
    default the last one."""


@group()
class BoundOptions:
    """The estimate of the likelihood."""

    importance_samples: Count | None = None
    """K of the likelihood's bound (IWAE-K), for models with latents; by default the
    run's own."""


@group()
class SourceOptions:
    """The data set."""

    dataset: str = "digits"
    """digits, shapes (drawn, of known factors), scenes (drawn, with captions; scenes:1
    of one thing each), mnist, fashion_mnist, emoji (colour, with captions), folder:PATH
    (images, with captions where it has any), npz:FILE (arrays image and label),
    text:PATH (a file or folder; text alone is Python's language reference), or any
    prepared TFDS name; binarised:NAME draws black or white by the pixels' grey,
    few-labels:N:NAME hides all but N training labels of each class, few-images:N:NAME
    leaves out the other images, more:FILE.npz:NAME adds those that train.sample wrote,
    and pair:CHANGE:NAME (inverted, thick, tinted), emoji-styles:FOLDER (Noto's, and an
    unpacked emoji-datasource-twitter's) and unpaired:A,B have two domains."""
    data_dir: Path | None = None
    """Where the IDX files, the emoji's font or the prepared TFDS sets are."""
    image_size: Width | None = None
    """Scale the shorter side to this and crop the centre; by default nothing is."""
    levels: Levels | None = None
    """Requantise pixels to this many levels; by default the data set's own."""


@group()
class ReadOptions:
    """How a batch reaches the device."""

    workers: Workers = 0
    """Processes that read ahead where the set is not on the device; 0 is a thread.
    They pay off where a run says that it waits for data."""
    resident_bytes: Bytes = 2**30
    """A set of no more bytes of pixels is put on the device once, and then costs the
    steps nothing."""


@group()
class DataOptions(SourceOptions, ReadOptions):
    """How the data set is read."""

    length: Width | None = None
    """Bytes of a window of text; by default 256."""
    augment: tuple[Literal["flip", "shift"], ...] = ()
    """Change each training image at random: flip mirrors half of them left to right
    (digits and letters are not their mirror images), shift moves them by up to an
    eighth of their shorter side, with level 0 behind them."""
    on_bad_record: Literal["refuse", "skip"] = "refuse"
    """A file or record that cannot be read ends the run, or is left out: then all are
    read once at the start, and the order is that of the good ones."""


@group()
class LogOptions:
    """What a run writes while it trains, and how often."""

    log_every: Steps = 100
    """Steps between two lines of metrics (means over those steps)."""
    sample_every: Steps = 500
    """Steps between two sample grids."""
    evaluate_every: Step | None = None
    """Steps between two measurements of sample quality, by the classifier beside the
    run, which is trained first where there is none; 0 for none. By default none, and
    those between two checkpoints of an experiment whose loss measures no progress
    (meanflow, consistency, distill, drifting)."""
    checkpoint_every: Steps = 500
    """Steps between two checkpoints; the last step is always saved."""
    keep: Count = 2
    """Checkpoints kept."""
    keep_best: str | None = None
    """A figure, such as quality/frechet_distance: the checkpoint with the best is kept
    beside the last ones, as --step best."""


@group()
class StepOptions:
    """How one step is computed."""

    max_skipped: Steps = 20
    """Steps in a row whose loss or gradient is not finite, after which the run ends;
    each of them changes nothing and is counted."""
    accumulate: Count = 1
    """Parts into which a batch is cut, one after the other: the memory of one. A loop,
    in which convolutions are slow on CPU."""
    steps_per_call: Steps | None = None
    """Steps in one dispatch: 50 by default, 1 on CPU where the step convolves."""
    profile: bool = False
    """Write a trace of some steps, for JAX's profiler, to WORKDIR/profile."""


@group()
class DeviceOptions:
    """How a run is spread over devices."""

    parallel: Literal["jit", "pmap"] = "jit"
    """One program over all devices, or one per device, each with its own noise."""
    mesh: str | None = None
    """Devices as data=N,model=M: batches are split over N, large parameters over M; by
    default all are along data."""


@group()
class ProcessOptions:
    """A run of several processes, each with devices of its own."""

    coordinator: str | None = None
    """HOST:PORT where process 0 runs, or auto: what the cluster's environment says
    (Slurm, Open MPI, TPU, Kubernetes)."""
    num_processes: Annotated[int, AtLeast(1), AtMost(10**6)] | None = None
    """How many processes there are; --workdir must be a folder that they share."""
    process_id: Annotated[int, AtLeast(0), AtMost(10**6)] | None = None
    """Which of them this one is: 0 to N-1."""
    patience: Annotated[int, AtLeast(1), AtMost(10**6)] = 100
    """Seconds to wait for another process: until it starts, then for a sign of life."""


@group()
class RunOptions(DataOptions, LogOptions, StepOptions, DeviceOptions, ProcessOptions):
    """The run: its folder, its seed, its end."""

    workdir: Path
    """Folder for checkpoints, metrics and pictures; an old run in it is resumed."""
    fresh: bool = False
    """Start again from step 0: a run that is in the workdir is moved aside first, to
    WORKDIR.old-1, .old-2, …"""
    init_from: str | None = None
    """RUN or RUN@STEP: start from the parameters, and the average, of another run's
    checkpoint (its folder, and its step or best), with other options as needed. A
    classifier starts from another experiment's encoder, where the arrays are alike; a
    model of captions from the encoder of captions of a clip."""
    first_stage: str | None = None
    """RUN or RUN@STEP: model the latents of another run (the codes of a vqvae; the maps
    of an autoencoder or a VAE), and draw images by its decoder."""
    perceptual: str | None = None
    """RUN or RUN@STEP: restore images also in the maps of another run's classifier
    (autoencoder_kl, vqgan)."""
    teacher: str | None = None
    """RUN or RUN@STEP: learn from another run, whose parameters are also the first ones
    (distill)."""
    seed: Seed = 0
    """Seed of the initial parameters, the order of the data and all noise."""
    minutes: Positive | None = None
    """Stop, and save, after this much time in training steps, all starts together
    (compilation and pictures do not count); by default only --steps ends a run."""


# What makes two runs the same run, beside the experiment's keywords except `steps`.
IDENTITY = ("dataset", "image_size", "levels", "length", "seed")

# What may differ between the processes of one run.
OWN = ("process_id", "data_dir")


def picture_path(options, name: str) -> Path:
    """--out, by default `name` in the run's folder; BadInput for no picture's name."""
    out = options.out or options.workdir / name
    if out.suffix != ".png":
        raise BadInput(f"--out {out}: end it in .png")
    return out
