"""python -m train.bayes --workdir DIR: Bayes' rule on a trained run.

A class-conditional density p(x|y) becomes a classifier that can also reject:

    p(y|x) = p(x|y) p(y) / p(x),        reject where p(x) is small

and is judged beside a discriminative classifier, which can only be unsure. An
unconditional generative model p(x) becomes a conditional one by the classifier:

    p(x|y) ∝ p(y|x) p(x)

by choosing among candidates. See `gengen.tasks.bayes`.
"""

from pathlib import Path

from .cli.bounds import Count, Figures, InnerShare, Seed
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import BoundOptions, RunToOpen


@group()
class Bayes(RunToOpen, BoundOptions):
    """p(y|x) from p(x|y), or p(x|y) from p(x), whichever the run allows.

    A class-conditional run with a likelihood (a VAE trained with --conditional): its
    accuracy and what it rejects. An unconditional run: a picture of its samples of
    every class. Both write bayes.json.
    """

    num: Figures = 1_000
    """Test images, and outliers of each kind, at most."""
    reject_rate: InnerShare = 0.01
    """Share of held-out images that the threshold may reject."""
    against: tuple[str, ...] = ()
    """Outliers, as in the command `outliers`."""
    candidates: Count = 64
    """Samples of p(x) among which one of p(x|y) is chosen."""
    per_class: Count = 10
    """Samples of each class, a row of the picture."""
    draw: bool = False
    """Sample a VAE's x ~ p(x|z) instead of showing its mean E[x|z]."""
    out: Path | None = None
    """The picture (.png); by default bayes.png in the workdir."""
    extractor: Path | None = None
    """Workdir of the classifier p(y|x); by default the one beside the run's workdir,
    trained first if there is none."""
    seed: Seed = 0
    """Seed of all draws and estimates."""
    batch_size: Count = 256
    """Images at a time."""
    data_dir: Path | None = None
    """Where the data set's files are."""


def start() -> None:
    """Apply Bayes' rule to the run that the command line names."""
    options = parse(Bayes, "bayes")
    from .measure.bayes_rule import bayes

    bayes(options)


def main() -> None:
    """The command line."""
    run_command(start)


if __name__ == "__main__":
    main()
