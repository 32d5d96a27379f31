"""Text: windows of bytes, runs on them, and what refuses them."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from program import EVENTS, TEXT, refused

from gengen.errors import BadInput
from gengen.nets.lstm import _states, states
from train.cli.groups import defaults_of
from train.data.dataset import Spec
from train.data.feed import Feed
from train.data.load import load
from train.data.text import pydoc, starts
from train.experiments import EXPERIMENTS
from train.experiments.sequence import SIZES
from train.run import record as experiment
from train.run.same import difference

SPLITS = ("train", "validation", "test")


@pytest.fixture
def file(tmp_path):
    """A file of 997 bytes, of which any four in a row occur once."""
    data = np.random.default_rng(0).integers(0, 256, 997).astype(np.uint8).tobytes()
    (tmp_path / "some.txt").write_bytes(data)
    return tmp_path / "some.txt"


# ------------------------------------------------------------------ the data


def tokens(file, split, length=16):
    dataset = load(f"text:{file}", split=split, length=length)
    return dataset.fetch(np.arange(dataset.size))["tokens"]


def test_windows_are_slices_and_the_splits_are_disjoint_and_cover_the_file(file):
    data, found = file.read_bytes(), {}
    for split in SPLITS:
        x = tokens(file, split)
        assert x.dtype == np.uint8
        found[split] = [data.index(bytes(window)) for window in x]
    assert np.all(np.diff(found["train"]) == 2)
    assert np.all(np.diff(found["validation"]) == 16)
    ends = [(places[0], places[-1] + 16) for places in found.values()]
    assert [first for first, _ in ends] == [0, 997 * 18 // 20, 997 * 19 // 20]
    borders = [first for first, _ in ends[1:]] + [997]
    strides = (2, 16, 16)
    for (_, end), border, stride in zip(ends, borders, strides, strict=True):
        assert border - stride < end <= border


@pytest.mark.parametrize("length", [16, 7])
def test_windows_begin_at_whole_characters(tmp_path, length):
    """They have one to four bytes; where it matters not, nothing is moved."""
    draw = np.random.default_rng(0)
    text = "".join(draw.choice(list("aé語🙂"), 4000))
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.txt").write_text("abcd" * 1000)
    for split in SPLITS:
        for window in tokens(tmp_path / "a.txt", split, length):
            assert bytes(window).decode(errors="ignore")[0] in text
            assert window[0] & 0xC0 != 0x80
        name = f"text:{tmp_path / 'b.txt'}"
        new, old = (load(name, split=split, length=length, reader=r) for r in (2, 1))
        every = np.arange(old.size)
        assert new.size == old.size and new.digest() == old.digest()
        np.testing.assert_array_equal(
            new.fetch(every)["tokens"], old.fetch(every)["tokens"]
        )
    whole = np.frombuffer(text.encode(), np.uint8)
    at = starts(whole, length, length, whole=True)
    plain = np.arange(0, len(whole) - length + 1, length)
    assert np.all(abs(at - plain) <= 3) and at[-1] + length <= len(whole)
    old = load(f"text:{tmp_path / 'a.txt'}", length=length, reader=1)
    np.testing.assert_array_equal(
        old.fetch(np.array([3]))["tokens"][0],
        whole[3 * max(1, length // 8) :][:length],
    )


def test_a_folder_of_text_is_its_files_in_order(tmp_path):
    for name, text in {"b/2.txt": "two", "a.md": "one", "b/3.txt": "three"}.items():
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_text(text * 99)
    (tmp_path / "d" / ".hidden").write_bytes(b"\0")
    joined = "\n\n".join(x * 99 for x in ("one", "two", "three"))
    (tmp_path / "joined.txt").write_text(joined)
    folder, file = (load(f"text:{tmp_path / x}", length=8) for x in ("d", "joined.txt"))
    assert folder.digest() == file.digest() and folder.size == file.size


def test_a_window_is_a_function_of_its_index(file):
    dataset = load(f"text:{file}", length=16)
    whole = dataset.fetch(np.arange(dataset.size))["tokens"]
    order = np.array([5, 0, 5, dataset.size - 1])
    np.testing.assert_array_equal(dataset.fetch(order)["tokens"], whole[order])
    feeds = [Feed(dataset, 8, 0, limit) for limit in (2**30, 0)]
    resident, streamed = (
        feed.fetch(feed.data, jax.tree.map(lambda x: x[1], feed.items(3, 2)))
        for feed in feeds
    )
    np.testing.assert_array_equal(resident["tokens"], streamed["tokens"])


def test_the_reference_of_python_has_no_paragraph_twice():
    paragraphs = pydoc().split(b"\n\n")
    assert len(paragraphs) > 1000 and len(set(paragraphs)) == len(paragraphs)
    dataset = load("text")
    assert dataset.spec.shape == (256,) and "train: first 90 %" in dataset.note
    assert b"".join(dataset.fetch(np.arange(8))["tokens"][::8])[:256] == pydoc()[:256]
    assert load("text:pydoc").size == load("text:").size == dataset.size


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("text:none.txt", {}, "there is no file none.txt: give text:PATH"),
        ("text:{}/empty", {}, "empty is empty: give"),
        ("text:{}/folder", {}, "folder holds what is no text .*b.png.: move that out"),
        ("text:{}/nothing", {}, "nothing holds no text: give text:PATH a folder"),
        ("text:{}/some.txt", {}, "too few for one window of 256: give --length 50 or"),
        ("text:{}/some.txt", {"length": 1}, "--length takes 2 up"),
        ("text:{}/one", {"length": 2}, "1 bytes, .* give more text"),
        ("text:{}/some.txt", {"split": "all"}, "choose one of train, validation, test"),
        ("text", {"levels": 2}, "--levels 2 says nothing about text"),
        ("text", {"image_size": 8}, "--image-size 8 says nothing about text"),
        ("digits", {"length": 8}, "--length 8 says nothing about digits"),
    ],
)
def test_mistakes_are_sentences(file, name, options, words):
    (file.parent / "empty").write_bytes(b"")
    (file.parent / "one").write_bytes(b"x")
    (file.parent / "nothing" / ".git").mkdir(parents=True)
    (file.parent / "folder").mkdir()
    (file.parent / "folder" / "a.txt").write_bytes(b"x" * 999)
    (file.parent / "folder" / "b.png").write_bytes(b"\x89PNG\0")
    with pytest.raises(BadInput, match=words):
        load(name.format(file.parent), **options)


# ------------------------------------------------------------------ models


def test_the_architectures_have_equal_sizes():
    spec, sizes = Spec("text", (256,), 256, 0, (), kind="text"), {}
    for name in SIZES:
        model = EXPERIMENTS["text"](spec, architecture=name).model
        params, _ = jax.eval_shape(model.init, jax.random.key(0), spec.example(1))
        sizes[name] = sum(x.size for x in jax.tree.leaves(params))
    assert max(sizes.values()) < 1.02 * min(sizes.values()), sizes


def test_the_gradient_of_states_is_that_of_the_scan():
    draw = np.random.default_rng(0)
    arrays = [draw.normal(size=shape).astype("f4") for shape in ((5, 2, 12), (3, 12))]
    weight = draw.normal(size=(5, 2, 3))

    def gradient(f):
        return jax.grad(lambda z, u: (weight * f(z, u)).sum(), (0, 1))(*arrays)

    for ours, plain in zip(gradient(states), gradient(_states), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------ programs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from program import call

    workdir = tmp_path_factory.mktemp("text") / "w"
    assert call(f"train text --workdir {workdir} --steps 4 {TEXT} {EVENTS}") == 0
    return workdir


def test_a_run_writes_text_metrics_and_a_record(run):
    for path in (run / "samples.txt", run / "samples" / "step_00000004.txt"):
        assert re.findall("─ (.) ─", path.read_text()) == list("0123456789")
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert 7 < last["validation/bits_per_byte_exact"] < 9
    record = experiment.load(run)
    assert record.data.kind == "text" and record.data_options["length"] == 16
    document = json.loads((run / experiment.FILE).read_text())
    assert document.pop("saved")
    assert experiment.Record(**vars(record)).as_json() == document
    assert [path.name for path in run.rglob("*.png")] == ["curves.png"]


def test_older_records_are_of_images(tmp_path):
    digits = load("digits").spec
    run = {"dataset": "digits", "image_size": None, "levels": None, "seed": 0}
    parameters = defaults_of(EXPERIMENTS["vae"].options)
    record = experiment.Record("vae", parameters, {**run, "examples": 1000}, digits)
    document = record.as_json()
    del document["data"]["kind"]
    (tmp_path / experiment.FILE).write_text(json.dumps(document))
    old = experiment.load(tmp_path)
    assert old.data == digits
    new = dataclasses.replace(
        record, data_options={**record.data_options, "length": None}
    )
    assert difference(old, new) is None
    document["data"]["shape"] = [8, 8]
    (tmp_path / experiment.FILE).write_text(json.dumps(document))
    with pytest.raises(BadInput, match="not the record of a run"):
        experiment.load(tmp_path)


def test_samples_are_numbered_and_begin_with_the_prompt(cli, run, tmp_path):
    def drawn(options):
        out = tmp_path / "x.npz"
        line = f"train.sample --workdir {run} --prompt def·f --out {out} {options}"
        status, _, err = cli(line)
        assert status == 0, err
        return np.load(out)["tokens"]

    few, many = drawn("--num 3 --batch-size 2"), drawn("--num 5")
    assert many.shape == (5, 16) and many.dtype == np.uint8
    np.testing.assert_array_equal(few, many[:3])
    assert all(bytes(x).startswith("def·f".encode()) for x in many)
    assert len(np.unique(many, axis=0)) == 5


def test_samples_are_text_and_tempered(cli, run, tmp_path):
    line = f"train.sample --workdir {run} --num 2 --out {tmp_path / 'x.txt'}"
    status, said, err = cli(f"{line} --top-k 1 --temperature 0.5 --top-p 0.9")
    assert status == 0 and "2 samples of step 4" in said, err
    _, first, second = (tmp_path / "x.txt").read_text().split(" ────────\n")
    assert first.removesuffix("\n──────── 1") == second.removesuffix("\n")


def test_longer_samples_slide_and_shorter_ones_are_cut(run, monkeypatch):
    from gengen.models.autoregressive import Autoregressive
    from train.run.sampler import Sampler
    from train.run.workdir import open_workdir

    trained, complete, traces = open_workdir(run), Autoregressive.complete, []

    def counted(*arguments, **how):
        traces.append(how)
        return complete(*arguments, **how)

    monkeypatch.setattr(Autoregressive, "complete", counted)

    def drawn(length, num=3, size=2, prompt=b""):
        sampler = Sampler(trained.model, size, prompt, length)
        weights = trained.params, trained.state, jax.random.key(1)
        return sampler(*weights, num).astype(np.uint8)

    plain = drawn(None)
    for length in (1, 11, 16):
        np.testing.assert_array_equal(drawn(length), plain[:, :length])
    assert not traces
    long = drawn(41)
    assert long.shape == (3, 41) and len(traces) == 1  # one program for all windows
    np.testing.assert_array_equal(long[:, :16], plain)  # windows overlap exactly
    np.testing.assert_array_equal(drawn(30), long[:, :30])
    np.testing.assert_array_equal(drawn(41, num=1, size=1), long[:1])
    assert len(np.unique(long[:, 16:], axis=0)) == 3
    begun = b"ten bytes and ten more"
    assert all(bytes(x).startswith(begun) for x in drawn(41, prompt=begun))


def test_evaluation_is_in_bits_per_byte(cli, run):
    status, said, err = cli(f"train.evaluate --workdir {run} --num 10")
    assert status == 0, err
    assert "bits per byte (exact)" in said and "test windows" in said
    result = json.loads((run / "evaluation.json").read_text())
    figure = result["bits_per_byte"]["test"]
    assert 7 < figure["value"] < 9 and figure["kind"] == "exact"
    assert result["network_evaluations"] == 1


def test_the_benchmark_knows_the_bare_program(cli, run):
    status, said, err = cli(f"train.benchmark --workdir {run} --num 4 --repeats 3")
    assert status == 0 and "of the bare time" in said, err


def test_what_makes_no_sense_is_refused_in_a_sentence(cli, run, runs, tmp_path):
    new = f"--workdir {tmp_path / 'w'}"
    refused(cli(f"train vae {new} --dataset text"), "vae works on images")
    refused(cli(f"train text {new} --dataset digits"), "take --dataset text")
    refused(cli(f"train text {new} --dataset text --layers 0"), "--layers 0")
    refused(cli(f"train.compare {new} --dataset text"), "works on images")
    sample, vae = (f"train.sample --workdir {w}" for w in (run, runs / "vae"))
    refused(cli(f"{sample} --prompt {'x' * 17}"), "has 17 bytes", "has 16", "--length")
    refused(cli(f"{sample} --length 0"), "--length 0", "at least 1")
    refused(cli(f"{sample} --out x.png"), "x.png", ".txt")
    refused(cli(f"{sample} --top-p 2"), "--top-p 2", "at most 1")
    refused(cli(f"{sample} --solver heun"), "no such option")
    refused(cli(f"{sample} --label 1"), "unconditional")
    refused(cli(f"{vae} --prompt x"), "--prompt 'x' is of a text")
    refused(cli(f"{vae} --length 9"), "--length 9 is of a text", "leave it out")
    refused(cli(f"{vae} --temperature 0.5"), "--temperature 0.5", "leave it out")
    refused(cli(f"train.evaluate --workdir {run} --extractor x"), "works on images")
    programs = ("outliers", "bayes", "probe", "interpolate", "traverse", "complete")
    for program in programs:
        refused(cli(f"train.{program} --workdir {run}"), "")
    assert not list(tmp_path.iterdir())
