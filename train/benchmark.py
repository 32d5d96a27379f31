"""python -m train.benchmark --workdir DIR: what a trained run's sampler costs.

Beside every figure stands the same figure of the bare program one would write by hand
for that model (a `lax.scan` over the network, or one call of it): the library should
cost nothing. The two are timed in turns, so that a busy machine slows both.
"""

from pathlib import Path

from .cli.bounds import Count
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen
from .cli.sampler import GuidanceOptions, SolverOptions
from .measure.bare_loops import reference
from .measure.timing import compiled, medians


@group()
class Benchmark(RunToOpen, SolverOptions, GuidanceOptions):
    """Time the compiled sampler of a run beside the bare one; write benchmark.json."""

    num: Count = 64
    """Samples a call."""
    repeats: Count = 11
    """Timed calls of each; the median counts."""


def benchmark(options: Benchmark) -> None:
    """Measure, print a table, write `benchmark.json`."""
    import json
    import statistics

    import jax

    from gengen.errors import BadInput

    from .files import write_atomically
    from .measure.decoding import beside_naive, beside_sequential
    from .run.sampler import as_keywords, calls_of, given_keywords
    from .run.workdir import open_workdir

    for name in ("num", "repeats"):
        if getattr(options, name) < 1:
            raise BadInput(f"--{name} {getattr(options, name)}: it must be at least 1")
    trained = open_workdir(options.workdir, options.step)
    model, params, state = trained.model, trained.params, trained.state
    given = given_keywords(options)
    extra = as_keywords(model, given)
    plain = reference(model, options.num, **extra)
    evaluations = calls_of(model, extra)
    key = jax.random.key(0)

    def library(params, state, key):
        return model.sample(params, state, key, options.num, **extra)

    functions = {"gengen": library}
    if plain.bare is not None:
        functions["bare"] = plain.bare
    call, _ = compiled(plain.call, params, state)  # first: it also warms the compiler
    programs, rows = {}, {}
    for name, function in functions.items():
        program, rows[name] = compiled(function, params, state, key)
        programs[name] = lambda program=program: program(params, state, key)
    cost = call.cost_analysis() or {}
    flops = cost.get("flops")
    seconds = medians(
        {**programs, "call": lambda: call(params, state)}, options.repeats
    )
    one_call = statistics.median(seconds.pop("call"))
    for name, row in rows.items():
        row["median_seconds"] = statistics.median(seconds[name])
        row["samples_per_second"] = options.num / row["median_seconds"]
        row["network_evaluations"] = evaluations
        known = evaluations is not None and flops is not None
        row["flops"] = evaluations * flops if known else None
        row["seconds_of_the_calls_alone"] = evaluations and evaluations * one_call
    device = jax.devices()[0]
    result = {
        "experiment": trained.record.experiment,
        "step": trained.step,
        "options": given,
        "num": options.num,
        "repeats": options.repeats,
        "device": f"{device.platform}: {device.device_kind}",
        "jax": jax.__version__,
        **rows,
    }
    if plain.reason:
        result["bare_is"] = plain.reason
    if plain.bare is not None:
        pairs = zip(seconds["gengen"], seconds["bare"], strict=True)
        ratios = [ours / bare for ours, bare in pairs]
        result["gengen_over_bare"] = statistics.median(ratios)
    if hasattr(model, "naive_view"):
        print("cost: the same samples once by a whole pass a symbol")
        fast = rows["gengen"]["median_seconds"]
        result["decoding"] = beside_naive(model, params, state, options.num, fast)
    if hasattr(model, "sample_parallel") and model.parallel(**extra):
        result["parallel"] = beside_sequential(
            model, params, state, options.num, **extra
        )
    if (stats := device.memory_stats()) and "peak_bytes_in_use" in stats:
        result["device_peak_bytes"] = stats["peak_bytes_in_use"]
    path = options.workdir / "benchmark.json"
    write_atomically(path, json.dumps(result, indent=2) + "\n")
    show(result, rows, path)


def show(result: dict, rows: dict, path: Path) -> None:
    """The table."""
    from rich.table import Table

    from .measure import decoding
    from .progress import wide_console

    units = {
        "compile_seconds": ("compile", 1.0, "s"),
        "median_seconds": ("latency, median", 1e3, "ms"),
        "samples_per_second": ("throughput", 1.0, "samples/s"),
        "network_evaluations": ("network evaluations", 1.0, ""),
        "flops": ("FLOPs, evaluations × one call", 1e-9, "G"),
        "seconds_of_the_calls_alone": ("evaluations × one call", 1e3, "ms"),
        "peak_bytes": ("memory of the program", 2.0**-20, "MiB"),
    }
    table = Table(title=f"{result['experiment']}, {result['num']} samples a call")
    for column in ("", *rows):
        table.add_column(column, justify="right" if column else "left")
    for name, (words, factor, unit) in units.items():
        cells = [
            "unknown" if row[name] is None else f"{row[name] * factor:,.4g} {unit}"
            for row in rows.values()
        ]
        table.add_row(words, *cells)
    console = wide_console()
    console.print(table)
    if "gengen_over_bare" in result:
        console.print(f"gengen takes {result['gengen_over_bare']:.3f} of the bare time")
    if "bare_is" in result:
        console.print(result["bare_is"])
    if "decoding" in result:
        console.print(decoding.format_decoding(result["decoding"]))
    if "parallel" in result:
        console.print(decoding.told_parallel(result["parallel"]))
    console.print(f"{result['device']}, JAX {result['jax']}: {path}")


def main() -> None:
    """The command line."""
    run_command(lambda: benchmark(parse(Benchmark, "python -m train.benchmark")))


if __name__ == "__main__":
    main()
