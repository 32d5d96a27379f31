"""Laws of captions: their tokens, their files, and scenes that are known exactly."""

import dataclasses
import hashlib
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gengen import presets
from gengen.conditions import Nothing, Text
from gengen.diffusion.guidance import Guidance
from gengen.diffusion.paths import Linear
from gengen.diffusion.predictors import check_guidance, nested
from gengen.errors import BadInput
from gengen.models.classifier import ClassifierGuide
from gengen.models.clip import CLIP
from gengen.nets.conditioning import Context
from gengen.nets.dit import DiT
from gengen.nets.resnet import ResNet
from gengen.presets import changed
from gengen.types import Matches, Variables, static
from train.data.captions import Captions, vocabulary
from train.data.dataset import Dataset, take
from train.data.load import load
from train.data.scenes import PAIRS, SEEN, UNSEEN, drawn, scene
from train.experiments import EXPERIMENTS
from train.measure import clip_score
from train.measure.clip_score import as_read, clip_figures, open_judge
from train.measure.options import Evaluate
from train.measure.tables import clip_lines
from train.run import initial
from train.run import record as records
from train.run.asked import against, asked, held_out, shown
from train.run.digests import leaf_names
from train.run.guides import same_target
from train.run.pictures import save_grid
from train.run.record import Record
from train.run.sampler import Sampler


def test_tokens_are_a_bijection_of_known_captions():
    known = vocabulary(["A red SEVEN,", "above a blue one"])
    assert known.length == 4 and known.words == tuple(sorted(known.words))
    for text in ("a red seven", "above a blue one"):
        assert known.decode(known.encode(text)) == text
    assert known.encode("Red, seven!").tolist() == known.encode("red seven").tolist()
    assert not known.encode("a")[1:].any()  # padding


@pytest.mark.parametrize(
    ("caption", "sentence"),
    [
        ("a rad disc", "no training caption has the word 'rad' .did you mean 'red'"),
        ("a red disc red", "has 4 words, and the longest caption in training had 3"),
        ("?!", "has no word"),
    ],
)
def test_a_caption_that_cannot_be_read_is_refused_in_words(caption, sentence):
    with pytest.raises(BadInput, match=sentence):
        Captions(("a", "disc", "red"), 3).encode(caption)


def test_a_scene_is_the_same_picture_on_every_machine():
    """All numbers are whole: the digest cannot depend on an order of summation."""
    data = load("scenes:4", split="validation")
    forward, backward = (data.fetch(np.arange(24)[::step]) for step in (1, -1))
    for key, rows in forward.items():
        np.testing.assert_array_equal(rows, backward[key][::-1])
    digest = hashlib.sha256(forward["image"].tobytes() + forward["text"].tobytes())
    assert digest.hexdigest()[:16] == "46a17560dfc3e17c"


def test_the_caption_says_what_is_in_the_boxes_and_where():
    """Read back from the pixels: the colour in each box, and which box is where."""
    for i in range(200):
        found = scene("test", i)
        image = drawn(found, "test").astype(int)
        seen = np.zeros((32, 32), bool)
        for thing in found.things:
            box = (
                slice(thing.top, thing.top + thing.side),
                slice(thing.left, thing.left + thing.side),
            )
            assert not seen[box].any()  # boxes do not overlap
            seen[box] = True
            ink = image[box].reshape(-1, 3)
            far = np.abs(ink - found.ground).sum(1).argmax()
            assert np.abs(ink[far] - thing.rgb).max() <= 60
            assert f"a {thing.colour} {thing.kind}" in found.caption
        assert (image[~seen] == found.ground).all()
        if len(found.things) == 2:
            first, second = found.things
            relation = found.caption.split(first.kind)[1].split(" a ")[0].strip()
            ends = {
                "above": first.top + first.side <= second.top,
                "below": second.top + second.side <= first.top,
                "left of": first.left + first.side <= second.left,
                "right of": second.left + second.side <= first.left,
            }
            assert ends[relation]


def test_unseen_pairs_never_occur_in_training_and_every_part_of_them_does():
    """Every colour and every kind is seen, each with all but its own few partners."""
    assert set(SEEN) | set(UNSEEN) == set(PAIRS) and len(UNSEEN) == 13
    for place in (0, 1):
        assert {p[place] for p in SEEN} == {p[place] for p in PAIRS}
    for split in ("train", "validation", "test"):
        pairs = {t[:2] for i in range(300) for t in scene(split, i, 4).things}
        assert pairs <= set(SEEN)
    assert all(scene("unseen", i).things[0][:2] in UNSEEN for i in range(200))
    assert {scene("train", i, 1, every=True).things[0][:2] for i in range(999)} > set(
        UNSEEN
    )


def test_scenes_of_one_thing_are_labelled_by_their_caption():
    data = load("scenes:1", split="unseen", image_size=64)
    batch = data.fetch(np.arange(5))
    assert batch["image"].shape == (5, 64, 64, 3) == (5, *data.spec.shape)
    for tokens, label in zip(batch["text"], batch["label"], strict=True):
        assert data.spec.captions.decode(tokens) == f"a {data.spec.class_names[label]}"
    assert {k: (v.shape, v.dtype) for k, v in data.spec.example(5).items()} == {
        k: (v.shape, v.dtype) for k, v in batch.items()
    }


@pytest.mark.parametrize(
    ("name", "more", "sentence"),
    [
        ("scenes:5", {}, "scenes:N with one to four things"),
        ("scenes:1", {"image_size": 33}, "is drawn at 32, 64, 128 pixels"),
        ("scenes:1:all", {"split": "unseen"}, "has no split 'unseen'"),
    ],
)
def test_scenes_that_there_are_not_are_refused(name, more, sentence):
    with pytest.raises(BadInput, match=sentence):
        load(name, **more)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A split folder of four tiny images, without captions."""
    root = tmp_path_factory.mktemp("pictures")
    for i, split in enumerate(("train", "train", "test", "validation")):
        image = np.full((1, 4, 4, 3), 60 * i, np.uint8)
        save_grid(root / split / f"{i}.png", image, 1, scale=1)
    return root


TEXTS = {"train/0": "A red disc", "train/1": "a disc", "test/2": "a green disc"}
TEXTS |= {"validation/3": "red"}


def _beside(root):
    for name, text in TEXTS.items():
        (root / f"{name}.txt").write_text(text + "\n", encoding="utf-8")


def _csv(root):
    rows = [f'{name}.png,"{text}"' for name, text in TEXTS.items()]
    (root / "captions.csv").write_text("\n".join(["file_name,text", *rows]))


def _jsonl(root):
    for name, text in TEXTS.items():
        folder, file = name.split("/")
        row = json.dumps({"file_name": f"{file}.png", "caption": text})
        with open(root / folder / "metadata.jsonl", "a") as table:
            table.write(row + "\n")


@pytest.fixture
def clean(pictures):
    """The folder; captions that a test puts into it are taken away again."""
    yield pictures
    for path in pictures.rglob("*"):
        if path.is_file() and path.suffix != ".png":
            path.unlink()


@pytest.mark.parametrize("write", [_beside, _csv, _jsonl])
def test_captions_beside_images_and_in_tables_are_the_same(clean, write):
    """Words of training captions count; of others the unknown ones are left out."""
    write(clean)
    name = f"folder:{clean}"
    data = load(name)
    assert data.spec.words == ("a", "disc", "red") and data.spec.caption_length == 3
    read = data.fetch(np.arange(2))["text"]
    assert [data.spec.captions.decode(row) for row in read] == ["a red disc", "a disc"]
    other = load(name, split="test")
    assert other.spec == data.spec
    assert data.spec.captions.decode(other.fetch(np.arange(1))["text"][0]) == "a disc"
    assert "not read" not in data.note and set(data.digest()) > {"image", "text"}
    old = load(name, reader=2)  # a run that began before there were captions
    assert not old.spec.words and "text" not in old.fetch(np.arange(1))


def test_captions_that_are_missing_double_or_broken_are_refused(clean):
    _beside(clean)
    (clean / "train/1.txt").unlink()
    with pytest.raises(BadInput, match="1 of the 4 images of .* have no cap.*1.png"):
        load(f"folder:{clean}")
    _csv(clean)
    with pytest.raises(BadInput, match="captions.csv and beside its images"):
        load(f"folder:{clean}")
    for path in clean.rglob("*.txt"):
        path.unlink()
    (clean / "captions.csv").write_text("name;words\na;b")
    with pytest.raises(BadInput, match="is no table of captions"):
        load(f"folder:{clean}")


def test_a_run_does_not_start_from_one_that_reads_other_words(tmp_path):
    data = {"dataset": "scenes", "seed": 0, "examples": 50_000}
    record = Record("clip", {}, data, load("scenes").spec)
    records.save(tmp_path / "clip", record)
    other = dataclasses.replace(record, data=load("scenes:1").spec)
    with pytest.raises(BadInput, match="of scenes:1 have other words: take a run"):
        initial.asked(other, str(tmp_path / "clip"), tmp_path / "w", False)
    with pytest.raises(BadInput, match="no checkpoint"):  # its words are the same
        initial.asked(record, str(tmp_path / "clip"), tmp_path / "w", False)


@pytest.mark.parametrize("name", ["dit", "transformer", "prior"])
def test_a_frozen_encoder_of_captions_gets_no_update(name):
    """All else moves, by --text-frozen; without captions it is refused."""
    options = EXPERIMENTS[name].options(text_frozen=True, conditional=True)
    own = np.ones(3, np.float32)
    tree = {"Context_0": {"w": own}, "Dense_0": {"Context": own}}
    optimizer = options.transformation(1e-3)
    step = jax.eval_shape(optimizer.init, tree)  # its state needs no arrays of texts
    assert len([x for x in jax.tree.leaves(step) if x.shape == (3,)]) == 2  # of Adam
    update, _ = optimizer.update(tree, optimizer.init(tree), tree)
    assert not update["Context_0"]["w"].any() and update["Dense_0"]["Context"].all()
    with pytest.raises(BadInput, match="--text-frozen: this model is conditioned on n"):
        options.condition(load("digits").spec)


# ---------------------------------------------------------------- what samples show


def tiny_clip(spec, **more):
    text = spec.text(**{"width": 4, "blocks": 1, "heads": 2, **more})
    return CLIP(ResNet(3, 4, (1,), groups=2), spec.space(), text, 3, path=Linear())


def test_the_encoder_of_captions_of_a_clip_starts_that_of_another_model():
    """Whole, or refused; what is no encoder of captions stays random."""
    run = run_on_captions()
    spec, key = run.record.data, jax.random.key(0)
    ours, _ = jax.eval_shape(run.model.init, key)
    made = [jax.eval_shape(tiny_clip(spec, blocks=n).init, key)[0] for n in (1, 2)]
    theirs, deep = (jax.tree.map(lambda x: np.full(x.shape, 7.0), p) for p in made)
    shapes, given = SimpleNamespace(params=ours), {"ema": None, "state": {}}
    taken, (said,) = initial.matched(shapes, {"params": theirs, **given}, "runs/clip")
    (own,) = taken["params"]["denoiser"].values()
    assert leaf_names(own).keys() == leaf_names(ours["denoiser"]["Context_0"]).keys()
    assert all((x == 7).all() for x in jax.tree.leaves(own))
    assert "parameters of the encoder of captions" in said
    with pytest.raises(BadInput, match="its encoder of captions has other sizes than"):
        initial.matched(shapes, {"params": deep, **given}, "runs/clip")


def run_on_captions(dropout=0.1):
    """What `asked` reads of a run on scenes of one thing."""
    spec = load("scenes:1").spec
    text = spec.text(width=4, blocks=1, heads=2)
    net = DiT(4, 8, 1, 2, condition=text)
    model = presets.flow(net, spec.space(), text, condition_dropout=dropout, steps=2)
    return SimpleNamespace(model=model, record=SimpleNamespace(data=spec))


def test_samples_are_asked_for_by_caption():
    run = run_on_captions()
    given = asked(run, 2, caption="a red seven")
    assert shown(given, run.record.data) == ["a red seven"] * 2
    assert asked(run, 2) == {}  # without a caption: null, which training has seen
    split = partial(load, "scenes:1")
    rows = held_out(run.model, lambda s: split(split=s), 3)
    assert (
        rows["text"].tolist()
        == split(split="validation").fetch(np.arange(3))["text"].tolist()
    )
    leading = against(run, "a blue one")["against"]
    assert leading == (("text", tuple(run.record.data.captions.encode("a blue one"))),)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"label": 3, "caption": "a red seven"}, "--label 3 with --caption 'a red"),
        ({"caption": "a red sevn"}, "did you mean 'seven'"),
        ({}, "--label-dropout 0, so it draws nothing without a caption"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(more, sentence):
    with pytest.raises(BadInput, match=sentence):
        asked(run_on_captions(dropout=0.0), 2, **more)


def test_a_clip_guides_a_run_without_captions_to_one():
    spec = load("scenes:1").spec
    clip = tiny_clip(spec)
    flow = presets.flow(DiT(8, 8, 1, 1), spec.space(), steps=2)
    record = SimpleNamespace(data=spec, experiment="clip")
    run, other = (SimpleNamespace(model=m, record=record) for m in (flow, clip))
    same_target(run, other, "runs/clip")
    guided = changed(flow, guides=(ClassifierGuide(clip),))
    run.model = guided
    with pytest.raises(BadInput, match="a guide leads to a caption: give --caption"):
        asked(run, 2)
    given = asked(run, 2, caption="a red seven")

    def sample(key):
        held = {"frozen": {"classifier": Variables(*clip.init(key))}}
        return guided.sample(flow.init(key)[0], held, key, 2, **given)

    assert jax.eval_shape(sample, jax.random.key(0)).shape == (2, 32, 32, 3)
    run.model = run_on_captions().model  # of another encoder
    with pytest.raises(BadInput, match="take a run that is not conditioned on cap"):
        other = SimpleNamespace(model=tiny_clip(spec, width=8), record=record)
        same_target(run, other, "runs/clip")
    words = dataclasses.replace(spec, words=("a",))
    run.record = SimpleNamespace(data=words)
    with pytest.raises(BadInput, match="have other words: take one trained on"):
        same_target(run, other, "runs/clip")


@static
class Reads(Matches):
    """What an image shows is the token in its first pixel: a perfect CLIP."""

    condition: Text = Text(200, 5)

    def embeddings(self, params, state, batch):
        u = jax.nn.one_hot(batch["image"][:, 0, 0, 0], 200)
        return u, jax.nn.one_hot(batch["text"][:, 1], 200)


def shows(params, state, key, num, *, text, start_index=0):
    """Images of which all but every fourth show the second word of their caption."""
    right = jnp.where(jnp.arange(num) % 4 > 0, text[:, 1], 0)
    return jnp.ones((num, 8, 8, 3)) * (right[:, None, None, None] / 127.5 - 1)


def test_a_clip_score_is_of_samples_and_their_own_captions(tmp_path, monkeypatch):
    """2.5 max(cos, 0), beside that of held-out images and of others' captions."""
    spec = load("scenes:1").spec
    text = np.stack([spec.captions.encode(f"a {c} one") for c in ("red", "blue")] * 4)
    image = np.ones((8, 8, 8, 3), np.uint8) * text[:, 1, None, None, None]
    data = Dataset(spec, 8, partial(take, {"image": image, "text": text}), "")
    data = dataclasses.replace(data, spec=dataclasses.replace(spec, shape=(8, 8, 3)))
    record = SimpleNamespace(data=data.spec, experiment="clip")
    model = SimpleNamespace(condition=spec.text(), sample=shows)
    of = {"params": {}, "state": {}, "record": record, "step": 3}
    judge, run = (SimpleNamespace(model=m, **of) for m in (Reads(), model))
    options = Evaluate(workdir=tmp_path, num=8, batch_size=8)
    monkeypatch.setattr(clip_score, "guided", lambda run, options: run)
    monkeypatch.setattr(clip_score, "order", lambda *_: np.arange(8))
    found = clip_figures(judge, run, {"test": data}, options)
    score = {name: x["value"] for name, x in found["clip_score"].items()}
    assert score == {"samples": 1.875, "test images": 2.5, "other captions": 0.0}
    recall = found["clip_recall"]["samples"]
    assert (recall["kind"], recall["value"]) == ("of 8", 0.75)
    assert clip_lines(found)[1] == ["CLIP score, samples, 8 of them", "1.875 ± 0.41"]
    assert (tmp_path / "ranked.png").exists()
    # A judge of other tokens reads the same words.
    words = dataclasses.replace(spec, words=spec.words[::-1])
    other = SimpleNamespace(record=SimpleNamespace(data=words), workdir="c")
    again = as_read(other, run, text)
    assert words.captions.decode(again[0]) == "a red one"
    few = dataclasses.replace(spec, words=("a", "one"))
    other = SimpleNamespace(record=SimpleNamespace(data=few), workdir="c")
    with pytest.raises(BadInput, match="--clip c, of the caption 'a red one': no tr"):
        as_read(other, run, text)


def test_a_judge_of_samples_is_a_clip_of_their_images(monkeypatch):
    run, made = run_on_captions(), {}
    monkeypatch.setattr(clip_score, "open_workdir", lambda path: made["other"])
    made["other"] = SimpleNamespace(model=run.model, record=run.record)
    run.record.experiment = "dit"
    with pytest.raises(BadInput, match="--clip c holds a dit, not a clip: train one"):
        open_judge(run, Path("c"))
    spec = dataclasses.replace(run.record.data, shape=(8, 8, 3))
    record = SimpleNamespace(data=spec)
    made["other"] = SimpleNamespace(model=Reads(), record=record)
    with pytest.raises(BadInput, match="--clip c is of images .*take one that was tr"):
        open_judge(run, Path("c"))
    made["other"] = SimpleNamespace(model=Reads(), record=run.record)
    assert open_judge(run, Path("c")) is made["other"] and open_judge(run, None) is None
    run.model = SimpleNamespace(condition=Nothing())
    with pytest.raises(BadInput, match="and this run is unconditional: leave it out"):
        open_judge(run, Path("c"))


def test_a_run_without_captions_takes_none():
    run = run_on_captions()
    with pytest.raises(BadInput, match="a CLIP draws no samples"):
        Sampler(tiny_clip(run.record.data), 1)
    flow = presets.flow(DiT(4, 8, 1, 2), run.record.data.space())
    with pytest.raises(BadInput, match="knows no captions; leave the option out"):
        asked(SimpleNamespace(model=flow, record=run.record), 2, caption="a red one")


def test_guidance_against_a_caption_takes_the_place_of_none():
    """r̂_neg + s (r̂_c - r̂_neg): of c itself it is no guidance; of null the usual one."""
    text, c = Text(9, 2), {"text": jnp.array([[1, 2], [3, 0]])}

    def predict(z, t, c):
        return z + jnp.sum(c["text"] ** 2, axis=-1, keepdims=True)

    def led(*against):
        guidance = Guidance(3.0, against=against)
        predictors = nested(predict, guidance, text)
        return guidance(None, predictors)(jnp.zeros((2, 1)), 0.5, c)[:, 0].tolist()

    assert led() == [15.0, 27.0] == led(("text", (0, 0)))
    assert led(("text", (1, 2))) == [5.0, 17.0]  # 5 and 5 + 3 (9 - 5)
    with pytest.raises(BadInput, match="leads away from nothing"):
        Guidance(1.0, against=(("text", (1, 2)),))
    other = Guidance(2.0, against=(("map", (0,)),))
    with pytest.raises(BadInput, match="not conditioned on map"):
        check_guidance(other, None, text, 0.1)


def test_padding_and_order_do_not_change_an_encoded_caption():
    """A mutant without the mask, or one that attends across rows, fails."""
    net = Context(Text(9, 6, width=8))
    c = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 0, 0, 0, 0]])
    params = jax.jit(lambda key: net.init(key, {"text": c}, 2))(jax.random.key(0))
    encode = jax.jit(lambda params, c: net.apply(params, {"text": c}, 2))
    tokens, there = jax.device_get(encode(params, c))
    assert there.sum(1).tolist() == [4, 3]
    for other, rows in ((c[::-1], slice(None, None, -1)), (c[:, :3], slice(None))):
        again, _ = jax.device_get(encode(params, other))
        for row in (0, 1):
            real = tokens[rows][row][: there[rows][row].sum()]
            np.testing.assert_allclose(again[row][: len(real)], real, atol=1e-6)
