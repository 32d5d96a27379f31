"""python -m tests.speed WHAT …: networks as they are beside their plain forms.

gan       four train steps of DCGAN: flax's convolutions and transposed convolutions
unet      a U-Net in a loop, as samplers call it: flax's group norm, and a resized image
decoder   tokens a second of 6 layers of 256: caches as one array, sliced
dit       four train steps and a sampling step of the DiT: its blocks one turn at a time

Forms are timed in turns in one process, in an order drawn anew, by processor time. A
line of JSON a figure: medians, and how many times as fast the network is as each form.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import random
import statistics
import time
import unittest.mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gengen.nets import layers, transformer, unet
from gengen.observations.categorical import Categorical
from gengen.spaces import tokens

SEGMENT = 98


def in_turns(runs: dict, rounds: int) -> dict:
    """Milliseconds of each call, and how many times as fast "now" is."""
    taken = {name: [] for name in runs}
    for run in runs.values():
        run()
    for turn in range(rounds):
        for name in random.Random(turn).sample(list(runs), len(runs)):
            began = time.process_time()
            runs[name]()
            taken[name].append(1e3 * (time.process_time() - began))
    ms = {name: statistics.median(each) for name, each in taken.items()}
    speed = {name: round(ms[name] / ms["now"], 2) for name in ms if name != "now"}
    return {
        "ms": {name: round(each, 2) for name, each in ms.items()},
        "times_as_fast": speed,
    }


def patched(*swaps):
    """The (module, name, value) given, while something is traced."""
    stack = contextlib.ExitStack()
    for swap in swaps:
        stack.enter_context(unittest.mock.patch.object(*swap))
    return stack


PLAIN_CONVOLUTIONS = (
    (layers, "Conv", nn.Conv),
    (layers, "ConvTranspose", nn.ConvTranspose),
)
PLAIN_NORM = ((layers, "GroupNorm", lambda groups, dtype: nn.GroupNorm(groups, None)),)


def resized(features, taps, dtype=None):
    """What `DoubledConv` replaces."""
    conv = nn.Conv(features, taps, dtype=dtype)

    def call(x):
        b, height, width, c = x.shape
        return conv(jax.image.resize(x, (b, 2 * height, 2 * width, c), "nearest"))

    return call


PLAIN_DOUBLING = ((unet, "DoubledConv", resized),)


def train_step(experiment, dataset):
    """Four dispatches of the compiled step: R1 is in one of them."""
    from tests.scaling import prepared
    from train.run.devices import make_mesh, make_view

    view = make_view("jit", make_mesh())
    return functools.partial(
        prepared(experiment, dataset, view, 1, experiment.batch_size), 4
    )


def noise(dataset, side: int):
    """A data set of 512 images of so many pixels, of no meaning."""
    shape = side, side, 1
    image = np.random.default_rng(0).integers(0, 17, (512, *shape)).astype(np.uint8)

    def fetch(indices):
        label = np.asarray(indices) % 10
        return {"image": image[indices], "label": label.astype(np.int32)}

    spec = dataclasses.replace(dataset.spec, shape=shape)
    return dataclasses.replace(dataset, spec=spec, size=512, fetch=fetch)


def gan(rounds):
    """Train steps on digits and on 28×28 pixels, at the experiment's defaults."""
    from train.data.load import load
    from train.experiments import EXPERIMENTS

    digits = load("digits")
    for side, options in [(8, {}), (8, {"r1_weight": 0.0}), (28, {"batch_size": 128})]:
        dataset = digits if side == 8 else noise(digits, side)
        runs = {}
        for name, swaps in [("now", ()), ("plain", PLAIN_CONVOLUTIONS)]:
            with patched(*swaps):
                experiment = EXPERIMENTS["gan"](dataset.spec, **options)
                runs[name] = train_step(experiment, dataset)
        yield {"side": side, **options, **in_turns(runs, rounds)}


def unets(rounds, steps=4):
    """Milliseconds are those of `steps` calls."""
    forms = {
        "now": (),
        "flax's norm": PLAIN_NORM,
        "resized": PLAIN_DOUBLING,
        "both": PLAIN_NORM + PLAIN_DOUBLING,
    }
    for channels, multipliers, blocks, side, batch in [
        (32, (1, 2), 1, 8, 64),
        (32, (1, 2), 1, 28, 16),
        (64, (1, 2, 2), 2, 28, 16),
    ]:
        net = unet.UNet(channels, multipliers, blocks)
        z, t = jnp.ones((batch, side, side, 1)), jnp.full(batch, 0.5)
        params = jax.jit(net.init)(jax.random.key(0), z, t)
        runs = {}
        for name, swaps in forms.items():

            def loop(params, z, t, net=net):
                def step(z, _):
                    return z - 0.1 * net.apply(params, z, t), None

                return jax.lax.scan(step, z, None, length=steps)[0]

            with patched(*swaps):
                program = jax.jit(loop).lower(params, z, t).compile()
            runs[name] = functools.partial(
                lambda program, *given: jax.block_until_ready(program(*given)),
                *(program, params, z, t),
            )
        size = {"channels": channels, "multipliers": multipliers, "blocks": blocks}
        yield {**size, "side": side, "batch": batch, **in_turns(runs, rounds)}


def sliced(q, keys, values, t):
    """`attend_cached` over one array, whose filled part is a slice."""
    length = keys[0].shape[2]

    def over(n):
        def attention(q, k, v, t):
            scores = jnp.einsum("bnd,bnsd->bns", q, k[:, :, :n]) * q.shape[-1] ** -0.5
            weight = jax.nn.softmax(jnp.where(jnp.arange(n) <= t, scores, -jnp.inf))
            return jnp.einsum("bns,bnsd->bnd", weight, v[:, :, :n])

        return attention

    branches = [over(min(n + SEGMENT, length)) for n in range(0, length, SEGMENT)]
    return jax.lax.switch(t // SEGMENT, branches, q, keys[0], values[0], t)


def whole(num, heads, length, width, segment, dtype):
    """`empty_cache` of one segment."""
    return (jnp.zeros((num, heads, length, width), dtype),)


def decoder(rounds, length=784):
    """Milliseconds of `length` tokens; samples are the same ones."""
    from gengen.models.autoregressive import Autoregressive

    net = transformer.Transformer(257, length, 257, 256, 6, 8, segment=SEGMENT)
    model = Autoregressive(net, Categorical(257), tokens(length, 257))
    batch, key = {"tokens": jnp.zeros((1, length), jnp.int32)}, jax.random.key(0)
    params, _ = jax.jit(model.init)(key, batch)
    before = (
        (transformer, "attend_cached", sliced),
        (transformer, "empty_cache", whole),
    )
    for num in (1, 16):
        programs = {}
        for name, swaps in [("now", ()), ("sliced", before)]:

            def sample(params, num=num):
                return model.sample(params, {}, key, num)

            with patched(*swaps):
                programs[name] = jax.jit(sample).lower(params).compile()
        one, other = (np.asarray(program(params)) for program in programs.values())
        runs = {
            name: functools.partial(lambda p: jax.block_until_ready(p(params)), program)
            for name, program in programs.items()
        }
        row = {"num": num, **in_turns(runs, rounds)}
        speed = round(1e3 * length * num / row["ms"]["now"])
        yield {
            **row,
            "tokens_per_second": speed,
            "identical": float(np.mean(one == other)),
        }


def dit(rounds):
    """At the experiment's defaults, on digits; compilation in seconds."""
    from train.data.load import load
    from train.experiments import EXPERIMENTS

    dataset = load("digits")
    experiment = EXPERIMENTS["dit"](dataset.spec)
    nets, runs, seconds = {}, {}, {}
    for name, unroll in [("now", experiment.model.net.unroll), ("1", 1), ("4", 4)]:
        nets[name] = experiment.model.net.clone(unroll=unroll)
        model = dataclasses.replace(experiment.model, net=nets[name])
        began = time.process_time()
        runs[name] = train_step(dataclasses.replace(experiment, model=model), dataset)
        seconds[name] = round(time.process_time() - began, 1)
    yield {"train": True, "compile_seconds": seconds, **in_turns(runs, rounds)}
    z, t = jnp.ones((64, *dataset.spec.shape)), jnp.full(64, 0.5)
    params = jax.jit(nets["1"].init)(jax.random.key(0), z, t)
    calls = {
        name: functools.partial(
            lambda call: jax.block_until_ready(call(params, z, t)), jax.jit(net.apply)
        )
        for name, net in nets.items()
    }
    yield {"train": False, **in_turns(calls, rounds)}


def main() -> None:
    """The figures asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    figures = {"gan": gan, "unet": unets, "decoder": decoder, "dit": dit}
    parser.add_argument("what", choices=figures, nargs="+")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    for what in asked.what:
        for row in figures[what](asked.rounds):
            print(json.dumps({"figure": what, **row}), flush=True)


if __name__ == "__main__":
    main()
