"""python -m tests.few_steps WHAT …: figures of few steps, which need training.

quality  Fréchet distance, precision and recall at 1, 2, 4 and 50 steps of the teacher,
         and of every method that learns to do with fewer
cost     a training step of each over one of the teacher, in turns; milliseconds per
         image at one step, at fifty, and of a GAN

picture  docs/images/few-steps.png: the table's distances against evaluations, and the
         first samples of each run at one step

A line of JSON a figure. --folder keeps the runs: an interrupted command goes on.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import numpy as np

from gengen.step import init_train_state, make_train_step
from gengen.types import Variables
from tests.record import ROOT
from train.cli.options import RunOptions
from train.data.load import load
from train.experiments import EXPERIMENTS
from train.measure.evaluation import evaluate
from train.measure.options import Evaluate
from train.run.loop import train
from train.run.sampler import default_sampler
from train.run.workdir import open_workdir

STEPS = 1, 2, 4, 50
RUNS = {  # name -> experiment, its options, and the runs that it reads
    "dit": ("dit", {"steps": 6_000}, {}),
    "meanflow": ("meanflow", {"steps": 8_000}, {}),
    "consistency": (
        "consistency",
        {"steps": 4_000, "stages": 4, "learning_rate": 5e-4},
        {"init_from": "dit"},
    ),
    "reflow": (
        "distill",
        {"method": "reflow", "steps": 6_000},
        {"teacher": "dit"},
    ),
    "progressive": (
        "distill",
        {"method": "progressive", "steps": 5_000},
        {"teacher": "dit"},
    ),
    "progressive, two steps": (
        "distill",
        {"method": "progressive", "steps": 5_000, "sampling_steps": 2},
        {"teacher": "dit"},
    ),
    "guidance": ("distill", {"method": "guidance"}, {"teacher": "dit"}),
    "adversarial": (
        "distill",
        {"method": "adversarial", "steps": 2_000, "learning_rate": 1e-4},
        {"teacher": "consistency"},
    ),
    "consistency-distillation": (
        "distill",
        {"method": "consistency", "steps": 4_000},
        {"teacher": "dit"},
    ),
    "drifting": ("drifting", {"steps": 3_000}, {}),
    "dmd": (
        "distill",
        {"method": "dmd", "steps": 1_000, "learning_rate": 2e-4},
        {"teacher": "dit"},
    ),
}
TAKES_ONE = {"adversarial", "drifting", "dmd"}


def trained(folder: Path, dataset: str, name: str) -> Path:
    """The folder of a run, which is trained to its end first."""
    experiment, options, others = RUNS[name]
    for other in others.values():
        trained(folder, dataset, other)
    asked = RunOptions(
        workdir=folder / name,
        dataset=dataset,
        sample_every=10**9,
        checkpoint_every=1_000,
        log_every=500,
        **{option: str(folder / other) for option, other in others.items()},
    )
    train(asked, experiment, vars(EXPERIMENTS[experiment].options(**options)))
    return asked.workdir


def quality(asked):
    """A line per run and number of steps."""
    for name in asked.runs or RUNS:
        workdir = trained(asked.folder, asked.dataset, name)
        for steps in (1,) if name in TAKES_ONE else STEPS:
            of_sampler = {} if name == "adversarial" else {"steps": steps}
            how = Evaluate(workdir=workdir, num=5_000, likelihood_num=0, **of_sampler)
            result = evaluate(how)
            figures = result["sample_quality"]
            yield {
                "run": name,
                "steps": steps,
                "evaluations": result["network_evaluations"],
                "Fréchet": round(figures["frechet_distance"]["value"], 4),
                "precision": round(figures["precision"]["value"], 3),
                "recall": round(figures["recall"]["value"], 3),
                "right class": round(result["class_accuracy"], 3),
                "ms per image": round(1e3 * result["seconds_per_sample"], 3),
                "training s": round(result["training_seconds"]),
            }


def cost(asked):
    """A line per loss, of steps of one batch of 64; and one per sampler."""
    spec, batch = load("digits").spec, load("digits").fetch(np.arange(64))
    teacher = EXPERIMENTS["dit"](spec)
    programs = {"dit": stepped(teacher, batch, {})}
    params, state = jax.jit(teacher.model.init)(jax.random.key(0))
    frozen = {"teacher": Variables(params, state)}
    for identity in ("meanflow", "improved", "shortcut"):
        for scale in (1.0, 1.5):
            own = EXPERIMENTS["meanflow"](
                spec, identity=identity, learned_guidance=scale
            )
            name = f"meanflow, {identity}" + (", guided" if scale != 1 else "")
            programs[name] = stepped(own, batch, {})
    programs["consistency"] = stepped(EXPERIMENTS["consistency"](spec), batch, {})
    for method in ("progressive", "consistency", "guidance", "reflow", "dmd"):
        own = EXPERIMENTS["distill"](spec, method=method, pairs=250)
        own = own.taught(teacher.model)
        held = dict(frozen)
        if method == "reflow":
            held |= own.model.prepared(jax.random.key(0), {"frozen": frozen})
        programs[f"distill, {method}"] = stepped(own, batch, held)
    times = in_turns(programs, asked.rounds)
    for name, own in times.items():
        yield {
            "step of": name,
            "ms": round(1e3 * statistics.median(own), 2),
            "over the teacher's": ratio(own, times["dit"]),
        }
    yield from sampling(asked, spec, teacher)


def sampling(asked, spec, teacher):
    """Milliseconds per image, of 250 images."""

    def drawn(model, **more):
        params, state = jax.jit(model.init)(jax.random.key(0))
        draw = jax.jit(lambda key: model.sample(params, state, key, 250, **more))
        jax.block_until_ready(draw(jax.random.key(0)))
        return lambda: draw(jax.random.key(1))

    sampler = default_sampler(teacher.model)
    flow = EXPERIMENTS["meanflow"](spec).model
    programs = {
        "dit, 50 steps, guided": drawn(teacher.model),
        "dit, 50 steps": drawn(teacher.model, sampler=sampler.replace(scale=1.0)),
        "meanflow, 1 step": drawn(flow),
        "gan": drawn(EXPERIMENTS["gan"](spec).model),
    }
    times = in_turns(programs, asked.rounds)
    for name, own in times.items():
        yield {
            "images of": name,
            "ms": round(4 * statistics.median(own), 3),
            "over one step": ratio(own, times["meanflow, 1 step"]),
        }


def ratio(times: list[float], others: list[float]) -> float:
    """The median of a / b, pair by pair."""
    pairs = zip(times, others, strict=True)
    return round(statistics.median(a / b for a, b in pairs), 2)


def stepped(experiment, batch, frozen):
    """One step of training, compiled."""
    model = experiment.model
    params, state = jax.jit(model.init)(jax.random.key(0))
    begun = init_train_state(jax.random.key(1), params, state, experiment.optimizers)
    made = model.losses(), experiment.optimizers, experiment.order, 0.99
    step = jax.jit(make_train_step(*made))
    jax.block_until_ready(step(begun, batch, frozen))
    return lambda: step(begun, batch, frozen)


def in_turns(programs, rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each program, one after the other, in every round."""
    times = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            began = time.process_time()
            jax.block_until_ready(program())
            times[name].append(time.process_time() - began)
    return times


def picture(asked):
    """Draws what `quality` has recorded, and the runs' first samples."""
    import matplotlib.pyplot as plt

    table = json.loads((ROOT / "results/few-steps/1-digits.json").read_text())
    rows = [row for run in table["runs"] for row in run["rows"]]
    names = list(dict.fromkeys(row["run"] for row in rows))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), width_ratios=(1, 1.3))
    for name in names:
        points = [(r["evaluations"], r["Fréchet"]) for r in rows if r["run"] == name]
        left.loglog(*zip(*points, strict=True), ".-", label=name)
    left.set(xlabel="network evaluations", ylabel="Fréchet distance")
    left.legend(fontsize=8)
    strips, said = [], []
    for name, steps in [
        ("dit", 50),
        ("dit", 1),
        *((n, 1) for n in names if n != "dit"),
    ]:
        run = open_workdir(asked.folder / name)
        x = run.sample(20, steps=steps)[..., 0] / (run.record.data.levels - 1)
        strips.append(np.pad(np.hstack(np.pad(x, ((0, 0), (1, 1), (1, 1)))), 1))
        said.append(f"{name}, {steps} step{'s' * (steps > 1)}")
    right.imshow(np.vstack(strips), cmap="gray", aspect="equal")
    height = len(strips[0])
    right.set(xticks=[], yticks=[height * (i + 0.5) for i in range(len(said))])
    right.set_yticklabels(said, fontsize=8)
    figure.tight_layout()
    out = ROOT / "docs/images/few-steps.png"
    figure.savefig(out, dpi=80)
    yield {"picture": str(out.relative_to(ROOT))}


def main() -> None:
    """The command line."""
    kinds = {"quality": quality, "cost": cost, "picture": picture}
    parser = argparse.ArgumentParser(
        prog="python -m tests.few_steps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=kinds)
    parser.add_argument("--runs", nargs="+", choices=RUNS, help="by default all")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, default=Path("runs/few-steps"))
    asked = parser.parse_args()
    for row in kinds[asked.what](asked):
        print(json.dumps(row, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
