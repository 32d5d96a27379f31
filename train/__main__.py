"""python -m train EXPERIMENT --workdir DIR [any keyword of that experiment]."""

import sys
from typing import NoReturn

import tyro

from gengen.errors import BadInput

from .cli.command import (
    did_you_mean,
    options_class,
    parse,
    run_command,
    split_options,
)
from .experiments import EXPERIMENTS, OF_TEXT

PROG = "python -m train"


def main() -> None:
    """Parse, then train; heavy imports happen in between."""
    run_command(start, sys.argv[1:])


def start(arguments: list[str]) -> None:
    """Train the experiment that was asked for."""
    if not arguments or arguments[0] in ("-h", "--help"):
        overview()
    name, *rest = arguments
    if name.startswith("-"):
        raise BadInput(f"the experiment comes first: {PROG} EXPERIMENT {name} …")
    if name not in EXPERIMENTS:
        raise BadInput(
            f"no experiment is called {name!r}{did_you_mean(name, EXPERIMENTS)}: "
            f"choose one of {', '.join(EXPERIMENTS)}"
        )
    options = options_class(EXPERIMENTS[name], name in OF_TEXT)
    run, keywords = split_options(parse(options, f"{PROG} {name}", rest))
    from .run.loop import train

    train(run, name, keywords)


def overview() -> NoReturn:
    """The help of the program: all experiments. Does not return."""
    tyro.extras.subcommand_cli_from_dict(
        {
            name: options_class(function, name in OF_TEXT)
            for name, function in EXPERIMENTS.items()
        },
        prog=PROG,
        description=(
            "Train a generative model. The same command resumes a run; "
            f"{PROG} EXPERIMENT --help lists an experiment's options."
        ),
        args=["--help"],
    )


if __name__ == "__main__":
    main()
