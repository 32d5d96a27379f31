"""Published runs: bit for bit what was trained, opened by every command, no more."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from program import TINY, refused
from safetensors.numpy import save

from gengen.errors import BadInput
from gengen.step import TrainState
from train.experiments.experiment import Reference
from train.measure.extractors import train_default
from train.run import initial, published
from train.run import record as records
from train.run.checkpoint import Checkpoints
from train.run.digests import SUMS, digest, leaf_names
from train.run.workdir import open_workdir

ZOO = sorted(path.parent for path in Path(__file__).parents[1].glob("zoo/*/README.md"))


def digests(tree) -> dict:
    return {name: digest(x) for name, x in leaf_names(tree).items()}


@pytest.fixture(scope="module")
def vae(runs, tmp_path_factory):
    """(the tiny VAE's run, open; the folder that it was published to)."""
    run = open_workdir(runs / "vae")
    out = tmp_path_factory.mktemp("zoo") / "tiny"
    published.publish(run, out, "mit")
    return run, out


@pytest.fixture
def copy(vae, tmp_path):
    """A copy of the published folder, to be changed; its one checkpoint."""
    folder = shutil.copytree(vae[1], tmp_path / "w") / "checkpoints/4"
    return folder


def test_what_is_published_is_opened_bit_for_bit(vae):
    run, out = vae
    again = open_workdir(out)
    assert digests(again.params) == digests(run.params)
    assert digests(again.state) == digests(run.state)
    assert (again.step, again.averaged) == (run.step, run.averaged) == (4, True)
    assert again.model == run.model and again.curves.keys() == run.curves.keys()
    assert 'license: "mit"' in (out / "README.md").read_text()
    there = {path.name for path in out.rglob("*") if path.is_file()}
    assert there == {
        *("README.md", "experiment.json", "metrics.jsonl", "samples.png"),
        *("model.safetensors", "SHA256SUMS"),
    }


def state_of(params, other):
    return TrainState(None, None, params, other, None, params, None)


PARAMS = {"net": {"w": np.arange(6, dtype=np.float32).reshape(2, 3).T}}
OTHER = {"count": np.int32(7), "seen": (np.array([True]), np.float16(0.5))}


@pytest.fixture(scope="module")
def template():
    """Shapes, types and places of such a state."""
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def like(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here)

    return jax.tree.map(like, state_of(PARAMS, OTHER))


@pytest.fixture
def arrays():
    return published.arrays_of(PARAMS, OTHER)


@pytest.mark.parametrize("averaged", [True, False])
def test_arrays_of_every_type_and_of_no_axis_come_back(
    template, arrays, averaged, tmp_path
):
    (tmp_path / "x").write_bytes(save(arrays, {"averaged": str(averaged).lower()}))
    weights = published.read(tmp_path / "x")
    state = weights.restored(template, Path("checkpoints/12"))
    assert digests(state.params) == digests(PARAMS)
    assert digests(state.state) == digests(OTHER)
    assert state.step == 12 and (state.ema is not None) == averaged
    assert isinstance(state.state["seen"], tuple)
    raw = weights.tree(12)
    assert digests(raw["params"]) == digests(PARAMS) and raw["step"] == 12
    assert (raw["ema"] is not None) == averaged


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"params/net/w": None}, r"it has params/net/w nowhere, this one .3, 2."),
        ({"state/more": np.ones(4)}, r"it has state/more .4,., this one nowhere"),
        ({"other": np.ones(4)}, r"it has other .4,., this one nowhere"),
        ({"params/net/w": np.ones((2, 3))}, r"params/net/w .2, 3., this one .3, 2."),
    ],
)
def test_a_missing_another_and_an_extra_tensor_are_named_with_shapes(
    template, arrays, change, said
):
    changed = {k: x for k, x in {**arrays, **change}.items() if x is not None}
    with pytest.raises(BadInput, match=said):
        published.Weights(changed, True).restored(template, Path("w/checkpoints/1"))


def test_a_file_that_was_changed_or_truncated_is_one_sentence(cli, copy):
    file = copy / published.FILE
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    line = f"train.inspect --workdir {copy.parents[1]}"
    refused(cli(line), "model.safetensors is not as it was saved")
    file.write_bytes(data[:-8])
    refused(cli(line), "model.safetensors is not as it was saved")
    (copy / SUMS).unlink()  # as a hub may hand it on
    refused(cli(line), "is damaged or not gengen's (SafetensorError")
    file.write_bytes(save({"params/x": np.ones(2)}))
    refused(cli(line), "is damaged or not gengen's (TypeError")


def test_inspect_lists_the_arrays_that_draw(cli, vae):
    lists = [
        cli(f"train.inspect --workdir {x}")[1].splitlines()
        for x in (vae[0].workdir, vae[1])
    ]
    drawing = [x for x in lists[0] if x.startswith(("experiment", "step", "ema/"))]
    assert [x for x in lists[1] if not x.startswith("params/")] == drawing


def test_no_training_goes_on_from_it_and_other_runs_begin_with_it(cli, vae, tmp_path):
    run, out = vae
    line = f"train vae --workdir {out} {TINY['vae']} --steps 6"
    refused(cli(line), "as it was published", "--init-from")
    assert not (out / "tensorboard").exists()
    record, arrays = initial.asked(run.record, str(out), tmp_path / "w", False)
    assert record.initial.step == 4
    assert digests(arrays["ema"]) == digests(run.params)


def test_a_published_classifier_that_ended_is_not_trained_again(vae):
    """One that had stopped before its last step would be trained to its end."""
    record = records.load(out := vae[1])
    assert Checkpoints(out).latest() == record.options["steps"] == 4
    train_default(out, record, None)
    assert {p.name for p in (out / "checkpoints").iterdir()} == {"4"}


def test_a_folder_that_is_there_is_refused_before_the_run_is_opened(cli, tmp_path):
    (tmp_path / "x").write_text("precious")
    line = f"train.publish --workdir {tmp_path / 'none'} --out {tmp_path}"
    refused(cli(line), "is there already: name a new folder, or remove it")


def test_what_a_run_reads_is_found_from_the_new_folder(vae):
    reference = Reference("../first", 4, "abc")
    record = dataclasses.replace(
        vae[0].record, frozen={"autoencoder": reference}, initial=reference
    )
    run = SimpleNamespace(record=record, workdir=Path("a/runs/vae"))
    seen = published.moved(run, Path("a/zoo/deep/vae"))
    assert seen.frozen["autoencoder"].workdir == "../../../runs/first"
    assert seen.initial == seen.frozen["autoencoder"]


@pytest.mark.parametrize("folder", ZOO, ids=lambda path: path.name)
def test_the_zoo_is_whole_and_small(folder):
    step, tree = Checkpoints(folder).raw()
    record = records.load(folder)
    assert step == record.options["steps"]
    model = record.build().model
    batch = record.data.example(2)
    params, state = jax.eval_shape(model.init, jax.random.key(0), batch)
    for like, there in ((params, tree["params"]), (state, tree["state"])):
        shapes = ({k: x.shape for k, x in leaf_names(t).items()} for t in (like, there))
        assert next(shapes) == next(shapes)
    files = (p for f in ZOO for p in f.rglob("*") if p.is_file())
    assert sum(path.stat().st_size for path in files) < 8e6
