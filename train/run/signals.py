"""Requests to end a run: SIGTERM (preemption), SIGHUP (the terminal went) and Ctrl-C.

It imports nothing heavy, so that `leave_at_once` can come before what does.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable

STATUS = {signal.SIGTERM: 75, signal.SIGHUP: 75, signal.SIGINT: 130}


@contextlib.contextmanager
def _heard_by(handler: Callable, last: bool = False):
    """The signals go to `handler` in this block, but for SIGHUP under nohup.

    After it, to whom they went before, or, if it is the last that a process does, to
    nobody: else one that comes while Python shuts down would be the exit status.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():  # else it cannot be
        for number in STATUS:
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if last else handler)


def leave_at_once(last: bool = False):
    """While there is nothing to save: a signal ends the process, exit status `STATUS`.

    Without an exception, which an import that it falls into may swallow. last: after
    the block the process ends.
    """
    return _heard_by(_leave, last)


def _leave(number, frame) -> None:
    name = signal.Signals(number).name
    with contextlib.suppress(Exception):  # a stream that is being written, or closed
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, f"{name}: nothing to save; the same command goes on\n".encode())
    os._exit(STATUS[number])


class Stop:
    """A request to stop, by a signal: save, then exit with its `STATUS`.

    A context manager: while it is open, the first signal asks; a second Ctrl-C
    interrupts at once.
    """

    STATUS = STATUS

    def __init__(self):
        self.asked = None
        self._heard = _heard_by(self._ask)

    def __enter__(self):
        self._heard.__enter__()
        return self

    def __exit__(self, *exception):
        self._heard.__exit__(*exception)

    def _ask(self, number, frame):
        if self.asked == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number)
