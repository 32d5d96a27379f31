"""What the system refused to orbax, as an OSError and not as many tracebacks."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator


@contextlib.contextmanager
def system_errors() -> Iterator[None]:
    """An OSError for what tensorstore could not write, and no traceback on the screen.

    Each of orbax's threads logs what it raises, though the caller gets it.
    """
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception as error:
        if code := re.search(r"os_error_code='(\d+)'", str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
        raise
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
