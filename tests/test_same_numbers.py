"""Each family computes what it did before spaces and conditions: one row per model.

`fixtures/families.json` holds the parameter tree, the losses, the log-likelihoods and
two samples of every kind of model, as the commit before spaces and conditions computed
them for parameters that NumPy draws by the name of each array. A new row is one line
of ROWS: name -> (a function that makes the model, its batch).
"""

import zlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_autoregressive as ar
import test_conformance as conformance

from gengen import presets
from gengen.conditions import Labels, Nothing, Sequence
from gengen.diffusion.couplings import OptimalTransport
from gengen.diffusion.density import FlowDensity
from gengen.diffusion.ode import HEUN
from gengen.diffusion.solvers import Ancestral, EDMSampler, learned_range
from gengen.diffusion.times import Uniform, stratified
from gengen.diffusion.weights import ELBOWeight
from gengen.losses.penalty import r1
from gengen.models.classifier import Classifier
from gengen.models.gan import GAN
from gengen.models.vae import VAE
from gengen.nets.conv import ConvDecoder, ConvEncoder
from gengen.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from gengen.nets.dit import DiT
from gengen.nets.mlp import MLPDecoder, MLPEncoder
from gengen.nets.recurrence import DiagonalBiLSTM, RowLSTM
from gengen.nets.resnet import ResNet
from gengen.nets.unet import UNet
from gengen.observations.binomial import Binomial
from gengen.observations.discretized_logistic import DiscretizedLogistic
from gengen.observations.gaussian import Gaussian
from gengen.spaces import Images

BEFORE = conformance.BEFORE
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


def row(make, *arguments, **values):
    return partial(make, *arguments, **values)


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


def mlp_vae(observation, condition=Nothing()):
    nets = (
        MLPEncoder(2, (16,), condition),
        MLPDecoder((8, 8, observation.features), (16,), condition),
    )
    return VAE(*nets, observation, X, 2, condition)


def conv_vae():
    nets = ConvEncoder(2, 8, 1, groups=4), ConvDecoder((8, 8, 1), 8, 1, groups=4)
    return VAE(*nets, Gaussian(), X, 2, importance_samples=2)


def gan(condition=Nothing(), batch_norm=True, **values):
    generator = DCGANGenerator((8, 8, 1), 8, 1, condition)
    discriminator = DCGANDiscriminator(8, 2, condition, batch_norm)
    return GAN(generator, discriminator, X, 4, condition, **values)


def flow():
    net = UNet(8, (1,), groups=4, condition=TEN)
    return presets.flow(net, X, TEN, steps=3, times=Uniform())


def ddpm():
    values = {"vlb_weight": 1e-3, "solver": Ancestral(learned_range), "steps": 3}
    net = UNet(8, (1,), groups=4, learned_variance=True)
    return presets.ddpm(net, X, **values)


def edm():
    values = {"solver": EDMSampler(), "coupling": OptimalTransport()}
    net = DiT(2, 16, 2, 2, condition=TEN)
    return presets.edm(net, X, TEN, importance_bins=4, steps=3, **values)


def score_sde():
    values = {"weight": ELBOWeight(), "uniforms": stratified}
    values["likelihood"] = FlowDensity(integrator=HEUN)
    return presets.score_sde(DiT(2, 16, 1, 2), X, steps=3, **values)


X, TEN = Images((8, 8, 1), 17), Labels(10)
OTHERS = {
    "VAE, Bernoulli": row(mlp_vae, Binomial(17)),
    "VAE, Gaussian": row(mlp_vae, Gaussian()),
    "VAE, logistic": row(mlp_vae, DiscretizedLogistic(17)),
    "VAE, conditional": row(mlp_vae, Binomial(17), TEN),
    "VAE, convolutional": conv_vae,
    "GAN": row(gan, batch_norm=False, penalties=(r1(0.1),), penalty_interval=2),
    "GAN, conditional": row(gan, TEN),
    "flow matching, conditional": flow,
    "DDPM, learned variances": ddpm,
    "EDM, DiT": edm,
    "score SDE": score_sde,
    "classifier": lambda: Classifier(
        ResNet(10, 16, (1, 2), dropout=0.1, groups=4), X, TEN
    ),
}
ROWS |= {name: (make, DIGITS) for name, make in OTHERS.items()}

# model -> {path of a parameter now: its path in the fixture}; renamed if unavoidable.
RENAMED = {
    "GAN, conditional": {
        f"{player}/embed/kernel": f"{player}/Embed_0/embedding"
        for player in ("discriminator", "generator")
    }
}


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
        return (0.5 * fan**-0.5 * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, tree)


@pytest.mark.parametrize("name", ROWS)
def test_parameters_losses_likelihoods_and_samples_are_those_before(name):
    make, batch = ROWS[name]
    model, before, renamed = make(), BEFORE[name], RENAMED.get(name, {})
    if name in conformance.AS_BEFORE or "init" not in before or renamed:
        params, state = jax.eval_shape(model.init, jax.random.key(0), batch)
    else:  # elsewhere, and under another name, other arrays are drawn
        params, state = jax.jit(model.init)(jax.random.key(0), batch)
        size = conformance.size_of(params)
        np.testing.assert_allclose(size, before["init"], rtol=1e-5)
    shapes = {renamed.get(p, p): list(x.shape) for p, x in paths(params).items()}
    assert shapes == before["params"]
    assert {p: list(x.shape) for p, x in paths(state).items()} == before["state"]
    if state:  # as it begins, of which the parameters are no part
        state = jax.jit(lambda key: model.init(key, batch)[1])(jax.random.key(0))
    assert set(model.losses()) == set(before["loss"])

    @jax.jit
    def everything(params, state, key):
        full = {**state, "step": jnp.int32(3), "ema": params}
        losses = {p: f(params, full, batch, key)[0] for p, f in model.losses().items()}
        found = {"loss": losses}
        if "log_likelihood" in before:
            nats = model.log_likelihood(params, state, batch, key)
            found["log_likelihood"] = nats
        if "samples" in before:
            found["samples"] = model.sample(params, state, key, 2).ravel()
        return found

    with jax.default_matmul_precision("highest"):
        found = everything(fill(params, renamed), state, KEY)
    for player, value in found["loss"].items():
        np.testing.assert_allclose(value, before["loss"][player], rtol=1e-5)
    for what in found.keys() - {"loss"}:
        np.testing.assert_allclose(found[what], before[what], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name, net",
    [
        ("UNet, context", UNet(8, (1,), groups=4, condition=Sequence(6))),
        ("DiT, context", DiT(2, 16, 1, 2, condition=Sequence(6))),
    ],
)
def test_networks_that_attend_to_a_sequence_answer_what_they_did(name, net):
    before, t = BEFORE[name], np.array([0.2, 0.7], np.float32)
    x, context = (
        np.random.default_rng(seed).normal(size=size).astype(np.float32)
        for seed, size in ((1, (2, 4, 4, 1)), (2, (2, 3, 6)))
    )
    c = {"context": context}
    params = jax.eval_shape(net.init, jax.random.key(0), x, t, c)["params"]
    assert {p: list(v.shape) for p, v in paths(params).items()} == before["params"]
    variables = {"params": fill(params, {})}
    with jax.default_matmul_precision("highest"):
        found = jax.jit(lambda v: [net.apply(v, x, t, c) for c in (c, None)])(variables)
    for r, key in zip(found, ("output", "null"), strict=True):
        np.testing.assert_allclose(np.ravel(r), before[key], rtol=1e-5, atol=1e-5)
