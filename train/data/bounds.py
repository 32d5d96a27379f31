"""How much a file may say that it holds, before anything of it is read."""

import math

from gengen.errors import BadInput

FREE = 2**28  # bytes that any file may promise
DENSE = 100  # times its own size, that a larger one may: images shrink by 2 to 20


def check_promise(
    where: str, itemsize: int, shape: tuple[int, ...], stored: int
) -> int:
    """The bytes of an array, BadInput if a file of `stored` bytes cannot hold them.

    A compressed file of zeros can hold a thousand times its size; no set of images is
    like that, and a file that says so would fill the memory.
    """
    promised = itemsize * math.prod(shape)
    if min(shape, default=0) < 0 or promised > max(FREE, DENSE * stored):
        raise BadInput(
            f"{where} promises an array of {list(shape)}, {promised:,} bytes out of "
            f"{stored:,}: it is damaged or no set of data, so fetch the file again"
        )
    return promised
