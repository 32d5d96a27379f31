"""python -m tests.augmented EXPERIMENT …: what drawn images are worth to a classifier.

A conditional EXPERIMENT is trained on N images of each class of digits, with --options;
1,000 of its samples are added to these, and a classifier learns from both. A row for
each N of --per-class: the accuracy of test images with and without what was drawn. The
runs go to runs/augmented.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from tests.few_labels import accuracy
from tests.program import call
from train import open_run

ONCE = "--sample-every 100000 --checkpoint-every 100000"
CLASSIFIER = f"classifier --steps 600 {ONCE}"


def done(line: str) -> None:
    """A command that must succeed."""
    if call(line):
        raise SystemExit(1)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.augmented")
    parser.add_argument("experiment")
    parser.add_argument("--options", default="", help="of the experiment")
    parser.add_argument("--per-class", type=int, nargs="+", default=[10, 30, 90])
    parser.add_argument("--seeds", type=int, default=3, help="classifiers of each")
    asked = parser.parse_args()
    for each in asked.per_class:
        few = f"few-images:{each}:digits"
        folder = Path("runs/augmented", f"{asked.experiment}-{each}")
        drawn = folder / "drawn.npz"
        model = f"{asked.experiment} --conditional {asked.options} {ONCE}"
        done(f"train {model} --dataset {few} --workdir {folder}")
        done(f"train.sample --workdir {folder} --num 1000 --out {drawn}")
        row = {"model": asked.experiment, "images of each class": each}
        sets = {"without": few, "with samples": f"more:{drawn}:{few}"}
        for name, dataset in sets.items():
            found = []
            for seed in range(asked.seeds):
                own = folder / f"{name.split()[0]}-{seed}"
                more = f"--dataset {dataset} --seed {seed} --workdir {own}"
                done(f"train {CLASSIFIER} {more}")
                found.append(round(accuracy(open_run(own)), 4))
            row[name] = round(float(np.mean(found)), 4)
            row[f"{name}, range"] = f"{min(found)} to {max(found)}"
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
