"""python -m train.compare --dataset digits --minutes 2: one table across families.

Every family's default experiment is trained under the same budget, evaluated by the
same command and put into one table, ordered by the taxonomy of generative models:
exact density, bounded density, no density. A new family appears by being listed in
`train.experiments.EXPERIMENTS`.
"""

from pathlib import Path

from .cli.bounds import Figures, Index, Positive, Seed, Steps
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import SourceOptions


@group()
class Compare(SourceOptions):
    """Train every family under one budget, evaluate all, write one table and picture.

    After an interruption the same command goes on: nothing is done twice.
    """

    minutes: Positive = 2.0
    """Training minutes of each family, at most: a default experiment may end earlier,
    at its own last step."""
    steps: Steps | None = None
    """Training steps of each family instead of its default's."""
    families: tuple[str, ...] = ()
    """Experiments to compare; by default all that draw samples."""
    workdir: Path | None = None
    """Folder of the runs, the table and the picture; default runs/compare-DATASET."""
    num: Figures = 2_000
    """Samples of each family that are measured."""
    likelihood_num: Index = 2_000
    """Images of each split whose likelihood is taken, where a family has one; 0 leaves
    it out."""
    extractor: Path | None = None
    """As in the command `evaluate`."""
    seed: Seed = 0
    """Seed of everything."""


def start() -> None:
    """Compare what the command line names."""
    options = parse(Compare, "compare")
    from .measure.comparison import compare

    compare(options)


def main() -> None:
    """The command line."""
    run_command(start)


if __name__ == "__main__":
    main()
