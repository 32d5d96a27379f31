"""What the readers of weight files share: types of numbers, bounds, and refusals."""

import math

import numpy as np

# safetensors' name of a type -> the numbers as stored, little-endian.
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "|u1"}
TYPES |= {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1"}

# Far above what any network needs, far below what hurts.
_NUMBER, _RANK = 2**48, 32


class Unreadable(Exception):
    """What is wrong with the file and the remedy, after its name."""


def damaged(what: str) -> Unreadable:
    """What is wrong with a file that was once whole."""
    return Unreadable(f"{what}: it is truncated or damaged, fetch the file again")


def refused(what: str) -> Unreadable:
    """What is in a file and would not be in a dict of tensors."""
    return Unreadable(
        f"{what}: where the file can be trusted, load it with PyTorch and save its "
        "state_dict() as .safetensors"
    )


def count(shape: list | tuple) -> int:
    """The product of the sizes, once they are known to be sizes."""
    if len(shape) > _RANK or not all(map(is_natural, shape)):
        raise damaged("holds a tensor of impossible shape")
    return math.prod(shape)


def is_natural(number) -> bool:
    """Whether it is an integer that a size can be."""
    return type(number) is int and 0 <= number < _NUMBER


def native(array: np.ndarray, code: str) -> np.ndarray:
    """A contiguous copy; bfloat16, the upper half of a float32, becomes one."""
    array = np.array(array, order="C")
    if code == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array != 0 if code == "BOOL" else array
