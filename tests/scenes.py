"""python -m tests.scenes restored | faithful | guided | retrieval: what captions do.

On scenes of one thing, by a classifier of all pairs of colour and kind, the judge. Runs
that are not in runs/scenes/ are trained first.

    restored   each first stage on test scenes: PSNR, the Fréchet distance in the
               judge's features, sharpness (the energy of differences of neighbours,
               over that of the images), and what the judge still recognises
    faithful   how many samples show what their caption says, of pairs that occur in
               training and of those that never do, by guidance scale
    guided     how many samples of a run that knows no captions show the caption to
               which a CLIP of noisy images guides them, by the guide's scale
    retrieval  recall at one of 100 of a CLIP on scenes of one or two things, both ways
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np

from gengen.metrics.frechet import frechet_distance, moments
from gengen.tasks.retrieval import GALLERY, Recall
from tests.program import call
from train.data.load import load
from train.data.scenes import PAIRS, SEEN, UNSEEN
from train.run import guides
from train.run.heldout import batches, measure
from train.run.sampler import Sampler
from train.run.workdir import open_workdir
from train.sample import Sample

WAYS = "image to text", "text to image"
FOLDER = Path("runs/scenes")
FIRST = "autoencoder_kl --dataset scenes:1 --channels 16 --critic-channels 16 "
FIRST += "--batch-size 16 --steps 1200 --sample-every 600 --rate-schedule cosine"
RUNS = {
    "judge": "classifier --dataset scenes:1:all --channels 16 --multipliers 1 2 4 "
    "--shift 2 --steps 1500 --batch-size 64 --learning-rate 2e-3 "
    "--rate-schedule cosine",
    "kl": f"{FIRST} --adversarial 0",
    "kl-gan": FIRST,
    "kl-maps": f"{FIRST} --adversarial 0 --perceptual {FOLDER}/judge",
    "latent": f"dit --dataset scenes:1 --first-stage {FOLDER}/kl-gan --patch 2 "
    "--width 96 --blocks 4 --batch-size 32 --steps 5000 --learning-rate 2e-3 "
    "--rate-schedule cosine --text-width 32 --text-blocks 1 --sample-every 2500 "
    "--checkpoint-every 1000 --ema-decay 0.998",
    "clip": "clip",
    "free": "dit --dataset scenes:1 --no-conditional --patch 4 --width 96 --blocks 4 "
    "--batch-size 32 --steps 2500 --learning-rate 2e-3 --rate-schedule cosine "
    "--sample-every 2500 --ema-decay 0.998",
    "clip-noisy": "clip --dataset scenes:1 --path linear --channels 8 --batch-size 64 "
    "--steps 600 --warmup 50 --ema-decay 0.99",
}


def opened(name: str):
    """A run, trained if it is not there."""
    workdir = FOLDER / name
    there = (workdir / "samples.png").exists()
    if not there and call(f"train {RUNS[name]} --workdir {workdir}"):
        raise SystemExit(1)
    return open_workdir(workdir)


def judged(judge, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the classes that the judge sees [N], its features [N, F]) of uint8 images."""

    @jax.jit
    def see(batch):
        ask = judge.params, judge.state, batch, jax.random.key(0)
        log_p = judge.model.log_prob_labels(*ask)
        return log_p.argmax(-1), judge.model.features(*ask)

    parts = [see({"image": image[i : i + 250]}) for i in range(0, len(image), 250)]
    classes, features = zip(*parts, strict=True)
    return np.concatenate(classes), np.concatenate(features).astype(np.float64)


def energy(image: np.ndarray) -> float:
    """The mean square of differences of neighbouring pixels."""
    x = image.astype(np.float64)
    return sum(np.mean(np.square(np.diff(x, axis=axis))) for axis in (1, 2))


def as_bytes(x) -> np.ndarray:
    """Images in [-1, 1] -> uint8."""
    return np.clip(np.rint((np.asarray(x) + 1) * 127.5), 0, 255).astype(np.uint8)


def restored() -> None:
    """A row for the images themselves and for each first stage."""
    judge, data = opened("judge"), load("scenes:1", split="test")
    batch = data.fetch(np.arange(data.size))
    classes, features = judged(judge, batch["image"])
    half = [moments(features[i::2]) for i in (0, 1)]
    row = {"first stage": "none: the images", "frechet": frechet_distance(*half)}
    right = float(np.mean(classes == batch["label"]))
    print(json.dumps({**row, "sharpness": 1.0, "recognised": right}))
    names = {"kl": "without a critic", "kl-gan": "with", "kl-maps": "with --perceptual"}
    for name, words in names.items():
        run = opened(name)
        restore = jax.jit(run.model.reconstruct)
        parts = [
            restore(run.params, run.state, {"image": image}, jax.random.key(0))
            for image in np.split(batch["image"], data.size // 250)
        ]
        again = as_bytes(np.concatenate(parts))
        error = np.square(again.astype(float) - batch["image"]).mean((1, 2, 3))
        classes, found = judged(judge, again)
        row = {
            "first stage": words,
            "psnr": float(np.mean(10 * np.log10(255**2 / error))),
            "frechet": frechet_distance(moments(features), moments(found)),
            "sharpness": energy(again) / energy(batch["image"]),
            "recognised": float(np.mean(classes == batch["label"])),
        }
        print(json.dumps(row))


def faithful(scales: list[float], num: int, steps: int) -> None:
    """A row for the judge on data, and for each guidance scale."""
    judge, run = opened("judge"), opened("latent")
    row = {"guidance": "none: data"}
    for name, split in (("seen", "test"), ("unseen", "unseen")):
        data = load("scenes:1", split=split)
        batch = data.fetch(np.arange(data.size))
        classes, _ = judged(judge, batch["image"])
        row[name] = float(np.mean(classes == batch["label"]))
    print(json.dumps(row | {"chance": 1 / len(PAIRS)}))
    for scale in scales:
        sampler = Sampler(run.model, num, guidance_scale=scale, steps=steps)
        row = {"guidance": scale}
        for name, pairs in (("seen", SEEN), ("unseen", UNSEEN)):
            right = rights(run, judge, sampler, pairs, num)
            row[name] = float(np.mean(right.all(axis=1)))
            row |= {f"{name} colour": float(right[:, 0].mean())}
            row |= {f"{name} kind": float(right[:, 1].mean())}
        print(json.dumps(row))


def rights(run, judge, sampler, pairs, num: int) -> np.ndarray:
    """Whether samples asked for these pairs show the colour, and the kind: [N, 2]."""
    captions = run.record.data.captions
    asked = [pairs[i % len(pairs)] for i in range(num)]
    tokens = np.stack([captions.encode(f"a {c} {k}") for c, k in asked])
    x = sampler(run.params, run.state, jax.random.key(0), num, {"text": tokens})
    classes, _ = judged(judge, as_bytes(x))
    return np.array([PAIRS[k] for k in classes]) == np.array(asked)


def guided(scales: list[float], num: int, steps: int) -> None:
    """A row for each scale of the guide; 0 is the run alone, which knows no caption."""
    judge, free = opened("judge"), opened("free")
    opened("clip-noisy")
    for scale in scales:
        guide = {"classifier": FOLDER / "clip-noisy", "classifier_scale": scale}
        run = guides.guided(free, Sample(workdir=FOLDER / "free", **guide))
        sampler = Sampler(run.model, num, steps=steps)
        right = rights(run, judge, sampler, SEEN, num)
        row = {"scale": scale, "both": float(right.all(axis=1).mean())}
        colour, kind = right.mean(axis=0).tolist()
        print(json.dumps(row | {"colour": colour, "kind": kind}))


def retrieval() -> None:
    """A row for held-out scenes of pairs of training, and of pairs it never saw."""
    run = opened("clip")
    recall = jax.jit(Recall(run.model))
    for split in ("test", "unseen"):
        data = run.dataset(split)
        stream = batches(data, np.arange(data.size), 200)
        key = jax.random.key(0)
        right = measure(recall, run.params, run.state, stream, data.size, key)
        row = {"scenes": {"test": "seen pairs"}.get(split, "unseen pairs")}
        row |= dict(zip(WAYS, right.mean(axis=0).tolist(), strict=True))
        print(json.dumps(row | {"num": data.size, "of": GALLERY}))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenes")
    parser.add_argument("what", choices=("restored", "faithful", "guided", "retrieval"))
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("--num", type=int, default=520)
    parser.add_argument("--steps", type=int, default=20)
    asked = parser.parse_args()
    if asked.what == "restored":
        restored()
    elif asked.what == "guided":
        guided(asked.scales, asked.num, asked.steps)
    elif asked.what == "retrieval":
        retrieval()
    else:
        faithful(asked.scales, asked.num, asked.steps)


if __name__ == "__main__":
    main()
