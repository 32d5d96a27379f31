"""One process at a time trains in a workdir, or measures in its folder."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from ..files import open_to_write

LOCK = "lock"  # the file in a workdir


@contextlib.contextmanager
def locked(workdir: Path, doing: str = "trained") -> Iterator[None]:
    """Hold the workdir, which is made if need be; BadInput if another process does.

    By flock on WORKDIR/lock, which the kernel gives back however its process ends; the
    file says who holds it, and goes when nobody does. The workdir may be moved away
    meanwhile: the lock goes with it.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    file = _take(workdir / LOCK, doing)
    folder = os.open(workdir, os.O_RDONLY)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(LOCK, dir_fd=folder)
        os.close(folder)
        os.close(file)


def _take(path: Path, doing: str) -> int:
    """The descriptor of the locked file."""
    file = open_to_write(path, os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with open(file, errors="replace") as held:
            holder = held.read(200).strip() or "another process"
        from gengen.errors import BadInput

        raise BadInput(
            f"{path.parent} is being {doing} by {holder}: wait, stop it or take "
            "another --workdir"
        ) from None
    except OSError as error:  # network file systems that are mounted without
        print(
            f"note: {path.parent} cannot be locked ({error.strerror}): start nothing "
            "else there"
        )
    if not (path.exists() and os.path.samestat(os.fstat(file), path.stat())):
        os.close(file)  # its last holder removed or moved it between our two calls
        return _take(path, doing)
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    holder = f"process {os.getpid()} on {socket.gethostname()} since {since}\n"
    with contextlib.suppress(OSError):  # a full disk: it holds all the same
        os.ftruncate(file, 0)
        os.write(file, holder.encode())
    return file
