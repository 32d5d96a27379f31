"""Paths in checkpoints of older versions, and what they are called now."""

import re
from collections.abc import Container, Iterable
from typing import NamedTuple


class Renames(NamedTuple):
    """One change of names, for all checkpoints that were saved before it."""

    before: str
    """A pattern of paths that tells a checkpoint from before the change.

    The change concerns a checkpoint which has a path that this matches wholly and that
    the model lacks.
    """
    paths: tuple[tuple[str, str], ...]
    """(pattern of the whole old path, new path): the first match renames a path."""


_GAN = "(?:params|ema|opt_state)/(?:generator|discriminator)/(?:.*/)?"

# Oldest change first; each sees the names that the changes before it have given.
RENAMES = (
    Renames(
        "skipped/turns",
        (
            ("skipped/turns", "nonfinite/total_notfinite"),
            ("skipped/in_a_row", "nonfinite/consecutive_notfinite"),
            ("skipped/(player|tensor)", r"nonfinite/\1"),
        ),
    ),
    # The GAN's embedding of labels has become a linear map of a condition's vector.
    Renames(
        f"{_GAN}Embed_0/embedding", ((f"({_GAN})Embed_0/embedding", r"\1embed/kernel"),)
    ),
)


def current_names(
    saved: Iterable[str], model: Container[str], table: Iterable[Renames]
) -> dict[str, str]:
    """{saved path: the path of the same array in the model today}.

    >>> model = ["step", "nonfinite/total_notfinite"]
    >>> current_names(["step", "skipped/turns"], model, RENAMES)
    {'step': 'step', 'skipped/turns': 'nonfinite/total_notfinite'}

    Args:
        saved: the paths in a checkpoint.
        model: the paths that the model's train state has.
        table: the changes of names.
    """
    names = {path: path for path in saved}
    for change in table:
        unknown = (name for name in names.values() if name not in model)
        if any(re.fullmatch(change.before, name) for name in unknown):
            names = {path: _renamed(name, change) for path, name in names.items()}
    return names


def _renamed(name: str, change: Renames) -> str:
    for old, new in change.paths:
        if match := re.fullmatch(old, name):
            return match.expand(new)
    return name
