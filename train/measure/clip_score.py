"""How well samples fit the captions that they were asked for: the score of a CLIP.

    w max(u · v, 0), w = 2.5, of the unit vectors u of an image and v of its caption

Hessel et al. 2021, arXiv:2104.08718, equation 1. Its number means nothing alone, so
held-out images stand beside the samples, and samples beside the captions of others.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from gengen.errors import BadInput
from gengen.images import to_levels
from gengen.metrics.result import standard_error
from gengen.tasks.retrieval import GALLERY, Recall
from gengen.types import Matches

from ..cli.doors import command
from ..data.captions import KEY
from ..data.dataset import Dataset
from ..data.feed import order
from ..run.digests import digest_of
from ..run.guides import guided, same_data
from ..run.pictures import save_grid, to_uint8
from ..run.sampler import COLUMNS, Sampler, given_keywords, sample_condition
from ..run.workdir import OpenRun, open_workdir
from .scores import map_over_batches

NUM, WEIGHT = 1_000, 2.5


def open_judge(trained: OpenRun, path: Path | None) -> OpenRun | None:
    """The run of --clip, if it can judge this one's samples; None of none."""
    if path is None:
        return None
    judge, data = open_workdir(path), trained.record.data
    if not isinstance(judge.model, Matches):
        raise BadInput(
            f"--clip {path} holds a {judge.record.experiment}, not a clip: train one "
            f"with {command('clip')} --workdir DIR"
        )
    same_data(trained, judge, "clip", path)
    asked = sample_condition(trained.model).names
    if data.captions is None or not asked:
        why = "is unconditional" if data.captions else f"is of {data.name}, without any"
        raise BadInput(
            f"--clip {path} scores samples by the captions of what they were asked for,"
            f" and this run {why}: leave it out"
        )
    return judge


def clip_figures(
    judge: OpenRun | None, trained: OpenRun, splits: dict[str, Dataset], options
) -> dict[str, Any]:
    """The score, and the recall, of samples asked for what held-out examples show.

    {"clip": the judge, "clip_score": {"samples": …}, "clip_recall": …}; {} without one.

    Also writes WORKDIR/ranked.png, the samples with the highest and the lowest scores.
    """
    if judge is None:
        return {}
    name = next(name for name in ("test", "validation", "train") if name in splits)
    held_out, trained = splits[name], guided(trained, options)
    num = min(NUM, options.num, held_out.size)
    batch = held_out.fetch(order(options.seed, 0, num, held_out.size))
    names = sample_condition(trained.model).names
    given = {name: batch[name] for name in names if name in batch}
    size = min(num, options.batch_size)
    sampler = Sampler(trained.model, size, **given_keywords(options))
    key = jax.random.key(options.seed)
    x = sampler(trained.params, trained.state, key, num, given)
    tokens = as_read(judge, trained, batch[KEY])
    image = np.asarray(to_levels(x, judge.record.data.levels))
    score = scores(judge, image, tokens, options)
    draw_ranked(options.workdir / "ranked.png", x, score)
    figures = {
        "samples": score,
        f"{name} images": scores(judge, batch["image"], tokens, options),
        "other captions": scores(judge, image, np.roll(tokens, 1, axis=0), options),
    }
    recall = Recall(judge.model)
    arrays = {"image": image, KEY: tokens}
    ask = judge.params, judge.state, arrays, options
    found = map_over_batches(jax.jit(lambda *a: recall(*a)[:, 0]), *ask)
    return {
        "clip": f"CLIP of {judge.record.data.name}, step {judge.step}, weights "
        f"{digest_of(judge.params)}",
        "clip_score": {name: estimate(x) for name, x in figures.items()},
        "clip_recall": {
            "samples": {**estimate(found), "kind": f"of {min(GALLERY, size)}"}
        },
    }


def estimate(values: np.ndarray) -> dict[str, Any]:
    """The mean, its standard error, and of how many."""
    error = standard_error(values)
    return {
        "value": float(np.mean(values)),
        "standard_error": error,
        "num": len(values),
    }


def as_read(judge: OpenRun, trained: OpenRun, tokens: np.ndarray) -> np.ndarray:
    """Captions of a run in the tokens of another one; BadInput for unknown words."""
    own, other = trained.record.data.captions, judge.record.data.captions
    if own == other:
        return tokens
    option = f"--clip {judge.workdir}, of the caption"
    return np.stack([other.encode(own.decode(row), option) for row in tokens])


def scores(judge: OpenRun, image: np.ndarray, tokens: np.ndarray, options):
    """The score of each image and caption, [N]."""

    @jax.jit
    def cosine(params, state, batch, key):
        return judge.model.score(params, state, batch)

    arrays = {"image": image, KEY: tokens}
    found = map_over_batches(cosine, judge.params, judge.state, arrays, options)
    return WEIGHT * np.maximum(found, 0.0)


def draw_ranked(path: Path, x: np.ndarray, score: np.ndarray) -> Path:
    """Two rows: the samples that fit their captions best, and those that fit worst."""
    columns = min(COLUMNS, len(x))
    ranked = np.argsort(-score, kind="stable")
    rows = x[np.concatenate([ranked[:columns], ranked[::-1][:columns]])]
    print(f"samples that fit their captions best, and worst: {path}")
    return save_grid(path, to_uint8(rows), columns, ("best", "worst"))
