"""python -m train.publish --workdir DIR --out FOLDER: a run as it is handed on.

The folder has the run's record, its card and its figures, and of its checkpoint the
arrays that draw, in safetensors. Every command takes it as a --workdir.
"""

import os
from pathlib import Path

from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen


@group()
class Publish(RunToOpen):
    """Write a run to a small folder that every command opens.

    Its parameters are the averaged ones, if it has any; what only training needs is
    left out.
    """

    out: Path
    """A new folder, such as zoo/flow-digits."""
    license: str | None = None
    """The licence of the weights, as the Hugging Face Hub calls it, for the card."""


def publish(options: Publish) -> None:
    """Open, write, say what is there."""
    from .run import published
    from .run.workdir import open_workdir

    published.check_new(options.out)
    trained = open_workdir(options.workdir, options.step)
    size = published.publish(trained, options.out, options.license)
    kind = "averaged (EMA)" if trained.averaged else "live"
    print(f"step {trained.step}, {kind} parameters, {size / 1e6:.2f} MB: {options.out}")
    for reference in published.moved(trained, options.out).frozen.values():
        path = os.path.normpath(options.out / reference.workdir)
        print(f"note: it reads the run in {path}")


def main() -> None:
    """The command line."""
    run_command(lambda: publish(parse(Publish, "publish")))


if __name__ == "__main__":
    main()
