"""Known modes: how many of them a model's samples reach, how evenly, and how near.

Points of known Gaussians are in the mode whose centre is at most three standard
deviations away, or in none. The mode of a stacked image is the classes of its three
channels, by a classifier of the images that were stacked.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from gengen.metrics.modes import mode_kl, modes_found, nearest_mode
from gengen.types import draws

from ..data import gaussians, stacked
from ..data.load import load
from ..run.record import Record
from ..run.sampler import Sampler
from .extractors import Extractor, open_extractor


@dataclasses.dataclass(frozen=True)
class KnownModes:
    """The modes of a data set: `assign(x) -> int [N]` of samples, -1 for none."""

    num_modes: int
    """K."""
    num: int
    """Samples that the papers count."""
    assign: Callable[[np.ndarray], np.ndarray]
    """x [N, *shape] of the model's space -> the number of the mode of each, or -1."""

    def count(self, assignment: np.ndarray) -> dict[str, float | int]:
        """The figures of assigned samples.

        Beside the reverse KL stands what N samples of even modes have in expectation,
        (K - 1)/(2 N).
        """
        num = len(assignment)
        return {
            "found": modes_found(assignment, self.num_modes),
            "known": self.num_modes,
            "good_samples": float(np.mean(assignment >= 0)),
            "reverse_kl": mode_kl(assignment, self.num_modes),
            "chance_kl": (self.num_modes - 1) / (2 * num),
            "num": num,
        }


def known_modes(
    record: Record, model, workdir: Path, data_dir: Path | None = None
) -> KnownModes | None:
    """The modes of a run's data set, if they are known.

    The classifier that stacked images need is trained first where there is none.
    """
    name = record.data.name
    if name.partition(":")[0] == gaussians.PREFIX:
        centers, std = gaussians.modes(name)

        def of_points(x):
            points = np.asarray(model.space.to_data(x), np.float64)
            return nearest_mode(points, centers, 3 * std)

        return KnownModes(len(centers), 2_500, of_points)
    if not name.startswith(stacked.PREFIX):
        return None
    plain = unstacked(record, data_dir)
    extractor = open_extractor(None, workdir, plain, data_dir)
    classes = plain.data.num_classes

    def of_images(x):
        label = np.argmax(channel_probs(extractor, x), axis=-1)
        return label @ classes ** np.arange(2, -1, -1)

    return KnownModes(classes**3, 26_000, of_images)


def unstacked(record: Record, data_dir: Path | None) -> Record:
    """The record of a run on stacked images as one on the images themselves."""
    run = dict(record.data_options)
    run["dataset"] = run["dataset"].removeprefix(stacked.PREFIX)
    asked = {name: run.get(name) for name in ("image_size", "levels")}
    dataset = load(run["dataset"], data_dir=data_dir, **asked)
    run["examples"] = dataset.size
    return dataclasses.replace(
        record, data=dataset.spec, data_options=run, digests={}, frozen={}
    )


def channel_probs(extractor: Extractor, x: np.ndarray) -> np.ndarray:
    """p(class | channel), [N, 3, classes], of stacked images x [N, H, W, 3]."""
    x = np.asarray(x)
    channels = np.moveaxis(x, -1, 1).reshape(-1, *x.shape[1:3], 1)
    return extractor(channels)[1].reshape(len(x), 3, -1)


def count_modes(
    known: KnownModes, model, params, state, seed: int = 0, num: int | None = None
) -> dict[str, float | int]:
    """The figures of `num` samples of a model, by default as many as the papers count.

    Sample i depends on (seed, i) alone.
    """
    num = known.num if num is None else num
    batches = Sampler(model, min(num, 500)).batches(
        params, state, jax.random.key(seed), num, {}
    )
    return known.count(np.concatenate([known.assign(np.asarray(x)) for x in batches]))


@dataclasses.dataclass(frozen=True)
class ModesWhileTraining:
    """{"modes/found": …, "modes/good_samples": …, "modes/reverse_kl": …}, an evaluator.

    It samples with the averaged parameters where there are any.
    """

    every: int
    model: object
    known: KnownModes
    seed: int = 0
    num: int = 2_500
    name = "the count of modes"

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of what it measures."""
        return tuple(
            f"modes/{name}" for name in ("found", "good_samples", "reverse_kl")
        )

    def __call__(self, train_state) -> dict[str, float]:
        params = train_state.params if train_state.ema is None else train_state.ema
        given = (self.model, params, train_state.state, self.seed, self.num)
        counted = count_modes(self.known, *given)
        figures = {n: float(counted[n.partition("/")[2]]) for n in self.figures}
        return {name: x for name, x in figures.items() if math.isfinite(x)}


def modes_of(run, record: Record, model) -> list[ModesWhileTraining]:
    """The evaluators of a run whose model draws data with known modes.

    Points are counted whenever pictures are drawn; images, which need a classifier,
    when the quality of samples is asked for.
    """
    points = record.data.name.partition(":")[0] == gaussians.PREFIX
    every = run.sample_every if points else run.evaluate_every
    if not every or not draws(model):
        return []
    known = known_modes(record, model, run.workdir, run.data_dir)
    return [ModesWhileTraining(every, model, known)] if known else []
