"""A run over the latents of another one: found by its record, verified, never saved."""

import dataclasses
import json
import re
import shutil
from functools import partial
from types import SimpleNamespace

import chex
import jax
import numpy as np
import pytest
from PIL import Image
from program import EVENTS, call, refused

from gengen.errors import BadInput
from gengen.models.autoencoder import Autoencoder
from gengen.models.combinators.latent import Coded, Latent
from gengen.nets.maps import MapDecoder, MapEncoder
from gengen.spaces import Images
from gengen.types import Variables
from train.data.dataset import Dataset, Spec, take
from train.data.load import load
from train.experiments import EXPERIMENTS
from train.run import record as experiments
from train.run.checkpoint import Checkpoints
from train.run.digests import leaf_names
from train.run.first_stage import encoded
from train.run.samples import as_data
from train.run.workdir import open_workdir

CODES = "--channels 8 --code-width 2 --codes 300 --batch-size 80 --conv-levels 1"
PRIOR = "--width 8 --layers 1 --heads 2 --batch-size 16"


def trained(folder, steps=4, options=""):
    return f"train vqvae --workdir {folder} {CODES} {EVENTS} --steps {steps} {options}"


def line(folder, first, steps=4, options=""):
    begun = f"train prior --workdir {folder} --first-stage {first} {PRIOR} {EVENTS}"
    return f"{begun} --steps {steps} {options}"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A folder with a VQ-VAE, and a prior over its codes, of four steps each."""
    folder = tmp_path_factory.mktemp("pair")
    assert call(trained(folder / "vq")) == 0
    assert call(line(folder / "r", folder / "vq")) == 0
    return folder


@pytest.fixture
def copied(pair, tmp_path):
    """The pair at another place: a record's references are as seen from its folder."""
    return shutil.copytree(pair, tmp_path / "pair")


def resume(cli, folder, steps=6, options=""):
    return cli(line(folder / "r", folder / "vq", steps, options))


def test_the_record_says_where_at_which_step_and_which_arrays(pair):
    document = json.loads((pair / "r" / experiments.FILE).read_text())
    (name, said), *others = document["frozen"].items()
    assert name == "autoencoder" and not others
    assert said["workdir"] == "../vq" and said["step"] == 4
    assert len(said["digest"]) == 8
    latents = document["latents"]
    assert (latents["shape"], latents["levels"]) == ([4, 4], 300)
    assert latents["kind"] == "symbols" and "first_stage" not in document["options"]


def test_the_losses_and_the_sampler_read_the_averaged_arrays(pair, cli):
    prior, vq = open_workdir(pair / "r"), open_workdir(pair / "vq")
    frozen = prior.state["frozen"]["autoencoder"]
    chex.assert_trees_all_equal(frozen.params, vq.params)
    assert isinstance(prior.model, Coded) and prior.model.autoencoder == vq.model
    assert (pair / "r" / "samples.png").exists()
    sample = f"train.sample --workdir {pair / 'r'} --num 3 --out {pair / 'x.npz'}"
    assert cli(f"{sample} --temperature 0.9")[0] == 0
    assert np.load(pair / "x.npz")["image"].shape == (3, 8, 8, 1)
    refused(cli(f"train.sample --workdir {pair / 'vq'}"), "train prior --first-stage")


def test_codes_are_computed_once_and_those_above_255_survive(pair):
    """The loss of a batch of codes is that of its images."""
    prior, vq = open_workdir(pair / "r"), open_workdir(pair / "vq")
    codes = encoded(vq, load("digits"), None)
    places = np.arange(990, 1000)
    batch, own = load("digits").fetch(places), codes.fetch(places)
    assert own["codes"].dtype == np.int32 and codes.size == 1000
    found = vq.model.to_latent(vq.params, vq.state, vq.model.space.read(batch))
    np.testing.assert_array_equal(own["codes"], found)
    every = codes.fetch(np.arange(1000))["codes"]
    assert every.max() > 255
    back = as_data(every, prior.record.latents, prior.model.model)
    np.testing.assert_array_equal(back, every)  # what `sample` of a run of codes gives
    loss = jax.jit(prior.model.losses()["autoregressive"])
    losses = [
        loss(prior.params, prior.state, x, jax.random.key(0)) for x in (batch, own)
    ]
    np.testing.assert_array_equal(losses[0][0], losses[1][0])


def test_no_checkpoint_holds_what_is_frozen(pair):
    _, tree = Checkpoints(pair / "r").raw()
    assert not [name for name in leaf_names(tree) if "vqvae" in name or "book" in name]


def test_a_resumed_run_stays_with_its_step_of_the_other(copied, cli):
    digest = open_workdir(copied / "r").record.frozen["autoencoder"].digest
    assert cli(trained(copied / "vq", 6))[0] == 0
    assert open_workdir(copied / "vq").step == 6
    status, out, err = resume(cli, copied)
    assert status == 0 and "resumed from the checkpoint at step 4" in out, err
    frozen = open_workdir(copied / "r").record.frozen["autoencoder"]
    assert (frozen.step, frozen.digest) == (4, digest)
    # The codes of the step that it was not trained with are refused.
    says = (f"of digest {digest}", "at step 6", "--fresh")
    refused(cli(line(copied / "r", f"{copied / 'vq'}@6", 8)), *says)
    # And so is a first stage whose arrays are others at that step.
    shutil.rmtree(copied / "vq" / "checkpoints" / "4")
    shutil.copytree(copied / "vq" / "checkpoints" / "6", copied / "4")
    shutil.move(copied / "4", copied / "vq" / "checkpoints" / "4")
    with pytest.raises(BadInput, match="step 4"):
        open_workdir(copied / "r")


def test_a_changed_byte_is_refused(copied, cli):
    folder = copied / "vq" / "checkpoints" / "4"
    file = max(folder.rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    refused(resume(cli, copied), f"{file.name} is not as it was saved")


def test_a_missing_run_or_step_is_refused(copied, cli):
    shutil.move(copied / "vq" / "checkpoints" / "4", copied / "vq" / "4")
    says = f"needs the autoencoder of the run in {copied / 'vq'} at step 4, which"
    refused(resume(cli, copied), says, "no checkpoint of step 4")
    (copied / "vq" / experiments.FILE).rename(copied / "record")
    with pytest.raises(BadInput, match=f"{re.escape(says)}.*holds no run"):
        open_workdir(copied / "r")


def test_a_run_without_its_first_stage_is_another(copied, cli):
    options = f"{PRIOR} {EVENTS} --steps 6"
    told = cli(f"train prior --workdir {copied / 'r'} {options}")
    refused(told, "a prior is of the codes of a run: give --first-stage")


def test_runs_that_refer_to_each_other_are_refused(copied):
    record = experiments.load(copied / "r")
    own = dataclasses.replace(record.frozen["autoencoder"], workdir="../other")
    shutil.copytree(copied / "r", copied / "other")
    for name, target in (("other", "../r"), ("r", "../other")):
        own = dataclasses.replace(own, workdir=target)
        changed = dataclasses.replace(record, frozen={"autoencoder": own})
        experiments.save(copied / name, changed)
    with pytest.raises(BadInput, match="refers to itself"):
        open_workdir(copied / "r")


@pytest.mark.parametrize(
    "frozen",
    [
        ["autoencoder"],
        {"autoencoder": "../vq"},
        {"autoencoder": {"workdir": "../vq"}},
        {"autoencoder": {"workdir": "../vq", "step": "4", "digest": "01234567"}},
        {"autoencoder": {"workdir": "../vq", "step": 4, "digest": "0", "other": 1}},
    ],
)
def test_a_reference_of_another_form_is_no_record(copied, frozen):
    path = copied / "r" / experiments.FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"frozen": frozen}))
    with pytest.raises(BadInput, match="is not the record of a run"):
        experiments.load(copied / "r")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "images"},
        {"levels": 1},
        {"levels": "300"},
        {"shape": []},
        {"kind": "reals"},
        {"unknown": 1},
    ],
)
def test_latents_that_cannot_be_are_no_record(pair, tmp_path, change):
    document = json.loads((pair / "r" / experiments.FILE).read_text())
    document["latents"] |= change
    (tmp_path / experiments.FILE).write_text(json.dumps(document))
    with pytest.raises(BadInput, match="is not the record of a run"):
        experiments.load(tmp_path)


def test_a_record_of_an_older_version_has_no_references(runs, tmp_path):
    shutil.copytree(runs / "vae", tmp_path / "vae")
    path = tmp_path / "vae" / experiments.FILE
    document = json.loads(path.read_text())
    del document["frozen"]
    path.write_text(json.dumps(document))
    assert experiments.load(tmp_path / "vae").frozen == {}
    assert open_workdir(tmp_path / "vae").state["frozen"] == {}


def test_codes_of_a_file_are_learned_and_written_as_they_are(cli, tmp_path):
    codes = np.arange(400).reshape(50, 8)[:, :4] % 400
    np.savez(tmp_path / "codes.npz", codes=codes)
    options = f"--dataset npz:{tmp_path / 'codes.npz'} {PRIOR} {EVENTS} --steps 2"
    status, _, err = cli(f"train prior --workdir {tmp_path / 'r'} {options}")
    assert status == 0, err
    out = tmp_path / "x.npz"
    line = f"train.sample --workdir {tmp_path / 'r'} --num 20 --out {out}"
    assert cli(line)[0] == 0
    drawn = np.load(out)["codes"]
    assert drawn.shape == (20, 4) and drawn.dtype == np.int32
    assert 255 < drawn.max() < 396 and drawn.min() >= 0


# -------------------------------------------------------------- what reconstructs only


def test_what_reconstructs_only_is_measured_by_its_error_and_its_book(pair, cli):
    told = cli(f"train.evaluate --workdir {pair / 'vq'} --likelihood-num 20")
    assert told[0] == 0, told
    said = json.loads((pair / "vq" / "evaluation.json").read_text())
    vq = open_workdir(pair / "vq")
    assert said["squared_error"]["test"]["num"] == 20 and "bits_per_dim" not in said
    codes = encoded(vq, load("digits"), None).fetch(np.arange(1000))["codes"]
    used = said["codebook"]["train"]
    assert (used["num"], used["size"]) == (codes.size, 300)
    assert used["usage"] == len(np.unique(codes)) / 300
    # While it trains: the same of held-out images, and what is restored of them.
    row = json.loads((pair / "vq" / "metrics.jsonl").read_text().splitlines()[-1])
    batch = load("digits", split="validation").fetch(np.arange(350))
    x = vq.model.space.read(batch)
    restored = vq.model.reconstruct(vq.params, vq.state, batch, None)
    error = np.mean((np.asarray(x) - np.asarray(restored)) ** 2)
    assert row["validation/squared_error"] == pytest.approx(error, rel=1e-4)
    assert 0 < row["validation/codebook_usage"] <= 1
    picture = np.asarray(Image.open(pair / "vq" / "samples.png"))
    assert picture.shape[0] > 8 * 64  # four rows of images, four of what is restored


def test_what_draws_no_samples_is_not_compared_by_them(pair, cli):
    for command in ("sweep --steps 2", "sample"):
        module, *options = command.split()
        line = f"train.{module} --workdir {pair / 'vq'} {' '.join(options)}"
        assert cli(line)[0] == 2
    line = "train.compare --families autoencoder --minutes 1"
    refused(cli(line), "--families autoencoder: it draws no samples")
    line = f"train.evaluate --workdir {pair / 'vq'} --temperature 0.5"
    refused(cli(line), "draws no samples; leave it out")


# ------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("experiment", "first", "words"),
    [
        ("prior", "vae", "holds a vae, which has no codes for a prior: take the run"),
        ("flow", "vae", "makes vectors of 2 numbers of images"),
        ("flow", "gan", "has no reconstruct: --first-stage"),
        (
            "gan",
            "vae",
            "makes real numbers of images, and gan models images: take flow",
        ),
        ("flow", "vae --augment shift", "--augment shift changes images"),
        ("flow", "vae --levels 5", "of 17 levels, and --dataset digits has"),
        ("flow", "vae@best", "name the step of that checkpoint"),
        ("flow", "nowhere", "holds no run"),
    ],
)
def test_what_is_no_first_stage_is_one_sentence(
    cli, runs, tmp_path, experiment, first, words
):
    begun = f"train {experiment} --workdir {tmp_path / 'r'} --first-stage {runs}/"
    refused(cli(f"{begun}{first}"), words)
    assert not (tmp_path / "r").exists()


def test_levels_and_codes_that_no_book_has_are_one_sentence(cli, tmp_path):
    begun = f"train vqvae --workdir {tmp_path / 'r'}"
    fsq = f"{begun} --quantizer fsq --fsq-levels"
    refused(cli(f"{fsq} 8 2 8"), "--fsq-levels 2: it must be at least 3")
    refused(cli(f"{fsq} {'1000 ' * 4}"), "fewer than 2³¹ codes")
    refused(cli(f"{begun} --codes 1"), "--codes 1: it must be at least 2")
    refused(cli(f"{begun} --conv-levels 4"), "a side of 8 pixels does not allow")


# ------------------------------------------------------------------- real latents


def test_real_latents_are_standardised_over_the_training_set_and_restored():
    space = Images((4, 4, 1), 3)
    nets = MapEncoder(2, 4, 1, groups=2), MapDecoder((4, 4, 1), 4, 1, groups=2)
    model = Autoencoder(*nets, space, (2, 2, 2))
    params, state = jax.jit(model.init)(jax.random.key(0))
    image = np.random.default_rng(0).integers(0, 3, (70, 4, 4, 1)).astype(np.uint8)
    spec = Spec("noise", (4, 4, 1), 3, 0, ())
    dataset = Dataset(spec, 70, partial(take, {"image": image}), "")
    first = SimpleNamespace(model=model, params=params, state=state, workdir="first")
    latents = encoded(first, dataset, None)
    x = latents.spec.space().read(latents.fetch(np.arange(70)))
    np.testing.assert_allclose(np.std(x, axis=(0, 1, 2)), 1.0, atol=1e-3)
    np.testing.assert_allclose(np.mean(x, axis=(0, 1, 2)), 0.0, atol=1e-3)
    # A run that goes on standardises as it began.
    half = dataclasses.replace(dataset, size=35)
    assert encoded(first, half, latents.spec).spec == latents.spec
    inner = EXPERIMENTS["flow"](latents.spec, channels=8, multipliers=(1,)).model
    held = {"frozen": {"autoencoder": Variables(params, state)}}
    back = Latent(inner, model).decoded(held, x)
    restored = model.reconstruct(params, state, {"image": image}, None)
    np.testing.assert_allclose(back, restored, atol=1e-5)


# ------------------------------------------------------------------- a teacher

DIT = "--width 8 --blocks 1 --heads 1 --batch-size 16"


def test_a_student_stays_with_its_teacher_as_it_was(cli, tmp_path):
    begun = f"train dit --workdir {tmp_path / 'dit'} {DIT} {EVENTS} --steps"
    distill = f"train distill --workdir {tmp_path / 'r'} --batch-size 16 {EVENTS}"
    refused(cli(distill), "distill learns from another run: give its folder")
    assert cli(f"{begun} 2")[0] == 0
    line = f"{distill} --method reflow --pairs 250 --teacher-steps 1 --evaluate-every 0"
    line += " --learning-rate 1e-30"
    line += f" --teacher {tmp_path / 'dit'}"
    status, _, err = cli(f"{line} --steps 2")
    assert status == 0, err
    student, teacher = open_workdir(tmp_path / "r"), open_workdir(tmp_path / "dit")
    both = student.params, teacher.params
    chex.assert_trees_all_close(*both, atol=1e-20)  # at so low a rate
    chex.assert_trees_all_equal(
        student.state["frozen"]["teacher"].params, teacher.params
    )
    known = student.record.frozen["teacher"]
    assert (known.workdir, known.step) == ("../dit", 2) and student.model.nfe() == 1
    for wrong, words in (
        (f"train flow --workdir {tmp_path / 'f'} --teacher {tmp_path / 'dit'}", "data"),
        (f"{line} --levels 5 --fresh", "of 17 levels, and --dataset digits has"),
        (f"{line} --method adversarial", "--method reflow, not adversarial"),
        (f"{line} --sampling-steps 0", "--sampling-steps 0: it must be at least 1"),
    ):
        refused(cli(wrong), words)
    own = f"{distill} --fresh --teacher {tmp_path / 'r'}"
    refused(cli(own), "refers to itself")
    assert cli(f"{begun} 2 --seed 1 --fresh")[0] == 0  # another run in its place
    refused(cli(f"{line} --steps 4"), f"with the teacher of digest {known.digest}")
    (tmp_path / "dit").rename(tmp_path / "moved")
    with pytest.raises(
        BadInput, match="needs the teacher of the run in .*holds no run"
    ):
        open_workdir(tmp_path / "r")
