"""Several runs, each trained and then evaluated: what is there is not done twice."""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from gengen.errors import BadInput

from ..cli.options import RunOptions
from ..data.dataset import Dataset
from ..run.checkpoint import Checkpoints
from ..run.first_stage import Stage, staged
from ..run.loop import record_of, train
from ..run.same import refuse_other_run
from .evaluation import check, evaluate, recorded_options, training_seconds
from .extractors import Extractor
from .options import Evaluate


@dataclasses.dataclass(frozen=True)
class Member:
    """A run of the series: how it is trained, and how it is evaluated."""

    name: str
    run: RunOptions
    experiment: str
    keywords: dict[str, Any]
    evaluation: Evaluate
    reads: tuple["Member", ...] = ()
    "The runs that it reads, of which each is trained first."

    def stage(self, dataset: Dataset) -> Stage:
        """What will stand in its workdir, and what it reads of other runs."""
        asked = record_of(self.run, self.experiment, self.keywords, dataset)
        return staged(self.run, asked, dataset)

    def check(self, dataset: Dataset):
        """Its model, if it can be built already.

        BadInput for another run in its workdir, or one beyond the budget.
        """
        check(self.evaluation)
        workdir = self.run.workdir
        for other in self.reads:
            other.check(dataset)
        if any(Checkpoints(other.run.workdir).latest() is None for other in self.reads):
            return None  # nobody knows it before the others are trained
        stage = self.stage(dataset)
        model = stage.build().model  # refuses keywords that do not fit one another
        refuse_other_run(workdir, stage.record)
        step = Checkpoints(workdir).latest() or 0
        # A run ends with the call of some steps in which its minutes end.
        seconds = training_seconds(workdir) or 0
        most = None if self.run.minutes is None else 1.5 * 60 * self.run.minutes + 10
        if step > self.keywords["steps"] or (most is not None and seconds > most):
            raise BadInput(
                f"{workdir} was trained for {step} steps and {seconds:.0f} s, beyond "
                "this budget: take another folder"
            )
        return model

    def trained(self) -> None:
        """Train within the budget, the runs that it reads first."""
        for other in self.reads:
            other.trained()
        train(self.run, self.experiment, self.keywords)

    def measured(self, extractor: Extractor | None) -> dict[str, Any]:
        """Train within the budget and evaluate, unless it is done already."""
        workdir = self.run.workdir
        self.trained()
        path, step = workdir / "evaluation.json", Checkpoints(workdir).latest()
        if path.exists():
            known = json.loads(path.read_text())
            same = [
                (known["options"], recorded_options(self.evaluation)),
                (known["step"], step),
                (known.get("extractor"), extractor and extractor.name),
            ]
            if all(one == other for one, other in same):
                print(f"already evaluated: {path}")
                return known
        return evaluate(self.evaluation)


def measure_all(
    members: Iterable[Member], extractor: Extractor | None
) -> tuple[dict[str, dict], dict[str, str]]:
    """({name: evaluation}, {name: why it failed}); BadInput where all failed."""
    results, failed = {}, {}
    for member in members:
        print(f"\n{member.name}")
        try:
            results[member.name] = member.measured(extractor)
        except BadInput as error:
            print(f"failed: {error}")
            failed[member.name] = str(error)
    if not results:
        name, why = next(iter(failed.items()))
        raise BadInput(f"every run failed; {name}: {why}")
    return results, failed


def budget_used(results: dict[str, dict], minutes: float | None) -> list[str]:
    """A sentence: the minutes of training that were used, if some were asked for."""
    used = {
        name: seconds / 60
        for name, result in results.items()
        if (seconds := result["training_seconds"]) is not None
    }
    if not used or minutes is None:
        return []
    each = ", ".join(f"{name} {value:.3g}" for name, value in used.items())
    over = [name for name, value in used.items() if value > 1.05 * minutes]
    more = f"; beyond them: {', '.join(over)}" if over else ""
    return [
        f"Minutes of training that were used, of {minutes:g} at most that were asked "
        f"for: {each}{more}."
    ]
