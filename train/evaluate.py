"""python -m train.evaluate --workdir DIR: what a trained run is worth, in figures.

Sample quality in the features of an extractor, bits per dimension with their kind,
speed and size: the same command for every family. Each figure is recorded with what it
depends on. Features are written down batch by batch, so that an interrupted evaluation
goes on where it was.
"""

from .cli.command import parse, run_command
from .measure.evaluation import Evaluate, evaluate


def main() -> None:
    """The command line."""
    run_command(lambda: evaluate(parse(Evaluate, "python -m train.evaluate")))


if __name__ == "__main__":
    main()
