"""Bounds of numbers, written at the option: `num: Annotated[int, AtLeast(1)] = 64`."""

import dataclasses
import math
import types
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from gengen.errors import BadInput


@dataclasses.dataclass(frozen=True)
class Bound:
    """A rule that a number keeps; `str` completes "it must be …"."""

    limit: float

    def holds(self, value) -> bool:
        """Whether the number keeps the rule."""
        raise NotImplementedError


class AtLeast(Bound):
    """value ≥ limit."""

    def holds(self, value):
        return value >= self.limit

    def __str__(self):
        return f"at least {self.limit:,}"


class AtMost(Bound):
    """value ≤ limit."""

    def holds(self, value):
        return value <= self.limit

    def __str__(self):
        return f"at most {self.limit:,}"


class Above(Bound):
    """value > limit."""

    def holds(self, value):
        return value > self.limit

    def __str__(self):
        return f"above {self.limit:,}"


class Below(Bound):
    """value < limit."""

    def holds(self, value):
        return value < self.limit

    def __str__(self):
        return f"below {self.limit:,}"


@dataclasses.dataclass(frozen=True)
class NonEmpty:
    """A list that holds at least one number."""


@dataclasses.dataclass(frozen=True)
class Default:
    """An option that is only a default of what is done with a trained model.

    A run is resumed with another value of it, which counts from then on.
    """


def defaults_in(hints: dict[str, Any]) -> set[str]:
    """The names whose hint says that they are a `Default`."""
    return {
        name
        for name, hint in hints.items()
        if Default() in getattr(hint, "__metadata__", ())
    }


Seed = Annotated[int, AtLeast(-(2**63)), AtMost(2**63 - 1)]
Steps = Annotated[int, AtLeast(1), AtMost(10**9)]
Calls = Annotated[int, AtLeast(1), AtMost(10**6)]  # of a sampler: its times are a table
Count = Annotated[int, AtLeast(1), AtMost(10**7)]  # of examples, draws, repetitions
Width = Annotated[int, AtLeast(1), AtMost(2**16)]  # of an array's axis
Depth = Annotated[int, AtLeast(1), AtMost(1_000)]  # of layers
Levels = Annotated[int, AtLeast(2), AtMost(2**16)]  # of a pixel
Several = Annotated[int, AtLeast(2), AtMost(10**7)]
Figures = Annotated[int, AtLeast(10), AtMost(10**7)]  # of fewer, figures mean nothing
Index = Annotated[int, AtLeast(0), AtMost(10**9)]
Step = Annotated[int, AtLeast(0), AtMost(10**9)]  # of a checkpoint
Workers = Annotated[int, AtLeast(0), AtMost(1_000)]
Bytes = Annotated[int, AtLeast(0), AtMost(2**50)]
Fraction = Annotated[float, Above(0), AtMost(1)]
InnerShare = Annotated[float, Above(0), Below(1)]
Share = Annotated[float, AtLeast(0), Below(1)]
Weight = Annotated[float, AtLeast(0), AtMost(1e38)]
Positive = Annotated[float, Above(0), AtMost(10**6)]


def check_numbers(options) -> None:
    """BadInput for a number outside its option's bounds; `options`: a dataclass."""
    check_values(vars(options), get_type_hints(type(options), include_extras=True))


def check_values(values: dict[str, Any], hints: dict[str, Any]) -> None:
    """BadInput for a value outside the bounds that its hint carries; None is free."""
    for name, value in values.items():
        if (broken := _broken(value, hints.get(name, Any))) is not None:
            shown, rule = broken
            raise BadInput(f"--{name.replace('_', '-')} {shown}: it must be {rule}")


def bounds_of(hint) -> list[Bound]:
    """All bounds that a type hint carries, those of its parts as well."""
    metadata = getattr(hint, "__metadata__", ())
    parts = (hint.__origin__,) if metadata else get_args(hint)
    mine = [bound for bound in metadata if isinstance(bound, Bound)]
    return mine + [bound for part in parts for bound in bounds_of(part)]


def _broken(value, hint) -> tuple[Any, Any] | None:
    """(the number, the rule it breaks), or None."""
    if get_origin(hint) is Annotated:
        if NonEmpty() in hint.__metadata__ and value == ():
            return "(nothing)", "at least one number"
        if inner := _broken(value, hint.__origin__):
            return inner
    elif isinstance(value, tuple):
        parts = get_args(hint)
        each = parts[:1] * len(value) if parts[1:] == (...,) else parts
        broken = map(_broken, value, each if len(each) == len(value) else [Any])
        return next((b for b in broken if b), None)
    elif get_origin(hint) in (Union, types.UnionType):
        broken = (_broken(value, part) for part in get_args(hint))
        return next((b for b in broken if b), None)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return value, "a finite number"
    rules = getattr(hint, "__metadata__", ())
    rules = [r for r in rules if isinstance(r, Bound) and not r.holds(value)]
    return (value, rules[0]) if rules else None
