"""GPT-2 of the library transformers, and our `Transformer`.

    position t of ours reads x_{t-1}, at t = 0 the start symbol, and says what x_t is;
    theirs reads the start symbol itself, and then x_0, x_1, …

so that features(x)[t] of ours are logits([start, x])[t] of theirs. Both are the same
layers; ours has learned positions, tied embeddings, a symbol of the vocabulary as its
start, and their epsilon. Radford et al. 2019; `GPT2LMHeadModel`.
"""

from typing import Any

from gengen.conditions import parts_of
from gengen.errors import BadInput
from gengen.interchange.rules import Rule
from gengen.nets.transformer import Transformer

KIND = "gpt2"
"""Their name of the architecture, the `model_type` of the configuration."""

_FIXED = {
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
_BLOCK = {
    "ln_1": ("norm", "scale"),
    "attn.c_attn": ("qkv", "kernel"),
    "attn.c_proj": ("out", "kernel"),
    "ln_2": ("norm_mlp", "scale"),
    "mlp.c_fc": ("expand", "kernel"),
    "mlp.c_proj": ("contract", "kernel"),
}


def net_of(config: dict[str, Any]) -> Transformer:
    """The network of a `config.json`; BadInput for what ours cannot be.

    >>> sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 6}
    >>> others = {"vocab_size": 9, "bos_token_id": 0, "layer_norm_epsilon": 1e-5}
    >>> net_of({**sizes, **others}).start_symbol
    0
    """
    for name, value in _FIXED.items():
        if config.get(name, value) != value:
            raise BadInput(
                f"{name} is {config[name]!r}, and this network has {value!r} alone"
            )
    width = config["n_embd"]
    if config.get("n_inner") not in (None, 4 * width):
        raise BadInput(
            f"n_inner is {config['n_inner']}, and this network's MLP is 4 times as "
            f"wide as its width of {width}"
        )
    return Transformer(
        config["vocab_size"],
        config["n_positions"],
        config["vocab_size"],
        width,
        config["n_layer"],
        config["n_head"],
        config.get("resid_pdrop", 0.0),
        learned_positions=True,
        tied=True,
        start_symbol=config["bos_token_id"],
        epsilon=config["layer_norm_epsilon"],
    )


def config_of(net: Transformer) -> dict[str, Any]:
    """Their configuration of a network; BadInput that names what they have not.

    >>> net = Transformer(9, 6, 9, 8, 1, 2, learned_positions=True, tied=True)
    >>> config_of(net.clone(start_symbol=0))["n_embd"]
    8
    """
    lacking = {
        "--positions learned": net.learned_positions,
        "--tied": net.tied,
        "--start-symbol": net.start_symbol is not None,
        "no condition": not parts_of(net.condition),
    }
    for option, there in lacking.items():
        if not there:
            raise BadInput(
                f"GPT-2 is a transformer with {option}, and this one has been built "
                "otherwise: train one with it"
            )
    return {
        "model_type": KIND,
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": net.vocabulary,
        "n_positions": net.length,
        "n_embd": net.width,
        "n_layer": net.blocks,
        "n_head": net.heads,
        "resid_pdrop": net.dropout,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "layer_norm_epsilon": net.epsilon,
        "bos_token_id": net.start_symbol,
        "eos_token_id": net.start_symbol,
        **_FIXED,
    }


def rules(net: Transformer) -> list[Rule]:
    """Their names, without a prefix: all arrays are the same.

    >>> rules(Transformer(9, blocks=1, length=6))[-1].theirs
    ('h.0.mlp.c_proj.bias',)
    """
    table = {
        "wte.weight": "before/symbol/embedding",
        "wpe.weight": "positions",
        "ln_f.weight": "norm/scale",
        "ln_f.bias": "norm/bias",
    }
    for i in range(net.blocks):
        for theirs, (ours, weight) in _BLOCK.items():
            table[f"h.{i}.{theirs}.weight"] = f"layers_{i}/{ours}/{weight}"
            table[f"h.{i}.{theirs}.bias"] = f"layers_{i}/{ours}/bias"
    return [Rule((theirs,), (ours,)) for theirs, ours in table.items()]


def bare(name: str) -> str | None:
    """The name of a tensor without its prefix; None for one that says nothing.

    Files hold masks as buffers, and may hold the tied embedding twice.

    >>> bare("transformer.h.0.ln_1.bias"), bare("h.0.attn.bias"), bare("lm_head.weight")
    ('h.0.ln_1.bias', None, None)
    """
    name = name.removeprefix("transformer.")
    masks = name.endswith((".attn.bias", ".attn.masked_bias"))
    return None if masks or name == "lm_head.weight" else name
