"""python -m train.sweep --workdir DIR --solver ddim heun --evaluations 5 10 20 50.

A run's metrics as a function of its sampler's options: every point is what
`train.evaluate` says of the samples under those options, from the same seed at each
(common random numbers: what differs between points is the option, not the luck). With
--train, as a function of its training's options: every point is a run.
"""

from pathlib import Path

from .cli.bounds import Calls, Count, Figures, Index, Positive, Seed
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen
from .cli.sampler import GuideOptions, SweptOptions


@group()
class Sweep(RunToOpen, SweptOptions, GuideOptions):
    """Measure a run under every combination of the listed options; table and plot.

    The options are those of its sampler, or, by --train, those of its training: then
    each combination is a run of its own. After an interruption, or with longer lists,
    the same command goes on: no point is measured twice.
    """

    train: tuple[str, ...] = ()
    """Options of training as NAME=VALUE,VALUE…: "learning_rate=1e-3,3e-4" "latent=2,8".
    Each combination is trained in a folder of its own, with the run's other options."""
    minutes: Positive | None = None
    """With --train: training minutes of each run, at most."""
    likelihood_num: Index = 2_000
    """With --train: examples of each split whose likelihood (of a classifier: accuracy)
    is measured; 0 leaves the likelihood out."""
    evaluations: tuple[Calls, ...] = ()
    """Network evaluations per sample: as many whole steps as they allow. Guidance takes
    two at a time, Heun's steps two each."""
    num: Figures = 10_000
    """Samples of each point."""
    seed: Seed = 0
    """Seed of the samples: the same at all points."""
    extractor: Path | None = None
    """As in the command `evaluate`."""
    out: Path | None = None
    """The numbers (.json), beside which the plot (.png), the table (.md) and the runs
    of --train go; by default sweep.json in the run's folder, or in WORKDIR-sweep."""
    batch_size: Count = 256
    """Samples at a time."""
    data_dir: Path | None = None
    """Where the data set's files are."""


def start() -> None:
    """Sweep over what the command line lists."""
    options = parse(Sweep, "sweep")
    if options.train:
        from .measure.training_sweep import sweep_training as sweep
    else:
        from .measure.sampler_sweep import sweep_sampler as sweep
    sweep(options)


def main() -> None:
    """The command line."""
    run_command(start)


if __name__ == "__main__":
    main()
