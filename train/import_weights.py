"""python -m train.import_weights --source FOLDER --workdir DIR: weights of others.

FOLDER is what `save_pretrained` of the library transformers wrote, of GPT-2. The run is
one that every command opens; no training goes on from it, but --init-from takes it.
"""

from pathlib import Path

from .cli.command import parse, run_command
from .cli.groups import group


@group()
class ImportWeights:
    """Make a run of the weights of GPT-2, in a folder of transformers.

    It is a prior over tokens, as numbers: a tokeniser makes them, and reads samples.
    """

    source: Path
    """Their folder, with config.json and files of safetensors."""
    workdir: Path
    """The run's folder, a new one."""
    dataset: str = "npz:tokens.npz"
    """Where evaluation finds text, as an array codes [N, positions] of tokens."""


def import_weights(options: ImportWeights) -> None:
    """Read, write, compare, say."""
    from .run import foreign

    record = foreign.run_of(options.source, options.workdir, options.dataset)
    size = ", ".join(f"{name} {n:,}" for name, n in foreign.options_of(record).items())
    print(f"GPT-2: {size}")
    found = foreign.difference(options.source, options.workdir)
    print(foreign.said(found))
    print(f"a run that every command opens: {options.workdir}")


def main() -> None:
    """The command line."""
    run_command(lambda: import_weights(parse(ImportWeights, "import_weights")))


if __name__ == "__main__":
    main()
