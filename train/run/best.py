"""Which checkpoint is the best by one figure: `--keep-best`."""

import json
import math
from pathlib import Path

from gengen.errors import BadInput

from ..files import to_json, write_atomically

FILE = "best.json"


def higher_is_better(metric: str) -> bool:
    """Whether a higher value is better: of accuracies and recalls, not of losses."""
    return metric.endswith(("accuracy", "recall"))


def check_metric(metric: str | None, evaluators) -> None:
    """BadInput for a figure that none of the evaluators makes."""
    if metric is None:
        return
    known = [name for e in evaluators for name in getattr(e, "figures", ())]
    if metric not in known:
        remedy = f"choose one of {', '.join(known)}" if known else "leave it out"
        raise BadInput(
            f"--keep-best {metric}: this run measures no such figure; {remedy}"
        )


class Best:
    """The file `best.json` beside the checkpoints: the figure, and its best steps.

    A step is listed before its checkpoint is written, so that no kill in between loses
    the one that was the best before; listed steps without a checkpoint do not count.
    """

    def __init__(self, folder: Path):
        self._folder, self._file = folder, folder / FILE

    def step(self) -> int | None:
        """The step of the best checkpoint that there is; None without any."""
        steps = self._listed(None)
        return max(steps, key=steps.get, default=None)

    def note(self, metric: str, step: int, value: float) -> bool:
        """List a step that is about to be saved, if it is better than all before."""
        score = value if higher_is_better(metric) else -value
        steps = self._listed(metric)
        steps.pop(step, None)
        if not math.isfinite(score) or score <= max(steps.values(), default=-math.inf):
            return False
        listed = {str(s): x for s, x in {**steps, step: score}.items()}
        text = to_json({"metric": metric, "scores": listed})
        write_atomically(self._file, text)
        return True

    def _listed(self, metric: str | None) -> dict[int, float]:
        """{step: score, the higher the better}, of checkpoints that are there."""
        try:
            raw = json.loads(self._file.read_text())
            scores = {int(step): float(x) for step, x in raw["scores"].items()}
            same = metric in (None, raw["metric"])
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return {}
        there = {s: x for s, x in scores.items() if (self._folder / str(s)).is_dir()}
        return there if same else {}
