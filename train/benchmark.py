"""python -m train.benchmark --workdir DIR: what a trained run's sampler costs.

Beside every figure stands the same figure of the bare program one would write by hand
for that model (a `lax.scan` over the network, or one call of it): the library should
cost nothing. The two are timed in turns, so that a busy machine slows both.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path

from train.command import parse, told
from train.experiments.denoising import GridName, SolverName


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Time the compiled sampler of a run beside the bare one; write benchmark.json."""

    workdir: Path
    """The run's folder."""
    num: int = 64
    """Samples a call."""
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


@dataclasses.dataclass(frozen=True)
class Reference:
    """A family's bare program: how it would be written without the library.

    call: one network evaluation (params, state) -> array; bare: (params, state, key)
    -> samples [num, ...], or None with a reason where nobody has written one.
    """

    call: Callable
    bare: Callable | None
    reason: str = ""


def uniform_labels(model, key, num: int) -> dict:
    """Labels int32 [num] of the model's condition, drawn at once; {} without any."""
    import jax

    from gengen.conditions import labels_of

    labels = labels_of(model.condition)
    return (
        {labels.key: jax.random.randint(key, (num,), 0, labels.num)} if labels else {}
    )


def of_vae(model, num: int) -> Reference:
    """z ~ N(0, 1), uniform labels, one decoder call, the mean."""
    import jax
    import jax.numpy as jnp

    def decode(params, z, c):
        weights = {"params": params["vae"]["decoder"]}
        return model.decoder.apply(weights, z, c)

    def bare(params, state, key):
        key_z, key_label = jax.random.split(key)
        z = jax.random.normal(key_z, (num, *model.latent_shape))
        features = decode(params, z, uniform_labels(model, key_label, num))
        return model.observation.mean(params["vae"]["likelihood"], features)

    def call(params, state):
        c = model.condition.zeros(num)
        return decode(params, jnp.zeros((num, *model.latent_shape)), c)

    return Reference(call, bare)


def of_gan(model, num: int) -> Reference:
    """z ~ N(0, 1), uniform labels, one generator call."""
    import jax
    import jax.numpy as jnp

    def generate(params, state, z, c):
        weights = {"params": params["generator"], **state["generator"]}
        return model.generator.apply(weights, z, c)

    def bare(params, state, key):
        key_z, key_label = jax.random.split(key)
        z = jax.random.normal(key_z, (num, model.latent))
        return generate(params, state, z, uniform_labels(model, key_label, num))

    def call(params, state):
        c = model.condition.zeros(num)
        return generate(params, state, jnp.zeros((num, model.latent)), c)

    return Reference(call, bare)


def of_diffusion(model, num: int, sampler=None) -> Reference:
    """Noise, then the steps as one would write them for this one model.

    Euler and Heun on the linear path are written out; of other values only the calls
    of the network, in a scan without the solver's arithmetic.
    """
    import jax
    import jax.numpy as jnp

    from gengen.diffusion.grids import Even
    from gengen.diffusion.guidance import Guidance
    from gengen.diffusion.paths import Linear
    from gengen.diffusion.process import Velocity
    from gengen.diffusion.solvers import Euler, Heun

    sampler = sampler or model.sampler
    plan, scale = sampler.plan(model.process), sampler.guidance.scale
    steps, solver, shape = len(plan.times) - 1, sampler.solver, model.space.shape

    def network(params, z, t, c):
        weights = {"params": params["denoiser"]}
        r = model.net.apply(weights, z, jnp.full(num, t), c)
        return r[..., : z.shape[-1]]

    def guided(params, z, t, c):
        r = network(params, z, t, c)
        if scale == 1:
            return r
        null = network(params, z, t, model.condition.null(c))
        return null + scale * (r - null)

    def start(key):
        key_z, key_label = jax.random.split(key)
        z = jax.random.normal(key_z, (num, *shape))
        return z, uniform_labels(model, key_label, num)

    def written_out(params, state, key):
        (x, c), dt = start(key), 1.0 / steps

        def euler(x, t):
            return x - dt * guided(params, x, t, c), None

        def heun(x, t):
            v = guided(params, x, t, c)
            w = guided(params, x - dt * v, t - dt, c)
            return x - dt * (v + w) / 2, None

        step = heun if solver == Heun() else euler
        return jax.lax.scan(step, x, 1.0 - jnp.arange(steps) * dt)[0]

    def calls_alone(params, state, key):
        (z, c), per_step = start(key), solver.nfe(2) - solver.nfe(1)
        more = solver.nfe(1) - per_step  # of the first step

        def step(z, t):
            for _ in range(per_step):
                z = 0.9 * z + 0.1 * guided(params, z, t, c)
            return z, None

        z, _ = jax.lax.scan(step, z, plan.times[:-1])
        for _ in range(more + plan.jump):
            z = 0.9 * z + 0.1 * guided(params, z, 0.5, c)
        return z

    def call(params, state):
        c = model.condition.zeros(num)
        return network(params, jnp.zeros((num, *shape)), 0.5, c)

    flow = model.process.path == Linear() and model.process.prediction == Velocity()
    plain = sampler.guidance == Guidance(scale) and not isinstance(scale, tuple)
    even = sampler.grid == Even() and not sampler.guides
    if flow and plain and even and solver in (Euler(), Heun()):
        return Reference(call, written_out)
    if solver.traits.adaptive:
        return Reference(
            call, None, "an adaptive solver decides on its steps as it goes"
        )
    reason = "bare: the network's calls under one scan, without the solver's arithmetic"
    return Reference(call, calls_alone, reason)


def of_autoregressive(model, num: int) -> Reference:
    """A scan over the network's `decode`, and `jax.random.categorical`."""
    import jax
    import jax.numpy as jnp

    from gengen.observations.categorical import Categorical

    x = jnp.zeros((num, model.length, *model.head.symbol), jnp.int32)

    def bare(params, state, key):
        key, key_label = jax.random.split(key)
        c = uniform_labels(model, key_label, num)
        net, weights = model.net, {"params": params["autoregressive"]}

        def step(carry, t):
            symbol, cache = carry
            decoded = net.apply(weights, symbol, t, cache, c, method="decode")
            symbol = jax.random.categorical(jax.random.fold_in(key, t), decoded[0])
            return (symbol, decoded[1]), symbol

        cache = net.apply(weights, num, c, method="start")
        start = jnp.zeros(num, jnp.int32), cache
        _, x = jax.lax.scan(step, start, jnp.arange(model.length))
        return model.space.to_model(x.T.reshape(num, *model.space.shape))

    def call(params, state):
        c = model.condition.zeros(num)
        return model.features_of(params, x, c)

    plain = isinstance(model.head, Categorical) and model.order is None
    if plain and model.net.row_length is None:
        return Reference(call, bare)
    return Reference(call, None, "no bare program is written for this network and head")


def of_multiscale(model, num: int) -> Reference:
    """No bare program; a call is one pass of both networks."""
    import jax
    import jax.numpy as jnp

    batch = {model.space.key: jnp.zeros((num, *model.space.shape), jnp.uint8)}
    batch |= model.condition.zeros(num)

    def call(params, state):
        return model.log_likelihood(params, state, batch, jax.random.key(0))

    return Reference(call, None, "no bare program is written for two networks")


def reference(model, num: int, **keywords) -> Reference:
    """The model's bare program, by family."""
    from gengen.errors import BadInput
    from gengen.models.autoregressive import Autoregressive
    from gengen.models.diffusion import Diffusion
    from gengen.models.gan import GAN
    from gengen.models.multiscale import Multiscale
    from gengen.models.vae import VAE

    families = {
        VAE: of_vae,
        GAN: of_gan,
        Diffusion: of_diffusion,
        Autoregressive: of_autoregressive,
        Multiscale: of_multiscale,
    }
    if type(model) not in families:
        raise BadInput(
            f"a {type(model).__name__} draws no samples, so there is nothing to time: "
            "take the workdir of a generative model"
        )
    return families[type(model)](model, num, **keywords)


def compiled(function: Callable, *arguments) -> tuple[Callable, dict]:
    """(program, {"compile_seconds", "peak_bytes"}); the memory of its own buffers."""
    import jax

    began = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - began
    memory = program.memory_analysis()
    peak = None
    if memory is not None:
        peak = (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            + memory.temp_size_in_bytes
        )
    return program, {"compile_seconds": seconds, "peak_bytes": peak}


def medians(programs: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    """Name -> seconds a call, of each repeat, the programs in turns after a warm-up.

    A repeat is as many calls as take 50 ms, so that short programs are not all noise.
    """
    import jax

    def timed(program, calls):
        began = time.perf_counter()
        for _ in range(calls):
            jax.block_until_ready(program())
        return (time.perf_counter() - began) / calls

    for program in programs.values():
        timed(program, 2)
    calls = {
        name: math.ceil(0.05 / timed(program, 1)) for name, program in programs.items()
    }
    seconds = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            seconds[name].append(timed(program, calls[name]))
    return seconds


def benchmark(options: Benchmark) -> None:
    """Measure, print a table, write `benchmark.json`."""
    import json
    import statistics

    import jax

    from gengen.errors import BadInput
    from train.decoding import beside_naive, beside_sequential
    from train.experiment import write_atomically
    from train.sampling import as_keywords, calls_of, given_keywords
    from train.workdir import open_workdir

    for name in ("num", "repeats"):
        if getattr(options, name) < 1:
            raise BadInput(f"--{name} {getattr(options, name)}: it must be at least 1")
    trained = open_workdir(options.workdir)
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

    from train import decoding
    from train.report import wide_console

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
        console.print(decoding.told(result["decoding"]))
    if "parallel" in result:
        console.print(decoding.told_parallel(result["parallel"]))
    console.print(f"{result['device']}, JAX {result['jax']}: {path}")


def main() -> None:
    """The command line."""
    told(lambda: benchmark(parse(Benchmark, "python -m train.benchmark")))


if __name__ == "__main__":
    main()
