"""`DiTTransformer2DModel` of the library diffusers, and our `DiT`.

    theirs(x, timestep n, class y) = ours(x, t = n/1000, {"label": y})

of channels-last images. Their features of a token are ours in another order, because
their positions are sines and cosines of columns, then of rows, and ours cosines and
sines of rows, then of columns: in quarters of the width, theirs are ours backwards, and
whatever reads or writes the residual stream is turned round. Each of their blocks has a
copy of the one embedding of time and class. Their slowest sinusoid of time has a period
of 10,000 itself, where ours would stop one short of it: P = 10,000^(128/127). Before
the MLP they add `norm_eps` to the variance, ours 1e-6, as Peebles and Xie 2023,
arXiv:2212.09748, did.
"""

from functools import partial
from typing import Any

import numpy as np

from gengen.conditions import Labels, Nothing, parts_of
from gengen.errors import BadInput
from gengen.interchange.rules import (
    SAME,
    Rule,
    copies,
    each,
    joined,
    ordered,
    stacked,
    transposed,
)
from gengen.nets.dit import DiT

KIND = "DiTTransformer2DModel"
"""Their name of the architecture, the `_class_name` of the configuration."""

WAVES = 256
PERIOD = 10_000.0 ** (WAVES / 2 / (WAVES / 2 - 1))
_FIXED = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
}
_LINEAR = transposed(1, 0)


def net_of(config: dict[str, Any]) -> DiT:
    """The network of a `config.json`; BadInput for what ours cannot be.

    >>> sizes = {"num_attention_heads": 2, "attention_head_dim": 4, "num_layers": 1}
    >>> sizes |= {"in_channels": 3, "patch_size": 2, "num_embeds_ada_norm": 10}
    >>> net_of(sizes).width
    8
    """
    for name, value in _FIXED.items():
        if config.get(name, value) != value:
            raise BadInput(
                f"{name} is {config[name]!r}, and this network has {value!r} alone"
            )
    inputs = config["in_channels"]
    outputs = config.get("out_channels") or inputs
    if outputs not in (inputs, 2 * inputs):
        raise BadInput(
            f"out_channels is {outputs}, and this network makes {inputs} or, with a "
            f"variance, {2 * inputs} of in_channels {inputs}"
        )
    heads, classes = config["num_attention_heads"], config["num_embeds_ada_norm"]
    return DiT(
        config["patch_size"],
        heads * config["attention_head_dim"],
        config["num_layers"],
        heads,
        Labels(classes),
        outputs == 2 * inputs,
        config.get("dropout", 0.0),
        time_waves=WAVES,
        max_period=PERIOD,
    )


def config_of(net: DiT, side: int, channels: int) -> dict[str, Any]:
    """Their configuration of a network of images [side, side, channels].

    BadInput that names what they have not.

    >>> net = DiT(condition=Labels(10), time_waves=WAVES, max_period=PERIOD)
    >>> config_of(net, 8, 1)["num_embeds_ada_norm"]
    10
    """
    labels = parts_of(net.condition)
    if len(labels) != 1 or not isinstance(labels[0], Labels):
        raise BadInput(
            f"{KIND} is conditioned on one class, and this network on "
            f"{net.condition if labels else Nothing()}: train one on labels"
        )
    if (net.time_waves, net.max_period) != (WAVES, PERIOD):
        raise BadInput(
            f"{KIND} has {WAVES} sinusoids of the time, the slowest of a period of "
            f"10,000, and this network has others: build it with time_waves={WAVES} "
            "and max_period=gengen.interchange.dit.PERIOD"
        )
    return {
        "_class_name": KIND,
        "num_attention_heads": net.heads,
        "attention_head_dim": net.width // net.heads,
        "in_channels": channels,
        "out_channels": channels * (1 + net.learned_variance),
        "num_layers": net.blocks,
        "dropout": net.dropout,
        "sample_size": side,
        "patch_size": net.patch,
        "num_embeds_ada_norm": labels[0].num,
        "norm_eps": 1e-6,
        **_FIXED,
    }


def rules(net: DiT, channels: int) -> list[Rule]:
    """Which tensors of theirs are which parameters of a network of C channels.

    >>> rules(DiT(condition=Labels(10)), 1)[-1].ours
    ('patch_out/bias',)
    """
    width, p = net.width, net.patch
    turn = np.arange(width).reshape(4, -1)[::-1].ravel()
    reads, writes = (_LINEAR @ ordered(axis, turn) for axis in (1, 0))
    parts = {n: np.concatenate([turn + i * width for i in range(n)]) for n in (2, 6)}
    films = {
        n: (_LINEAR @ ordered(0, order), ordered(0, order))
        for n, order in parts.items()
    }
    turned = writes, ordered(0, turn)
    pixels = each(
        lambda w: w.transpose(0, 2, 3, 1).reshape(width, -1),
        lambda w: w.reshape(width, p, p, channels).transpose(0, 3, 1, 2),
    )

    def linear(names, ours, weight=_LINEAR, bias=SAME, many=lambda layout: layout):
        """The rules of a weight and of a bias."""
        kinds = (("weight", "kernel", weight), ("bias", "bias", bias))
        return [
            Rule(
                tuple(f"{name}.{theirs}" for name in names),
                (f"{ours}/{own}",),
                many(layout),
            )
            for theirs, own, layout in kinds
        ]

    def of_blocks(names, ours, *layouts):
        """The same of each block, stacked."""
        every = [f"{block}.{name}" for block in blocks for name in names]
        many = partial(stacked, net.blocks)
        return linear(every, f"blocks/{ours}", *layouts, many=many)

    def copied(name, ours):
        """The same of an embedding that is copied to each block."""
        every = [f"{block}.norm1.emb.{name}" for block in blocks]
        once = copies(net.blocks)
        return linear(every, f"Conditioning_0/{ours}", many=lambda own: own @ once)

    blocks = [f"transformer_blocks.{i}" for i in range(net.blocks)]
    beside = joined(1, 2) @ reads, joined(0, 2)
    table = "class_embedder.embedding_table.weight"
    classes = tuple(f"{block}.norm1.emb.{table}" for block in blocks)
    return [
        Rule(classes, ("Conditioning_0/Embed_0/embedding",), copies(net.blocks)),
        *copied("timestep_embedder.linear_1", "Dense_0"),
        *copied("timestep_embedder.linear_2", "Dense_1"),
        *linear(["pos_embed.proj"], "patch_in", writes @ pixels, turned[1]),
        *of_blocks(["norm1.linear"], "Dense_0", *films[6]),
        *of_blocks(["attn1.to_q"], "Attention_0/q", reads),
        *of_blocks(["attn1.to_k", "attn1.to_v"], "Attention_0/kv", *beside),
        *of_blocks(["attn1.to_out.0"], "Attention_0/out", *turned),
        *of_blocks(["ff.net.0.proj"], "Dense_1", reads),
        *of_blocks(["ff.net.2"], "Dense_2", *turned),
        *linear(["proj_out_1"], "Dense_0", *films[2]),
        *linear(["proj_out_2"], "patch_out", reads),
    ]
