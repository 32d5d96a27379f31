"""Every public function of these rooms has an example, which runs and is right."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("gengen/diffusion", "gengen/models/closed_form.py")
# Converted to conditions, and documented, together with the models.
LATER = {"couplings.py", "guidance.py", "inverse.py"}


def files():
    for room in ROOMS:
        path = ROOT / room
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


FILES = [str(file.relative_to(ROOT)) for file in files() if file.name not in LATER]
# What there is nothing to show of: a method of another package.
WITHOUT = {"tsit5", "dopri5"}


@pytest.mark.parametrize("file", FILES)
def test_examples_run_and_none_is_missing(file):
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    assert doctest.testmod(module).failed == 0
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            text = ast.get_docstring(node) or ""
            assert ">>>" in text or node.name in WITHOUT, f"{node.name}: no example"
            asked = [a.arg for a in [*node.args.args, *node.args.kwonlyargs]]
            told = text.partition("Args:")[2]
            same = "Arguments are those of" in text or node.name in WITHOUT
            missing = [a for a in asked if f"{a}:" not in told and not same]
            assert not missing, f"{node.name} does not say what {missing} are"
