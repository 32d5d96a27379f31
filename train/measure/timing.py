"""Compiled programs and the medians of their times."""

import math
import time
from collections.abc import Callable


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
