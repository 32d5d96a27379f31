"""What every model keeps, one table: a new family is one row.

Each row trains ten steps on eight real images once; the laws look at what came out. SGD
throughout, so that the same steps can be compared across devices: Adam magnifies the
rounding of gradients that should be zero.
"""

import collections
import inspect
import json
import math
import subprocess
import sys
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import chex
import golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from exports import FIXTURE, primitives
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding
from program import with_devices
from quick_keys import quick_key
from sklearn.datasets import load_digits

from gengen import presets, types
from gengen.augment import Flip, Gated
from gengen.conditions import Labels, Maps, Nothing, Text, both, parts_of
from gengen.diffusion.consistency import ClosingGap
from gengen.diffusion.couplings import OptimalTransport
from gengen.diffusion.density import FlowDensity
from gengen.diffusion.flow_maps import SECOND_TIME
from gengen.diffusion.ode import HEUN
from gengen.diffusion.paths import Linear
from gengen.diffusion.process import Process, Velocity
from gengen.diffusion.solvers import (
    Ancestral,
    EDMSampler,
    learned_range,
)
from gengen.diffusion.times import stratified
from gengen.diffusion.weights import ELBOWeight
from gengen.errors import BadInput
from gengen.images import bits_per_dim
from gengen.latent.objectives import IWAE
from gengen.latent.priors import GaussianMixture
from gengen.latent.quantizers import FiniteScalar
from gengen.losses.adversarial import NonSaturating, Relativistic
from gengen.losses.penalty import r1, r1_r2
from gengen.models.autoregressive import Autoregressive
from gengen.models.classifier import Classifier
from gengen.models.clip import CLIP
from gengen.models.combinators.consistency import Consistency
from gengen.models.combinators.drifting import Drifting
from gengen.models.combinators.latent import Coded, Latent
from gengen.models.combinators.semisupervised import SemiSupervised
from gengen.models.cyclegan import CycleGAN
from gengen.models.diffusion import Diffusion
from gengen.models.first_stage import AutoencoderKL
from gengen.models.flow_map import FlowMap
from gengen.models.gan import GAN, Adaptive
from gengen.models.hvae import HierarchicalVAE
from gengen.models.multiscale import Multiscale
from gengen.models.normalizing_flow import NormalizingFlow
from gengen.models.stylegan import StyleGAN
from gengen.models.vae import VAE
from gengen.models.vqvae import VQVAE
from gengen.multi_step import multi_step
from gengen.nets.conv import ConvDecoder, ConvEncoder
from gengen.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from gengen.nets.dit import DiT
from gengen.nets.flows import AutoregressiveFlow
from gengen.nets.ladder import Ladder
from gengen.nets.maps import Halves, MapDecoder, MapEncoder
from gengen.nets.mlp import MLPCritic, MLPDecoder, MLPEncoder
from gengen.nets.patch import PatchGAN
from gengen.nets.pixelrnn import PixelRNN
from gengen.nets.realnvp import RealNVP
from gengen.nets.recurrence import RowLSTM
from gengen.nets.resnet import ResNet
from gengen.nets.stylegan2 import StyleGAN2Generator
from gengen.nets.transformer import Transformer
from gengen.nets.translator import Translator
from gengen.nets.unet import UNet
from gengen.nets.upsample import Upsample
from gengen.observations.binomial import Binomial
from gengen.observations.categorical import Categorical
from gengen.observations.discretized_logistic import DiscretizedLogistic
from gengen.observations.gaussian import Gaussian
from gengen.observations.laplace import Laplace
from gengen.scan import fold_in, sample_keys
from gengen.spaces import Images, Reals, Symbols
from gengen.step import init_train_state, make_train_step
from gengen.types import Discriminative, HasLatents, OnlyReconstructs, Variables, static

SHAPE, LEVELS = (8, 8, 1), 17
SPACE, TEN = Images(SHAPE, LEVELS), Labels(10)
KEY = quick_key(5)


def mlp_vae(observation, condition=Nothing()):
    features = (8, 8, observation.features)
    encoder = MLPEncoder(2, (16,), condition)
    decoder = MLPDecoder(features, (16,), condition)
    return VAE(encoder, decoder, observation, SPACE, 2, condition)


def conv_vae():
    nets = ConvEncoder(2, 8, 1, groups=4), ConvDecoder(SHAPE, 8, 1, groups=4)
    return VAE(*nets, Gaussian(), SPACE, 2, importance_samples=2)


def semi_supervised():
    net = ResNet(10, 8, (1,), groups=4)
    return SemiSupervised(mlp_vae(Binomial(LEVELS), TEN), net)


def gan(condition=Nothing(), **kwargs):
    generator = DCGANGenerator(SHAPE, 8, 1, condition)
    discriminator = DCGANDiscriminator(8, 2, condition)
    return GAN(generator, discriminator, SPACE, 4, condition, **kwargs)


def relativistic_gan():
    nets = MLPDecoder(SHAPE, (16,)), MLPCritic((16,), group=2)
    seen = {"augment": Gated((Flip(),)), "probability": Adaptive(examples=100)}
    penalties = (r1_r2(0.1),)
    return GAN(
        *nets,
        SPACE,
        4,
        Nothing(),
        Relativistic(),
        penalties,
        penalty_interval=2,
        **seen,
    )


def stylegan():
    """Its own critic, of equalised rates, learns little by plain SGD."""
    sizes = {"downsamples": 0, "style": 6, "mixing": 0.5, "condition": TEN}
    generator = StyleGAN2Generator(SHAPE, 4, **sizes)
    return StyleGAN(generator, DCGANDiscriminator(8, 2, TEN), SPACE, 4, TEN)


def cyclegan():
    return CycleGAN(Translator(4, 0, 1), PatchGAN(4, 1), SPACE, identity=0.0, buffer=9)


def flow(condition=TEN, net=partial(UNet, 8, (1,), groups=4)):
    return presets.flow(net(condition=condition), SPACE, condition, steps=3)


def ddpm():
    net = DiT(2, 16, 1, 2, learned_variance=True)
    values = {"vlb_weight": 1e-3, "solver": Ancestral(learned_range)}
    return presets.ddpm(net, SPACE, steps=3, **values)


def edm():
    values = {"importance_bins": 4, "coupling": OptimalTransport(), "steps": 3}
    net, solver = DiT(2, 16, 2, 2, condition=TEN), EDMSampler(0.1)
    return presets.edm(net, SPACE, TEN, solver=solver, **values)


def score_sde():
    values = {"likelihood": FlowDensity(integrator=HEUN), "uniforms": stratified}
    values |= {"weight": ELBOWeight(), "steps": 3}
    return presets.score_sde(DiT(2, 16, 1, 2), SPACE, **values)


def mean_flow():
    net = DiT(2, 16, 1, 2, condition=both(TEN, SECOND_TIME))
    process = Process(Linear(), Velocity())
    return FlowMap(net, process, SPACE, TEN, power=0.0)


def consistency():
    model = presets.flow(DiT(2, 16, 1, 2, condition=TEN), SPACE, TEN)
    return Consistency(model, ClosingGap(2))


def drifting():
    return Drifting(presets.flow(DiT(2, 16, 1, 2, condition=TEN), SPACE, TEN))


@static
class Pooled:
    """A frozen autoencoder: means of 2×2 pixels, times its scale."""

    space: Images = SPACE
    latent_shape: tuple = (4, 4, 1)

    def init(self, key):
        return {"scale": jnp.float32(2.0)}, {}

    def to_latent(self, params, state, x):
        return params["scale"] * x.reshape(-1, 4, 2, 4, 2, 1).mean((2, 4))

    def from_latent(self, params, state, z):
        return z.repeat(2, axis=1).repeat(2, axis=2) / params["scale"]


def latent_flow():
    net, inner = DiT(2, 16, 1, 2, condition=TEN), Reals((4, 4, 1), -1.0, 1.2)
    return Latent(presets.flow(net, inner, TEN, steps=3), Pooled())


def transformer():
    sizes = LEVELS, 64, LEVELS, 16, 1, 2
    net = Transformer(*sizes, dropout=0.1, condition=TEN)
    return Autoregressive(net, Categorical(LEVELS), SPACE, TEN)


def classifier():
    return Classifier(ResNet(10, 16, (1, 2), dropout=0.1, groups=4), SPACE, TEN)


def codes_prior():
    """A prior of 4×4 of 512 codes, without order, given a class."""
    net = Transformer(512, 16, 512, 8, 1, 2, condition=TEN)
    space = Symbols((4, 4), 512)
    return Autoregressive(net, Categorical(512), space, TEN)


def pixelrnn(kind, shape=SHAPE, condition=Nothing(), width=4):
    net = PixelRNN(LEVELS, shape, LEVELS, width, 1, kind, condition)
    return Autoregressive(net, Categorical(LEVELS), Images(shape, LEVELS), condition)


def flow_vae():
    """Another prior, a bent posterior, and IWAE's bound."""
    nets = MLPEncoder(2, (16,)), MLPDecoder((8, 8, 1), (16,))
    values = {"prior": GaussianMixture(3), "flow": AutoregressiveFlow(1, (8,))}
    return VAE(*nets, Binomial(LEVELS), SPACE, 2, objective=IWAE(2), **values)


def hierarchical_vae():
    net = Ladder((8, 8, 2), (1, 1), 2, 8, norm_groups=4, condition=TEN)
    return HierarchicalVAE(net, DiscretizedLogistic(LEVELS), SPACE, TEN)


def realnvp():
    return NormalizingFlow(RealNVP(SHAPE, 4, 1), SPACE)


def quantised():
    nets = MapEncoder(2, 4, 1, groups=2), MapDecoder(SHAPE, 4, 1, groups=2)
    return VQVAE(*nets, FiniteScalar((3, 3)), Binomial(LEVELS), SPACE, (4, 4))


def autoencoder_kl():
    encoder = Halves(MapEncoder(4, 4, 1, groups=2))
    nets = encoder, MapDecoder(SHAPE, 4, 1, groups=2)
    game = {"discriminator": PatchGAN(4, 1), "game": NonSaturating()}
    game["penalties"] = (r1(0.1),)
    return AutoencoderKL(*nets, Laplace(), SPACE, (4, 4, 2), **game)


def clip():
    return CLIP(ResNet(6, 8, (1,), groups=4), SPACE, Text(30, 5, 8), 6)


def vqvae_prior():
    net = Transformer(9, 16, 9, 8, 1, 2)
    space = quantised().codes
    return Coded(Autoregressive(net, Categorical(9), space), quantised())


def multiscale():
    fine = pixelrnn(RowLSTM, condition=Maps((8, 8, 4)))
    coarse = pixelrnn(RowLSTM, (4, 4, 1), TEN, 16)
    return Multiscale(coarse, fine, Upsample(4, (8, 8), condition=TEN))


ROWS = {
    "VAE, Bernoulli": partial(mlp_vae, Binomial(LEVELS)),
    "VAE, Gaussian": partial(mlp_vae, Gaussian()),
    "VAE, logistic": partial(mlp_vae, DiscretizedLogistic(LEVELS)),
    "VAE, conditional": partial(mlp_vae, Binomial(LEVELS), TEN),
    "VAE, convolutional": conv_vae,
    "VAE, flows": flow_vae,
    "VAE, semi-supervised": semi_supervised,
    "hierarchical VAE": hierarchical_vae,
    "normalising flow": realnvp,
    "VQ-VAE and its prior": vqvae_prior,
    "KL autoencoder and its critic": autoencoder_kl,
    "GAN": gan,
    "GAN, conditional": partial(gan, TEN),
    "GAN, relativistic": relativistic_gan,
    "StyleGAN2, conditional": stylegan,
    "CycleGAN": cyclegan,
    "flow matching, conditional": flow,
    "DDPM, learned variances": ddpm,
    "EDM, DiT": edm,
    "score SDE": score_sde,
    "flow matching, text": partial(flow, Text(30, 5, 8), partial(DiT, 2, 16, 1, 2)),
    "mean flow": mean_flow,
    "consistency": consistency,
    "drifting": drifting,
    "latent flow": latent_flow,
    "transformer, conditional": transformer,
    "multi-scale PixelRNN": multiscale,
    "codes prior": codes_prior,
    "classifier": classifier,
    "CLIP": clip,
}


@cache
def examples():
    digits = load_digits()
    image = digits.images[:8, :, :, None].astype(np.uint8)
    codes = 30 * digits.images[:8, ::2, ::2].astype(np.int32)  # up to 480
    label = digits.target[:8].astype(np.int32)
    rng = np.random.default_rng(0)
    text = np.pad(rng.integers(1, 30, (8, 3)), ((0, 0), (0, 2))).astype(np.int32)
    batch = {"image": image, "codes": codes, "label": label, "partner": 16 - image}
    return {**batch, "text": text}


def frozen(model):
    """The arrays of other models that this one reads."""
    if not isinstance(model, Latent | Coded):
        return None
    return {"autoencoder": Variables(*jax.jit(model.autoencoder.init)(KEY))}


def space_of(name):
    """What a row is about; images, until every model has a space."""
    return getattr(ROWS[name](), "space", Images(SHAPE, LEVELS))


def clipped_sgd(learning_rate):
    return optax.chain(optax.clip_by_global_norm(10.0), optax.sgd(learning_rate))


# The rate is data, so that a player can be frozen without another program.
SGD = optax.inject_hyperparams(clipped_sgd)(0.01)


def optimizers(model):
    return dict.fromkeys(model.losses(), SGD)


TRACES = collections.Counter()


def advance(name, model, train_state, batch):
    """One step, through all that a run uses: average, players, feed."""
    TRACES[name] += 1
    step = make_train_step(model.losses(), optimizers(model), ema_decay=0.9)
    feed = jax.tree.map(lambda x: x[None], batch)
    return multi_step(step)(train_state, None, feed, 1, frozen(model))


def start(name):
    """The train state before step 0, on one device."""
    model = ROWS[name]()

    @jax.jit
    def initial(key_init, key):
        params, state = model.init(key_init, examples())
        return init_train_state(key, params, state, optimizers(model))

    train_state = initial(quick_key(0), jax.random.key(1))
    return jax.device_put(train_state, jax.devices()[0])


def save(folder, train_state):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, train_state)


def restore(folder, like, where):
    """The saved train state, of the structure of `like`, in the sharding `where`."""
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), like
    )
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(folder, shapes)


class Run(NamedTuple):
    """A model, its compiled step, train states after 0 … 10 steps, and metrics."""

    model: object
    step: object
    states: list
    metrics: list
    traces: int


@cache
def run(name):
    step = partial(jax.jit(advance, static_argnums=(0, 1)), name)
    states, metrics = [start(name)], []
    for _ in range(10):  # each with a model built anew
        train_state, seen = step(ROWS[name](), states[-1], examples())
        states.append(train_state)
        metrics.append(seen)
    return Run(ROWS[name](), step, states, metrics, TRACES[name])


@cache
def variables(name):
    """(params, state) of the trained model, with what it is given frozen."""
    train_state = run(name).states[-1]
    return train_state.params, {**train_state.state, "frozen": frozen(ROWS[name]())}


@cache
def sampler(name):
    """(parameters, state, number of a key, first) -> eight samples; one program."""
    draw = run(name).model.sample
    return jax.jit(
        lambda params, state, seed, first: draw(
            params, state, quick_key(seed), 8, start_index=first
        )
    )


@cache
def samples(name, seed, first=0):
    """Eight samples of the trained model."""
    return np.asarray(sampler(name)(*variables(name), seed, first))


@cache
def density(name):
    """The log-likelihood of a row; one program."""
    return jax.jit(run(name).model.log_likelihood)


rows = pytest.mark.parametrize("name", ROWS)
MODELS = {name: make() for name, make in ROWS.items()}
GAMES = [name for name, model in MODELS.items() if len(model.losses()) > 1]
CAPABILITIES = [
    x
    for x in vars(types).values()
    if inspect.isabstract(x) and x.__module__ == types.__name__
]
assert {Discriminative, HasLatents} < set(CAPABILITIES)

# A row a kind: of what a model's class does, whatever its network and its numbers.
KINDS = {
    (type(model), type(getattr(model, "condition", None))): name
    for name, model in reversed(MODELS.items())
}

GENERATIVE = [name for name, model in MODELS.items() if types.draws(model)]
generative_rows = pytest.mark.parametrize("name", GENERATIVE)
LATENT = [name for name in KINDS.values() if isinstance(MODELS[name], HasLatents)]
# Whose train states hold more than parameters and their average.
SAVED = [*GAMES, "EDM, DiT", "transformer, conditional"]


# ---------------------------------------------------------------- training


@rows
def test_losses_and_metrics_are_finite_scalars_named_by_player(name):
    model, _, states, metrics, _ = run(name)
    assert set(model.losses()) == set(states[0].params)
    for seen in metrics:
        for player in model.losses():
            assert {f"{player}/loss", f"{player}/grad_norm"} <= seen.keys()
        for metric, value in seen.items():
            assert metric.split("/")[0] in model.losses()
            assert value.shape == () and value.dtype == jnp.float32
            assert np.isfinite(value), metric


def size_of(params):
    """The sum of all absolute values: what initialisers draw, and how large."""
    return sum(np.sum(np.abs(x)) for x in jax.tree.leaves(jax.device_get(params)))


def numbers(name):
    """What `golden` keeps of a row, by the programs that the other laws use."""
    model, step, states, *_ = run(name)
    arrays = {"params": states[0].params, "state": states[0].state}
    filled, state = golden.fill(states[0].params), variables(name)[1]
    state = {**states[0].state, "frozen": state["frozen"]}
    filled_state = states[0].replace(params=filled, ema=filled)
    found = {"initial size": size_of(states[0].params)}
    found |= step(model, filled_state, examples())[1]
    if model.density != "none":
        found["log-likelihood"] = density(name)(filled, state, examples(), KEY)
    if name in GENERATIVE:
        found["sample"] = sampler(name)(filled, state, 3, 0)[0]
    return {"shapes": golden.shapes(arrays), "numbers": jax.device_get(found)}


@rows
def test_shapes_steps_likelihoods_and_samples_are_those_before(name):
    golden.check(numbers(name), name)


# A game of differences does not see the level of the critic.
STILL = {"GAN, relativistic": ["['discriminator']['Dense_1']['bias']"]}


@rows
def test_every_parameter_of_every_player_learns(name):
    states = run(name).states
    ends = states[0].params, states[-1].params
    moved = jax.tree.map(lambda a, b: np.any(a != b), *jax.device_get(ends))
    still = [path for path, yes in jax.tree.leaves_with_path(moved) if not yes]
    assert [*map(jax.tree_util.keystr, still)] == STILL.get(name, [])


@pytest.mark.parametrize("name", GAMES)
def test_a_loss_has_no_gradient_for_another_player(name):
    model, _, states, *_ = run(name)
    train_state, (params, state) = states[-1], variables(name)
    state = {**state, "step": train_state.step, "ema": train_state.ema}

    @jax.jit
    def of_others(params, state):
        """By player, its loss' gradient in the others' parameters: zeros, cheaply."""

        def gradient(player, loss):
            own = {player: params[player]}
            others = {other: params[other] for other in params.keys() - {player}}
            return jax.grad(
                lambda others: loss(own | others, state, examples(), KEY)[0]
            )(others)

        return {player: gradient(player, f) for player, f in model.losses().items()}

    for gradients in jax.device_get(of_others(params, state)).values():
        assert not any(np.any(x) for x in jax.tree.leaves(gradients))


@rows
def test_ten_steps_with_rebuilt_models_trace_once(name):
    assert len(run(name).states) == 11 and run(name).traces == 1


@rows
def test_a_step_keeps_structure_shapes_and_dtypes(name):
    states = run(name).states
    chex.assert_trees_all_equal_shapes_and_dtypes(states[0], states[-1])
    assert states[-1].step == 10


@rows
def test_models_built_twice_are_equal(name):
    one, other = ROWS[name](), ROWS[name]()
    assert one == other and hash(one) == hash(other)
    assert one.losses() == other.losses()
    assert len({ROWS[n]() for n in ROWS}) == len(ROWS)


def at_rest(opt_state):
    rate = opt_state.hyperparams["learning_rate"]
    return opt_state._replace(hyperparams={"learning_rate": 0 * rate})


SLOW = {"multi-scale PixelRNN": 50}  # steps of those that need more than 40


@rows
def test_the_loss_falls_on_eight_memorised_examples(name):
    # The first player's, against the others as they are at first: their rate is 0.
    model, step, states, *_ = run(name)
    player, *others = model.losses()
    still = {other: at_rest(states[0].opt_state[other]) for other in others}
    train_state = states[0].replace(opt_state={**states[0].opt_state, **still})

    def loss(train_state):
        """Under the keys of steps 0 … 7, whatever the step."""
        numbers = jax.device_put(list(np.arange(8, dtype=np.int32)), jax.devices()[0])
        values = [
            step(model, train_state.replace(step=i), examples())[1] for i in numbers
        ]
        return np.mean([value[f"{player}/loss"] for value in values])

    before = loss(train_state)
    for _ in range(SLOW.get(name, 40)):
        train_state, _ = step(model, train_state, examples())
    for other in others:
        chex.assert_trees_all_equal(train_state.params[other], states[0].params[other])
    assert loss(train_state) < 0.9 * before


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_run_goes_on_bit_for_bit(name, tmp_path):
    model, step, states, *_ = run(name)
    save(tmp_path / "run", states[5])
    device = SingleDeviceSharding(jax.devices()[0])
    restored = restore(tmp_path / "run", states[5], device)

    def numbers(train_state):
        return train_state.replace(key=jax.random.key_data(train_state.key))

    chex.assert_trees_all_equal(numbers(restored), numbers(states[5]))
    resumed, _ = step(model, restored, examples())
    chex.assert_trees_all_equal(numbers(resumed), numbers(states[6]))
    assert TRACES[name] == 1


# ---------------------------------------------------------------- sampling


@generative_rows
def test_samples_are_finite_and_of_the_space(name):
    x, space = samples(name, 3), space_of(name)
    assert x.shape == (8, *space.shape)
    assert x.dtype == jax.eval_shape(lambda: space.zeros(1)).dtype
    assert np.all(np.isfinite(x))
    assert len(np.unique(x.reshape(8, -1), axis=0)) == 8


@generative_rows
def test_the_key_decides_the_samples(name):
    one, other = (samples(name, seed) for seed in (3, 4))
    again = samples.__wrapped__(name, 3)
    np.testing.assert_array_equal(one, again)
    same = np.isclose(one, other).reshape(len(one), -1)
    assert not np.any(np.all(same, axis=1))


@generative_rows
def test_a_sample_depends_on_its_number_and_not_on_its_batch(name):
    """The same four samples, beside those before them and beside those after."""
    np.testing.assert_array_equal(samples(name, 3, 4)[:4], samples(name, 3)[4:])


@generative_rows
def test_a_sampler_is_made_of_what_was_exported_to_every_platform(name):
    """`python -m tests.exports` exports every row, and lists these operations."""
    made = primitives(sampler(name).trace(*variables(name), 3, 0).jaxpr)
    assert (
        {"random_bits", "random_fold_in"} <= made <= {*json.loads(FIXTURE.read_text())}
    )


@pytest.mark.parametrize("name", LATENT)
def test_samples_are_images_of_their_latents(name):
    model = run(name).model
    known = any(isinstance(p, Text) for p in parts_of(model.condition))

    @jax.jit
    def images(params, state):
        keys = sample_keys(quick_key(3), 8)
        given = model.condition.given({}, 8, keys, null_known=known)
        z = model.sample_latent(params, state, keys)
        if isinstance(model, Diffusion | types.HasStyles):  # each sample's own noise
            given["keys"] = fold_in(keys, 1)
        return model.from_latent(params, state, z, **given)

    x = images(*variables(name))
    atol = 1e-5 * max(np.max(np.abs(x)), 1.0)
    np.testing.assert_allclose(x, samples(name, 3), atol=atol)
    assert isinstance(model.nfe(), int) and model.nfe() > 0


@pytest.mark.parametrize("name", KINDS.values())
def test_features_are_one_finite_vector_an_image(name):
    features = jax.jit(run(name).model.features)(*variables(name), examples(), KEY)
    features = np.asarray(features)
    assert features.ndim == 2 and len(features) == 8
    assert np.all(np.isfinite(features)) and np.any(np.std(features, axis=0))


# ---------------------------------------------------------------- likelihood


@pytest.mark.parametrize("name", ROWS)
def test_a_model_declares_exactly_what_it_can_do(name):
    model = ROWS[name]()
    for capability in CAPABILITIES:
        has = all(hasattr(model, part) for part in capability.__abstractmethods__)
        without = capability in (Discriminative, OnlyReconstructs)
        has &= not without or model.density == "none"
        assert isinstance(model, capability) == has, capability.__name__
    assert isinstance(model, HasLatents) == hasattr(model, "latent_shape")


@rows
def test_log_likelihood_exists_exactly_where_there_is_a_density(name):
    model = run(name).model
    assert model.density in {"exact", "bound", "none"}
    has_density = model.density != "none"
    assert hasattr(model, "likelihood_kind") == has_density
    if not has_density:
        with pytest.raises(BadInput, match="has no density"):
            model.log_likelihood({}, {}, examples(), KEY)
    if has_density:
        log_p = density(name)(*variables(name), examples(), KEY)
        assert log_p.shape == (8,) and log_p.dtype == jnp.float32
        bits = bits_per_dim(np.asarray(log_p), space_of(name).shape)
        # Discrete data, so positive; other units would be 64 times off.
        assert np.all(bits > 0) and np.mean(bits) < 5 * math.log2(LEVELS)


# ---------------------------------------------------------------- devices


# The step that cuts the batch is the same for all: two players and statistics of the
# batch, noise chosen over the batch, and one row more.
PARTED = ["GAN, conditional", "EDM, DiT", "transformer, conditional"]


def two_devices(folder):
    """In a process with two devices: two steps of each, the batch in two parts."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    halves = NamedSharding(mesh, PartitionSpec("data"))
    batch = jax.device_put(examples(), halves)
    for number, name in enumerate(PARTED):
        step = jax.jit(
            partial(advance, name, ROWS[name]()),
            in_shardings=(everywhere, halves),
            out_shardings=everywhere,
        )
        shapes = jax.eval_shape(partial(start, name))
        train_state = restore(folder / f"start {number}", shapes, everywhere)
        for _ in range(2):
            train_state, _ = step(train_state, batch)
        np.savez(folder / f"{number}.npz", *trained(train_state))


def trained(train_state):
    """The arrays that training changes."""
    return jax.tree.leaves((train_state.params, train_state.state, train_state.ema))


@pytest.fixture(scope="module")
def of_two_devices(tmp_path_factory):
    """The folder into which one process with two devices wrote every row's result."""
    folder = tmp_path_factory.mktemp("two_devices")
    for number, name in enumerate(PARTED):
        save(folder / f"start {number}", run(name).states[0])
    env = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, __file__, folder],
        env=with_devices(2) | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", PARTED)
def test_two_devices_train_as_one_does(name, of_two_devices):
    one = trained(run(name).states[2])
    two = np.load(of_two_devices / f"{PARTED.index(name)}.npz").values()
    # Means over a batch in two parts: float32 sums in another order.
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    two_devices(Path(sys.argv[1]))
