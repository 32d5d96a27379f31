"""The cost of a run's sampler beside the bare program that one would write by hand."""

import statistics
from pathlib import Path
from typing import Any

import jax

from ..cli.bounds import check_numbers
from ..files import write_json
from ..progress import print_table
from ..run.sampler import as_keywords, calls_of, given_keywords
from ..run.workdir import open_workdir
from .bare_loops import reference
from .decoding import beside_naive, beside_sequential, format_decoding, format_parallel
from .timing import compiled, medians

UNITS = {
    "compile_seconds": ("compile", 1.0, "s"),
    "median_seconds": ("latency, median", 1e3, "ms"),
    "samples_per_second": ("throughput", 1.0, "samples/s"),
    "network_evaluations": ("network evaluations", 1.0, ""),
    "flops": ("FLOPs, evaluations × one call", 1e-9, "G"),
    "seconds_of_the_calls_alone": ("evaluations × one call", 1e3, "ms"),
    "peak_bytes": ("memory of the program", 2.0**-20, "MiB"),
}


def benchmark(options) -> None:
    """Measure, print a table, write `benchmark.json`."""
    check_numbers(options)
    trained = open_workdir(options.workdir, options.step)
    model, given = trained.model, given_keywords(options)
    keywords = as_keywords(model, given)
    plain = reference(model, options.num, **keywords)
    rows, ratio = timed(trained, plain, keywords, options)
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
    result |= {"bare_is": plain.reason} if plain.reason else {}
    result |= {} if ratio is None else {"gengen_over_bare": ratio}
    arguments = (model, trained.params, trained.state, options.num)
    if hasattr(model, "naive_view"):
        print("cost: the same samples once by a whole pass per symbol")
        seconds = rows["gengen"]["median_seconds"]
        result["decoding"] = beside_naive(*arguments, seconds)
    if hasattr(model, "sample_parallel") and model.parallel(**keywords):
        result["parallel"] = beside_sequential(*arguments, **keywords)
    if (stats := device.memory_stats()) and "peak_bytes_in_use" in stats:
        result["device_peak_bytes"] = stats["peak_bytes_in_use"]
    path = options.workdir / "benchmark.json"
    write_json(path, result)
    print_benchmark(result, rows, path)


def timed(trained, plain, keywords: dict, options) -> tuple[dict, float | None]:
    """({program: its row}, seconds of gengen's over the bare one's, if there is one).

    The programs are timed in turns, so that a busy machine slows both.
    """
    model, params, state = trained.model, trained.params, trained.state
    evaluations, key = calls_of(model, keywords), jax.random.key(0)

    def library(params, state, key):
        return model.sample(params, state, key, options.num, **keywords)

    functions = {"gengen": library}
    functions |= {} if plain.bare is None else {"bare": plain.bare}
    call, _ = compiled(plain.call, params, state)  # first: it also warms the compiler
    programs, rows = {"call": lambda: call(params, state)}, {}
    for name, function in functions.items():
        program, rows[name] = compiled(function, params, state, key)
        programs[name] = lambda program=program: program(params, state, key)
    flops = (call.cost_analysis() or {}).get("flops")
    seconds = medians(programs, options.repeats)
    one_call = statistics.median(seconds["call"])
    for name, row in rows.items():
        row["median_seconds"] = statistics.median(seconds[name])
        row["samples_per_second"] = options.num / row["median_seconds"]
        row["network_evaluations"] = evaluations
        known = evaluations is not None and flops is not None
        row["flops"] = evaluations * flops if known else None
        row["seconds_of_the_calls_alone"] = evaluations and evaluations * one_call
    if plain.bare is None:
        return rows, None
    pairs = zip(seconds["gengen"], seconds["bare"], strict=True)
    return rows, statistics.median(ours / bare for ours, bare in pairs)


def print_benchmark(result: dict[str, Any], rows: dict, path: Path) -> None:
    """A row per number, a column per program; then what is compared besides."""
    lines = [["", *rows]]
    for name, (words, factor, unit) in UNITS.items():
        cells = [
            "unknown" if row[name] is None else f"{row[name] * factor:,.4g} {unit}"
            for row in rows.values()
        ]
        lines.append([words, *cells])
    print_table(lines, f"{result['experiment']}, {result['num']} samples per call")
    if "gengen_over_bare" in result:
        print(f"gengen takes {result['gengen_over_bare']:.3f} of the bare time")
    if "bare_is" in result:
        print(result["bare_is"])
    if "decoding" in result:
        print(format_decoding(result["decoding"]))
    if "parallel" in result:
        print(format_parallel(result["parallel"]))
    print(f"{result['device']}, JAX {result['jax']}: {path}")
