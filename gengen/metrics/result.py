"""What a metric returns: an estimate with its error, and the record of a comparison."""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from gengen.errors import BadInput
from gengen.types import static


class Estimate(NamedTuple):
    """A mean over independent parts and the standard error of that mean."""

    value: float
    """The mean."""
    standard_error: float | None
    """The standard deviation of the parts over √parts; None of a single part."""


@static
class Result:
    """The value of a metric and what is needed to compare it with another one."""

    value: float
    """The metric itself."""
    n_real: int
    """The number of real samples it was computed from."""
    n_fake: int
    """The number of fake samples it was computed from."""
    extractor: str
    """The name of what turned samples into features."""
    standard_error: float | None = None
    """The standard error of `value`; None where it is not known."""
    note: str = ""
    """What a reader must beware of, in a sentence; "" for nothing."""

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, as types that JSON has.

        JSON has no NaN and no infinity: a number that is not finite becomes None.

        >>> Result(math.nan, 10, 10, "pixels").as_dict()["value"] is None
        True
        """
        fields = dataclasses.asdict(self)
        return {name: _finite_or_none(value) for name, value in fields.items()}


def _finite_or_none(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value


def standard_error(values) -> float | None:
    """√(Σ (x - mean)²/(n - 1))/√n, the standard error of the mean of n values.

    Args:
        values: [n] numbers from independent parts or examples.

    Returns None of one value, which says nothing of its own error.

    >>> standard_error([1.0, 3.0])
    1.0
    >>> standard_error([5.0]) is None
    True
    """
    values = np.asarray(values, np.float64)
    refuse_unless(
        values.ndim == 1 and len(values) > 0,
        f"Values of shape {values.shape}: give at least one, [n].",
    )
    if len(values) == 1:
        return None
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def estimate(values) -> Estimate:
    """The mean of values [n] and its `standard_error`.

    Args:
        values: [n] numbers from independent parts.

    >>> estimate([1.0, 3.0])
    Estimate(value=2.0, standard_error=1.0)
    """
    error = standard_error(values)
    return Estimate(float(np.mean(values)), error)


def refuse_unless(valid: bool, sentence: str) -> None:
    """Raise `BadInput` with the sentence unless `valid`.

    Args:
        valid: whether the input is as it must be.
        sentence: the value that is wrong and the remedy.

    >>> refuse_unless(3 > 0, "3 samples are too few: give more.")
    """
    if not valid:
        raise BadInput(sentence)


def as_features(*sets, least: int = 1) -> list[np.ndarray]:
    """Sets of features [N, F] as float64; what can be wrong with them is refused.

    Args:
        sets: arrays of floats [N, F], of one F; N may differ.
        least: the smallest N that is accepted.

    Raises BadInput for another rank or type, sets of different F, fewer than `least`
    samples, and samples that are not finite (the first is named).

    >>> [x.shape for x in as_features([[1.0, 2.0]], [[0.0, 0.0], [1.0, 1.0]])]
    [(1, 2), (2, 2)]
    """
    arrays = [np.asarray(features) for features in sets]
    for x in arrays:
        refuse_unless(
            x.ndim == 2, f"Features of shape {x.shape}: reshape them to [N, F]."
        )
        refuse_unless(
            x.dtype.kind == "f" or x.dtype.name == "bfloat16",
            f"Features of type {x.dtype}: give floats, an extractor's output.",
        )
    arrays = [x.astype(np.float64) for x in arrays]
    for x in arrays:
        n, width = x.shape
        refuse_unless(n >= least, f"{n} samples are too few: give at least {least}.")
        refuse_unless(
            width == arrays[0].shape[1],
            f"Features of {arrays[0].shape[1]} and {width} dimensions cannot be "
            "compared: take both from the same extractor.",
        )
        finite = np.isfinite(x).all(axis=1)
        refuse_unless(
            finite.all(),
            f"{n - finite.sum()} of {n} samples have features that are not finite, "
            f"sample {finite.argmin()} the first: look at what made it.",
        )
    return arrays
