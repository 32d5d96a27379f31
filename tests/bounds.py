"""python -m tests.bounds NAME: train a model of `MODELS`; its bounds of test images.

The runs go to runs/bounds/NAME, so that the same command does not train again. A row:
the ELBO and IWAE-K of the test split in bits per dimension, or in nats where pixels are
black or white, and what z is worth (KL, nats); or the use of a book of codes over the
training set, and the squared error of restored test images, x in [-1, 1].
"""

import argparse
import json
import math
from functools import partial
from pathlib import Path

import jax
import numpy as np

from gengen.tasks.latents import rate_and_distortion
from gengen.types import Encodes, OnlyReconstructs
from tests.program import call
from train import open_run
from train.run.codebook import encoder, use_of_codes
from train.run.heldout import (
    batches,
    measure,
    metric,
    squared_error,
    subset,
    with_importance_samples,
)

LONG = "--sample-every 100000 --checkpoint-every 20000 --log-every 5000"
FASHION = f"--dataset fashion_mnist --hidden 512 256 --latent 32 --steps 20000 {LONG}"
# The networks and the data of Norouzi et al. 2020, arXiv:2004.04795, table 2.
BINARY = "--dataset binarised:fashion_mnist --likelihood bernoulli --hidden 300 300"
BINARY += f" --latent 40 --batch-size 100 --steps 100000 --rate-schedule cosine {LONG}"
MAPS = f"--dataset fashion_mnist --batch-size 64 --steps 2000 {LONG}"
PRIOR = "prior --first-stage runs/bounds"
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
    "codes": "vqvae",
    "prior of codes": f"{PRIOR}/codes",
    "finite codes": "vqvae --quantizer fsq",
    "prior of finite codes": f"{PRIOR}/finite-codes",
    "fashion codes": f"vqvae {MAPS}",
    "fashion finite codes": f"vqvae {MAPS} --quantizer fsq",
    "realnvp": "realnvp",
    "fashion unit": f"vae {FASHION}",
    "fashion flow": f"vae {FASHION} --prior flow",
    "fashion flow, mixture": f"vae {FASHION} --prior flow --likelihood mixture",
    "binary unit": f"vae {BINARY}",
    "binary vamp": f"vae {BINARY} --prior vamp --prior-components 500",
    "binary flow": f"vae {BINARY} --prior flow",
}


def figures(run, num: int, samples: int) -> dict[str, float]:
    """Bounds of the first `num` shuffled test images, or what is restored of them."""
    dataset = run.dataset("test")
    places, key = subset(dataset, min(num, dataset.size)), jax.random.key(0)

    def mean(function) -> float:
        stream = batches(dataset, places, 128)
        arguments = run.params, run.state, stream, len(places), key
        return float(np.mean(measure(jax.jit(function), *arguments)))

    def bound(model) -> float:
        return scale * mean(metric(model, run.record.data.shape)[1])

    if isinstance(run.model, OnlyReconstructs):
        book, epoch = run.model.codes.size, run.dataset("train")
        encode = partial(jax.jit(encoder(run.model)), run.params, run.state)
        stream = batches(epoch, np.arange(epoch.size), 200)
        use = use_of_codes(encode, book, stream, epoch.size)
        error = {"squared error": mean(partial(squared_error, run.model))}
        return {"codes": book} | {k: use[k] for k in ("usage", "perplexity")} | error
    binary = run.model.space.size == 2
    scale = math.prod(run.record.data.shape) * math.log(2) if binary else 1.0
    unit = "nats" if binary else "bits/dim"
    found = {"figure": f"{run.model.likelihood_kind}, {unit}"}
    found["one draw"] = bound(run.model)
    if hasattr(run.model, "importance_samples"):
        found["IWAE-K"] = bound(with_importance_samples(run.model, samples))
    if isinstance(run.model, Encodes):
        found["KL"] = mean(lambda *a: rate_and_distortion(run.model, *a)[0])
    return found


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
    row = {"model": asked.name} | figures(run, asked.num, asked.samples)
    row["parameters"] = sum(x.size for x in jax.tree.leaves(run.params))
    print(json.dumps({k: rounded(v) for k, v in row.items()}))


def rounded(value):
    """A number as tables show it."""
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
