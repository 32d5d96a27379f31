"""Progress bars and tables on a terminal; quiet lines in a file."""

import contextlib

from rich.console import Console
from rich.progress import (
    Progress,
)


def wide_console() -> Console:
    """For tables: as wide as the terminal, and wide enough in a file."""
    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = 160
    return console


@contextlib.contextmanager
def progress(what: str, total: int):
    """`advance(done)` moves a bar on a terminal, and does nothing elsewhere."""
    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
