"""What the steps say of themselves: means over them, and values not finite."""

import jax
import numpy as np

from gengen.errors import BadInput
from gengen.guard import first_nonfinite

from .job import Job


def mean_metrics(seen: list) -> dict[str, float]:
    """The mean over steps of metrics that are means over `num` steps each.

    A player's own are means over its turns that were not skipped; without any, none.
    """
    nums = np.array([num for num, _ in seen])
    rows = jax.device_get([metrics for _, metrics in seen])
    means = {
        name: float(np.average([row[name] for row in rows], weights=nums))
        for name in rows[0]
    }
    values = {}
    for name, mean in means.items():
        player, _, metric = name.partition("/")
        played = 1.0 - means[f"{player}/skipped"]
        if metric == "skipped":
            values |= {name: mean} if mean else {}
        elif played:
            values[name] = mean / played
    return values


def check_finite(job: Job, train_state, before: int) -> int:
    """Turns skipped so far, told if there are new ones; BadInput if too many in a row.

    A skipped turn changed nothing, so what was saved before stays good.
    """
    turns, in_a_row = (
        int(train_state.nonfinite.total_notfinite),
        int(train_state.nonfinite.consecutive_notfinite),
    )
    if turns == before:
        return turns
    name = first_nonfinite(train_state, job.feed.dataset.spec.example(1))
    last = int(train_state.step) == job.experiment.steps
    if in_a_row < (1 if last else job.run.max_skipped):
        job.report.say(
            f"note: {turns - before} turns up to step {int(train_state.step)} were "
            f"skipped: {name} was not finite"
        )
        return turns
    last = job.checkpoints.latest()
    kept = "" if last is None else f" (the checkpoint of step {last} stays)"
    raise BadInput(
        f"{name} was not finite in {in_a_row} steps in a row up to step "
        f"{int(train_state.step)}, so training diverged: try a smaller "
        f"--learning-rate in another --workdir{kept}"
    )
