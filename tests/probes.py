"""python -m tests.probes NAME: a linear probe of the features of a model of `MODELS`.

The run goes to runs/probes/NAME. A row: the accuracy of test images of digits by
logistic regression on 10 labels of each class, and on all, from the features, from
those of the same network untrained, and from pixels.
"""

import argparse
import json
from pathlib import Path

from tests.program import call

MODELS = {
    "autoencoder": "autoencoder",
    "vae": "vae",
    "beta-vae": "vae --beta 4",
    "hvae": "hvae",
    "vqvae": "vqvae",
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.probes")
    parser.add_argument("name", choices=MODELS)
    asked = parser.parse_args()
    workdir = Path("runs/probes", asked.name)
    for line in (f"train {MODELS[asked.name]}", "train.probe"):
        if call(f"{line} --workdir {workdir}"):
            raise SystemExit(1)
    found = json.loads((workdir / "probe.json").read_text())["accuracy"]
    row = {"model": asked.name}
    for name, accuracy in found.items():
        name = name.removesuffix(" features")
        row |= {f"{name} 10": round(accuracy["few"], 4)}
        row |= {f"{name} all": round(accuracy["all"], 4)}
    print(json.dumps(row))


if __name__ == "__main__":
    main()
