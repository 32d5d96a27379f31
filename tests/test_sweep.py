"""Samples against their sampler's options: what is asked, drawn once, and told."""

import json
import shutil
from dataclasses import replace

import pytest
from PIL import Image
from program import refused

import train.measure.quality
from gengen.conditions import Labels, Nothing
from gengen.diffusion.paths import Linear, VariancePreserving
from gengen.diffusion.process import Noise, Process, Velocity
from gengen.errors import BadInput
from gengen.models.diffusion import Diffusion
from gengen.models.gan import GAN
from gengen.nets.unet import UNet
from gengen.spaces import Images
from train.files import write_json
from train.measure.sampler_sweep import points, read_sweep, steps_within
from train.measure.sweep_table import abscissa, lines_of
from train.run.sampler import as_keywords, calls_of

THREE = Labels(3)
FLOW = Diffusion(
    UNet(8, condition=THREE),
    Process(Linear(), Velocity()),
    Images((8, 8, 1)),
    THREE,
)
NOISE = Process(VariancePreserving(), Noise())  # ends short of data: one jump more


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("process", [FLOW.process, NOISE])
def test_steps_are_the_most_that_the_evaluations_allow(process, solver, scale):
    model = replace(FLOW, process=process)
    point = {"solver": solver, "guidance_scale": scale}
    sampler = as_keywords(model, point)["sampler"]
    each = sampler.solver.nfe(1) * (2 if scale > 1 else 1)
    jump = model.nfe(sampler.replace(steps=1)) - each
    assert jump == (process is NOISE) * (2 if scale > 1 else 1)
    for asked in (each, each + 1, 3 * each - 1, 20):
        steps = steps_within(model, asked, point)
        true = model.nfe(sampler.replace(steps=steps)) - jump
        assert true <= asked < true + each
    if each > 1:
        with pytest.raises(BadInput, match=f"{solver}.* takes {each}; take at least"):
            steps_within(model, each - 1, point)


def test_points_are_the_product_each_once():
    values = {"steps": (5, 10, 5), "solver": ("heun", "ddim")}
    assert points(FLOW, values) == [
        {"solver": solver, "steps": steps}
        for solver in ("heun", "ddim")
        for steps in (5, 10)
    ]
    # Two budgets of the same whole steps are one point.
    values = {"evaluations": (4, 5), "solver": ("heun",)}
    assert points(FLOW, values) == [{"solver": "heun", "steps": 2}]
    with pytest.raises(BadInput, match="guidance scale 2.0: the model is uncond"):
        plain = replace(FLOW, net=UNet(8), condition=Nothing())
        points(plain, {"evaluations": (8,), "guidance_scale": (2.0,)})
    with pytest.raises(BadInput, match="--solver heun: a GAN's sampler has no such"):
        points(GAN.__new__(GAN), {"solver": ("heun",)})


def test_the_axis_is_the_first_option_that_varies_and_lines_are_the_others():
    def drawn(**values):
        asked = {k: v for k, v in values.items() if k != "evaluations"}
        if "evaluations" in values:
            asked["steps"] = values["evaluations"]
        model = FLOW
        result = {
            "experiment": "flow",
            "points": [
                {
                    "options": o,
                    "network_evaluations": calls_of(model, as_keywords(model, o)),
                }
                for o in points(model, asked)
            ],
        }
        axis, lines = lines_of(result, values)
        return axis, {k: [abscissa(p, axis) for p in v] for k, v in lines.items()}

    solver, scale = ("euler", "heun"), (1.0, 3.0)
    axis, lines = drawn(evaluations=(4, 6), solver=solver)
    assert (axis, lines) == ("evaluations", {"euler": [4, 6], "heun": [8, 12]})
    axis, lines = drawn(steps=(4,), guidance_scale=scale)
    assert (axis, lines) == ("guidance_scale", {"flow": [1, 3]})
    axis, lines = drawn(steps=(4, 5), guidance_scale=scale)
    named = {"guidance scale 1": [4, 5], "guidance scale 3": [8, 10]}
    assert (axis, lines) == ("steps", named)
    assert drawn(solver=solver)[1] == {"euler": [50], "heun": [100]}
    assert drawn(guidance_scale=(2.0,)) == ("guidance_scale", {"flow": [2]})


def test_another_sweep_is_refused_and_not_lost(tmp_path):
    out, seed = tmp_path / "sweep.json", {"seed": 0, "step": 4}
    assert read_sweep(out, seed) == {**seed, "points": []}
    write_json(out, {**seed, "points": []})
    assert read_sweep(out, seed) == {**seed, "points": []}
    with pytest.raises(BadInput, match="sweep of seed 0, not 1: take another --out"):
        read_sweep(out, {**seed, "seed": 1})
    for text in ("{}", "[]", "{", '{"seed": 0, "step": 4, "points": [1]}'):
        out.write_text(text)
        with pytest.raises(BadInput, match="not a sweep's: take another --out"):
            read_sweep(out, seed)
        assert out.read_text() == text


@pytest.fixture
def copy(runs, tmp_path):
    """A copy of a tiny run, beside the tiny classifier as its default extractor."""

    def make(name):
        shutil.copytree(runs / "classifier", tmp_path / "classifier-digits")
        return shutil.copytree(runs / name, tmp_path / name)

    return make


def test_a_sweep_is_evaluations_none_of_them_twice(cli, copy, monkeypatch):
    workdir, drawn, stop_at = copy("flow"), [], [3]
    batch = train.measure.quality.Sampler.batch

    def counted(self, *arguments):
        drawn.append(self)
        if len(drawn) in stop_at:
            raise KeyboardInterrupt
        return batch(self, *arguments)

    monkeypatch.setattr(train.measure.quality.Sampler, "batch", counted)
    line = f"train.sweep --workdir {workdir} --num 40 --solver euler heun"
    few, file = f"{line} --evaluations 5", workdir / "sweep.json"
    assert cli(few)[0] == 130  # in the second point: a point is drawn, and timed again
    (first,) = json.loads(file.read_text())["points"]
    assert first["options"] == {"solver": "euler", "steps": 2}
    assert first["network_evaluations"] == 4
    stop_at.clear(), drawn.clear()
    status, out, err = cli(few)
    assert status == 0, err
    assert "cost: 2 points of 40 samples, of 4 to 4 network" in out
    assert "1 of 2 points are there" in out and len(drawn) == 2
    assert not (workdir / "sweep.part").exists()
    drawn.clear()
    table = (workdir / "sweep.md").read_text()
    again = cli(few)[1]
    assert table.partition("\n\n")[2] in again and not drawn
    rows = [row for row in table.splitlines() if row.startswith("|")]
    assert len(rows) == 5 and len({len(row) for row in rows}) == 1
    assert "| heun" in rows[3] and "noise floor" in rows[4]
    with Image.open(workdir / "sweep.png") as picture:
        assert picture.size[0] > 3 * picture.size[1]
    result = json.loads(file.read_text())
    assert result["points"][0] == first
    # The law: a point is what train.evaluate says.
    options = "--num 40 --solver heun --steps 1 --likelihood-num 10"
    assert cli(f"train.evaluate --workdir {workdir} {options}")[0] == 0
    evaluation = json.loads((workdir / "evaluation.json").read_text())
    for name in ("sample_quality", "class_accuracy", "network_evaluations"):
        assert result["points"][1][name] == evaluation[name]
    for name in ("noise_floor", "extractor"):
        assert result[name] == evaluation[name]


def test_any_sampler_is_swept_over_its_own_options(cli, copy):
    workdir = copy("transformer")
    line = f"train.sweep --workdir {workdir} --temperature 0.5 1 --num 20"
    status, out, err = cli(f"{line} --out {workdir}/cold.json")
    assert status == 0, err
    result = json.loads((workdir / "cold.json").read_text())
    assert [p["options"]["temperature"] for p in result["points"]] == [0.5, 1.0]
    cold, warm = (p["sample_quality"] for p in result["points"])
    assert cold["frechet_distance"] != warm["frechet_distance"]
    assert f"{workdir}/cold.png" in out and (workdir / "cold.png").exists()


def test_what_cannot_be_swept_is_refused_before_work(cli, runs):
    flow, gan = (f"train.sweep --workdir {runs / name}" for name in ("flow", "gan"))
    refused(cli(flow), "nothing to sweep", "--evaluations")
    refused(cli(f"{flow} --steps 5 0"), "--steps 0", "at least 1")
    refused(cli(f"{flow} --evaluations 0"), "--evaluations 0", "at least 1")
    refused(cli(f"{flow} --steps 5 --evaluations 5"), "leave one out")
    refused(cli(f"{flow} --steps 5 --num 3"), "--num 3", "at least 10")
    refused(cli(f"{flow} --steps 5 --out x.png"), "--out x.png", ".json")
    refused(cli(f"{gan} --evaluations 5"), "GAN's sampler has no steps to sweep")
    line = f"train.sweep --workdir {runs / 'classifier'} --steps 5"
    refused(cli(line), "this Classifier draws no samples")
    status, _, err = cli(f"{flow} --solver heum --steps 5")
    assert status == 2 and "heum" in err and "Traceback" not in err
    assert not (runs / "flow" / "sweep.json").exists()


def test_training_options_are_swept_a_run_each_none_of_them_twice(cli, copy):
    workdir = copy("vae")
    out = workdir.with_name("vae-sweep")
    line = f"train.sweep --workdir {workdir} --num 30 --likelihood-num 20"
    line += " --train learning_rate=1e-3,1e30 latent=2 steps=3"
    status, told, err = cli(line)
    assert status == 0, err
    assert "cost: 2 runs of vae, each trained for at most 3 steps" in told
    result = json.loads((out / "sweep.json").read_text())
    (point,) = result["points"]  # the other one diverges
    assert point["options"] == {"learning_rate": 1e-3, "latent": 2, "steps": 3}
    (failed,) = result["failed"]
    assert failed == "learning_rate=1e+30,latent=2,steps=3"
    assert "diverged" in result["failed"][failed]
    run = out / "learning_rate=0.001,latent=2,steps=3"
    record = json.loads((run / "experiment.json").read_text())
    base = json.loads((workdir / "experiment.json").read_text())
    # All else is the run's own, and a point is what train.evaluate says.
    assert record["options"] == base["options"] | point["options"]
    assert record["run"] == base["run"]
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert point["sample_quality"] == evaluation["sample_quality"]
    assert point["bits_per_dim"] == evaluation["bits_per_dim"]["test"]["value"]
    assert not (out / "classifier-digits").exists()  # one beside the run is there
    table = (out / "sweep.md").read_text()
    assert "bits/dim" in table and "training s" in table and "failed" in table
    with Image.open(out / "sweep.png") as picture:
        assert picture.size[0] > 3 * picture.size[1]
    again = cli(line)[1]
    assert "already evaluated" in again and again.count("nothing to do") == 1


def test_what_cannot_be_trained_is_refused_before_work(cli, runs):
    line = f"train.sweep --workdir {runs / 'vae'} --train"
    refused(cli(f"{line} latend=2"), "no option latend", "did you mean latent?")
    refused(cli(f"{line} latent"), "--train latent", "NAME=VALUE")
    refused(cli(f"{line} latent=two"), "'two' is no value", "--help")
    refused(cli(f"{line} latent=2,0"), "--latent 0", "at least 1")
    refused(cli(f"{line} latent=2 latent=3"), "listed twice")
    refused(cli(f"{line} latent=2 --solver heun"), "--train and --solver")
    refused(cli(f"{line} latent=2 --num 3"), "--num 3", "at least 10")
    minutes = f"train.sweep --workdir {runs / 'vae'} --temperature 1 --minutes 1"
    refused(cli(minutes), "without --train")
    assert not (runs / "vae-sweep").exists()
