"""python -m train.outliers --workdir DIR: which scores of a trained run find outliers.

Inliers are the test images of the run's data set. Outliers are made from them, which
needs no other data set, or are the test images of another one. Every score that the
model supports is judged by the area under its ROC curve: ½ is worthless, and below ½ it
takes outliers for better data than the data, which raw likelihood is known to do
(Nalisnick et al. 2019, arXiv:1810.09136).
"""

import dataclasses
from pathlib import Path

from .cli.command import parse, run_command
from .cli.options import RunToOpen


@dataclasses.dataclass(frozen=True)
class Outliers(RunToOpen):
    """Judge every outlier score of a run; write outliers.json and outliers.png.

    The scores are those of gengen.tasks.outliers. A class-conditional density is turned
    into p(x), its sum over classes; what needs a label gets the likeliest one.
    """

    against: tuple[str, ...] = ()
    """Outliers: noise (uniform levels), inverted, constant, shuffled (pixels), faint (a
    quarter of the contrast), or data sets by name (digits, folder:PATH, …), scaled to
    the run's size; by default the first five, and digits."""
    num: int = 1_000
    """Images of each set, at most."""
    regret_num: int = 200
    """Images of each set for the likelihood regret, which optimises every code; 0
    leaves it out."""
    importance_samples: int | None = None
    """K of the likelihood's bound (IWAE-K), for models with latents; by default the
    run's own."""
    extractor: Path | None = None
    """Where features come from beside the model's own, as in train.evaluate."""
    seed: int = 0
    """Seed of the outliers and of all estimates."""
    batch_size: int = 256
    """Images at a time."""
    data_dir: Path | None = None
    """Where the data sets' files are."""


def start() -> None:
    """Judge the outlier scores of the run that the command line names."""
    options = parse(Outliers, "python -m train.outliers")
    from .measure.outlier_report import outliers

    outliers(options)


def main() -> None:
    """The command line."""
    run_command(start)


if __name__ == "__main__":
    main()
