"""Captions as tokens: the words of a data set's captions, numbered from 1.

A word is a run of letters and digits, in lower case; what stands between words is
dropped. Token 0 is padding. The vocabulary is that of the training captions, and a
run's record keeps it.
"""

import dataclasses
import difflib
import functools
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from gengen.errors import BadInput

KEY = "text"  # of a batch's tokens
SHOWN = 12  # words of a vocabulary in a sentence, at most


def words_of(caption: str) -> list[str]:
    """The words of a caption, in their order.

    >>> words_of("A red SEVEN, above a blue one.")
    ['a', 'red', 'seven', 'above', 'a', 'blue', 'one']
    """
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFC", caption).casefold())


@dataclasses.dataclass(frozen=True)
class Captions:
    """A vocabulary, and how many tokens of a caption are read."""

    words: tuple[str, ...]
    "Word i is token i + 1."
    length: int

    @functools.cached_property
    def _tokens(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words, 1)}

    def encode(self, caption: str, option: str = "--caption") -> np.ndarray:
        """Tokens int32 [length], padded with 0.

        BadInput for a caption without words, one that is too long, and a word that is
        not in the vocabulary, with what is near.

        >>> Captions(("a", "disc", "red"), 4).encode("A red disc").tolist()
        [1, 3, 2, 0]
        """
        found = words_of(caption)
        if not found:
            raise BadInput(
                f"{option} {caption!r} has no word: leave the option out for samples "
                "without a caption"
            )
        if unknown := [word for word in found if word not in self._tokens]:
            near = difflib.get_close_matches(unknown[0], self.words, 3)
            hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
            shown = ", ".join(self.words[:SHOWN])
            more = len(self.words) - SHOWN
            more = f" and {more:,} more" if more > 0 else ""
            raise BadInput(
                f"{option} {caption!r}: no training caption has the word "
                f"{unknown[0]!r}{hint}; its words are {shown}{more}"
            )
        if len(found) > self.length:
            raise BadInput(
                f"{option} {caption!r} has {len(found)} words, and the longest caption "
                f"in training had {self.length}: take a shorter one"
            )
        return self.known(caption)

    def known(self, caption: str) -> np.ndarray:
        """Tokens of the known words alone, cut: of data that nobody typed.

        >>> Captions(("a", "red"), 2).known("a pale red disc").tolist()
        [1, 2]
        """
        tokens = [self._tokens[w] for w in words_of(caption) if w in self._tokens]
        row = np.zeros(self.length, np.int32)
        row[: len(tokens[: self.length])] = tokens[: self.length]
        return row

    def decode(self, tokens: Sequence[int]) -> str:
        """The words of tokens [length], without padding.

        >>> Captions(("a", "red"), 3).decode([1, 2, 0])
        'a red'
        """
        return " ".join(self.words[token - 1] for token in tokens if token)


def vocabulary(captions: Sequence[str]) -> Captions:
    """All words of training captions, sorted, and the length of the longest.

    >>> vocabulary(["a red disc", "a square"])
    Captions(words=('a', 'disc', 'red', 'square'), length=3)
    """
    found = [words_of(caption) for caption in captions]
    words = sorted({word for each in found for word in each})
    return Captions(tuple(words), max(1, *map(len, found), 1))


def token_table(captions: Captions, texts: Sequence[str]) -> np.ndarray:
    """Tokens int32 [N, length] of many captions, unknown words left out."""
    return np.stack([captions.known(text) for text in texts])
