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
    between = 3 * len(columns) + 1
    widths = column_widths(columns, console.width - between)
    if not console.is_terminal:
        console.width = max(console.width, sum(widths) + between)
    for i, (column, width) in enumerate(zip(columns, widths, strict=True)):
        justify = "left" if i < left else "right"
        table.add_column(Text(column[0]), justify=justify, overflow="fold", width=width)
    for line in lines[1:]:
        table.add_row(*map(Text, line))
    console.print(table)


def column_widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """As wide as the longest words, and wider, the first first, while there is room."""
    widths = [max(map(len, " ".join(column).split(" "))) for column in columns]
    room -= sum(widths)
    for i, column in enumerate(columns):
        longest = max(len(line) for cell in column for line in [*cell.split("\n"), ""])
        more = min(max(room, 0), max(longest - widths[i], 0))
        widths[i], room = widths[i] + more, room - more
    return widths


@contextlib.contextmanager
def progress(what: str, total: int):
    """`advance(done)` moves a bar on a terminal, and does nothing elsewhere."""
    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
