"""python -m train.probe --workdir DIR: what a linear classifier reads off the features.

A representation is worth what it saves in labels. Multinomial logistic regression is
trained on the run's features, on the pixels, and on the features of the same network
before its first step, which is the control: whatever it reaches was not learnt.
"""

from pathlib import Path

from .cli.bounds import Count, Figures, Seed, Several
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen


@group()
class Probe(RunToOpen):
    """Test accuracy of logistic regression on features; write probe.json.

    Features are standardised, and the regularisation is chosen by cross-validation of
    the training images alone.
    """

    per_class: Several = 10
    """Labels of each class, of the probe with few of them."""
    repeats: Count = 5
    """Draws of the few labels."""
    num_train: Figures = 10_000
    """Training images, at most, of the probe with all labels."""
    seed: Seed = 0
    """Seed of the draws, the untrained network and the noise of features."""
    batch_size: Count = 256
    """Images at a time."""
    data_dir: Path | None = None
    """Where the data set's files are."""


def start() -> None:
    """Probe the run that the command line names."""
    options = parse(Probe, "probe")
    from .measure.probing import probe

    probe(options)


def main() -> None:
    """The command line."""
    run_command(start)


if __name__ == "__main__":
    main()
