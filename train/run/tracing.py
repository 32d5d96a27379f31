"""`--profile`: where the time of some steps goes, as a trace of JAX's profiler."""

import time
from pathlib import Path

import jax

WARM = 3  # calls before the trace
CALLS, SECONDS = 10, 5.0  # of the trace, at most


class Trace:
    """Told of every call of the steps, it begins and ends the trace by itself."""

    def __init__(self, folder: Path, report):
        self._folder, self._report = folder, report
        self._calls, self._began = 0, None

    def called(self, step: int, metrics, last: bool) -> None:
        """After a call: the steps done, what it gives, whether it was the last one."""
        self._calls += 1
        if self._began is not None:
            seconds = time.monotonic() - self._began
            if last or seconds > SECONDS or self._calls >= WARM + CALLS:
                self._end(step, metrics)
        elif last and self._calls <= WARM:
            self._report.say(f"note: no profile: it begins after {WARM} calls of steps")
        elif self._calls == WARM and not last:
            jax.block_until_ready(metrics)
            with self._report.surviving(self._folder):
                jax.profiler.start_trace(self._folder)
                self._began, self._first = time.monotonic(), step + 1

    def _end(self, step: int, metrics) -> None:
        jax.block_until_ready(metrics)
        self._began = None
        with self._report.surviving(self._folder):
            jax.profiler.stop_trace()
            self._report.say(
                f"profile of steps {self._first} to {step}: open the newest "
                f"{self._folder}/**/*.trace.json.gz in https://ui.perfetto.dev, or "
                f"the folder in XProf (pip install xprof; xprof {self._folder})"
            )
