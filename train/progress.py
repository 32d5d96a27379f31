"""Progress bars and tables on a terminal; quiet lines in a file."""

import contextlib
from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text


def print_table(lines: Sequence[Sequence[str]], title: str = "", left: int = 1) -> None:
    """Print a table as wide as the terminal (or COLUMNS, 80 in a pipe); cells wrap.

    lines: the headings, then the rows; the first `left` columns are words, the others
    numbers.
    """
    table = Table(title=Text(title) if title else None)
    for i, heading in enumerate(lines[0]):
        justify = "left" if i < left else "right"
        table.add_column(Text(heading), justify=justify, overflow="fold")
    for line in lines[1:]:
        table.add_row(*map(Text, line))
    Console(highlight=False).print(table)


@contextlib.contextmanager
def progress(what: str, total: int):
    """`advance(done)` moves a bar on a terminal, and does nothing elsewhere."""
    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
