"""From functions to command lines; from the user's mistakes to one sentence."""

import contextlib
import dataclasses
import errno
import functools
import inspect
import io
import shutil
import sys
import textwrap
from collections.abc import Callable

import tyro

from gengen.errors import BadInput

from .bounds import check_numbers
from .config import ConfigOptions, with_config
from .doors import command
from .groups import flattened, nested
from .mistakes import refusal
from .near import did_you_mean
from .options import RunOptions
from .quiet import quiet_streams


@functools.cache
def options_class(function: Callable, dataset: str | None = None) -> type:
    """A dataclass of an experiment's keywords and of `RunOptions`.

    dataset: the name of the data set by default; None for that of `SourceOptions`.
    """
    replaced = [("dataset", str, dataset)] if dataset else []
    made = dataclasses.make_dataclass(
        function.__name__,
        replaced,
        bases=(function.options, RunOptions),
        frozen=True,
        kw_only=True,
    )
    made.__doc__ = function.__doc__
    return made


def parse(options: type, name: str, arguments: list[str] | None = None):
    """The command line of command `name` as an `options` dataclass, within its bounds.

    Raises BadInput for an unknown or a missing option, and for a value of another type
    or out of its bounds.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    arguments, said = with_config(options, arguments), io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed, unknown = tyro.cli(
                nested(options, ConfigOptions),
                prog=command(name),
                description=wrapped(inspect.getdoc(options) or ""),
                args=arguments,
                config=(tyro.conf.HelptextFromCommentsOff,),  # `nested` says it all
                return_unknown_args=True,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        sentence = refusal(options, arguments, said.getvalue(), command(name))
        raise BadInput(sentence) from None
    if unknown:
        known = [f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(options)]
        hint = did_you_mean(unknown[0].split("=")[0], known)
        raise BadInput(
            f"unknown option {unknown[0]}{hint}: {command(name)} --help lists all"
        )
    result = flattened(options, parsed)
    check_numbers(result)
    return result


def wrapped(text: str) -> str:
    """Paragraphs as wide as the terminal; 80 columns where there is none."""
    width = shutil.get_terminal_size().columns
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    indents = {"initial_indent": "  ", "subsequent_indent": "  "}  # tyro keeps these
    return "\n\n".join(textwrap.fill(part, width, **indents) for part in paragraphs)


def listed(lines: dict[str, str]) -> str:
    """Names and what they are, in two columns as wide as the terminal."""
    width, column = shutil.get_terminal_size().columns, max(map(len, lines)) + 4
    return "\n".join(
        textwrap.fill(
            text,
            width,
            initial_indent=f"  {name:{column - 2}}",
            subsequent_indent=" " * column,
        )
        for name, text in lines.items()
    )


def split_options(parsed) -> tuple[RunOptions, dict]:
    """The parsed command line -> the run's options and the experiment's keywords."""
    everything = {f.name: getattr(parsed, f.name) for f in dataclasses.fields(parsed)}
    own = {f.name: everything.pop(f.name) for f in dataclasses.fields(RunOptions)}
    return RunOptions(**own), everything


def run_command(function: Callable, *arguments, **keywords):
    """Run the program; the user's mistake becomes one sentence and exit status 2.

    So does a file or folder that cannot be read or written. Ctrl-C exits with 130. What
    cannot be told, because of a closed pipe, a full disk or the terminal's alphabet,
    never ends the program. Anything else is a bug and keeps its traceback.
    """
    with quiet_streams():
        try:
            return function(*arguments, **keywords)
        except BadInput as error:
            sentence = str(error)
        except OSError as error:
            if (sentence := sentence_of(error)) is None:
                raise
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(2)


def sentence_of(error: OSError) -> str | None:
    """What a file or disk refused, and the remedy; None where it is neither."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        remedy = "nothing that was saved is lost; free space and try again"
        return f"{error.strerror}: {remedy}"
    if error.filename is not None:
        remedy = "choose a file or folder that can be read and written"
        return f"{error.filename}: {error.strerror}; {remedy}"
    return None
