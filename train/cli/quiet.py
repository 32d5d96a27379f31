"""Streams to which writing never fails, so that what is only told ends no run."""

import contextlib
import errno
import os
import sys


class Quiet:
    """A text stream that stops at its first failure: a closed pipe, a full disk.

    From then on the descriptor leads nowhere, so that what is left in buffers does not
    fail at the end of the process either.
    """

    def __init__(self, stream):
        self._stream = stream
        self.failure = None

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
        except (OSError, ValueError) as error:  # ValueError: of a closed file
            self.failure = error
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextlib.contextmanager
def quiet_streams():
    """stdout and stderr are `Quiet` in this block; a full disk is told at its end.

    What the terminal's alphabet has not is replaced.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="replace")
    out, err = Quiet(sys.stdout), Quiet(sys.stderr)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield
    finally:
        out.flush()
        if isinstance(out.failure, OSError) and out.failure.errno != errno.EPIPE:
            why = out.failure.strerror
            print(f"note: not all of the output could be written: {why}", file=err)
        err.flush()
