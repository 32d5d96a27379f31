"""python -m train.outliers --workdir DIR: which scores of a trained run find outliers.

Inliers are the test images of the run's data set. Outliers are made from them, which
needs no other data set, or are the test images of another one. Every score that the
model supports is judged by the area under its ROC curve: ½ is worthless, and below ½ it
takes outliers for better data than the data, which raw likelihood is known to do
(Nalisnick et al. 2019, arXiv:1810.09136).
"""

from pathlib import Path

from .cli.bounds import Count, Figures, Index, Seed
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import BoundOptions, RunToOpen


@group()
class Outliers(RunToOpen, BoundOptions):
    """Judge every outlier score of a run; write outliers.json and outliers.png.

    The scores are those of gengen.tasks.outliers. A class-conditional density is turned
    into p(x), its sum over classes; what needs a label gets the likeliest one.
    """

    against: tuple[str, ...] = ()
    """Outliers: noise (uniform levels), inverted, constant, shuffled (pixels), faint (a
    quarter of the contrast), or data sets by name (digits, folder:PATH, …), scaled to
    the run's size; by default the first five, and digits."""
    num: Figures = 1_000
    """Images of each set, at most."""
    regret_num: Index = 200
    """Images of each set for the likelihood regret, which optimises every code; 0
    leaves it out."""
    extractor: Path | None = None
    """Where features come from beside the model's own, as in train.evaluate."""
    seed: Seed = 0
    """Seed of the outliers and of all estimates."""
    batch_size: Count = 256
    """Images at a time."""
    data_dir: Path | None = None
    """Where the data sets' files are."""


def start() -> None:
    """Judge the outlier scores of the run that the command line names."""
    options = parse(Outliers, "outliers")
    from .measure.outlier_report import outliers

    outliers(options)


def main() -> None:
    """The command line."""
    run_command(start)


if __name__ == "__main__":
    main()
