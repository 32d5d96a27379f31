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
    """{field: the string under it} of the fields that this class itself defines."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):
        return {}  # made, not written: its fields carry their help in the annotation
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
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", group.__name__).lower()
    return words.removesuffix("_options")


def nested(options: type) -> type:
    """The options as tyro is to show them: one dataclass in it per group."""
    hints = get_type_hints(options, include_extras=True)
    defaults = {f.name: f.default for f in dataclasses.fields(options)}
    parts = []
    for group, names in groups_of(options).items():
        fields = []
        for name in names:
            hint, text = hints[name], meaning(options, name)
            hint = Annotated[hint, tyro.conf.arg(help=text)] if text else hint
            value = dataclasses.field(default=defaults[name])
            fields.append((name, hint, value))
        part = dataclasses.make_dataclass(group.__name__, fields, kw_only=True)
        heading = (inspect.getdoc(group) or "").partition("\n")[0]
        part.__doc__ = "" if group is options else heading
        parts.append((title_of(group), tyro.conf.OmitArgPrefixes[part]))
    return dataclasses.make_dataclass(options.__name__, parts)


def flattened(options: type, parsed):
    """The `options` dataclass of what was parsed as `nested(options)`."""
    parts = (getattr(parsed, field.name) for field in dataclasses.fields(parsed))
    return options(
        **{name: value for part in parts for name, value in vars(part).items()}
    )
