"""The steps of a run, and what happens between them."""

import contextlib
import functools
import signal
import time

import jax

from gengen.errors import BadInput

from . import processes
from .budget import Budget
from .cache import cache_hits
from .compile import compiled_steps
from .evaluators import Evaluator
from .job import Job
from .metrics import check_finite, mean_metrics
from .signals import Stop
from .tracing import Trace
from .waits import Waits


def run_steps(
    job: Job, train_state, step, evaluators: list[Evaluator], stop: Stop
) -> None:
    """Steps from the train state's to the experiment's last."""
    Steps(job, train_state, step, evaluators, stop).run()


class Stopwatch:
    """Seconds, without those in which it is paused."""

    def __init__(self):
        self._since = time.perf_counter()

    def read(self) -> float:
        """The seconds since it was made or reset."""
        return time.perf_counter() - self._since

    def reset(self) -> None:
        """Begin again at 0."""
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def paused(self):
        """Leave out what happens in this block."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - max(began, self._since)


class Steps:
    """The loop's state: the train state as the program holds it, and what was seen."""

    def __init__(
        self, job: Job, train_state, step, evaluators: list[Evaluator], stop: Stop
    ):
        self.job, self.stop, self.evaluators = job, stop, evaluators
        self.done, self.last = int(train_state.step), job.experiment.steps
        self.skipped = int(train_state.nonfinite.total_notfinite)
        self.data = job.view.data(job.feed.data)
        self.frozen = job.view.frozen(job.frozen)
        self.train_state = job.view.to_program(train_state)
        self.number = functools.cache(job.view.number)
        self.budget = Budget(job.run.minutes)
        profiles = job.run.profile and processes.is_primary()
        self.trace = (
            Trace(job.run.workdir / "profile", job.report) if profiles else None
        )
        self._compile(step)
        self._introduce()
        self.seen, self.watch, self.waits = [], Stopwatch(), Waits()
        self.rate = None  # steps per second, of the last interval

    def _compile(self, step) -> None:
        job, began = self.job, time.perf_counter()
        arguments = (step, job.feed, self.train_state, self.data, job.view, self.frozen)
        with cache_hits() as hits, job.report.doing("compiling the steps"):
            self.program, self.length, why = compiled_steps(job.run, *arguments)
        kept = f" (kept in {jax.config.jax_compilation_cache_dir})" if hits else ""
        job.report.say(
            f"compiled in {time.perf_counter() - began:.1f} s{kept}; "
            f"{self.length} step{'s' * (self.length > 1)} a call{why}"
        )

    def _introduce(self) -> None:
        """Say what the evaluators have to say before the first step."""
        if not processes.is_primary():
            return
        for evaluator in self.evaluators:
            with self.job.report.surviving(evaluator.name):
                if note := getattr(evaluator, "note", ""):
                    self.job.report.say(f"note: {note}")

    def next_event(self, step: int) -> int:
        """The next step after `step` at which something is logged, made or saved."""
        run = self.job.run
        every = {run.log_every, run.checkpoint_every}
        every |= {evaluator.every for evaluator in self.evaluators}
        return min([self.last, *((step // n + 1) * n for n in every)])

    def run(self) -> None:
        """Until the last step, or the time is over."""
        job = self.job
        while self.done < self.last:
            self._call()
            seconds = job.report.seconds + self.watch.read()
            if self.budget.is_over(seconds):
                self.last = self.done
            if self.trace:
                with self.watch.paused():
                    self.trace.called(self.done, self.seen[-1], self.done == self.last)
            if self.next_event(self.done - 1) == self.done:
                self._pause()
            elif rate := self._rate():
                job.report.advance(self.done, rate)
        if self.done < job.experiment.steps:
            job.report.say(self.budget.told(job.report.seconds))
        if not job.feed.resident:
            told = self.waits.told(job.experiment.batch_size, job.run.workers)
            if told:
                job.report.say(f"note: {told}")

    def _rate(self) -> float | None:
        """Steps per second of this interval, but for its last call, or of the last."""
        num = sum(num for num, _ in self.seen[:-1])
        return num / self.watch.read() if num else self.rate

    def _call(self) -> None:
        """Some steps: no more than one call waits while another one computes."""
        num = min(self.length, self.next_event(self.done) - self.done)
        seconds = self.job.report.seconds + self.watch.read()
        num = self.budget.steps(num, seconds, self._rate())
        if len(self.seen) > 1:
            jax.block_until_ready(self.seen[-2])
        with self.waits.until_computed(self.train_state):
            items = self._items()
        number = self.number(num)
        with jax.transfer_guard("disallow"):  # all that a call takes is on the devices
            self.train_state, metrics = self.program(
                self.train_state, self.data, items, number, self.frozen
            )
        self.seen.append((num, self.job.view.metrics(metrics)))
        self.done += num

    def _items(self):
        """The next items on the devices.

        If one process is asked to stop, all leave; on unreadable data, what was learnt
        is saved first.
        """
        job, items, unreadable = self.job, None, None
        try:
            items = job.feed.items(self.done, self.length)
        except BadInput as error:
            unreadable = str(error)
        asked = self.stop.asked and int(self.stop.asked)
        asked, unreadable = zip(*processes.all_gather([asked, unreadable]), strict=True)
        if sentences := list(filter(None, unreadable)):
            job.save(job.view.from_program(self.train_state))
            raise BadInput(sentences[0])
        if signals := list(filter(None, asked)):
            now = job.view.from_program(self.train_state)
            job.save_and_exit(now, signal.Signals(signals[0]))
        return job.view.items(items)

    def _pause(self) -> None:
        """Between two steps: metrics, then evaluations, then a checkpoint."""
        job, run = self.job, self.job.run
        now = job.view.from_program(self.train_state)
        values = mean_metrics(self.seen)
        self.skipped = check_finite(job, now, self.skipped)
        seconds = self.watch.read()
        with self.watch.paused():
            figures = {}
            due = [e for e in self.evaluators if self._due(e.every)]
            if due:
                figures = self._evaluate(due, now)
            if due or self._due(run.log_every):
                self._log(values | figures, seconds)
            # At last: what comes before a saved step never comes again.
            last = self.done == self.last
            if self._is_best(figures) or self._due(run.checkpoint_every):
                job.save(now, last)

    def _due(self, every: int) -> bool:
        return self.done % every == 0 or self.done == self.last

    def _evaluate(self, due: list[Evaluator], now) -> dict[str, float]:
        """The evaluators' figures; pictures and sentences go to the report."""
        report, shown = self.job.report, self.job.view.to_host(now)
        if not processes.is_primary():
            return {}
        # What the train state does not hold.
        shown = shown.replace(state={**shown.state, "frozen": self.job.frozen})
        figures = {}
        for evaluator in due:
            with report.surviving(evaluator.name):
                for name, value in evaluator(shown).items():
                    if isinstance(value, float):
                        figures[name] = value
                    elif isinstance(value, str):
                        report.say(f"note: step {self.done}: {value}")
                    else:
                        report.picture(self.done, name, value)
        return figures

    def _log(self, values: dict[str, float], seconds: float) -> None:
        taken = sum(num for num, _ in self.seen)
        share, self.rate = self.waits.share(taken, seconds), taken / seconds
        if rates := self.job.experiment.learning_rate:
            values = {**values, "learning_rate": float(rates(self.done - 1))}
        self.job.report.metrics(self.done, values, taken, seconds, share)
        self.seen = []
        self.watch.reset()

    def _is_best(self, figures: dict[str, float]) -> bool:
        """Whether the figure of `--keep-best` is the best so far; then it is noted."""
        metric, checkpoints = self.job.run.keep_best, self.job.checkpoints
        if metric is None:
            return False
        value = figures.get(metric)
        new = value is not None and checkpoints.best.note(metric, self.done, value)
        return processes.all_gather(new)[0]
