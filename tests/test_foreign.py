"""Runs of other libraries' weights: what is imported is what is exported, or named."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from program import refused
from safetensors.numpy import load, save

from train.run import tensors
from train.run.workdir import open_workdir

FIXTURES = Path(os.environ.get("PEERS", Path(__file__).parent / "fixtures"))
CONFIG = json.loads((FIXTURES / "peers.json").read_text())["gpt2"]
ARRAYS = np.load(FIXTURES / "peers.npz")
WEIGHTS = {
    name.removeprefix("gpt2/w/"): ARRAYS[name]
    for name in ARRAYS.files
    if name.startswith("gpt2/w/")
}


@pytest.fixture
def theirs(tmp_path):
    """A folder as transformers' save_pretrained writes it."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(save(WEIGHTS, {"format": "pt"}))
    return folder


def test_a_file_is_read_and_written_as_the_library_does(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "b": rng.normal(size=(3, 2)).astype(np.float32),
        "z": np.arange(5, dtype=np.uint8),
        "none": np.zeros((0, 4), np.float64),
        "scalar": np.asarray(7, np.int64),
    }
    file = io.BytesIO()
    tensors.write(file, arrays, {"x": "1"})
    again = load(file.getvalue())
    path = tmp_path / "x.safetensors"
    path.write_bytes(file.getvalue())
    own = tensors.mapped(path)
    assert all(x.flags.aligned for x in own.values())
    path = tmp_path / "theirs.safetensors"
    path.write_bytes(save(arrays))
    for read in (again, own, tensors.mapped(path)):
        assert read.keys() == arrays.keys()
        for name, x in arrays.items():
            np.testing.assert_array_equal(read[name], x, strict=True)


def test_weights_go_in_and_out_bit_for_bit_and_every_command_opens_them(
    cli, theirs, tmp_path
):
    tokens = np.random.default_rng(0).integers(0, 11, (40, 6)).astype(np.int32)
    np.savez(tmp_path / "tokens.npz", codes=tokens)
    data = f"--dataset npz:{tmp_path / 'tokens.npz'}"
    line = f"train.import_weights --source {theirs} --workdir {tmp_path / 'r'} {data}"
    status, out, err = cli(line)
    assert status == 0 and "width 8, layers 2, heads 2, symbols 11" in out, err
    status, out, err = cli(
        f"train.export_weights --workdir {tmp_path}/r --out {tmp_path}/o"
    )
    assert status == 0, err
    back = load((tmp_path / "o/model.safetensors").read_bytes())
    wanted = {k: x for k, x in WEIGHTS.items() if k != "lm_head.weight"}
    assert back.keys() == wanted.keys()
    for name, x in wanted.items():
        np.testing.assert_array_equal(back[name], x, strict=True)
    config = json.loads((tmp_path / "o/config.json").read_text())
    other = {k for k, value in config.items() if CONFIG[k] != value}
    assert other <= {"embd_pdrop", "attn_pdrop", "architectures"}  # of training
    # A run like any other.
    out = tmp_path / "x.npz"
    assert cli(f"train.sample --workdir {tmp_path}/r --num 3 --out {out}")[0] == 0
    with np.load(out) as drawn:
        x = next(drawn[k] for k in drawn.files if drawn[k].ndim == 2)
    assert x.shape == (3, 6) and 0 <= x.min() <= x.max() < 11
    status, _, err = cli(f"train.evaluate --workdir {tmp_path}/r --num 10")
    assert status == 0, err
    run = open_workdir(tmp_path / "r")
    assert (run.record.experiment, run.step) == ("prior", 0)
    refused(cli(line), "is there already")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "config.json").unlink(), "holds no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
        (
            lambda f: (f / "config.json").write_text('{"model_type": "llama"}'),
            "of the architecture llama",
        ),
        (
            lambda f: (f / "config.json").write_text('{"model_type": "gpt2"}'),
            "says nothing of 'n_embd'",
        ),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            "is a pickle",
        ),
        (lambda f: (f / "model.safetensors").unlink(), "holds no .safetensors"),
        (
            lambda f: (f / "model.safetensors").write_bytes(save(WEIGHTS)[:-9]),
            "no whole file of safetensors",
        ),
        (
            lambda f: (f / "config.json").write_text(
                json.dumps({**CONFIG, "n_layer": 3})
            ),
            "h.2.attn.c_attn.bias [24] is missing",
        ),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(cli, theirs, tmp_path, change, words):
    change(theirs)
    line = f"train.import_weights --source {theirs} --workdir {tmp_path / 'r'}"
    refused(cli(line), words)
    assert not (tmp_path / "r").exists()


def test_what_cannot_be_exported_is_one_sentence(cli, runs, tmp_path):
    out = f"--out {tmp_path / 'o'}"
    refused(cli(f"train.export_weights --workdir {runs / 'vae'} {out}"), "holds a vae")
    line = f"train.export_weights --workdir {runs / 'transformer'} {out}"
    refused(cli(line), "--positions learned")
    assert not (tmp_path / "o").exists()
