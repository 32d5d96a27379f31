"""A request to stop a run."""

import signal
import threading
from typing import ClassVar


class Stop:
    """A request to stop, by SIGTERM (preemption) or Ctrl-C: save, then exit.

    A context manager: while it is open, the first signal asks; a second Ctrl-C
    interrupts at once. Exit status 75 ("try again") after SIGTERM, 130 after Ctrl-C.
    """

    STATUS: ClassVar = {signal.SIGTERM: 75, signal.SIGINT: 130}

    def __init__(self):
        self.asked = None

    def __enter__(self):
        self._before = {}
        if threading.current_thread() is threading.main_thread():  # else it cannot be
            for number in self.STATUS:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number, frame):
        if self.asked == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number)
