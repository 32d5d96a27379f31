"""python -m train EXPERIMENT --workdir DIR [any keyword of that experiment]."""

import functools
import sys
from typing import NoReturn

from .run.signals import leave_at_once

PROG = "python -m train"


def main() -> None:
    """Parse, then train; all other imports happen after a signal can be heard."""
    with leave_at_once():
        from .cli.command import run_command

        run_command(start, sys.argv[1:])


def start(arguments: list[str]) -> None:
    """Train the experiment that was asked for."""
    from gengen.errors import BadInput

    from .cli.command import did_you_mean, options_class, parse, split_options
    from .experiments import EXPERIMENTS, OF_TEXT

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
    from .run.quiet import quiet_streams

    with quiet_streams():
        train(run, name, keywords, functools.partial(quality_of, run))


def quality_of(run, record, load_split) -> list:
    """What measures the samples while the run trains, if it is asked for."""
    if not run.evaluate_every:
        return []
    from .measure.while_training import sample_quality_of

    found = sample_quality_of(
        run.evaluate_every, run.workdir, record, load_split, data_dir=run.data_dir
    )
    return [found] if found else []


def overview() -> NoReturn:
    """The help of the program: all experiments. Does not return."""
    import tyro

    from .cli.command import options_class
    from .experiments import EXPERIMENTS, OF_TEXT

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
