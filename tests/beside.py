"""python -m tests.beside WHAT …: gengen beside what users of PyTorch would run.

decoder   tokens a second of `generate` with its cache: GPT-2 of `transformers`
unet      four calls of a U-Net: `UNet2DModel` of `diffusers`, as many parameters

Both draw from random weights, in turns in one process, on one thread, by processor
time. It needs `pip install torch transformers diffusers`, which the project does not.
"""

import argparse
import json
import sys

import jax
import jax.numpy as jnp

from gengen.models.autoregressive import Autoregressive
from gengen.nets.transformer import Transformer
from gengen.nets.unet import UNet
from gengen.observations.categorical import Categorical
from gengen.spaces import tokens
from tests.speed import SEGMENT, in_turns

START = jax.random.key(0)


def decoder(rounds, vocabulary=257, length=784):
    """Six layers of 256 with eight heads draw `length` tokens."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    start = vocabulary - 1
    size = {"n_embd": 256, "n_layer": 6, "n_head": 8, "n_positions": length + 1}
    config = GPT2Config(
        vocab_size=vocabulary, bos_token_id=start, eos_token_id=None, **size
    )
    other = GPT2LMHeadModel(config).eval()
    net = Transformer(vocabulary, length, vocabulary, 256, 6, 8, segment=SEGMENT)
    model = Autoregressive(net, Categorical(vocabulary), tokens(length, vocabulary))
    batch = {"tokens": jnp.zeros((1, length), jnp.int32)}
    params, _ = jax.jit(model.init)(jax.random.key(0), batch)
    for num in (1, 16):
        sample = jax.jit(lambda params, n=num: model.sample(params, {}, START, n))
        first = torch.full((num, 1), start)
        how = {"do_sample": True, "top_k": 0, "use_cache": True}
        how |= {"max_new_tokens": length, "pad_token_id": start}
        runs = {
            "now": lambda f=sample: jax.block_until_ready(f(params)),
            "transformers": lambda x=first, how=how: other.generate(x, **how),
        }
        row = in_turns(runs, rounds)
        speed = {k: round(1e3 * num * length / v) for k, v in row["ms"].items()}
        yield {"num": num, "tokens_per_second": speed, **row}


def unet(rounds, calls=4):
    """Two residual blocks of one width on the way up for each on the way down."""
    import torch
    from diffusers import UNet2DModel

    for channels, multipliers, blocks, side, batch in [
        (32, (1, 2), 1, 8, 64),
        (32, (1, 2), 1, 28, 16),
        (64, (1, 2, 2), 2, 28, 16),
    ]:
        levels = len(multipliers)
        other = UNet2DModel(
            **{"sample_size": side, "in_channels": 1, "out_channels": 1},
            block_out_channels=tuple(channels * m for m in multipliers),
            layers_per_block=blocks,
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            norm_num_groups=8,
            add_attention=False,
        ).eval()
        x, when = torch.randn(batch, 1, side, side), torch.full((batch,), 500)
        net = UNet(channels, multipliers, blocks)
        z, t = jnp.ones((batch, side, side, 1)), jnp.full(batch, 0.5)
        params = jax.jit(net.init)(START, z, t)
        call = jax.jit(net.apply)
        runs = {
            "now": lambda f=call, p=params, z=z, t=t: [
                jax.block_until_ready(f(p, z, t)) for _ in range(calls)
            ],
            "diffusers": lambda m=other, x=x, t=when: [m(x, t) for _ in range(calls)],
        }
        sizes = {"gengen": sum(a.size for a in jax.tree.leaves(params))}
        sizes["diffusers"] = sum(p.numel() for p in other.parameters())
        size = {"side": side, "batch": batch, "channels": channels, "blocks": blocks}
        yield {**size, "parameters": sizes, **in_turns(runs, rounds)}


def main() -> None:
    """The figures asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.beside",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    figures = {"decoder": decoder, "unet": unet}
    parser.add_argument("what", choices=figures, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("there is no PyTorch here: pip install torch transformers diffusers")
    torch.set_num_threads(1)
    with torch.inference_mode():
        for what in asked.what:
            for row in figures[what](asked.rounds):
                print(json.dumps({"figure": what, **row}), flush=True)


if __name__ == "__main__":
    main()
