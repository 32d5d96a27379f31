"""Weights of other libraries: their modules' outputs, and bijections of arrays.

The fixture holds weights and outputs of torch modules: tests/fixtures/peers.py.
"""

import json
import os
from functools import cache, partial
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gengen.conditions import Labels
from gengen.errors import BadInput
from gengen.interchange import dit, gpt2, to_ours, to_theirs
from gengen.nets.dit import DiT
from gengen.nets.transformer import Transformer

FIXTURES = Path(os.environ.get("PEERS", Path(__file__).parent / "fixtures"))
CONFIGS = json.loads((FIXTURES / "peers.json").read_text())
ARRAYS = dict(np.load(FIXTURES / "peers.npz"))


def of(name, kind):
    start = f"{name}/{kind}/"
    return {k.removeprefix(start): x for k, x in ARRAYS.items() if k.startswith(start)}


@cache
def imported(name):
    """(our network, its rules, their tensors, our parameters, its arguments)."""
    tensors, inputs, config = of(name, "w"), of(name, "in"), CONFIGS[name]
    if name == "gpt2":
        tensors = {gpt2.bare(k): x for k, x in tensors.items() if gpt2.bare(k)}
        net = gpt2.net_of(config)
        table, arguments = gpt2.rules(net), (jnp.roll(inputs["x"], -1, axis=1),)
    else:
        net = dit.net_of(config)
        x, t, c = inputs["x"].transpose(0, 2, 3, 1), inputs["t"] / 1e3, inputs["y"]
        table, arguments = dit.rules(net, 3), (x, jnp.float32(t), {"label": c})
    shapes = jax.eval_shape(net.init, jax.random.key(0), *arguments)["params"]
    return net, table, tensors, to_ours(table, tensors, shapes), arguments


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_are_those_of_the_torch_module(name):
    net, _, _, params, arguments = imported(name)
    ours = jax.jit(net.apply)({"params": params}, *arguments)
    theirs = of(name, "out")["y"]
    ours = ours.transpose(0, 3, 1, 2) if name == "dit" else ours
    # At t = 1 a sinusoid of the time is off by 1,000 roundings of its frequency.
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.std(theirs))


@pytest.mark.parametrize("name", CONFIGS)
def test_both_ways_together_are_the_identity_bit_for_bit(name):
    _, table, tensors, params, _ = imported(name)
    back = to_theirs(table, params)
    assert back.keys() == tensors.keys()
    chex.assert_trees_all_equal(back, tensors)
    rng = np.random.default_rng(0)
    ours = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
    chex.assert_trees_all_equal(to_ours(table, to_theirs(table, ours), params), ours)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_tensor_that_does_not_fit_is_named(name):
    _, table, tensors, params, _ = imported(name)
    last, x = [*tensors.items()][-1]
    wrong = {k: x for k, x in tensors.items() if k != last}
    with pytest.raises(BadInput, match=f"{last} .* is missing"):
        to_ours(table, wrong, params)
    with pytest.raises(BadInput, match=r"more \[2\] has no place"):
        to_ours(table, {**tensors, "more": np.zeros(2)}, params)
    with pytest.raises(BadInput, match=rf"{last} is \[7\], .* says \[{len(x)}\]"):
        to_ours(table, {**tensors, last: np.zeros(7)}, params)
    with pytest.raises(BadInput, match="no place for own"):
        to_theirs(table, {**params, "own": np.zeros(2)})


def test_copies_that_differ_are_refused():
    _, table, tensors, params, _ = imported("dit")
    name = next(k for k in tensors if k.startswith("transformer_blocks.1.norm1.emb"))
    with pytest.raises(BadInput, match="copies of one array differ"):
        to_ours(table, {**tensors, name: tensors[name] + 1}, params)


def test_a_configuration_is_that_of_its_network():
    net = imported("gpt2")[0]
    config = gpt2.config_of(net)
    assert gpt2.net_of(config) == net
    assert config.items() >= {k: CONFIGS["gpt2"][k] for k in gpt2._FIXED}.items()
    net = imported("dit")[0]
    config = dit.config_of(net, 6, 3)
    assert dit.net_of(config) == net
    assert config.pop("_class_name") == dit.KIND
    assert config == {k: CONFIGS["dit"][k] for k in config}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda c: gpt2.net_of({**c["gpt2"], "activation_function": "relu"}), "'relu'"),
        (lambda c: gpt2.net_of({**c["gpt2"], "n_inner": 9}), "n_inner is 9"),
        (lambda c: gpt2.config_of(Transformer(5, 4, 5)), "--positions learned"),
        (lambda c: dit.net_of({**c["dit"], "norm_type": "layer_norm"}), "'layer_norm'"),
        (lambda c: dit.net_of({**c["dit"], "out_channels": 5}), "out_channels is 5"),
        (lambda c: dit.config_of(DiT(), 6, 3), "conditioned on one class"),
        (lambda c: dit.config_of(DiT(condition=Labels(3)), 6, 3), "256 sinusoids"),
    ],
)
def test_what_the_other_library_has_not_is_one_sentence(make, words):
    with pytest.raises(BadInput, match=words):
        make(CONFIGS)


def test_symbols_one_by_one_are_the_parallel_pass_with_tied_learned_embeddings():
    net, _, _, params, (x,) = imported("gpt2")

    @jax.jit
    def both(x):
        apply = partial(net.apply, {"params": params})

        def step(cache, t):
            out, cache = apply(x[:, t - 1], t, cache, method="decode")
            return cache, out

        cache = apply(len(x), method="start")
        return apply(x), jax.lax.scan(step, cache, jnp.arange(x.shape[1]))[1].swapaxes(
            0, 1
        )

    np.testing.assert_allclose(*both(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"tied": True}, "head takes 9"), ({"start_symbol": 5}, "none of 5 symbols")],
)
def test_symbols_that_are_not_there_are_refused(fields, words):
    net = Transformer(9, 4, 5, 8, 1, 2, **fields)
    with pytest.raises(BadInput, match=words):
        jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
