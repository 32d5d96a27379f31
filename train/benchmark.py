"""python -m train.benchmark --workdir DIR: what a trained run's sampler costs.

Beside every figure stands the same figure of the bare program one would write by hand
for that model (a `lax.scan` over the network, or one call of it): the library should
cost nothing. The two are timed in turns, so that a busy machine slows both.
"""

import dataclasses

from .cli.command import parse, run_command
from .cli.options import RunToOpen
from .experiments.diffusion import GridName, SolverName


@dataclasses.dataclass(frozen=True)
class Benchmark(RunToOpen):
    """Time the compiled sampler of a run beside the bare one; write benchmark.json."""

    num: int = 64
    """Samples per call."""
    repeats: int = 11
    """Timed calls of each; the median counts."""
    steps: int | None = None
    """The sampler's steps, where it has any."""
    solver: SolverName | None = None
    """The sampler's solver; by default the run's own."""
    grid: GridName | None = None
    """The grid of the sampler's times; by default the run's own."""
    guidance_scale: float | None = None
    """Classifier-free guidance: 1 is none, above 1 sharpens."""


def start() -> None:
    """Time the sampler of the run that the command line names."""
    options = parse(Benchmark, "python -m train.benchmark")
    from .measure.benchmarking import benchmark

    benchmark(options)


def main() -> None:
    """The command line."""
    run_command(start)


if __name__ == "__main__":
    main()
