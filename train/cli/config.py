"""--config FILE: options from a file, under those of the command line.

A JSON or TOML document of options by name, in tables or not, or what a run's
`experiment.json` says.
"""

import dataclasses
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gengen.errors import BadInput

from .near import did_you_mean

FACTS = ("examples", "left_out", "reader")  # of a record's data set: no options


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfigOptions:
    """Options from a file."""

    config: Path | None = None
    """A file of options (.json or .toml), or a run's experiment.json; what the command
    line says wins."""


def with_config(options: type, arguments: list[str]) -> list[str]:
    """The command line, with what its --config file says before it.

    Raises BadInput for a file that cannot be read and for what is no option.
    """
    given = [argument.split("=")[0].replace("_", "-") for argument in arguments]
    if "--config" not in given:
        return arguments
    place = given.index("--config")
    _, equals, file = arguments[place].partition("=")
    if not equals and place + 1 == len(arguments):
        return arguments  # the parser says what is missing
    path = Path(file if equals else arguments[place + 1])
    known = [field.name for field in dataclasses.fields(options)]
    result, seen = [], set()
    for name, value in entries(path, options.__name__):
        option = name.replace("_", "-")
        if name not in known:
            near = did_you_mean(option, [each.replace("_", "-") for each in known])
            raise BadInput(
                f"--config {path}: {name} is no option of this command{near}"
            )
        if name in seen:
            raise BadInput(f"--config {path} says {name} twice: leave one out")
        seen.add(name)
        if f"--{option}" not in given and f"--no-{option}" not in given:
            result += as_arguments(option, value)
    return result + arguments


def entries(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """(option, value) of a file; of a run's record, the run must be of experiment
    `name`.
    """
    try:
        read = tomllib.loads if path.suffix == ".toml" else json.loads
        document = read(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(
            f"--config {path} cannot be read ({str(error)[:200]}): give a JSON or TOML "
            "file of options"
        ) from error
    if not isinstance(document, dict):
        raise BadInput(f"--config {path} is no table of options by name")
    if {"experiment", "options", "run"} <= document.keys():
        if document["experiment"] != name:
            raise BadInput(
                f"--config {path} is of the experiment {document['experiment']}, not "
                f"{name}: train that one, or write a file of the options you want"
            )
        run = {k: v for k, v in document["run"].items() if k not in FACTS}
        document = {**document["options"], **run}
    yield from flat(document)


def flat(document: dict) -> Iterator[tuple[str, Any]]:
    """The entries of a table and of the tables in it."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from flat(value)
        else:
            yield str(name).lstrip("-").replace("-", "_"), value


def as_arguments(option: str, value: Any) -> list[str]:
    """["--hidden", "8", "8"]: an option as the command line says it."""
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", *words(value)]


def words(value: Any) -> Iterator[str]:
    """The words of a value, lists in lists one after the other."""
    if isinstance(value, list):
        for each in value:
            yield from words(each)
    else:
        yield str(value)
