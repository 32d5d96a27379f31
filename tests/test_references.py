"""A run that reads another one's arrays: found by its record, verified, never saved."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from program import EVENTS, TINY, call, refused

from gengen.conditions import Nothing
from gengen.errors import BadInput
from gengen.spaces import Images
from gengen.types import static
from train.cli.groups import group
from train.experiments import EXPERIMENTS
from train.experiments.experiment import Experiment, Reference, takes
from train.run import record as experiments
from train.run.checkpoint import Checkpoints
from train.run.digests import leaf_names
from train.run.workdir import open_workdir

RATE = 0.25


@static
class MeanCode:
    """Learns the mean w of an autoencoder's codes: w ← w - RATE (w - mean code).

    Its samples are the decoder's of w.
    """

    autoencoder: Any
    space: Images
    condition: Nothing = Nothing()
    density: ClassVar[str] = "none"

    def init(self, key, batch):
        return {"reader": {"w": jnp.zeros(2)}}, {}

    def losses(self):
        return {"reader": mean_code_loss(self.autoencoder)}

    def sample(self, params, state, key, num, *, start_index=0):
        z = jnp.broadcast_to(params["reader"]["w"], (num, 2))
        frozen = state["frozen"]["autoencoder"]
        return self.autoencoder.from_latent(*frozen, z)


def mean_code_loss(autoencoder):
    def loss(params, state, batch, key):
        weights = state["frozen"]["autoencoder"].params
        code, _ = autoencoder.posterior(weights, batch)
        value = 0.5 * jnp.sum(jnp.mean((params["reader"]["w"] - code) ** 2, axis=0))
        return value, (state, {})

    return loss


@group()
class ReaderOptions:
    """The mean code of an autoencoder."""

    autoencoder: str = ""
    """The folder of its run."""
    batch_size: int = 16
    """Images per step."""
    steps: int = 4
    """Steps of training."""


@takes(ReaderOptions)
def reader(data, o):
    """The mean code of an autoencoder."""
    inner = experiments.load(Path(o.autoencoder)).build().model
    frozen = {"autoencoder": Reference(o.autoencoder)}
    optimizers = {"reader": optax.sgd(RATE)}
    model = MeanCode(inner, data.space())
    return Experiment(model, optimizers, o.batch_size, o.steps, frozen=frozen)


@pytest.fixture(autouse=True)
def with_reader(monkeypatch):
    """The program knows the experiment above."""
    monkeypatch.setitem(EXPERIMENTS, "reader", reader)


@pytest.fixture(scope="module")
def pair(runs, tmp_path_factory):
    """A folder with a VAE of four steps, and a run of four steps that reads it."""
    folder = tmp_path_factory.mktemp("pair")
    shutil.copytree(runs / "vae", folder / "vae")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXPERIMENTS, "reader", reader)
        line = f"train reader --workdir {folder / 'r'} --autoencoder {folder / 'vae'}"
        assert call(f"{line} {EVENTS}") == 0
    return folder


@pytest.fixture
def copied(pair, tmp_path):
    """The pair at another place: a record's references are as seen from its folder."""
    shutil.copytree(pair, tmp_path / "pair")
    # The option names the place where the pair was trained.
    path = tmp_path / "pair" / "r" / experiments.FILE
    path.write_text(path.read_text().replace(str(pair), str(tmp_path / "pair")))
    return tmp_path / "pair"


def resume(cli, folder, steps=6, options=""):
    line = f"train reader --workdir {folder / 'r'} --autoencoder {folder / 'vae'}"
    return cli(f"{line} --steps {steps} {EVENTS} {options}")


def mean_codes(folder, num):
    """w after so many steps, by hand: the program's batches, the VAE's averages."""
    from train.data.feed import Feed
    from train.data.load import load

    vae = open_workdir(folder / "vae")
    feed, w = Feed(load("digits"), 16, 0), np.zeros(2)
    for step in range(num):
        batch = feed.fetch(feed.data, jax.tree.map(lambda x: x[0], feed.items(step, 1)))
        code, _ = vae.model.posterior(vae.params, batch)
        w = w - RATE * (w - np.mean(code, axis=0))
    return w


def test_the_record_says_where_at_which_step_and_which_arrays(pair):
    document = json.loads((pair / "r" / experiments.FILE).read_text())
    (name, said), *others = document["frozen"].items()
    assert name == "autoencoder" and not others
    assert said["workdir"] == "../vae" and said["step"] == 4
    assert len(said["digest"]) == 8


def test_the_losses_and_the_sampler_read_the_averaged_arrays(pair, cli):
    trained, vae = open_workdir(pair / "r"), open_workdir(pair / "vae")
    frozen = trained.state["frozen"]["autoencoder"]
    chex.assert_trees_all_equal(frozen.params, vae.params)
    w = trained.params["reader"]["w"]
    np.testing.assert_allclose(w, mean_codes(pair, 4), rtol=1e-5)
    assert (pair / "r" / "samples.png").exists()
    line = f"train.sample --workdir {pair / 'r'} --num 3 --out {pair / 'x.npz'}"
    assert cli(line)[0] == 0


def test_no_checkpoint_holds_what_is_frozen(pair):
    _, tree = Checkpoints(pair / "r").raw()
    names = leaf_names(tree)
    learnt = [n for n in names if not n.startswith("nonfinite/")]
    assert learnt == ["key", "params/reader/w", "step"]


def test_a_resumed_run_stays_with_its_step_of_the_other(copied, cli):
    line = f"train vae --workdir {copied / 'vae'} {TINY['vae']} {EVENTS} --steps 6"
    assert cli(line)[0] == 0
    assert open_workdir(copied / "vae").step == 6
    expected = mean_codes_at_step_4(copied)
    status, out, err = resume(cli, copied)
    assert status == 0 and "resumed from the checkpoint at step 4" in out, err
    w = open_workdir(copied / "r").params["reader"]["w"]
    np.testing.assert_allclose(w, expected, rtol=1e-5)


def mean_codes_at_step_4(folder):
    then = folder.parent / "then"
    shutil.copytree(folder, then)
    shutil.rmtree(then / "vae" / "checkpoints" / "6")
    assert open_workdir(then / "vae").step == 4
    return mean_codes(then, 6)


def test_the_view_of_each_device_has_the_arrays_too(pair, cli, tmp_path):
    line = f"train reader --workdir {tmp_path / 'r'} --autoencoder {pair / 'vae'}"
    status, _, err = cli(f"{line} {EVENTS} --parallel pmap")
    assert status == 0, err
    w = open_workdir(tmp_path / "r").params["reader"]["w"]
    np.testing.assert_allclose(w, mean_codes(pair, 4), rtol=1e-5)


def test_another_runs_arrays_are_refused(copied, cli, tmp_path):
    other = tmp_path / "other"
    line = f"train vae --workdir {other} {TINY['vae']} {EVENTS} --steps 4 --seed 1"
    assert cli(line)[0] == 0
    shutil.rmtree(copied / "vae")
    shutil.copytree(other, copied / "vae")
    says = f"autoencoder of the run in {copied / 'vae'} at step 4, whose arrays are no"
    refused(resume(cli, copied), says, "--fresh")
    with pytest.raises(BadInput, match=re.escape(says)):
        open_workdir(copied / "r")


def test_a_changed_byte_is_refused(copied, cli):
    folder = copied / "vae" / "checkpoints" / "4"
    file = max(folder.rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    refused(resume(cli, copied), f"{file.name} is not as it was saved")


def test_a_missing_run_or_step_is_refused(copied, cli):
    shutil.move(copied / "vae" / "checkpoints" / "4", copied / "vae" / "4")
    says = f"needs the autoencoder of the run in {copied / 'vae'} at step 4, which"
    refused(resume(cli, copied), says, "no checkpoint of step 4")
    (copied / "vae" / experiments.FILE).rename(copied / "record")
    with pytest.raises(BadInput, match=f"{re.escape(says)}.*holds no run"):
        open_workdir(copied / "r")


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
        {"autoencoder": "../vae"},
        {"autoencoder": {"workdir": "../vae"}},
        {"autoencoder": {"workdir": "../vae", "step": "4", "digest": "01234567"}},
        {"autoencoder": {"workdir": "../vae", "step": 4, "digest": "0", "other": 1}},
    ],
)
def test_a_reference_of_another_form_is_no_record(copied, frozen):
    path = copied / "r" / experiments.FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"frozen": frozen}))
    with pytest.raises(BadInput, match="is not the record of a run"):
        experiments.load(copied / "r")


def test_a_record_of_an_older_version_has_no_references(runs, tmp_path):
    shutil.copytree(runs / "vae", tmp_path / "vae")
    path = tmp_path / "vae" / experiments.FILE
    document = json.loads(path.read_text())
    del document["frozen"]
    path.write_text(json.dumps(document))
    assert experiments.load(tmp_path / "vae").frozen == {}
    assert open_workdir(tmp_path / "vae").state["frozen"] == {}
