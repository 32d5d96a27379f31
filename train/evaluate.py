"""python -m train.evaluate --workdir DIR: what a trained run is worth, in numbers.

Sample quality in the features of an extractor, bits per dimension with their kind,
speed and size: the same command for every family. Each number is recorded with what it
depends on. Features are written down batch by batch, so that an interrupted evaluation
goes on where it was.
"""

from .cli.command import parse, run_command
from .measure.options import Evaluate


def start() -> None:
    """Evaluate the run that the command line names."""
    options = parse(Evaluate, "evaluate")
    from .measure.evaluation import evaluate

    evaluate(options)


def main() -> None:
    """The command line."""
    run_command(start)


if __name__ == "__main__":
    main()
