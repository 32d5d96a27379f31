"""What the pages say is there: files, links, figures."""

import importlib.util
import json
import re

import pytest

from tests import pages
from tests.record import RESULTS, ROOT, flat, record, rows_of

TABLES = sorted(RESULTS.glob("*/*.json"))


def test_pages_of_results_are_up_to_date():
    made = pages.results()
    there = {
        str(path.relative_to(pages.REFERENCE))
        for path in pages.REFERENCE.glob("results/*.md")
    }
    assert there == set(made) - {"results.md"}
    for name, text in made.items():
        assert (pages.REFERENCE / name).read_text() == text, f"{name}: make results"


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_figure_has_its_command(path):
    assert path.parent.name in pages.PAGES
    for run in json.loads(path.read_text())["runs"]:
        modules = re.findall(r"python -m ([\w.]+)", run["command"])
        assert modules and all(map(importlib.util.find_spec, modules)), run["command"]
        assert re.fullmatch(r"[0-9a-f]{40}", run["commit"]), run
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", run["date"]) and run["device"], run
        assert run["seconds"] is None or run["seconds"] > 0, run
        assert run["rows"], run


def test_a_command_recorded_again_replaces_its_rows_only(tmp_path):
    told = {"commit": "c" * 40, "device": "CPU", "folder": tmp_path}
    record("page/a-table", [{"x": 1}], "one", 1.0, **told)
    path = record("page/a-table", [{"x": 2}], "other", 1.0, **told)
    table = json.loads(path.read_text())
    path.write_text(json.dumps({**table, "note": ["kept"]}))
    record("page/a-table", [{"x": 3}], "one", 2.0, **told)
    table = json.loads(path.read_text())
    assert table["title"] == "A table" and table["note"] == ["kept"]
    assert [(run["command"], run["rows"]) for run in table["runs"]] == [
        ("other", [{"x": 2}]),
        ("one", [{"x": 3}]),
    ]


def test_rows_are_lines_of_json_or_else_lines():
    assert rows_of('note\n{"a": {"b": 1}, "c": 2}\n') == [{"a b": 1, "c": 2}]
    assert rows_of("12 images/s\n") == [{"printed": "12 images/s"}]
    assert flat({"a": {"b": {"c": 1}}}) == {"a b c": 1}
    assert ROOT / "results" == RESULTS
