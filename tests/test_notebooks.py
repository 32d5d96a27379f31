"""Every notebook runs from its first cell to its last, at toy size."""

from pathlib import Path

import nbclient
import nbformat
import pytest
from program import RARELY

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, monkeypatch):
    monkeypatch.setenv("GENGEN_NOTEBOOK_STEPS", "50")
    notebook = nbformat.read(path, as_version=4)
    quicker = nbformat.v4.new_code_cell(f"import gc\ngc.set_threshold{RARELY}")
    notebook.cells.insert(0, quicker)
    resources = {"metadata": {"path": str(ROOT)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    assert not any(
        output.output_type == "error"
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
