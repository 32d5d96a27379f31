"""The program as a user drives it: train, resume, sample, inspect, time, refuse."""

import json
import shutil
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image
from program import EVENTS, GENERATIVE, TINY, refused

from gengen.errors import BadInput
from gengen.models.vae import VAE
from train.data.dataset import Spec
from train.experiments import EXPERIMENTS
from train.run.pictures import to_uint8
from train.run.sampler import Sampler, as_keywords, drawn
from train.run.workdir import open_workdir


@pytest.mark.parametrize("family", TINY)
def test_a_run_leaves_pictures_metrics_and_a_checkpoint(runs, family):
    workdir = runs / family
    with Image.open(workdir / "samples.png") as picture:
        assert min(picture.size) > 64 * 9
    assert (workdir / "curves.png").stat().st_size > 1000
    assert (workdir / "samples" / "step_00000004.png").exists()
    assert [p for p in (workdir / "tensorboard").iterdir() if "tfevents" in p.name]
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows] == [2, 4]
    assert all(np.isfinite(v) for row in rows for v in row.values())
    assert json.loads((workdir / "experiment.json").read_text())["experiment"] == family


def test_resuming_is_the_unbroken_run_bit_for_bit(cli, runs, tmp_path):
    """The run has two players; test_faults has one, test_conformance every model."""
    line = f"train gan --workdir {tmp_path / 'w'} {TINY['gan']} {EVENTS}"
    assert cli(f"{line} --steps 2")[0] == 0
    status, out, _ = cli(f"{line} --steps 4")
    assert status == 0 and "resumed from the checkpoint at step 2" in out
    _, unbroken, _ = cli(f"train.inspect --workdir {runs / 'gan'}")
    _, resumed, _ = cli(f"train.inspect --workdir {tmp_path / 'w'}")
    assert unbroken == resumed and "step 4\n" in resumed
    rows = [json.loads(x) for x in (tmp_path / "w/metrics.jsonl").open()]
    assert [row["step"] for row in rows] == [2, 4]


def test_steps_per_call_does_not_change_the_run(cli, runs, tmp_path):
    events = "--log-every 3 --sample-every 4 --checkpoint-every 4 --steps-per-call 3"
    cli(f"train vae --workdir {tmp_path / 'w'} --steps 4 {TINY['vae']} {events}")
    _, other, _ = cli(f"train.inspect --workdir {tmp_path / 'w'}")
    _, first, _ = cli(f"train.inspect --workdir {runs / 'vae'}")
    assert [x.split()[0] for x in other.splitlines()] == [
        x.split()[0] for x in first.splitlines()
    ]
    # The loop's body is compiled for another length: rounding alone may differ.
    a, b = (restored(w) for w in (tmp_path / "w", runs / "vae"))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def restored(workdir):
    leaves = jax.tree.leaves(open_workdir(workdir).params)
    return np.concatenate([np.ravel(x) for x in leaves])


def test_a_finished_run_says_there_is_nothing_to_do(cli, runs, tmp_path):
    shutil.copytree(runs / "vae", tmp_path / "w")
    line = f"train vae --workdir {tmp_path / 'w'} --steps 4 {TINY['vae']} {EVENTS}"
    status, out, _ = cli(line)
    assert status == 0 and "nothing to do: the run is at step 4 of 4" in out


@pytest.mark.parametrize("family", GENERATIVE)
def test_samples_do_not_depend_on_number_or_batch_size(cli, runs, family, tmp_path):
    def draw(num, batch_size, seed=0):
        out = tmp_path / f"{num}_{batch_size}_{seed}.npz"
        line = f"train.sample --workdir {runs / family} --num {num} --seed {seed}"
        status, said, err = cli(f"{line} --batch-size {batch_size} --out {out}")
        assert status == 0, err
        assert "step 4, averaged (EMA) parameters" in said
        return np.load(out)

    few, many = draw(3, 2), draw(12, 12)
    assert many["image"].shape == (12, 8, 8, 1) and many["image"].dtype == np.uint8
    assert many["image"].max() <= 16
    # Batches of another size may round the last bit of a level's border differently.
    assert np.mean(few["image"] != many["image"][:3]) < 0.01
    if family == "flow":
        assert np.any(draw(3, 2, seed=1)["image"] != few["image"])
    if family not in ("vae", "transformer"):
        assert many["label"].dtype == np.int32
        assert list(many["label"]) == [*range(10), 0, 1]


def test_sample_takes_label_guidance_steps_and_solver(cli, runs, tmp_path):
    line = f"train.sample --workdir {runs / 'flow'} --num 4 --label 3"
    status, _, err = cli(
        f"{line} --guidance-scale 2 --steps 3 --solver heun --out {tmp_path / 'g.png'}"
    )
    assert status == 0, err
    assert Image.open(tmp_path / "g.png").size[0] > 100


def test_samples_that_are_not_finite_are_named_and_never_black_images(
    cli, runs, tmp_path
):
    scale = "--num 4 --batch-size 2 --guidance-scale 1e38"
    for name in ("x.png", "x.npz"):
        line = f"train.sample --workdir {runs / 'flow'} {scale} --out {tmp_path}/{name}"
        refused(cli(line), "sample 0 is not finite", "guidance scale")
    assert not list(tmp_path.iterdir())


def test_the_first_sample_that_is_not_finite_is_named_by_its_number(runs, monkeypatch):
    trained = open_workdir(runs / "vae")
    sampler = Sampler(trained.model, 4)
    x = np.zeros((4, 8, 8, 1), np.float32)
    x[3, 0, 0] = np.nan
    monkeypatch.setattr(Sampler, "batch", lambda *_: x)
    with pytest.raises(BadInput, match="sample 3 is not finite"):
        sampler({}, {}, None, 8)
    assert sampler({}, {}, None, 3).shape == (3, 8, 8, 1)  # the padding does not count
    with pytest.raises(BadInput, match="image 3 is not finite"):
        to_uint8(x)
    with pytest.raises(BadInput, match="row of images 0 is not finite"):
        to_uint8(x[None])


def test_sample_refuses_what_it_cannot_draw(cli, runs, tmp_path):
    flow, vae = (
        f"train.sample --workdir {runs / w} --out {tmp_path}/x.png"
        for w in ("flow", "vae")
    )
    refused(cli(f"{flow} --label 10"), "--label 10", "0 to 9")
    refused(cli(f"{vae} --label 1"), "--label 1", "unconditional")
    refused(cli(f"{vae} --guidance-scale 2"), "--guidance-scale 2", "leave it out")
    refused(cli(f"{flow} --num 0"), "--num 0", "at least 1")
    refused(cli(f"{flow} --steps 0"), "--steps 0", "at least 1")
    refused(cli(f"train.sample --workdir {runs / 'vae'} --out x.jpg"), "x.jpg", ".npz")
    refused(cli(f"train.sample --workdir {tmp_path}/none"), "holds no run", "train one")
    assert not list(tmp_path.iterdir())


def test_guidance_needs_a_null_label(cli, tmp_path):
    options = f"{TINY['flow']} {EVENTS} --steps 2"
    line = f"train flow --workdir {tmp_path / 'w'} {options}"
    for flag in ("--no-conditional", "--label-dropout 0"):
        result = cli(f"{line} {flag} --guidance-scale 2")
        refused(result, "guidance scale 2", "leave it")
    spec = Spec("digits", (8, 8, 1), 17, 10, tuple("0123456789"))
    model = EXPERIMENTS["flow"](spec, conditional=False, channels=8).model
    variables = jax.eval_shape(model.init, jax.random.key(0))
    keywords = as_keywords(model, {"guidance_scale": 2.0})
    sampling = partial(drawn, model, 2, (*keywords.items(),))
    with pytest.raises(BadInput, match="guidance scale 2.*leave it"):
        jax.eval_shape(sampling, *variables, jax.random.key(0), 0, {})


def test_another_run_in_the_workdir_is_named_by_its_first_keyword(cli, runs, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(runs / "vae", workdir)
    before = (workdir / "experiment.json").read_bytes()
    line = f"train vae --workdir {workdir} --steps 4 {EVENTS}"
    refused(
        cli(f"{line} --batch-size 16 --hidden 8 --latent 3"),
        "holds another run, with --latent 2, not 3",
        "another --workdir",
    )
    refused(cli(f"{line} {TINY['vae']} --seed 1"), "--seed 0, not 1")
    refused(cli(f"{line} {TINY['vae']} --levels 2"), "--levels None, not 2")
    refused(
        cli(f"train gan --workdir {workdir} {TINY['gan']}"), "experiment vae, not gan"
    )
    assert (workdir / "experiment.json").read_bytes() == before


def test_a_folder_of_something_else_is_left_alone(cli, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    refused(cli(f"train vae --workdir {tmp_path}"), str(tmp_path), "another --workdir")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_checkpoint_is_set_aside_and_the_run_goes_on_from_an_older_one(
    cli, runs, tmp_path
):
    """A file that is no checkpoint's; others: test_faults."""
    workdir = tmp_path / "w"
    shutil.copytree(runs / "vae", workdir)
    files = workdir / "checkpoints/4/default"
    shutil.rmtree(files)
    files.mkdir()
    (files / "model.pt").write_bytes(b"PK")
    sample = f"train.sample --workdir {workdir} --num 2 --out {tmp_path}/x.png"
    status, out, err = cli(sample)
    assert status == 0 and "samples of step 2" in out
    assert "checkpoints/4 is damaged" in err and err.count("\n") == 1
    line = f"train vae --workdir {workdir} --steps 4 {TINY['vae']} {EVENTS}"
    status, out, _ = cli(line)
    assert status == 0 and "resumed from the checkpoint at step 2" in out
    assert "checkpoints/4 is damaged" in out and str(workdir / "damaged/4") in out
    assert (workdir / "damaged/4").is_dir()
    # The steps after 2 come again, as they were.
    listings = [cli(f"train.inspect --workdir {w}") for w in (workdir, runs / "vae")]
    assert listings[0] == listings[1]


def test_a_run_with_no_readable_checkpoint_is_never_started_afresh_silently(
    cli, runs, tmp_path
):
    workdir = tmp_path / "w"
    shutil.copytree(runs / "vae", workdir)
    for path in (workdir / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    before = sorted(p for p in workdir.rglob("*") if p.is_file())
    line = f"train vae --workdir {workdir} --steps 6 {TINY['vae']} {EVENTS}"
    refused(cli(line), "checkpoints/4 is damaged", "steps [2]", "--fresh")
    assert before == sorted(p for p in workdir.rglob("*") if p.is_file())
    status, out, _ = cli(f"{line} --fresh")
    assert status == 0 and f"moved to {workdir}.old-1" in out
    assert (tmp_path / "w.old-1/checkpoints/4").is_dir()
    assert cli(f"{line} --fresh")[0] == 0
    assert (tmp_path / "w.old-2/checkpoints/6").is_dir()


def test_a_damaged_record_is_refused(cli, runs, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(runs / "vae", workdir)
    for text in ("", "[]", '{"experiment": "gpt"}', '{"experiment": "vae"}'):
        (workdir / "experiment.json").write_text(text)
        refused(cli(f"train.inspect --workdir {workdir}"), "experiment.json", "restore")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("vae --batch-size 1001", ("1001", "1000")),
        ("vae --batch-size 0", ("--batch-size 0", "at least 1")),
        ("vae --steps 0", ("--steps 0", "at least 1")),
        ("vae --learning-rate 0", ("--learning-rate 0.0", "above 0")),
        ("vae --ema-decay 1", ("--ema-decay 1.0", "below 1")),
        ("vae --hidden 32 0", ("--hidden 0", "at least 1")),
        ("vae --hidden 8 x", ("--hidden 8 x", "a whole number, once or several times")),
        ("vae --steps x", ("--steps x: it must be a whole number; ", "--help")),
        ("vae --clip=x", ("--clip x: it must be a number; ",)),
        ("vae --steps", ("--steps (nothing): it must be a whole number",)),
        ("vae --optimizer sgd", ("--optimizer sgd", "one of adam, adamw, lion, muon")),
        ("vae --beta -1", ("--beta -1.0", "at least 0")),
        ("vae --beta nan", ("--beta nan", "finite")),
        (
            "vae --seed 99999999999999999999",
            ("--seed 9999", "at most 9,223,372,036,854,775,807"),
        ),
        (f"vae --steps 1{400 * '0'}", ("--steps 1000", "at most 1,000,000,000")),
        ("gan --r1-interval 0", ("--r1-interval 0", "at least 1")),
        ("flow --multipliers 0", ("--multipliers 0", "at least 1")),
        ("flow --sampling-steps 0", ("--sampling-steps 0", "at least 1")),
        ("vae --dataset mnits", ("mnits", "mnist")),
        ("vae --levels 18", ("18", "17")),
        ("vae --architecture conv --channels 6", ("6 channels", "multiple of 8")),
        ("vae --architecture conv --conv-levels 4", ("8 pixels", "multiple of 16")),
        ("flow --channels 12", ("12 channels", "multiple of 8")),
        ("flow --multipliers 1 1 1 1 1", ("8 pixels", "fewer halvings")),
        ("flow --label-dropout 2", ("--label-dropout 2.0", "below 1")),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(cli, tmp_path, line, words):
    refused(cli(f"train {line} --workdir {tmp_path / 'w'}"), *words)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train gna --workdir w", ("'gna'", "did you mean gan?", "--help lists")),
        ("train vae --workdir w --latnet 3", ("--latnet", "--latent?", "--help")),
        ("train --workdir w vae", ("comes first",)),
        ("train.sample --workdir w --nmu 3", ("--nmu", "--num?", "--help")),
        ("train vae --steps 3", ("--workdir is missing: give a path; ", "vae --help")),
        ("train.sample --num 3", ("--workdir is missing: give a path",)),
        (
            "train.sample --workdir w --step last",
            ("--step last: it must be a whole number, or one of best",),
        ),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(cli, line, words):
    refused(cli(line), *words)


def test_help_lists_experiments_and_options(cli):
    status, out, _ = cli("train --help")
    assert status == 0 and all(name in out for name in TINY)
    status, out, _ = cli("train flow --help")
    assert status == 0 and "--guidance-scale" in out and "--checkpoint-every" in out


def test_an_image_folder_trains_and_samples(cli, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    line = f"train gan --workdir {tmp_path / 'w'} --dataset folder:{tmp_path}/images"
    status, out, err = cli(f"{line} --image-size 8 --steps 2 {TINY['gan']} {EVENTS}")
    assert status == 0, err
    assert "centre" in out
    shutil.rmtree(tmp_path / "images")  # sampling needs the run alone
    out = tmp_path / "x.npz"
    assert cli(f"train.sample --workdir {tmp_path / 'w'} --num 3 --out {out}")[0] == 0
    arrays = np.load(out)
    assert arrays["image"].shape == (3, 8, 8, 3) and list(arrays["label"]) == [0, 1, 0]


@pytest.mark.parametrize("family", GENERATIVE)
def test_benchmark_writes_the_library_beside_the_bare_program(cli, runs, family):
    line = f"train.benchmark --workdir {runs / family} --num 4 --repeats 3"
    status, out, err = cli(line)
    assert status == 0, err
    result = json.loads((runs / family / "benchmark.json").read_text())
    for row in (result["gengen"], result["bare"]):
        assert row["network_evaluations"] == (4 if family == "flow" else 1)
        assert row["median_seconds"] > 0 and row["flops"] > 0
    assert "of the bare time" in out
    if family == "transformer":
        decoding = result["decoding"]
        assert decoding["naive_identical"] == decoding["jacobi_identical"] == 1
        assert 1 < decoding["jacobi_sweeps"] <= 65 and decoding["symbols"] == 64
        assert decoding["flops_over_one_pass"] < 1.3
        assert "identical samples" in out and "sweeps" in out


@pytest.mark.parametrize("keep", ["top", "left"])
def test_completions_agree_with_what_was_seen(cli, runs, tmp_path, keep):
    line = f"train.complete --workdir {runs / 'transformer'} --rows 2 --num 3"
    line = f"{line} --keep {keep} --out {tmp_path / 'c.png'}"
    if keep == "left":
        refused(cli(line), "one particle", "64 particles")
        line = f"{line} --particles 4"
    status, out, err = cli(line)
    assert status == 0, err
    assert ("effective particles" in out) == (keep == "left")
    assert Image.open(tmp_path / "c.png").size[0] > 5 * 64


def test_completion_refuses_what_it_cannot_do(cli, runs):
    refused(
        cli(f"train.complete --workdir {runs / 'gan'}"),
        "GAN has no complete",
        "diffusion",
    )
    line = f"train.complete --workdir {runs / 'transformer'}"
    refused(cli(f"{line} --share 1"), "--share 1.0", "below 1")
    refused(cli(f"{line} --temperature 0"), "--temperature 0", "above 0")
    refused(cli(f"{line} --out x.gif"), "x.gif", ".png")


def test_a_run_that_diverges_stops_and_keeps_its_last_good_checkpoint(cli, tmp_path):
    events = "--log-every 5 --sample-every 1000 --checkpoint-every 1 --keep 1"
    line = f"train vae --workdir {tmp_path / 'w'} {TINY['vae']} {events}"
    result = cli(f"{line} --learning-rate 1e30 --steps 400 --max-skipped 7")
    refused(result, "diverged", "vae/loss was not finite", "another --workdir")
    step = int(next((tmp_path / "w/checkpoints").glob("[0-9]*")).name)
    assert f"the checkpoint of step {step} stays" in result[2]
    assert np.isfinite(restored(tmp_path / "w")).all()
    rows = [json.loads(x) for x in (tmp_path / "w/metrics.jsonl").open()]
    assert any(row.get("vae/skipped", 0) > 0 for row in rows)
    assert all(np.isfinite(v) for row in rows for v in row.values())


def test_a_start_interrupted_before_its_first_checkpoint_starts_again(cli, tmp_path):
    line = f"train vae --workdir {tmp_path / 'w'} {TINY['vae']} {EVENTS} --steps 2"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.run.loop.run_steps", interrupt)
        status, _, err = cli(line)
        assert (status, err) == (130, "interrupted\n")
    assert cli(line)[0] == 0


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_a_loss_is_traced_once_in_a_run(cli, tmp_path, monkeypatch):
    traces, loss = [], VAE.loss

    def counted(*arguments):
        traces.append(1)
        return loss(*arguments)

    monkeypatch.setattr(VAE, "loss", counted)
    events = "--log-every 3 --sample-every 4 --checkpoint-every 4"
    line = f"train vae --workdir {tmp_path / 'w'} {TINY['vae']} {events}"
    assert cli(f"{line} --steps 5")[0] == 0
    assert len(traces) == 1
    assert cli(f"{line} --steps 6")[0] == 0
    assert len(traces) == 2


def test_what_cannot_be_written_is_told(cli, runs, tmp_path):
    (tmp_path / "file").write_text("")
    refused(cli(f"train vae --workdir {tmp_path}/file/w"), f"{tmp_path}/file")
    line = f"train.sample --workdir {runs / 'vae'} --num 2"
    refused(cli(f"{line} --out {tmp_path}/file/x.png"), f"{tmp_path}/file")
    refused(cli(f"train vae --workdir {tmp_path}/file"), "another --workdir")
