"""What the pages say is there: files, links, figures."""

import importlib.util
import json
import re
import shlex

import pytest
import tyro
from program import call

from tests import figures, pages, speed
from tests.record import RESULTS, ROOT, flat, record, rows_of

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TABLES = sorted(RESULTS.glob("*/*.json"))


def test_pages_that_are_made_are_up_to_date():
    made = pages.made()
    there = {
        str(path.relative_to(pages.REFERENCE))
        for path in pages.REFERENCE.glob("*/*.md")
    }
    assert there == {name for name in made if "/" in name}
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


def test_a_figure_that_needs_no_training_is_made():
    row = next(figures.bound())
    assert row["levels"] == 17 and 3.9 < row["mean"] < 4.2 and 0.2 < row["std"] < 0.5


def test_forms_that_are_timed_beside_one_another_agree():
    assert next(speed.decoder(rounds=1, length=8))["identical"] == 1


def links(page):
    """Files that a page links to or shows, as paths; those of other sites left out."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    text = re.sub(r"`[^`]*`", "", text)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    found += re.findall(r"^\[[^\]]+\]: (\S+)", text, flags=re.M)
    return [link for link in found if not link.startswith(("http:", "https:"))]


def anchors(page):
    """The headings of a page as one links to them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_of_a_page_is_there(page):
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_and_picture_is_reached_from_the_front_page():
    seen, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in seen:
            continue
        seen.add(page)
        if page.suffix == ".md":
            files = (link.partition("#")[0] for link in links(page))
            ahead += [(page.parent / name).resolve() for name in files if name]
    pictures = (ROOT / "docs/images").iterdir()
    lost = {*PAGES, *pictures, *(ROOT / "notebooks").glob("*.ipynb")} - seen
    assert not lost, sorted(map(str, lost))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_are_short_and_lines_too(page):
    lines = page.read_text().splitlines()
    assert len(lines) < (120 if page.name == "README.md" else 150)
    assert not [line for line in lines if len(line) > 100]


def test_renamed_names_are_there():
    """Each `gengen.….name` of the pages that are written can be imported."""
    for page in PAGES:
        for name in re.findall(r"`(gengen(?:\.\w+)+)`", page.read_text()):
            module, _, attribute = name.rpartition(".")
            try:
                importlib.import_module(name)
            except ModuleNotFoundError:
                assert hasattr(importlib.import_module(module), attribute), name


BLOCK = re.compile(r"^```bash\n(.*?)^```", re.M | re.S)


class Parsed(Exception):
    """The command line was understood; nothing is run."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_is_understood(page, monkeypatch):
    parse = tyro.cli

    def parsed(*arguments, **keywords):
        _, unknown = parse(*arguments, **keywords)
        assert not unknown, unknown
        raise Parsed

    monkeypatch.setattr(tyro, "cli", parsed)
    for block in BLOCK.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.partition("python -m ")[2].partition("; ")[0]
            command = re.sub(r"--config \S+", "", command)  # the file is read at once
            words = shlex.split(command, comments=True)
            if words and words[0].startswith("train"):
                with pytest.raises(Parsed):
                    call(words)
