"""python -m tests.bounds NAME: train a model of `MODELS`; its bounds of test images.

The runs go to runs/bounds/NAME, so that the same command does not train again. A row:
the ELBO and IWAE-K in bits per dimension of the test split, and what z is worth (KL).
"""

import argparse
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np

from gengen.tasks.latents import rate_and_distortion
from gengen.types import Encodes
from tests.program import call
from train import open_run
from train.run.heldout import batches, measure, metric, subset

FASHION = "--dataset fashion_mnist --hidden 512 256 --latent 32 --steps 12000"
FASHION += " --sample-every 12000 --checkpoint-every 6000 --log-every 1000"
PIXELS = "--decoder pixelcnn --pixelcnn-width 16 --steps 600 --ema-decay 0.99"
PIXELS += " --sample-every 600 --annealing-steps 200"
MODELS = {
    "bernoulli": "vae --likelihood bernoulli",
    "gaussian": "vae --likelihood gaussian",
    "logistic": "vae",
    "categorical": "vae --likelihood categorical",
    "mixture of logistics": "vae --likelihood mixture",
    "mixture prior": "vae --prior mixture",
    "vamp prior": "vae --prior vamp",
    "flow prior": "vae --prior flow",
    "flow prior, mixture of logistics": "vae --prior flow --likelihood mixture",
    "hierarchical": "hvae",
    "pixelcnn": f"vae {PIXELS}",
    "pixelcnn, categorical": f"vae {PIXELS} --likelihood categorical",
    "pixelcnn, 8 nats free": f"vae {PIXELS} --prior flow --free-nats 8",
    "fashion unit": f"vae {FASHION}",
    "fashion flow": f"vae {FASHION} --prior flow",
}


def bits(run, split: str, num: int, samples: int) -> float:
    """The bound of the first `num` shuffled examples, with so many draws each."""
    model = dataclasses.replace(run.model, importance_samples=samples)
    dataset = run.dataset(split)
    places = subset(dataset, min(num, dataset.size))
    function = jax.jit(metric(model, run.record.data.shape)[1])
    stream, key = batches(dataset, places, 128), jax.random.key(0)
    arguments = run.params, run.state, stream, len(places), key
    return float(np.mean(measure(function, *arguments)))


def rate(run, split: str, num: int) -> float | None:
    """The KL in nats; None without one posterior."""
    if not isinstance(run.model, Encodes):
        return None

    def nats(*arguments):
        return rate_and_distortion(run.model, *arguments)[0]

    dataset = run.dataset(split)
    places = subset(dataset, min(num, dataset.size))
    stream, key = batches(dataset, places, 128), jax.random.key(0)
    arguments = run.params, run.state, stream, len(places), key
    return float(np.mean(measure(jax.jit(nats), *arguments)))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bounds")
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("--num", type=int, default=10_000, help="test images, at most")
    parser.add_argument("--samples", type=int, default=500, help="K of IWAE")
    asked = parser.parse_args()
    workdir = Path("runs/bounds", asked.name.replace(",", "").replace(" ", "-"))
    if call(f"train {MODELS[asked.name]} --workdir {workdir}"):
        raise SystemExit(1)
    run = open_run(workdir)
    row = {"model": asked.name, "ELBO": bits(run, "test", asked.num, 1)}
    row[f"IWAE-{asked.samples}"] = bits(run, "test", asked.num, asked.samples)
    row["KL in nats"] = rate(run, "test", asked.num)
    row["parameters"] = sum(x.size for x in jax.tree.leaves(run.params))
    print(json.dumps(row))


if __name__ == "__main__":
    main()
