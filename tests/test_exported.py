"""Exported samplers: equal to the run's own, without gengen, at any batch size."""

import contextlib
import io
import json
import re
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from program import call, refused
from test_conformance import ROWS

from gengen.errors import BadInput
from train import open_run
from train.run import exported

FORBIDDEN = """
import sys
sys.modules |= dict.fromkeys(("gengen", "train", "flax", "orbax"))  # no import of them
{}
import numpy
numpy.save("x.npy", x)
"""


@pytest.fixture(scope="module")
def flow(runs, tmp_path_factory):
    """(the file of the flow's sampler of two steps, what the command said)."""
    path = tmp_path_factory.mktemp("exported") / "flow.jaxexport"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert call(f"train.export --workdir {runs / 'flow'} --out {path}") == 0
    return path, said.getvalue()


@pytest.fixture(scope="module")
def drawn(flow):
    """What the command's script draws in a process that cannot import gengen."""
    path, said = flow
    head, *lines = said.splitlines()
    assert head.endswith(", for cpu, cuda, tpu") and len(lines) == 5
    code = FORBIDDEN.format("\n".join(lines))
    subprocess.run([sys.executable, "-c", code], cwd=path.parent, check=True)
    return np.load(path.parent / "x.npy")


def test_the_script_that_the_command_says_draws_the_samples_of_the_run(runs, drawn):
    """16 of them, guided, the classes in turn."""
    run = open_run(runs / "flow")
    sampler = run.model.sampler.replace(scale=2.0)

    @jax.jit
    def draw(params, state):
        how = {"label": jnp.arange(16) % 10, "sampler": sampler}
        return run.model.sample(params, state, jax.random.key(0), 16, **how)

    np.testing.assert_allclose(drawn, draw(run.params, run.state), atol=1e-5)
    assert len(np.unique(drawn.reshape(16, -1), axis=0)) == 16


def test_a_row_is_the_sample_of_its_number_whatever_is_drawn_beside_it(flow, drawn):
    said, program = exported.load(flow[0])
    assert said["arguments"] == {
        "words": "uint32[2]",
        "index": "int32[b]",
        "guidance": "float32[b]",
        "label": "int32[b]",
    }
    assert said["returns"] == "float32[b, 8, 8, 1]" and said["jax"] == jax.__version__
    index = jnp.array([14, 1, 2])

    def draw(seed):
        given = {"label": index % 10, "guidance": jnp.full(3, 2.0)}
        return program.call(jax.random.key_data(jax.random.key(seed)), index, **given)

    np.testing.assert_allclose(draw(0), drawn[index], atol=1e-5)
    assert not np.any(np.all(np.isclose(draw(1), drawn[index]), axis=(1, 2, 3)))


ARGUMENTS = [
    ("VAE, Bernoulli", "", {}),
    ("flow matching, conditional", "label guidance", {}),
    ("EDM, DiT", "label", {"guidance_scale": 2.0}),
    ("DDPM, learned variances", "", {}),
    ("latent flow", "label guidance", {}),
    ("consistency", "label", {}),
    ("StyleGAN2, conditional", "label truncation", {}),
    ("StyleGAN2, conditional", "label", {"truncation": 0.5}),
    ("flow matching, text", "text guidance", {}),
    ("transformer, conditional", "label", {"temperature": 0.5}),
]


@pytest.mark.parametrize(("name", "names", "options"), ARGUMENTS)
def test_what_is_an_array_is_an_argument_unless_an_option_fixes_it(
    name, names, options
):
    draw = exported.sampler_of(ROWS[name](), {}, {}, options)
    assert set(draw.given) == set(names.split())


class Book:
    """A model of one's own, which looks its samples up, as a codebook does."""

    def sample(self, params, state, key, num, start_index=0):
        return state["frozen"]["book"][start_index + jnp.arange(num)]


def test_the_arrays_of_other_runs_may_lie_on_the_host():
    book = np.arange(12.0, dtype=np.float32).reshape(4, 3)
    draw = exported.sampler_of(Book(), {}, {"frozen": {"book": book}})
    x = jax.jit(draw.function)(np.zeros(2, np.uint32), np.array([3, 1]))
    np.testing.assert_array_equal(x, book[[3, 1]])


@pytest.mark.parametrize("name", ["CycleGAN", "classifier", "VQ-VAE"])
def test_what_draws_nothing_is_refused_in_a_sentence(name):
    model = ROWS["VQ-VAE and its prior"]().autoencoder if "VQ" in name else ROWS[name]()
    with pytest.raises(BadInput, match="translates|draws no samples|no p.z. to draw"):
        exported.exported(exported.sampler_of(model, {}, {}), ("cpu",))


def test_a_program_that_calls_back_is_refused_for_the_platforms_that_were_asked_for():
    """What diffrax's solvers do."""

    def call_back(words, index):
        like = jax.ShapeDtypeStruct((), jnp.float32)
        return index * jax.pure_callback(lambda: np.float32(0), like)

    with pytest.raises(BadInput, match="cannot be exported for cpu, tpu .*--solver"):
        exported.exported(exported.Draw(call_back, {}), ("cpu", "tpu"))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--out x --platforms gpu", "one of cpu, cuda, rocm, tpu"),
        ("--out x --platforms", "name one, such as cpu"),
        ("--out .", "is a folder: name a file in it"),
        ("--out x --temperature 0", "above 0"),
    ],
)
def test_a_mistake_is_one_sentence_before_the_run_is_opened(cli, option, said):
    refused(cli(f"train.export --workdir none {option}"), said)


# ------------------------------------------------------------------ the file


def rewritten(path, to, **members):
    """The file with other members, each with a right checksum of the zip's own."""
    with zipfile.ZipFile(path) as file, zipfile.ZipFile(to, "w") as other:
        for name in file.namelist():
            other.writestr(name, members.get(name.split(".")[0], file.read(name)))


def truncated(path, to):
    to.write_bytes(path.read_bytes()[:-100])


def flipped(path, to):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    to.write_bytes(data)


def of_another_program(path, to):
    rewritten(path, to, sampler=b"another")


def newer(path, to):
    said, _ = exported.load(path)
    rewritten(path, to, about=json.dumps({**said, "jax": "0.99.0"}))


def no_zip(path, to):
    to.write_text("hello")


@pytest.mark.parametrize(
    ("change", "said"),
    {
        truncated: "truncated or damaged .BadZipFile",
        flipped: "truncated or damaged",
        no_zip: "is no exported sampler",
        of_another_program: "the SHA-256 of its program is not the one",
        newer: "exported by jax 0.99.0, and this is jax",
    }.items(),
)
def test_a_file_that_is_not_as_it_was_written_is_one_sentence(
    cli, flow, tmp_path, change, said
):
    change(flow[0], to := tmp_path / "x")
    result = cli(f"train.inspect --workdir {to}")
    refused(result)
    assert re.search(said, result[2])


def test_inspect_says_what_a_file_is(cli, flow):
    _, said, _ = cli(f"train.inspect --workdir {flow[0]}")
    for line in (
        'experiment  "flow"',
        "step  4",
        "classes  10",
        "levels  17",
        *flow[1].splitlines()[1:],
    ):
        assert line in said


def test_the_same_run_makes_the_same_file(flow, tmp_path):
    said, program = exported.load(flow[0])
    exported.save(tmp_path / "x", program, said)
    assert (tmp_path / "x").read_bytes() == flow[0].read_bytes()
