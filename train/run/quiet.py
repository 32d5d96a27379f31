"""Streams to which writing never fails, so that what is only told ends no run."""

import contextlib
import os
import sys


class Quiet:
    """A text stream that stops at its first failure: a closed pipe, a full disk.

    From then on the descriptor leads nowhere, so that what is left in buffers does not
    fail at the end of the process either.
    """

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write it, or nothing."""
        with self._giving_up():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush it, if there is somewhere to."""
        with self._giving_up():
            self._stream.flush()

    @contextlib.contextmanager
    def _giving_up(self):
        try:
            yield
        except (OSError, ValueError):  # ValueError: of a closed file
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextlib.contextmanager
def quiet_streams():
    """stdout and stderr are `Quiet` in this block."""
    with (
        contextlib.redirect_stdout(Quiet(sys.stdout)),
        contextlib.redirect_stderr(Quiet(sys.stderr)),
    ):
        yield
