"""python -m train.export_weights --workdir DIR --out FOLDER: weights for others.

FOLDER is one that `GPT2LMHeadModel.from_pretrained` of the library transformers loads.
"""

from pathlib import Path

from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen


@group()
class ExportWeights(RunToOpen):
    """Write the weights of a transformer for the library transformers, as GPT-2.

    The run is one of text or prior with --architecture transformer --positions learned
    --tied --start-symbol N.
    """

    out: Path
    """A new folder, for config.json and model.safetensors."""


def export_weights(options: ExportWeights) -> None:
    """Open, write, compare, say."""
    from .run import foreign, published
    from .run.workdir import open_workdir

    published.check_new(options.out)
    trained = open_workdir(options.workdir, options.step)
    size = foreign.written_of(trained, options.out)
    found = foreign.difference(options.out, options.workdir, trained.step)
    print(foreign.said(found))
    print(f"step {trained.step}, {size / 1e6:.2f} MB: {options.out}")


def main() -> None:
    """The command line."""
    run_command(lambda: export_weights(parse(ExportWeights, "export_weights")))


if __name__ == "__main__":
    main()
