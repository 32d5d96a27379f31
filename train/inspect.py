"""python -m train.inspect --workdir DIR: what a checkpoint holds, leaf by leaf.

Two runs are the same when `diff` of their listings is empty. Of a file that
train.export wrote: what it is, once its checksums are right.
"""

from pathlib import Path

from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen
from .files import to_json


@group()
class Inspect(RunToOpen):
    """List a checkpoint: path, shape, dtype and SHA-256 of every array.

    An exported sampler in the place of a run is checked, and says what it is.
    """

    workdir: Path
    """The run's folder, or an exported sampler."""


def inspect(options: Inspect) -> None:
    """Print the listing; the paths are sorted."""
    from .run import record as records
    from .run.checkpoint import Checkpoints
    from .run.digests import digest, leaf_names

    if options.workdir.is_file():
        return describe(options.workdir)
    record = records.load(options.workdir)
    step, tree = Checkpoints(options.workdir).raw(options.step)
    print(f"experiment {record.experiment}")
    print(f"step {step}")
    for name, leaf in sorted(leaf_names(tree).items()):
        shape, dtype, sha256 = digest(leaf)
        print(f"{name}  {list(shape)} {dtype} {sha256}")


def describe(path: Path) -> None:
    """What an exported sampler says of itself, and a script that calls it."""
    from .run import exported

    said, _ = exported.load(path)
    for name, value in said.items():
        print(f"{name}  {to_json(value)}", end="")
    print(*exported.example(path, said), sep="\n")


def main() -> None:
    """The command line."""
    run_command(lambda: inspect(parse(Inspect, "inspect")))


if __name__ == "__main__":
    main()
