"""How far the work is: a bar on a terminal, a line now and then in a log; tables."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

HEARTBEAT = 10.0  # seconds between two lines where there is no terminal


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
    """As wide as the longest words; what is left goes where the least is missing."""
    widths = [max(map(len, " ".join(column).split(" "))) for column in columns]
    cells = [[line for cell in x for line in cell.split("\n")] for x in columns]
    missing = [max(map(len, x)) - w for x, w in zip(cells, widths, strict=True)]
    room -= sum(widths)
    for i in sorted(range(len(columns)), key=missing.__getitem__):
        more = min(max(room, 0), max(missing[i], 0))
        widths[i], room = widths[i] + more, room - more
    return widths


@contextlib.contextmanager
def progress(
    what: str, total: int, before: str = "compiling"
) -> Iterator[Callable[[int], None]]:
    """`advance(done)` tells how far the work is, on stderr.

    A bar on a terminal; elsewhere a line every `HEARTBEAT` seconds, none of short work.

    Args:
        what: what is being made.
        total: how many of them.
        before: what is done until the first of them is there.
    """
    console = Console(stderr=True)
    teller = _bar if console.is_terminal else _heartbeat
    with teller(console, what, total, before) as advance:
        yield advance


def counted(parts: Iterable, advance: Callable[[int], None], each: int = 1) -> Iterator:
    """The parts, of `each` items; `advance` is told of every one that was used."""
    for number, part in enumerate(parts, 1):
        yield part
        advance(number * each)


@contextlib.contextmanager
def _bar(console: Console, what: str, total: int, before: str):
    stdout = sys.stdout.isatty()  # what goes into a file stays there
    with Progress(console=console, redirect_stdout=stdout) as bar:
        task = bar.add_task(f"{what}: {before}", total=total)
        yield lambda done: bar.update(task, completed=done, description=what)


@contextlib.contextmanager
def _heartbeat(console: Console, what: str, total: int, before: str):
    done, began, ended = [0], time.monotonic(), threading.Event()

    def told():
        seconds = time.monotonic() - began
        if not done[0]:
            return f"{before} ({seconds:.0f} s)"
        left = seconds / done[0] * (total - done[0])
        return f"{done[0]:,} of {total:,} ({seconds:.0f} s, about {left:.0f} s left)"

    def tell():
        while not ended.wait(HEARTBEAT):
            print(f"{what}: {told()}", file=console.file, flush=True)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield lambda number: done.__setitem__(0, number)
    finally:
        ended.set()
        thread.join()
