"""A game of two players while it runs: how its failures look, and what helps.

    saturation   the critic is right on every real example: the generator learns little
    collapse     samples differ from one another much less than data do
    oscillation  the players circle: what they lose swings, and comes back

A failure is named in a sentence with its remedy; the figures behind it are logged.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from gengen.conditions import labels_of
from gengen.types import draws

from ..data.dataset import Dataset
from ..data.feed import order
from ..run.report import read_rows
from ..run.sampler import Sampler

NUM = 256  # samples whose variety is taken
ROWS = 8  # lines of metrics in which a failure must show
SATURATED, COLLAPSED, SWING = 0.995, 0.3, 1.0


def variety(x: np.ndarray) -> float:
    """E|x - x′|²/2 of pairs of examples [N, ...]: their total variance.

    >>> variety(np.array([[0.0, 1.0], [2.0, 1.0]]))
    1.0
    """
    return float(np.sum(np.var(np.asarray(x, np.float64).reshape(len(x), -1), axis=0)))


def diagnose(rows: list[dict], share: float | None = None) -> str:
    """What goes wrong in a game, and what helps; "" if nothing does.

    Args:
        rows: lines of `metrics.jsonl`, in order; the last few are looked at.
        share: the variety of samples over that of data now, of which a collapse needs
            three in a row; None if unknown.

    >>> diagnose([{"game/variety": 0.2}] * 2, share=0.1)[:44]
    'samples vary 0.10 times as much as data do: '
    """
    shares = [row["game/variety"] for row in rows if "game/variety" in row][-2:]
    if share is not None and len(shares) == 2 and max(*shares, share) < COLLAPSED:
        return (
            f"samples vary {share:.2f} times as much as data do: the generator has "
            "collapsed to few of them; take --loss relativistic with --regulariser r1 "
            "r2, or let the critic see it (--minibatch-std 4, --packing 2)"
        )
    rows = [row for row in rows if "generator/loss" in row][-ROWS:]
    if len(rows) < ROWS:
        return ""
    right = [row.get("discriminator/right", 0.0) for row in rows]
    if min(right) > SATURATED:
        return (
            f"the critic has been right on {min(right):.1%} of real examples for "
            f"{len(rows)} reports, so the generator learns little: regularise it "
            "(--regulariser r1 r2, or more of it: --r1-weight), or let it see less "
            "(--critic-augment)"
        )
    losses = np.array([row["generator/loss"] for row in rows])
    turns = np.sum(np.diff(np.sign(np.diff(losses))) != 0)
    if np.ptp(losses) > SWING and turns >= ROWS // 2:
        return (
            f"the generator's loss swings between {losses.min():.2f} and "
            f"{losses.max():.2f}: the players circle; regularise the critic "
            "(--regulariser r1 r2), lower --learning-rate, or average more "
            "(--ema-decay)"
        )
    return ""


@dataclasses.dataclass(frozen=True)
class GameWatch:
    """{"game/variety": …, "game/diagnosis": a sentence, if something goes wrong}.

    Variety is that of samples over that of data, by the averaged generator where there
    is one. It has no state: what happened before stands in the run's metrics.
    """

    every: int
    model: Any
    train: Dataset
    workdir: Path
    seed: int = 0
    name: ClassVar[str] = "the watch over the game"
    figures: ClassVar[tuple[str, ...]] = ("game/variety",)

    @functools.cached_property
    def _real(self) -> dict[str, np.ndarray]:
        return self.train.fetch(order(self.seed, 0, NUM, self.train.size))

    @functools.cached_property
    def _of_real(self) -> float:
        return variety(jax.device_get(self.model.space.read(self._real)))

    @functools.cached_property
    def _sampler(self) -> Sampler:
        return Sampler(self.model, NUM, few=True)

    def __call__(self, train_state) -> dict[str, float | str]:
        params = train_state.params if train_state.ema is None else train_state.ema
        labels = labels_of(self.model.condition)
        given = {labels.key: self._real[labels.key]} if labels else {}
        weights = params, train_state.state, jax.random.key(self.seed)
        share = variety(self._sampler(*weights, NUM, given)) / self._of_real
        wrong = diagnose(read_rows(self.workdir / "metrics.jsonl"), share)
        return {"game/variety": share, **({"game/diagnosis": wrong} if wrong else {})}


def watch_of(run, model, load_split) -> list[GameWatch]:
    """The watch over a generator that draws and its discriminator; else []."""
    if not draws(model) or not {"generator", "discriminator"} <= model.losses().keys():
        return []
    train = load_split("train")
    return [GameWatch(run.sample_every, model, train, run.workdir, run.seed)]
