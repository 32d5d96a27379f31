"""python -m train EXPERIMENT --workdir DIR [any keyword of that experiment]."""

import tyro

from train.command import options_class, split_options, told
from train.experiments import EXPERIMENTS
from train.options import check_numbers


def main() -> None:
    """Parse, then train; heavy imports happen in between."""
    parsed = tyro.extras.subcommand_cli_from_dict(
        {name: options_class(function) for name, function in EXPERIMENTS.items()},
        prog="python -m train",
        description=(
            "Train a generative model. The same command resumes a run; "
            "python -m train EXPERIMENT --help lists an experiment's options."
        ),
    )
    told(start, parsed)


def start(parsed) -> None:
    """Train the experiment that was asked for."""
    run, options = split_options(parsed)
    check_numbers({**vars(run), **options})
    from train.loop import train

    train(run, type(parsed).__name__, options)


if __name__ == "__main__":
    main()
