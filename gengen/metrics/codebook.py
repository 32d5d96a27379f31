"""How much of a book of codes is used, from the counts of its codes.

Count over an epoch: the perplexity of one batch is at most the number of its vectors,
whatever the book.
"""

import numpy as np

from gengen.errors import BadInput


def count_codes(codes, size: int) -> np.ndarray:
    """How often each of the codes 0 … size - 1 is there, int64 [size].

    Raises BadInput for a code out of range.

    >>> count_codes([[2, 0], [2, 2]], size=4).tolist()
    [1, 0, 3, 0]
    """
    codes = np.asarray(codes).ravel()
    if len(codes) and not 0 <= codes.min() <= codes.max() < size:
        worst = int(codes.min() if codes.min() < 0 else codes.max())
        raise BadInput(f"code {worst} is out of range: the book has 0 to {size - 1}")
    return np.bincount(codes, minlength=size)


def codebook_usage(counts) -> float:
    """The share of codes that are there at all, in [0, 1].

    >>> codebook_usage([1, 0, 3, 0])
    0.5
    """
    return float(np.mean(np.asarray(counts) > 0))


def codebook_perplexity(counts) -> float:
    """exp of the entropy of the codes' frequencies, in [1, size]: codes in even use.

    Van den Oord et al. 2017, arXiv:1711.00937, report it.

    >>> codebook_perplexity([5, 5, 0])
    2.0
    """
    p = np.asarray(counts, np.float64)
    p = p[p > 0] / p.sum()
    return float(np.exp(-np.sum(p * np.log(p))))
