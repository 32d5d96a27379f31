"""Every choice that an experiment offers trains and samples, or is refused in words.

By shapes alone: nothing is computed.
"""

import inspect
import types
import typing
from contextlib import nullcontext
from dataclasses import fields, replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gengen.errors import BadInput
from gengen.models.diffusion import Diffusion
from gengen.types import Variables, draws
from train.data.dataset import Spec
from train.experiments import EXPERIMENTS, OF_TEXT
from train.experiments.experiment import with_perceptual
from train.experiments.training import TrainingOptions
from train.run.digests import leaf_names

ARCHITECTURES = typing.get_type_hints(EXPERIMENTS["text"])["architecture"]
DIGITS = Spec("digits", (8, 8, 1), 17, 10, tuple("0123456789"))
METHODS = typing.get_args(typing.get_type_hints(EXPERIMENTS["distill"])["method"])
OWN = ("vae", "autoencoder", "vqvae", "gan", "pixelrnn", "pixelcnn", "pixelcnnpp")
OWN += ("transformer",)
AUTOREGRESSIVE = ("pixelrnn", "pixelcnn", "pixelcnnpp", "transformer")
IMAGES = [
    x for x in EXPERIMENTS if x not in OF_TEXT | {"classifier", "prior", "distill"}
]
WORDS = {"words": ("a", "red", "seven"), "caption_length": 3}
SPECS = {"cyclegan": replace(DIGITS, partner=True), "clip": replace(DIGITS, **WORDS)}
BATCH = replace(DIGITS, partner=True, **WORDS).example(2)  # others: digits
REFUSED = {("path", "table"): "take the noise, data or v prediction"}
REFUSED["solver", "ddpm-learned"] = "this network learned no variances"
REFUSED["text_frozen", True] = "--text-frozen: this model is conditioned on no captions"
OF_SAMPLING = ("solver", "grid", "likelihood")
SMALL = {"channels": 8, "width": 8, "blocks": 1, "heads": 1}


class Echo(nn.Module):
    """A network for diffusion that is quickly traced: 0, and as much of variances."""

    channels: int

    @nn.compact
    def __call__(self, z, t, label=None, train=False):
        scale = self.param("scale", nn.initializers.zeros, ())
        return jnp.concatenate([scale * z] * self.channels, axis=-1)


def choices():
    """(experiment, keyword, value): every literal value, and either truth value.

    What several experiments offer is tried in one of each kind of model, and how any of
    them is trained in one.
    """
    first, training = {}, {field.name for field in fields(TrainingOptions)}
    for name in IMAGES:
        kinds = typing.get_type_hints(EXPERIMENTS[name])
        family = name if name in OWN else "diffusion"
        family = "gan" if name in ("stylegan2", "cyclegan") else family
        family = "vae" if name == "m2" else family
        for keyword, kind in kinds.items():
            of = "training" if keyword in training else family
            literal = typing.get_origin(kind) is typing.Literal
            some = typing.get_origin(kind) in (typing.Union, types.UnionType)
            values = typing.get_args(kind) if literal or some else ()
            for value in (True, False) if kind is bool else values:
                if isinstance(value, str | int):
                    first.setdefault((of, keyword, value), name)
    return [(name, *choice[1:]) for choice, name in first.items()]


def check(model, trains=True, samples=True, **teacher):
    """It has a scalar loss for every player, and two samples of the data's shape."""

    def everything(key):
        params, state = model.init(key, BATCH)
        state |= {"step": 0, "ema": params, "frozen": teacher}  # as in training
        if hasattr(model, "prepared"):
            state["frozen"] = teacher | model.prepared(key, state)
        assert set(model.losses()) == set(params)
        for loss in model.losses().values() if trains else ():
            assert loss(params, state, BATCH, key)[0].shape == ()
        if samples and draws(model):
            assert model.sample(params, state, key, 2).shape == (2, 8, 8, 1)

    jax.eval_shape(everything, jax.random.key(0))


@pytest.mark.parametrize("name", typing.get_args(ARCHITECTURES))
def test_every_network_of_text_trains_and_samples(name):
    spec = Spec("text", (16,), 256, 0, (), "text")
    model = EXPERIMENTS["text"](spec, architecture=name, width=8, layers=1).model
    batch = {"tokens": np.zeros((2, 16), np.uint8)}

    def everything(key):
        params, state = model.init(key, batch)
        loss, _ = model.loss(params, state, batch, key)
        return loss, model.sample(params, state, key, 2)

    loss, samples = jax.eval_shape(everything, jax.random.key(0))
    assert loss.shape == () and samples.shape == (2, 16)


@pytest.mark.parametrize("name", IMAGES)
def test_every_experiment_trains_and_samples_by_default(name):
    experiment = EXPERIMENTS[name](SPECS.get(name, DIGITS))
    assert set(experiment.optimizers) == set(experiment.model.losses())
    check(experiment.model)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_distillation_trains_and_starts_from_its_teacher(method):
    teacher = EXPERIMENTS["dit"](DIGITS, width=8, blocks=1, heads=1).model
    options = {"method": method, "pairs": 250, "batch_size": 2}
    experiment = EXPERIMENTS["distill"](DIGITS, **options)
    assert experiment.model is None
    experiment = experiment.taught(teacher)
    assert set(experiment.optimizers) == set(experiment.model.losses())
    params, state = jax.eval_shape(teacher.init, jax.random.key(0))
    held = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), (params, state))
    check(experiment.model, teacher=Variables(*held))
    start = experiment.start(params)
    own, _ = jax.eval_shape(experiment.model.init, jax.random.key(0))
    assert start.keys() == own.keys() - {"discriminator"}
    shapes = leaf_names(own)
    for name, x in leaf_names(start).items():
        assert shapes[name].shape == x.shape


@pytest.mark.parametrize("name", ["autoencoder_kl", "vqgan"])
def test_a_first_stage_compares_images_in_the_maps_of_a_classifier(name):
    classifier = EXPERIMENTS["classifier"](DIGITS, channels=8, multipliers=(1,)).model
    small = {"channels": 8, "conv_levels": 1, "critic_channels": 4, "adversarial": 0.0}
    experiment = EXPERIMENTS[name](DIGITS, **small)
    made = with_perceptual(experiment, classifier, name)
    arrays = jax.eval_shape(classifier.init, jax.random.key(0))
    held = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), arrays)
    check(made.model, samples=False, perceptual=Variables(*held))
    assert with_perceptual(experiment, None, name) is experiment
    with pytest.raises(BadInput, match=f"{name} compares no images; leave it out"):
        with_perceptual(replace(experiment, model=classifier), classifier, name)
    with pytest.raises(BadInput, match="has no maps of features: take the run of a cl"):
        with_perceptual(experiment, experiment.model, name)


def test_every_choice_trains_and_samples_or_is_refused():
    assert len(choices()) > 60
    for name, keyword, value in choices():
        takes = inspect.signature(EXPERIMENTS[name]).parameters
        given = {k: v for k, v in SMALL.items() if k in takes} | {keyword: value}
        refusal = REFUSED.get((keyword, value))
        with pytest.raises(BadInput, match=refusal) if refusal else nullcontext():
            experiment = EXPERIMENTS[name](SPECS.get(name, DIGITS), **given)
            model = experiment.model
            assert set(experiment.optimizers) == set(model.losses())
            if isinstance(model, Diffusion):
                model = replace(model, net=Echo(1 + (model.training.vlb_weight > 0)))
            check(model, keyword not in OF_SAMPLING, name not in AUTOREGRESSIVE)
