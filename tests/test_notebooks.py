"""Every notebook runs from its first cell to its last, at toy size.

In this process, whose programs and imports the next ones use: cells are plain Python.
"""

import sys
import types
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, monkeypatch):
    monkeypatch.setenv("GENGEN_NOTEBOOK_STEPS", "10")
    monkeypatch.chdir(ROOT)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    module = types.ModuleType("notebook")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    plt.switch_backend("agg")
    wide = jax.config.jax_enable_x64
    try:
        for number, cell in enumerate(notebook.cells):
            if cell.cell_type == "code":
                code = compile(cell.source, f"{path.name}, cell {number}", "exec")
                exec(code, vars(module))
    finally:
        plt.close("all")
        jax.config.update("jax_enable_x64", wide)
