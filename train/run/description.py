"""What a model and its optimisers are, in words that a record can hold and compare."""

import dataclasses
import functools
import hashlib
import inspect
import re
from collections.abc import Mapping
from typing import Any

import jax

from .digests import digest


def describe(value: Any, name: str = "model", inside: tuple = ()) -> dict[str, str]:
    """{name: the class, name.field: …} of a value, and of those that are its fields.

    Two are equal if the values are. What has a repr of its own and is no dataclass is
    described by that, without addresses in memory.

    >>> from gengen.conditions import Labels
    >>> describe(Labels(10), "condition")
    {'condition': 'Labels', 'condition.num': '10', 'condition.key': "'label'"}
    """
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return {name: " ".join(map(str, digest(value)))}
    fields = _fields(value)
    if fields is None or id(value) in inside:
        return {name: _plain(repr(value))}
    said = {name: type(value).__qualname__}
    for field, x in fields.items():
        said |= describe(x, f"{name}.{field}", (*inside, id(value)))
    return said


def _fields(value: Any) -> dict[str, Any] | None:
    """{name: value} of a dataclass or a plain object; None of everything else."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        names = [name for name in names if name != "parent"]  # of a Flax module
        return {name: getattr(value, name, None) for name in names}
    if type(value).__repr__ is object.__repr__ and hasattr(value, "__dict__"):
        return vars(value)
    return None


def describe_optimizers(optimizers: Mapping[str, Any], params) -> dict[str, str]:
    """{"optimizers.PLAYER": the digest of its update as a program of this JAX}."""
    said = {}
    for player, optimizer in optimizers.items():
        shapes = params[player]
        memory = jax.eval_shape(optimizer.init, shapes)
        program = _plain(str(jax.make_jaxpr(optimizer.update)(shapes, memory, shapes)))
        digest = hashlib.sha256(program.encode()).hexdigest()[:16]
        said[f"optimizers.{player}"] = f"{digest} in JAX {jax.__version__}"
        said |= constants(optimizer.update, f"optimizers.{player}:")
    return said


def constants(value: Any, name: str, inside: tuple = ()) -> dict[str, str]:
    """{"NAME scale_by_adam.b1": "0.9", …}: what functions were made with.

    The numbers of optax stand in the closures of the functions that it returns.
    """
    if isinstance(value, bool | int | float | str):
        return {name: repr(value)}
    if isinstance(value, tuple | list):
        parts = [(f"{name} {i}", each) for i, each in enumerate(value)]
    elif isinstance(value, functools.partial):
        parts = [(name, value.func), (name, value.args), (name, value.keywords)]
    elif isinstance(value, dict):
        parts = [(f"{name}.{key}", each) for key, each in value.items()]
    elif inspect.isfunction(value) and id(value) not in inside:
        inside = (*inside, id(value))
        name = f"{name} {value.__qualname__.partition('.')[0]}"
        cells = inspect.getclosurevars(value).nonlocals
        parts = [(f"{name}.{key}", each) for key, each in sorted(cells.items())]
    else:
        return {}
    return {
        k: v for part in parts for k, v in constants(part[1], part[0], inside).items()
    }


def comparable(name: str, old: Any, new: Any) -> bool:
    """Whether two descriptions that differ are of two things: programs of one JAX."""
    if not name.startswith("optimizers.") or None in (old, new):
        return ":" not in name  # constants say why programs differ, and not whether
    return ":" not in name and str(old).split()[1:] == str(new).split()[1:]


def reason(name: str, old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Why two descriptions differ at a name: "NAME 0.9, not 0.99".

    Where that is an optimiser's program, by the first of its numbers that differs.
    """
    of_it = [key for key in {**old, **new} if key.startswith(f"{name}:")]
    differing = [key for key in of_it if old.get(key) != new.get(key)]
    key = next(iter(differing), name)
    shown = name if key == name else f"{name}: {key.split()[-1]}"
    return f"{shown} {old.get(key)}, not {new.get(key)}"


def _plain(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)
