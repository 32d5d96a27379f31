"""python -m train.benchmark --workdir DIR: what a trained run's sampler costs.

Beside every figure stands the same figure of the bare program one would write by hand
for that model (a `lax.scan` over the network, or one call of it): the library should
cost nothing. The two are timed in turns, so that a busy machine slows both.
"""

from .cli.bounds import Count
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen
from .cli.sampler import GuidanceOptions, SolverOptions


@group()
class Benchmark(RunToOpen, SolverOptions, GuidanceOptions):
    """Time the compiled sampler of a run beside the bare one; write benchmark.json."""

    num: Count = 64
    """Samples per call."""
    repeats: Count = 11
    """Timed calls of each; the median counts."""


def start() -> None:
    """Time the sampler of the run that the command line names."""
    options = parse(Benchmark, "benchmark")
    from .measure.benchmarking import benchmark

    benchmark(options)


def main() -> None:
    """The command line."""
    run_command(start)


if __name__ == "__main__":
    main()
