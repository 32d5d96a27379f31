"""What cached decoding is worth: the same samples by a whole pass a symbol, in FLOPs.

Part of `train.benchmark` for autoregressive models; for diffusion the like, Picard's
iteration beside the steps one by one. The naive sampler passes over all
symbols once a symbol; Jacobi's sweeps over all until none moves. All three draw with
the same keys, so that their samples can be compared.
"""

import functools
import time
import unittest.mock

import numpy as np


def flops(function, *arguments) -> float | None:
    """XLA's count for one call of the function, if it has one; loops are unrolled.

    XLA counts one turn of a loop, whatever their number.
    """
    import jax

    unrolled = functools.partial(jax.lax.scan, unroll=True)
    with unittest.mock.patch.object(jax.lax, "scan", unrolled):
        cost = jax.jit(function).lower(*arguments).cost_analysis() or {}
    return cost.get("flops")


def flops_over_one_pass(model, params, num: int) -> float | None:
    """(T decodes + the beginnings of rows) / one pass over all symbols."""
    import jax
    import jax.numpy as jnp

    c = model.condition.zeros(num)
    symbol = jnp.zeros((num, *model.head.symbol), jnp.int32)
    x = jnp.zeros((num, model.length, *model.head.symbol), jnp.int32)

    def view(params):
        return model.cached_view(params, num, c)

    cache = jax.jit(lambda params: view(params).start())(params)

    def start_row(params, symbol, i, cache):
        return view(params).start_row(symbol, i, cache)

    def decode(params, symbol, t, cache):
        return view(params).decode(symbol, t, cache)

    rows = model.length // view(params).row_length
    place = jnp.int32(model.length // 2)
    starts = flops(start_row, params, symbol, jnp.int32(rows // 2), cache) or 0.0
    decodes = flops(decode, params, symbol, place, cache)
    whole = flops(lambda params, x: model.features_of(params, x, c), params, x)
    if decodes is None or not whole:
        return None
    return (model.length * decodes + rows * starts) / whole


def beside_naive(model, params, state, num: int, seconds: float) -> dict:
    """The naive and the Jacobi sampler beside the cached one of `seconds` a call.

    One call of each after its compilation: the naive one may take minutes.
    """
    import jax

    key = jax.random.key(0)

    def timed(function):
        program = jax.jit(function).lower(params, state, key).compile()
        began = time.perf_counter()
        result = jax.block_until_ready(program(params, state, key))
        return result, time.perf_counter() - began

    def sample(params, state, key, cached):
        return model.sample(params, state, key, num, cached=cached)

    def jacobi(params, state, key):
        return model.sample_jacobi(params, state, key, num)

    x, _ = timed(lambda *arguments: sample(*arguments, cached=True))
    naive, naive_seconds = timed(lambda *arguments: sample(*arguments, cached=False))
    (swept, sweeps), jacobi_seconds = timed(jacobi)
    return {
        "symbols": model.length,
        "symbols_per_second": num * model.length / seconds,
        "naive_seconds": naive_seconds,
        "naive_over_cached": naive_seconds / seconds,
        "naive_identical": float(np.mean(np.equal(x, naive))),
        "jacobi_seconds": jacobi_seconds,
        "jacobi_sweeps": int(sweeps),
        "jacobi_identical": float(np.mean(np.equal(x, swept))),
        "flops_over_one_pass": flops_over_one_pass(model, params, num),
    }


def format_decoding(row: dict) -> str:
    """The numbers in words."""

    def same(share):
        return "identical samples" if share == 1 else f"{share:.4%} of pixels identical"

    lines = [
        f"{row['symbols']} symbols a sample, {row['symbols_per_second']:,.0f} a second",
        f"a whole pass a symbol: {row['naive_seconds']:.3g} s, "
        f"{row['naive_over_cached']:,.0f} times as long; "
        f"{same(row['naive_identical'])}",
        f"Jacobi: {row['jacobi_seconds']:.3g} s, {row['jacobi_sweeps']} sweeps; "
        f"{same(row['jacobi_identical'])}",
    ]
    if row["flops_over_one_pass"] is not None:
        share = row["flops_over_one_pass"]
        lines.append(f"FLOPs of all symbols over those of one pass: {share:.2f}")
    return "\n".join(lines)


def beside_sequential(model, params, state, num: int, sampler=None) -> dict:
    """Picard's sweeps, all steps at once, beside the steps one by one: once each."""
    import jax

    key, sampler = jax.random.key(0), sampler or model.sampler

    def sample(params, state, key):
        return model.sample(params, state, key, num, sampler=sampler)

    def swept(params, state, key):
        return model.sample_parallel(params, state, key, num, sampler=sampler)

    def timed(function):
        program = jax.jit(function).lower(params, state, key).compile()
        jax.block_until_ready(program(params, state, key))
        began = time.perf_counter()
        result = jax.block_until_ready(program(params, state, key))
        return result, time.perf_counter() - began

    x, seconds = timed(sample)
    (y, sweeps), parallel_seconds = timed(swept)
    return {
        "steps": len(sampler.plan(model.process).times) - 1,
        "sweeps": int(sweeps),
        "seconds": seconds,
        "parallel_seconds": parallel_seconds,
        "root_mean_square_difference": float(np.sqrt(np.mean((x - y) ** 2))),
    }


def format_parallel(row: dict) -> str:
    """The numbers in words."""
    return (
        f"Picard: {row['sweeps']} sweeps for {row['steps']} steps, "
        f"{row['parallel_seconds']:.3g} s against {row['seconds']:.3g} s; samples "
        f"differ by {row['root_mean_square_difference']:.2g}"
    )
