"""python -m tests.gaussian WORKDIR --out FILE.png: why an autoencoder cannot sample.

A Gaussian is fitted to the codes of the training images, and draws of it are decoded. A
line of JSON: the Fréchet distance to the training images, in the default classifier's
features, of these draws, of what the autoencoder restores of test images, and of the
test images themselves. The picture: a row of each.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np

from gengen.images import to_unit
from gengen.latent.fitted import fitted_gaussian
from gengen.metrics.frechet import frechet_distance, moments
from train.measure.extractors import open_extractor
from train.run.pictures import save_grid, to_uint8
from train.run.workdir import open_workdir

COLUMNS = 10


def main() -> None:
    """Fit, draw, measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.gaussian")
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num", type=int, default=1_000, help="draws")
    asked = parser.parse_args()
    run = open_workdir(asked.workdir)
    model, arrays = run.model, (run.params, run.state)
    train, test = (run.data(split) for split in ("train", "test"))
    codes = jax.jit(model.features)(*arrays, train, None)
    z = fitted_gaussian(codes).sample(jax.random.key(0), asked.num)
    drawn = model.from_latent(*arrays, z.reshape(-1, *model.latent_shape))
    sets = {
        "draws of the Gaussian": drawn,
        "restored test images": jax.jit(model.reconstruct)(*arrays, test, None),
        "test images": to_unit(test["image"], run.record.data.levels),
    }
    extractor = open_extractor(None, asked.workdir, run.record, None)
    real = moments(extractor(to_unit(train["image"], run.record.data.levels))[0])
    sets = {name: np.clip(np.asarray(x), -1, 1) for name, x in sets.items()}
    distances = {
        name: float(frechet_distance(real, moments(extractor(x)[0])))
        for name, x in sets.items()
    }
    x = np.concatenate([x[:COLUMNS] for x in sets.values()])
    save_grid(asked.out, to_uint8(x), COLUMNS, tuple(sets))
    print(json.dumps(distances))


if __name__ == "__main__":
    main()
