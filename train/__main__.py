"""python -m train EXPERIMENT --workdir DIR [any keyword of that experiment].

python -m train COMMAND [OPTIONS] is python -m train.COMMAND [OPTIONS].
"""

import dataclasses
import functools
import importlib
import sys

from .cli.doors import DOORS, command
from .run.signals import leave_at_once


def main(last: bool = False) -> None:
    """Parse, then train; all other imports happen after a signal can be heard.

    last: after it the process ends.
    """
    if sys.argv[1:] and sys.argv[1] in DOORS:
        name = sys.argv.pop(1)
        return importlib.import_module(f".{name}", __package__).main()
    with leave_at_once(last):
        from .cli.command import run_command

        run_command(start, sys.argv[1:])


def start(arguments: list[str]) -> None:
    """Train the experiment that was asked for."""
    from gengen.errors import BadInput

    from .cli.command import options_class, parse, split_options
    from .cli.near import did_you_mean
    from .experiments import DATASETS, EXPERIMENTS

    if not arguments or arguments[0] in ("-h", "--help"):
        return overview()
    name, *rest = arguments
    if name.startswith("-"):
        raise BadInput(f"the experiment comes first: {command('EXPERIMENT')} {name} …")
    if name not in EXPERIMENTS:
        raise BadInput(
            f"no experiment and no command is called {name!r}"
            f"{did_you_mean(name, [*EXPERIMENTS, *DOORS])}: {command('--help')} lists "
            "both"
        )
    options = options_class(EXPERIMENTS[name], DATASETS.get(name))
    run, keywords = split_options(parse(options, name, rest))
    from .run.loop import train

    train(run, name, keywords, functools.partial(quality_of, run))


def quality_of(run, record, model, load_split) -> list:
    """What measures the samples while the run trains, as far as it is asked for."""
    from .experiments import FEW_STEPS
    from .measure.game_watch import watch_of
    from .measure.known_modes import modes_of

    if run.evaluate_every is None:
        unseen = record.experiment in FEW_STEPS
        every = run.checkpoint_every if unseen else 0
        run = dataclasses.replace(run, evaluate_every=every)
    always = modes_of(run, record, model) + watch_of(run, model, load_split)
    if not run.evaluate_every:
        return always
    from .measure.while_training import sample_quality_of

    found = sample_quality_of(
        run.evaluate_every,
        run.workdir,
        record,
        model,
        load_split,
        data_dir=run.data_dir,
    )
    return [*always, *([found] if found else [])]


def overview() -> None:
    """Print the help of the program: all experiments and commands."""
    from .cli.command import listed
    from .experiments import EXPERIMENTS

    lines = {name: f.__doc__.partition("\n")[0] for name, f in EXPERIMENTS.items()}
    print(f"usage: {command()} EXPERIMENT|COMMAND [OPTIONS]\n")
    print("Experiments train a generative model; the same command resumes a run:\n")
    print(listed(lines))
    print("\nCommands work with what was trained:\n")
    print(listed(DOORS))
    print(f"\n{command('NAME')} --help lists the options of one.")


def program() -> None:
    """The process that is `python -m train`, or `gengen`."""
    main(last=True)


if __name__ == "__main__":
    program()
