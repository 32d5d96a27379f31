"""What the parser refuses, as one sentence: the option, what was given, the remedy."""

import re
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

KINDS = {int: "a whole number", float: "a number", str: "text", Path: "a path"}


def kind_of(hint: Any) -> str:
    """What an option takes, in words: "a whole number, or one of adam, lion"."""
    if get_origin(hint) is Annotated:
        return kind_of(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) in (Union, types.UnionType):
        parts = (part for part in get_args(hint) if part is not types.NoneType)
        return ", or ".join(map(kind_of, parts))
    if get_origin(hint) is tuple:
        return f"{kind_of(get_args(hint)[0])}, once or several times"
    return KINDS.get(hint, "yes or no, as --name or --no-name")


def values_of(option: str, arguments: list[str]) -> list[str] | None:
    """What the command line gives an option, the last time; None where it does not."""
    found, is_own = None, False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            is_own = name.replace("_", "-") == option
            found = [value] * bool(equals) if is_own else found
        elif is_own:
            found.append(argument)
    return found


def refusal(options: type, arguments: list[str], said: str, called: str) -> str:
    """The sentence for a command line that the parser refused.

    Args:
        options: the dataclass of all options.
        arguments: the command line.
        said: what the parser wrote; the first option that it names is the one.
        called: how the command is called.
    """
    hints = get_type_hints(options, include_extras=True)
    named = (word[2:].replace("-", "_") for word in re.findall(r"--[\w-]+", said))
    if (name := next((word for word in named if word in hints), None)) is None:
        return " ".join(re.sub("[│╭╮╰╯─]", " ", said).split())
    option = f"--{name.replace('_', '-')}"
    kind, more = kind_of(hints[name]), f"{called} --help says more"
    if (values := values_of(option, arguments)) is None:
        return f"{option} is missing: give {kind}; {more}"
    return f"{option} {' '.join(values) or '(nothing)'}: it must be {kind}; {more}"
