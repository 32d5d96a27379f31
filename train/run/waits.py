"""How long the steps wait for data."""

import contextlib
import time

import numpy as np


class Waits:
    """How long the steps waited for data.

    Waiting counts if the devices had nothing left to compute when it ended: what is
    read while they compute costs nothing.
    """

    def __init__(self):
        self._seconds, self._shares = 0.0, []  # since the last share; all of them

    @contextlib.contextmanager
    def until_computed(self, train_state):
        began = time.perf_counter()
        yield
        if train_state.step.is_ready():
            self._seconds += time.perf_counter() - began

    def share(self, num: int, seconds: float) -> float:
        """The share of the `seconds` of the last `num` steps; begins the next."""
        waited, self._seconds = min(self._seconds, seconds), 0.0
        self._shares.append((num, seconds, waited))
        return waited / seconds

    def told(self, batch_size: int, workers: int) -> str:
        """A sentence if more than a tenth of the time went into waiting; else ""."""
        # Before the first interval's end there is nothing to read ahead behind.
        num, seconds, waited = np.sum(self._shares[1:] or self._shares, axis=0)
        if waited <= 0.1 * seconds:
            return ""
        return (
            f"{waited / seconds:.0%} of the time went into waiting for data, "
            f"{batch_size * num / seconds:,.0f} images/s: --workers "
            f"{2 * workers or 1} reads in {'more' if workers else 'other'} processes"
        )
