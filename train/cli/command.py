"""From functions to command lines; from the user's mistakes to one sentence."""

import dataclasses
import difflib
import errno
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from typing import Annotated, get_type_hints

import docstring_parser
import tyro

from gengen.errors import BadInput

from .options import RunOptions


def options_class(function: Callable, of_text: bool = False) -> type:
    """A dataclass of `RunOptions`' fields and the keywords of an experiment function.

    Types, defaults and help come from its signature and docstring. `of_text` makes the
    data set a text by default.
    """
    doc = docstring_parser.parse(inspect.getdoc(function))
    helps = {p.arg_name: " ".join(p.description.split()) for p in doc.params}
    hints = get_type_hints(function)
    fields = [
        (
            p.name,
            Annotated[hints[p.name], tyro.conf.arg(help=helps[p.name])],
            dataclasses.field(default=p.default),
        )
        for p in inspect.signature(function).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    ]
    if of_text:
        text = tyro.conf.arg(help="text (Python's language reference) or text:PATH.")
        fields.append(("dataset", Annotated[str, text], "text"))
    made = dataclasses.make_dataclass(
        function.__name__, fields, bases=(RunOptions,), frozen=True, kw_only=True
    )
    made.__doc__ = f"{doc.short_description}\n\n{doc.long_description}"
    return made


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ " (did you mean --latent?)", or nothing where nothing is near."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def parse(options: type, prog: str, arguments: list[str] | None = None):
    """The command line as an `options` dataclass; BadInput for an unknown option."""
    parsed, unknown = tyro.cli(
        options, prog=prog, args=arguments, return_unknown_args=True
    )
    if unknown:
        known = [f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(options)]
        hint = did_you_mean(unknown[0].split("=")[0], known)
        raise BadInput(f"unknown option {unknown[0]}{hint}: {prog} --help lists all")
    return parsed


def split_options(parsed) -> tuple[RunOptions, dict]:
    """The parsed command line -> the run's options and the experiment's keywords."""
    everything = {f.name: getattr(parsed, f.name) for f in dataclasses.fields(parsed)}
    own = {f.name: everything.pop(f.name) for f in dataclasses.fields(RunOptions)}
    return RunOptions(**own), everything


def run_command(function: Callable, *arguments, **keywords):
    """Run the program; the user's mistake becomes one sentence and exit status 2.

    So does a file or folder that cannot be read or written. Ctrl-C exits with 130, a
    closed pipe quietly. Anything else is a bug and keeps its traceback.
    """
    try:
        return function(*arguments, **keywords)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            remedy = "nothing that was saved is lost; free space and try again"
            sentence = f"{error.strerror}: {remedy}"
        elif error.filename is not None:
            remedy = "choose a file or folder that can be read and written"
            sentence = f"{error.filename}: {error.strerror}; {remedy}"
        else:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
