"""From functions to command lines; from the user's mistakes to one sentence."""

import dataclasses
import difflib
import errno
import inspect
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable

import tyro

from gengen.errors import BadInput

from .bounds import check_numbers
from .groups import flattened, nested
from .options import RunOptions


def options_class(function: Callable, of_text: bool = False) -> type:
    """A dataclass of an experiment's keywords and of `RunOptions`.

    `of_text` makes the data set a text by default.
    """
    replaced = [("dataset", str, "text")] if of_text else []
    made = dataclasses.make_dataclass(
        function.__name__,
        replaced,
        bases=(function.options, RunOptions),
        frozen=True,
        kw_only=True,
    )
    made.__doc__ = function.__doc__
    return made


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ " (did you mean --latent?)", or nothing where nothing is near."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def parse(options: type, prog: str, arguments: list[str] | None = None):
    """The command line as an `options` dataclass, within the bounds of its fields.

    Raises BadInput for an unknown option, and for a number out of its bounds.
    """
    parsed, unknown = tyro.cli(
        nested(options),
        prog=prog,
        description=wrapped(inspect.getdoc(options) or ""),
        args=arguments,
        return_unknown_args=True,
    )
    if unknown:
        known = [f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(options)]
        hint = did_you_mean(unknown[0].split("=")[0], known)
        raise BadInput(f"unknown option {unknown[0]}{hint}: {prog} --help lists all")
    result = flattened(options, parsed)
    check_numbers(result)
    return result


def wrapped(text: str) -> str:
    """Paragraphs as wide as the terminal; 80 columns where there is none."""
    width = shutil.get_terminal_size().columns
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    indents = {"initial_indent": "  ", "subsequent_indent": "  "}  # tyro keeps these
    return "\n\n".join(textwrap.fill(part, width, **indents) for part in paragraphs)


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
