"""Each family computes what it did before spaces and conditions: one row per model.

`fixtures/families.json` holds the parameter tree, the losses, the log-likelihoods and
two samples of every kind of model, as the commit before spaces and conditions computed
them for parameters that NumPy draws by the name of each array. A new row is one line
of ROWS: name -> (a function that makes the model, its batch).
"""

import json
import zlib
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_autoregressive as ar
import test_conformance as conformance

from gengen.nets.recurrence import DiagonalBiLSTM, RowLSTM

BEFORE = json.loads((Path(__file__).parent / "fixtures/families.json").read_text())
KEY = jax.random.key(7)


def batches():
    """The batches that the fixture was made of."""
    rng = np.random.default_rng(0)
    label = np.arange(4, dtype=np.int32) % 3
    small, colour = (
        {"image": rng.integers(0, 5, (4, 4, 4, c)).astype(np.uint8), "label": label}
        for c in (1, 3)
    )
    tokens = {"tokens": rng.integers(0, 9, (4, 6)).astype(np.int32)}
    digits = {name: value[:4] for name, value in conformance.examples().items()}
    return digits, small, colour, tokens


DIGITS, SMALL, COLOUR, TOKENS = batches()
COLOURS, GREY = ((4, 4, 3), 5), ((4, 4, 1), 5)


def row(make, *arguments):
    return partial(make, *arguments)


def of(name):
    return conformance.ROWS[name], DIGITS


ROWS = {
    name: of(name) for name in ("transformer, conditional", "multi-scale PixelRNN")
} | {
    "PixelCNN, conditional": (row(ar.pixelcnn, *COLOURS, ar.LABELS), COLOUR),
    "Gated PixelCNN, conditional": (row(ar.gated, *COLOURS, ar.LABELS), COLOUR),
    "PixelCNN++, conditional": (row(ar.pixelcnnpp, *COLOURS, ar.LABELS, 2), COLOUR),
    "row LSTM, conditional": (row(ar.pixelrnn, RowLSTM, *COLOURS, ar.LABELS), COLOUR),
    "diagonal BiLSTM": (row(ar.pixelrnn, DiagonalBiLSTM, *COLOURS), COLOUR),
    "LSTM, text": (row(ar.lstm, (6,), 9), TOKENS),
    "WaveNet, text": (row(ar.wavenet, (6,), 9), TOKENS),
    "LSTM, conditional": (row(ar.lstm, *GREY, ar.LABELS), SMALL),
    "WaveNet, conditional": (row(ar.wavenet, *GREY, ar.LABELS), SMALL),
}

# model -> {path of a parameter now: its path in the fixture}; renamed if unavoidable.
RENAMED: dict[str, dict[str, str]] = {}


def paths(tree):
    """{path: leaf}, names joined by /."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}


def fill(tree, renamed):
    """Every array drawn from the name that it has in the fixture."""

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        rng = np.random.default_rng(zlib.crc32(renamed.get(name, name).encode()))
        fan = int(np.prod(leaf.shape[:-1])) or 1
        return jnp.asarray(0.5 * fan**-0.5 * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, tree)


@pytest.mark.parametrize("name", ROWS)
def test_parameters_losses_likelihoods_and_samples_are_those_before(name):
    make, batch = ROWS[name]
    model, before, renamed = make(), BEFORE[name], RENAMED.get(name, {})
    params, state = jax.jit(model.init)(jax.random.key(0), batch)
    shapes = {renamed.get(p, p): list(x.shape) for p, x in paths(params).items()}
    assert shapes == before["params"]
    assert {p: list(x.shape) for p, x in paths(state).items()} == before["state"]
    if "init" in before:
        size = sum(float(jnp.sum(jnp.abs(x))) for x in jax.tree.leaves(params))
        np.testing.assert_allclose(size, before["init"], rtol=1e-5)
    params = fill(params, renamed)
    full = {**state, "step": jnp.int32(3), "ema": params}
    assert set(model.losses()) == set(before["loss"])
    with jax.default_matmul_precision("highest"):
        for player, loss in model.losses().items():
            value = jax.jit(loss)(params, full, batch, KEY)[0]
            np.testing.assert_allclose(value, before["loss"][player], rtol=1e-5)
        if "log_likelihood" in before:
            nats = jax.jit(model.log_likelihood)(params, state, batch, KEY)
            np.testing.assert_allclose(nats, before["log_likelihood"], rtol=1e-5)
        if "samples" in before:
            sample = jax.jit(model.sample, static_argnums=3)
            x = np.asarray(sample(params, state, KEY, 2)).ravel()
            np.testing.assert_allclose(x, before["samples"], rtol=1e-5, atol=1e-5)
