"""How much of its book of codes a run uses, over many examples."""

from collections.abc import Callable, Iterable

import numpy as np

from gengen.metrics.codebook import codebook_perplexity, codebook_usage, count_codes


def encoder(model) -> Callable:
    """(params, state, batch) -> the codes of the batch, for jit."""

    def encode(params, state, batch):
        return model.to_latent(params, state, model.space.read(batch))

    return encode


def use_of_codes(encode, book_size: int, batches: Iterable[dict], num: int) -> dict:
    """{"usage", "perplexity", "num": vectors} of the first `num` examples.

    encode: a batch -> codes int32 [B, *grid].
    """
    counts, left = np.zeros(book_size, np.int64), num
    for batch in batches:
        codes = np.asarray(encode(batch))[:left]
        counts += count_codes(codes, book_size)
        left -= len(codes)
    return {
        "usage": codebook_usage(counts),
        "perplexity": codebook_perplexity(counts),
        "num": int(counts.sum()),
    }
