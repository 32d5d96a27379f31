"""Options as flat frozen dataclasses, composed by inheritance of groups.

Every class that defines options is one group of the help: its docstring's first line
is the group's heading, the string under a field is the option's meaning, and the bounds
stand in its annotation. A subclass changes a default by name alone:

    @group(steps=2_000)
    class TextOptions(Training): ...
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable
from typing import Annotated, Any, dataclass_transform, get_type_hints

import tyro


@dataclass_transform(kw_only_default=True, frozen_default=True)
def group(**defaults) -> Callable[[type], type]:
    """A frozen dataclass of keywords; `defaults` take the place of its bases' own."""

    def decorate(cls: type) -> type:
        for name, value in defaults.items():
            kinds = (vars(base).get("__annotations__", {}) for base in cls.__mro__)
            kind = next(hints[name] for hints in kinds if name in hints)
            cls.__annotations__[name] = kind
            setattr(cls, name, value)
        return dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    return decorate


def defaults_of(options: type) -> dict[str, Any]:
    """{option: default} of all options that have one."""
    fields = dataclasses.fields(options)
    return {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}


@functools.cache
def meanings(cls: type) -> dict[str, str]:
    """{field: the string under it} of the fields that this class itself defines.

    A class that is made, not written, says them as `MEANINGS`.
    """
    if "MEANINGS" in vars(cls):
        return cls.MEANINGS
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):
        return {}
    body = tree.body[0].body
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def meaning(options: type, name: str) -> str:
    """What an option means: of the most derived class that says it."""
    said = (meanings(cls).get(name) for cls in options.__mro__[:-1])
    return next((text for text in said if text), "")


def groups_of(options: type) -> dict[type, list[str]]:
    """{class: the options that it was the first to define}, the most derived first."""
    names, owners = [f.name for f in dataclasses.fields(options)], {}
    for cls in reversed(options.__mro__[:-1]):
        owners |= dict.fromkeys(vars(cls).get("__annotations__", {}), cls) | owners
    groups = {cls: [n for n in names if owners[n] is cls] for cls in options.__mro__}
    return {cls: members for cls, members in groups.items() if members}


def title_of(group: type) -> str:
    """The words before "options" over a group: DataOptions -> data."""
    name = group.__name__.removesuffix("Options")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


@functools.cache
def nested(options: type, *others: type) -> type:
    """The options as tyro is to show them: one dataclass in it per group.

    others: groups that are parsed beside them, and are no part of `options`.
    """
    parts = [
        shown(options, group, names) for group, names in groups_of(options).items()
    ]
    parts += [
        shown(other, group, names)
        for other in others
        for group, names in groups_of(other).items()
    ]
    return dataclasses.make_dataclass(
        options.__name__,
        [(title_of(part), tyro.conf.OmitArgPrefixes[part]) for part in parts],
    )


def shown(options: type, group: type, names: list[str]) -> type:
    """One group of the options as a dataclass with their meanings."""
    hints = get_type_hints(options)  # without bounds, which no sentence needs
    defaults = {f.name: f.default for f in dataclasses.fields(options)}
    fields = []
    for name in names:
        hint, text = hints[name], meaning(options, name)
        hint = Annotated[hint, tyro.conf.arg(help=text)] if text else hint
        fields.append((name, hint, dataclasses.field(default=defaults[name])))
    part = dataclasses.make_dataclass(group.__name__, fields, kw_only=True)
    heading = (inspect.getdoc(group) or "").partition("\n")[0]
    part.__doc__ = "" if group is options else heading
    return part


def flattened(options: type, parsed):
    """The `options` dataclass of what was parsed as `nested(options, …)`."""
    names = {field.name for field in dataclasses.fields(options)}
    parts = (getattr(parsed, field.name) for field in dataclasses.fields(parsed))
    values = {k: v for part in parts for k, v in vars(part).items() if k in names}
    return options(**values)
