"""The site: docstrings as its text, and the index of papers."""

import importlib.util
from pathlib import Path

from tests import papers

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location(
    "site_reference", ROOT / "docs/reference.py"
)
SITE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(SITE)


DOCSTRING = """One `name`d z*, of x_i and x_.

    x = a * b_

Args:
    a, b: of `c`, a
        second line: too.

Returns:
    The one.

>>> 1 * 1
1
"""


def test_a_docstring_is_text_code_as_it_stands_and_fields():
    lines = DOCSTRING.split("\n")
    SITE.as_text(None, None, None, None, None, lines)
    assert (
        "\n".join(lines)
        == """One ``name``\\ d z\\*, of x_i and x\\_.

::

        x = a * b_

:param a,b: of ``c``, a
   second line: too.

:returns: The one.

::

    >>> 1 * 1
    1
"""
    )


def test_every_room_has_its_modules():
    rooms = SITE.rooms()
    assert rooms["step"] == ["gengen.step"]
    assert {"gengen.losses", "gengen.losses.adversarial"} <= {*rooms["losses"]}
    folders = {p.parent.name for p in (ROOT / "gengen").glob("*/__init__.py")}
    assert folders <= rooms.keys()


def test_papers_are_found_with_their_places_and_authors():
    found = papers.sources()
    ddpm = found["2006.11239"]
    assert "Ho, Jain and Abbeel 2020" in ddpm[""]
    assert any("equation" in place for places in ddpm.values() for place in places)
    assert found["1606.04934"]["gengen.nets.flows"]
    text = "Ho and Van 2020, arXiv:2001.00001, equations 1, 2 and 3.4. So, arXiv:2."
    assert papers.AUTHORS.findall(text) == [("Ho and Van 2020", "2001.00001")]
    [(number, places)] = papers.WHERE.findall(text)
    assert (number, places) == ("2001.00001", ", equations 1, 2 and 3.4")
    every = "".join(papers.pages().values())
    assert all(f"arXiv:{number}:" in every for number in found)
