"""python -m train.inspect --workdir DIR: what a checkpoint holds, leaf by leaf.

Two runs are the same when `diff` of their listings is empty.
"""

from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen


@group()
class Inspect(RunToOpen):
    """List a checkpoint: path, shape, dtype and SHA-256 of every array."""


def inspect(options: Inspect) -> None:
    """Print the listing; the paths are sorted."""
    from .run import record as records
    from .run.checkpoint import Checkpoints
    from .run.digests import digest, leaf_names

    record = records.load(options.workdir)
    step, tree = Checkpoints(options.workdir).raw(options.step)
    print(f"experiment {record.experiment}")
    print(f"step {step}")
    for name, leaf in sorted(leaf_names(tree).items()):
        shape, dtype, sha256 = digest(leaf)
        print(f"{name}  {list(shape)} {dtype} {sha256}")


def main() -> None:
    """The command line."""
    run_command(lambda: inspect(parse(Inspect, "inspect")))


if __name__ == "__main__":
    main()
