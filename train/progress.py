"""Progress bars and tables on a terminal; quiet lines in a file."""

import contextlib
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text


def print_table(lines: Sequence[Sequence[str]], title: str = "", left: int = 1) -> None:
    """Print a table as wide as the terminal (80 in a pipe, or COLUMNS); cells wrap.

    Where there is no terminal, words are not broken: such a table may be wider.

    lines: the headings, then the rows; the first `left` columns are words, the others
    numbers.
    """
    console = Console(highlight=False)
    table = Table(box=SIMPLE_HEAD, show_header=any(lines[0]))
    table.title = Text(title) if title else None
    columns = list(zip(*lines, strict=True))
    words = [max(len(w) for w in " ".join(column).split(" ")) for column in columns]
    for i, column in enumerate(columns):
        least = None if console.is_terminal else words[i]
        justify = "left" if i < left else "right"
        table.add_column(
            Text(column[0]), justify=justify, overflow="fold", min_width=least
        )
    for line in lines[1:]:
        table.add_row(*map(Text, line))
    if not console.is_terminal:
        console.width = max(console.width, sum(words) + 3 * len(words) + 2)
    console.print(table)


@contextlib.contextmanager
def progress(what: str, total: int):
    """`advance(done)` moves a bar on a terminal, and does nothing elsewhere."""
    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
