"""Runs as Python values: opened, drawn from, and trained on arrays."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from program import EVENTS, TINY, refused
from test_faults import leaves

from gengen.errors import BadInput
from gengen.models.vae import VAE
from train import fit, open_run
from train.run.initial import started
from train.run.sampler import drawn
from train.run.shared import shared_jit

ROOT = Path(__file__).parents[1]


# ------------------------------------------------------------------ an open run


def test_samples_are_those_that_the_command_writes(cli, runs, tmp_path):
    out = tmp_path / "x.npz"
    for name, options, keywords in (
        ("vae", "", {}),
        ("flow", " --label 3 --steps 3", {"label": 3, "steps": 3}),
    ):
        line = f"train.sample --workdir {runs / name} --num 5 --out {out} --seed 2"
        assert cli(line + options)[0] == 0
        with np.load(out) as written:
            image = written["image"]
        x = open_run(runs / name).sample(5, seed=2, **keywords)
        assert x.dtype == np.uint8 and x.tobytes() == image.tobytes()


def plus(values, x):
    return x + values[0]


def test_equal_models_share_a_program_and_need_no_hash(runs):
    models = [open_run(runs / "vae").model for _ in range(2)]
    one, other = (shared_jit(drawn, model, 4, ()) for model in models)
    assert one is other and one is not shared_jit(drawn, models[0], 5, ())
    assert shared_jit(plus, [1])(2) == 3


def test_an_open_run_says_what_it_is_and_has_its_data_and_curves(runs):
    run = open_run(str(runs / "vae"))
    assert repr(run) == (
        f"vae at step 4 ({runs / 'vae'}): VAE of digits, images [8, 8, 1], 10 classes; "
        "1,732 parameters, averaged"
    )
    train, test = run.data(), run.data("test")
    assert train["image"].shape == (1000, 8, 8, 1) and len(test["label"]) == 447
    steps, values = run.curves["vae/loss"]
    rows = [json.loads(x) for x in (runs / "vae/metrics.jsonl").open()]
    assert [*steps] == [2, 4] and [*values] == [row["vae/loss"] for row in rows]
    picture = run.show(run.sample(6), columns=3)
    assert picture.width > picture.height > 100
    run.model.sample(run.params, run.state, jax.random.key(0), 2)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda runs: open_run(runs / "none"), "holds no run"),
        (lambda runs: open_run(runs / "vae", step=3), "no checkpoint of step 3"),
        (lambda runs: open_run(runs / "vae", model=3), "leave model out"),
        (lambda runs: open_run(runs / "flow").sample(2, label=10), "out of range"),
        (lambda runs: open_run(runs / "vae").sample(2, label=1), "unconditional"),
        (lambda runs: open_run(runs / "vae").sample(0), "num=0: it must be an integer"),
        (lambda runs: open_run(runs / "vae").sample(2, seed=2**70), "an integer"),
        (lambda runs: open_run(runs / "vae").sample(2, stepz=1), "no such option"),
        (lambda runs: open_run(runs / "vae").data("trian"), "no split 'trian'"),
    ],
)
def test_a_mistake_is_one_sentence(runs, call, said):
    with pytest.raises(BadInput, match=said):
        call(runs)


def test_the_package_is_imported_quickly():
    code = "import sys, train; assert not {'jax', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# ------------------------------------------------------------------ fit


class Mean:
    """A model of one's own: the mean image. It knows nothing of gengen."""

    def __init__(self, rate=1.0):
        self.rate = rate

    def init(self, key, batch):
        return {"mean": {"x": jnp.zeros(batch["image"].shape[1:])}}, {}

    def losses(self):
        def loss(params, state, batch, key):
            x = batch["image"] / 127.5 - 1.0
            noise = 0.1 * jax.random.normal(key, x.shape)
            value = self.rate * jnp.mean((params["mean"]["x"] - x - noise) ** 2)
            return value, (state, {})

        return {"mean": loss}

    def sample(self, params, state, key, num, start_index=0):
        return jnp.broadcast_to(params["mean"]["x"], (num, *params["mean"]["x"].shape))


def images(num=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num, 8, 8, 1), np.uint8)


OPTIONS = {"log_every": 2, "sample_every": 4, "checkpoint_every": 2, "batch_size": 8}
OPTIONS |= {"steps_per_call": 2, "optimizers": {"mean": optax.adam(0.1)}}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run of four steps of a model of one's own."""
    workdir = tmp_path_factory.mktemp("fit") / "w"
    data = {"image": images()}
    return fit(Mean(), data, workdir=workdir, steps=4, held_out=data, **OPTIONS)


def test_a_model_of_ones_own_is_trained_drawn_and_opened(fitted):
    assert fitted.step == 4 and fitted.averaged
    assert (fitted.workdir / "samples.png").exists()
    assert "mean/loss" in fitted.curves
    again = open_run(fitted.workdir, model=Mean())
    x = again.sample(3)
    assert x.shape == (3, 8, 8, 1) and x.tobytes() == fitted.sample(3).tobytes()
    assert fitted.data()["image"].tobytes() == images().tobytes()
    with pytest.raises(BadInput, match="call fit again"):
        again.data()


def test_the_same_call_goes_on_bit_for_bit(fitted, tmp_path):
    data = {"image": images()}
    first = fit(Mean(), data, workdir=tmp_path / "w", steps=2, **OPTIONS)
    assert first.step == 2
    fit(Mean(), data, workdir=tmp_path / "w", steps=4, **OPTIONS)
    assert leaves(tmp_path / "w") == leaves(fitted.workdir)
    assert fit(Mean(), data, workdir=tmp_path / "w", steps=4, **OPTIONS).step == 4


def test_it_is_the_loop_of_the_command(cli, runs, tmp_path):
    """The VAE of the command, as a model on arrays: the same bits."""
    command = open_run(runs / "vae")
    arrays, held_out = command.data(), command.data("validation")
    run = fit(
        command.model,
        arrays,
        held_out=held_out,
        workdir=tmp_path / "w",
        levels=17,
        steps=4,
        batch_size=16,
        learning_rate=1e-3,
        log_every=2,
        sample_every=4,
        checkpoint_every=2,
        steps_per_call=2,
    )
    assert leaves(tmp_path / "w") == leaves(runs / "vae")
    for name in ("vae/loss", "validation/bits_per_dim_ELBO"):
        np.testing.assert_array_equal(run.curves[name], command.curves[name])


def other_model():
    model = Mean()
    model.__class__ = type("Median", (Mean,), {})
    return model


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": other_model()}, "model Mean, not Median"),
        ({"model": Mean(rate=2.0)}, "model.rate 1.0, not 2.0"),
        ({"arrays": {"image": images(seed=1)}}, "training images are no longer those"),
        ({"arrays": {"image": images(63)}}, "training images are no longer those"),
        ({"optimizers": {"mean": optax.adam(0.2)}}, "optimizers.mean: scale.step_size"),
        ({"optimizers": {"mean": optax.sgd(0.1)}}, "optimizers.mean: scale_by_adam.b1"),
        ({"workdir": 5}, "workdir=5 is of type int: give a folder's path"),
        ({"batch_size": 16}, "batch-size 8, not 16"),
        ({"seed": 1}, "seed 0, not 1"),
        ({"ema_decay": None}, "ema-decay"),
        ({"optimizers": optax.sgd(0.1)}, "one per player"),
        ({"optimizers": {"mode": optax.sgd(0.1)}}, "mode"),
        ({"model": 3}, "no method init"),
        ({"model": Mean}, "is a class"),
        ({"optimizer": "adamm"}, "optimizer='adamm': it must be .*'muon'"),
        ({"steps": 2.5}, "steps=2.5: it must be int"),
        ({"logevery": 3}, "did you mean log_every"),
        ({"log_every": 0}, "at least 1"),
        ({"dataset": "mnist"}, "no keyword dataset"),
    ],
)
def test_another_call_is_refused_by_name(fitted, change, said):
    call = {"model": Mean(), "arrays": {"image": images()}, "steps": 6, **OPTIONS}
    call |= {"workdir": fitted.workdir} | change
    before = leaves(fitted.workdir)
    with pytest.raises(BadInput, match=said):
        fit(call.pop("model"), call.pop("arrays"), **call)
    assert leaves(fitted.workdir) == before


@pytest.mark.parametrize("program", ["sample", "evaluate"])
def test_the_commands_say_how_a_run_of_fit_is_opened(cli, fitted, program):
    refused(cli(f"train.{program} --workdir {fitted.workdir}"), "open_run(workdir")


def test_another_model_is_named_when_a_run_is_opened(tmp_path, runs):
    model = open_run(runs / "vae").model
    data = {"image": images() // 16}
    options = OPTIONS | {"optimizers": None, "steps": 2, "workdir": tmp_path / "w"}
    fit(model, data, levels=17, **options)
    objective = dataclasses.replace(model.objective, beta=0.5)
    other = dataclasses.replace(model, objective=objective)
    assert isinstance(model, VAE)
    with pytest.raises(BadInput, match="model.objective.beta 1.0, not 0.5"):
        open_run(tmp_path / "w", model=other)


# ------------------------------------------------------------------ from another run


LINE = f"train flow {TINY['flow']} {EVENTS}"


@pytest.fixture
def flow(runs, tmp_path):
    """A copy of the flow's run, to be changed."""
    return shutil.copytree(runs / "flow", tmp_path / "flow")


def test_defaults_of_the_sampler_are_free_when_a_run_is_resumed(cli, flow):
    base = f"{LINE} --workdir {flow} --steps 4"
    line = base.replace("--sampling-steps 2", "--sampling-steps 3 --solver heun")
    before = leaves(flow)
    status, out, err = cli(f"{line} --grid even --guidance-scale 2")
    assert status == 0 and "nothing to do" in out, err
    run = open_run(flow)
    assert run.record.options["sampling_steps"] == 3
    assert run.model.sampler.steps == 3 and leaves(flow) == before
    refused(cli(f"{base} --learning-rate 1"), "--learning-rate 0.002, not 1")


def test_a_run_starts_from_the_parameters_of_another(cli, flow, tmp_path):
    workdir = tmp_path / "w"
    line = f"{LINE} --workdir {workdir} --init-from {flow}@2 --learning-rate 1e-9"
    status, _, err = cli(f"{line} --steps 2 --seed 1")
    assert status == 0, err
    theirs, ours = open_run(flow, step=2), open_run(workdir)
    close = partial(np.testing.assert_allclose, atol=1e-6)
    jax.tree.map(close, ours.train_state.params, theirs.train_state.params)
    initial = ours.record.initial
    assert (workdir / initial.workdir).resolve() == flow.resolve()
    assert initial.step == 2 and len(initial.digest) == 8
    shutil.rmtree(flow)  # a run that has begun needs it no more
    assert cli(f"{line} --steps 4 --seed 1")[0] == 0
    refused(cli(f"{LINE} --workdir {workdir} --steps 4 --seed 1"), "--learning-rate")


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("none", "", ["holds no run"]),
        ("flow@3", "", ["no checkpoint of step 3"]),
        ("vae", "", ["its parameters have", "take a run of the same network"]),
        ("flow", " --blocks 2", ["this run's (3, 3, 8, 8)", "take a run of the same"]),
    ],
)
def test_a_run_that_cannot_start_from_another_says_why(
    cli, runs, tmp_path, source, options, words
):
    line = f"{LINE} --workdir {tmp_path / 'w'} --steps 2 --init-from {runs / source}"
    refused(cli(line + options), *words)
    assert not (tmp_path / "w").exists()


def test_a_classifier_starts_from_the_encoder_of_another_run(cli, runs, tmp_path):
    line = "train classifier --network mlp --hidden 8 --latent {} --batch-size 16"
    line += f" --steps 1 --learning-rate 1e-9 --workdir {tmp_path / 'w'}"
    vae = runs / "vae"
    refused(
        cli(f"{line.format(2)} --init-from {vae} --hidden 9 --latent 3"),
        "none of the arrays of its encoder (Dense_0/bias",
    )
    status, out, err = cli(f"{line.format(3)} --init-from {vae}")
    assert status == 0, err
    assert "520 parameters of the encoder (2 of 4 arrays) are those of" in out
    theirs, ours = open_run(vae), open_run(tmp_path / "w")
    mine, other = (
        {
            part: getattr(run.train_state, part)[player]["encoder"]["Dense_0"]
            for part in ("params", "ema")
        }
        for run, player in ((ours, "classifier"), (theirs, "vae"))
    )
    for name, array in other["params"].items():
        np.testing.assert_allclose(mine["params"][name], array, atol=1e-6)
        average = other["ema"][name]
        average = average + 0.9 * (array - average)  # one step of the average's own
        np.testing.assert_allclose(mine["ema"][name], average, atol=1e-6)
    assert ours.record.initial.step == theirs.step


def test_the_average_starts_at_the_others_or_at_its_parameters(fitted):
    state = fitted.train_state
    given = {"params": fitted.train_state.params, "ema": None, "state": {}}
    same = partial(jax.tree.map, np.testing.assert_array_equal)
    same(started(state, given).ema, state.params)
    averaged = jax.tree.map(lambda x: 3 * x, state.params)
    new = started(state, given | {"ema": averaged})
    same(new.ema, averaged)
    same(new.params, state.params)


def test_fit_starts_from_another_run_of_fit(fitted, tmp_path):
    options = OPTIONS | {"optimizers": {"mean": optax.sgd(0.0)}, "ema_decay": 0.0}
    data = {"image": images(seed=1)}
    place = {"workdir": tmp_path / "w", "init_from": str(fitted.workdir)}
    run = fit(Mean(), data, steps=2, **place, **options)
    jax.tree.map(
        np.testing.assert_array_equal,
        run.train_state.params,
        fitted.train_state.params,
    )


# ------------------------------------------------------------------ installed


def test_a_sampler_is_exported_and_read_back(runs):
    """By jax.export, whose format needs flatbuffers."""
    run = open_run(runs / "vae")

    def draw(seed):
        return run.model.sample(run.params, run.state, jax.random.key(seed), 2)

    exported = jax.export.export(jax.jit(draw))(jnp.uint32(0)).serialize()
    x = jax.export.deserialize(exported).call(jnp.uint32(3))
    np.testing.assert_array_equal(x, jax.jit(draw)(3))


def test_what_is_required_is_locked():
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = {line.partition("==")[0] for line in lines if "==" in line}

    def plain(name):
        return re.match("[A-Za-z0-9_.-]+", name)[0].replace("_", "-").lower()

    assert {plain(name) for name in named} <= {plain(name) for name in locked}


def test_a_package_holds_python_alone():
    """So that the wheel, which has every package, has every file."""
    for package in ("gengen", "train"):
        files = {path.suffix for path in (ROOT / package).rglob("*") if path.is_file()}
        assert files <= {".py", ".pyc"}


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"evaluate_every": 2}, "no keyword evaluate_every"),
        ({"optimizers": {"mean": optax.sgd(0.1)}, "optimizer": "lion"}, "optimizer"),
        (
            {"optimizers": {"mean": optax.sgd(0.1)}, "learning_rate": 0.5},
            "learning_rate",
        ),
    ],
)
def test_a_keyword_that_would_do_nothing_is_refused(tmp_path, keywords, words):
    with pytest.raises(BadInput, match=words):
        fit(Mean(), {"image": images()}, workdir=tmp_path / "w", **keywords)


def test_numbers_of_numpy_are_numbers():
    from train.run.library import split_keywords

    options = {"steps": np.int64(3), "learning_rate": np.float32(0.5)}
    options |= {"augment": ["flip"], "workdir": Path("w")}
    run, training = split_keywords(options)
    assert (training.steps, training.learning_rate) == (3, 0.5)
    assert run.augment == ("flip",)
