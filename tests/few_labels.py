"""python -m tests.few_labels [NAME …]: what classifiers reach with few labels.

A row per model of `MODELS`: the accuracy of test images of digits. The runs go to
runs/few-labels; all of them in one process, so that nothing is compiled twice.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np

from tests.program import call
from train import open_run
from train.measure.per_example import classifier_metrics
from train.run.heldout import batches, measure

FOLDER = Path("runs/few-labels")
ONCE = "--sample-every 5000 --checkpoint-every 5000"
MLP = f"classifier --network mlp --shift 0 --steps 400 {ONCE}"
SETS = {"10": "few-labels:10:digits", "30": "few-labels:30:digits", "all": "digits"}
MODELS = {"vae": f"vae --steps 1000 {ONCE}"}
for each, name in SETS.items():
    some = f"{MLP} --dataset {name} --batch-size 500"
    MODELS[f"from scratch {each}"] = some
    MODELS[f"from the encoder {each}"] = f"{some} --init-from {FOLDER / 'vae'}"
FEW = "--dataset few-labels:10:digits"
MODELS["m2 10"] = f"m2 {FEW} --augment shift {ONCE}"
MODELS["resnet 10"] = f"classifier {FEW} --batch-size 250 --steps 250 {ONCE}"


def accuracy(run) -> float:
    """The share of the test images whose label is found."""
    dataset = run.dataset("test")
    function = classifier_metrics(run.model)[0].function
    stream = batches(dataset, np.arange(dataset.size), dataset.size)
    arguments = run.params, run.state, stream, dataset.size, jax.random.key(0)
    return float(np.mean(measure(function, *arguments)))


def main() -> None:
    """The command line."""
    for name in sys.argv[1:] or list(MODELS):
        workdir = FOLDER / name.replace(" ", "-")
        sys.stdout, printed = sys.stderr, sys.stdout
        status = call(f"train {MODELS[name]} --workdir {workdir}")
        sys.stdout = printed
        if status:
            raise SystemExit(status)
        if name != "vae":
            model, _, labels = name.rpartition(" ")
            row = {"model": model, "labels of each class": labels}
            row["test accuracy"] = accuracy(open_run(workdir))
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
