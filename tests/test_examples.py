"""Each public function of L0 and L1 has an example that prints what it says."""

import doctest
import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

# Rooms whose functions are no equations between arrays: families, networks, the step.
OTHERS = {"models", "nets", "step", "types"}


def modules():
    """{dotted name: file} of gengen's modules."""
    names = {}
    for file in sorted((ROOT / "gengen").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        names[".".join(part for part in parts if part != "__init__")] = file
    return names


EXAMPLES = [name for name, file in modules().items() if ">>> " in file.read_text()]


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_print_what_they_say(module):
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(verbose=False)
    report = []
    with np.printoptions(precision=4, suppress=True):
        for example in finder.find(importlib.import_module(module), module):
            runner.run(example, out=report.append)
    assert runner.tries > 0
    assert not runner.failures, "".join(report)


def has_example(function):
    """Whether its docstring has a line that a doctest runs."""
    return bool(doctest.DocTestParser().get_examples(inspect.getdoc(function) or ""))


def public_functions(module):
    """The functions that the module defines for others."""
    members = inspect.getmembers(importlib.import_module(module), inspect.isfunction)
    own = (function for _, function in members if function.__module__ == module)
    return [function for function in own if not function.__name__.startswith("_")]


def test_every_public_function_of_l0_and_l1_has_an_example():
    rooms = {name: (*name.split("."), "")[1] for name in modules()}
    equations = [name for name, room in rooms.items() if room not in OTHERS]
    functions = [f for module in equations for f in public_functions(module)]
    assert len(functions) > 100  # the reader is not blind
    without = {f.__name__: f.__module__ for f in functions if not has_example(f)}
    assert not without, f"write an example for each of {without}"
