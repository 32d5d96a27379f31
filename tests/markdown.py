"""Markdown as the pages that are made have it."""

import textwrap

WIDTH = 100
MADE = "<!-- Made by `make results`, not by hand. -->"


def wrapped(text: str, indent: str = "") -> str:
    """A paragraph of at most WIDTH columns."""
    return textwrap.fill(
        text,
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
