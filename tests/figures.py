"""python -m tests.figures WHAT …: figures that need no training.

bound     spread of the estimated bound over images, by how many terms are drawn
sigma     nats lost by ending the bound at a fraction of the levels' distance
decoding  cached sampling of 28×28 images beside a whole pass a symbol
decoder   tokens a second of a transformer of 6 layers of 256

A line of JSON a figure.
"""

import argparse
import json
import math
import statistics
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

KEY = jax.random.key(0)


def bound():
    """Bits a dimension of closed-form Gaussian images of 8×8 pixels."""
    from gengen.diffusion.likelihood import VariationalBound
    from gengen.diffusion.paths import Cosine, DDPMSchedule, Linear
    from gengen.diffusion.process import Process, V
    from gengen.models.closed_form import gaussian
    from gengen.scan import sample_keys
    from gengen.spaces import Images

    x = np.random.default_rng(0).normal(0.2, 0.5, (128, 8, 8, 1))
    keys = sample_keys(KEY, len(x))
    for path, levels in [
        (DDPMSchedule(), 17),
        (DDPMSchedule(), 256),
        (Linear(), 256),
        (Cosine(), 256),
    ]:
        image = np.clip(np.rint((x + 1) * (levels - 1) / 2), 0, levels - 1)
        process = Process(path, V())
        exact = gaussian(0.2, 0.5).predict(process)
        ask = (
            lambda z, t, c, exact=exact: exact(z, t),
            process,
            image.astype(np.uint8),
            Images((8, 8, 1), levels),
        )
        for draws in (16, 1000):
            likelihood = VariationalBound(1000, draws)
            log_p = jax.jit(likelihood, static_argnums=(1, 2, 4))(keys, *ask, {})
            bits = -np.asarray(log_p) / 64 / math.log(2)
            row = {"path": str(path), "levels": levels, "terms": draws}
            figures = {"mean": float(bits.mean()), "std": float(bits.std())}
            yield row | {name: round(value, 3) for name, value in figures.items()}


def lost(sigma, values, probs):
    """(softmax's, Bayes') nats of reconstruction of one level, by quadrature."""
    from scipy.special import logsumexp

    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    weights = weights / weights.sum()
    there = np.flatnonzero(probs)
    z = values[there, None, None] + sigma * nodes[:, None]
    logits = -((z - values) ** 2) / (2 * sigma**2)  # [level there, node, level]

    def nats(logits, own):
        log_p = logits - logsumexp(logits, -1, keepdims=True)
        return -probs[there] @ log_p[np.arange(len(there)), :, own] @ weights

    own = np.arange(len(there))
    return nats(logits, there), nats(logits[..., there] + np.log(probs[there]), own)


def sigma():
    """The table of `gengen.diffusion.likelihood.sigma_min`, but for the U-Net."""
    from scipy.stats import norm
    from sklearn.datasets import load_digits, load_sample_images

    digits = load_digits().images.reshape(-1, 64).astype(int)
    photos = np.concatenate([image.ravel() for image in load_sample_images().images])
    worlds = {
        "digits, 17 levels": [np.bincount(d, minlength=17) / len(d) for d in digits.T],
        "photos, 256 levels": [np.bincount(photos, minlength=256) / photos.size],
    }
    for fraction in (0.2, 0.3, 0.35, 0.4, 0.5):
        row = {"fraction": fraction}
        flat = np.zeros(31)
        flat[15] = 1  # one level among many alike: its neighbours are as probable
        k = np.arange(-15, 16)
        nodes, weights = np.polynomial.hermite_e.hermegauss(200)
        logits = -((fraction * nodes[:, None] - k) ** 2) / (2 * fraction**2)
        said = logits[:, 15] - np.log(np.exp(logits).sum(1))
        row["flat"] = -weights @ said / weights.sum() - norm.entropy(0, fraction)
        for name, pixels in worlds.items():
            levels = len(pixels[0])
            values = np.linspace(-1, 1, levels)
            ask = [lost(fraction * 2 / (levels - 1), values, p) for p in pixels]
            row[name] = np.mean([one - other for one, other in ask])
        yield {key: round(float(value), 3) for key, value in row.items()}


def networks():
    """Name -> model of 28×28 images, as large as the figures say."""
    from gengen.models.autoregressive import Autoregressive
    from gengen.nets.gated_pixelcnn import GatedPixelCNN
    from gengen.nets.pixelcnn import PixelCNN
    from gengen.nets.pixelcnnpp import PixelCNNPP
    from gengen.nets.pixelrnn import PixelRNN
    from gengen.nets.recurrence import DiagonalBiLSTM, RowLSTM
    from gengen.nets.transformer import Transformer
    from gengen.observations.categorical import Categorical
    from gengen.observations.logistic_mixture import LogisticMixture
    from gengen.spaces import Images

    shape, some, two = (28, 28, 1), Categorical(256), Categorical(2)
    mixture = LogisticMixture(256, 1, 5)
    nets = {
        "pixelcnn": (PixelCNN(256, shape, 256, 128, 15), some),
        "gated": (GatedPixelCNN(256, shape, 256, 64, 10), some),
        "pixelcnnpp": (PixelCNNPP(mixture.features, shape, 256, 48, 2, 3), mixture),
        "row": (PixelRNN(2, shape, 2, 16, 7, RowLSTM), two),
        "diagonal": (PixelRNN(2, shape, 2, 16, 7, DiagonalBiLSTM), two),
        "transformer": (Transformer(256, 784, 256, 96, 3, 4), some),
    }
    return {
        name: Autoregressive(net, head, Images(shape, head.levels))
        for name, (net, head) in nets.items()
    }


def seconds(function, *arguments, rounds=3):
    """Median of calls after the first."""
    taken = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def decoding(names, num):
    """Parameters are random, so that every symbol matters."""
    from train.measure.decoding import flops_over_one_pass

    for name, model in networks().items():
        if names and name not in names:
            continue
        batch = {"image": np.zeros((num, *model.space.shape), np.uint8)}
        params, _ = jax.jit(model.init)(KEY, batch)
        params = jax.tree.map(
            lambda p: p + 0.02 * jax.random.normal(KEY, p.shape), params
        )
        x = model.read(batch)
        whole = seconds(jax.jit(model.features_of), params, x)
        cached = seconds(jax.jit(partial(sampled, model, num)), params)
        yield {
            "network": name,
            "num": num,
            "symbols": model.length,
            "flops_over_one_pass": round(flops_over_one_pass(model, params, num), 3),
            "cached_seconds": round(cached, 3),
            "pass_seconds": round(whole, 4),
            "passes_over_cached": round(model.length * whole / cached, 1),
        }


def sampled(model, num, params):
    """Samples of the model."""
    return model.sample(params, {}, KEY, num)


def decoder(num):
    """784 tokens of a vocabulary of 257, 8 heads."""
    from gengen.models.autoregressive import Autoregressive
    from gengen.nets.transformer import Transformer
    from gengen.observations.categorical import Categorical
    from gengen.spaces import tokens

    net = Transformer(257, 784, 257, 256, 6, 8, segment=98)
    model = Autoregressive(net, Categorical(257), tokens(784, 257))
    batch = {"tokens": jnp.zeros((1, 784), jnp.int32)}
    params, _ = jax.jit(model.init)(KEY, batch)
    taken = seconds(jax.jit(partial(sampled, model, num)), params)
    yield {"num": num, "tokens_per_second": round(784 * num / taken)}


def main() -> None:
    """The figures asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["bound", "sigma", "decoding", "decoder"])
    parser.add_argument("names", nargs="*", help="of networks; by default all")
    parser.add_argument("--num", type=int, default=16, help="samples a call")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(networks()):
        parser.error(f"{sorted(unknown)}: choose among {', '.join(networks())}")
    if asked.num < 1:
        parser.error(f"--num {asked.num}: at least 1")
    rows = {
        "bound": bound,
        "sigma": sigma,
        "decoding": partial(decoding, asked.names, asked.num),
        "decoder": partial(decoder, asked.num),
    }
    for row in rows[asked.what]():
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
