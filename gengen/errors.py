"""Mistakes of the caller, told in one sentence. This file imports nothing heavy."""

from typing import NoReturn


class BadInput(ValueError):
    """The caller's own mistake, told in one sentence: the value and the remedy."""


def no_density(what: str) -> NoReturn:
    """Refuse a likelihood of a model that has none.

    >>> no_density("GAN")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    gengen.errors.BadInput: GAN has no density, so no likelihood: compare its samples...

    Args:
        what: the model, in words.

    Raises:
        BadInput: always.
    """
    raise BadInput(
        f"{what} has no density, so no likelihood: compare its samples with data "
        '(gengen.metrics), or take a model whose `density` is not "none"'
    )
