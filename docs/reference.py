"""An extension of the site: its contents, and a page for each room of gengen.

Docstrings here are plain text: `name` is code, and an indented block stands as it is.
"""

import itertools
import pkgutil
import re
from pathlib import Path

FOLDER = Path(__file__).parent / "reference/api"
ROOT = FOLDER.parents[2]
SECTION = re.compile(r"(Args|Returns|Raises)\b.*:")
SPECIAL = re.compile(r"`([^`]+)`(\w?)|([*|\\]|_(?=\W|$))")
CONTENTS = {
    "Tutorials": ["../README", "tutorials/*", "../notebooks/*"],
    "How to": ["how-to/*"],
    "Reference": [
        "reference/*",
        *(f"reference/{x}/*" for x in ("options", "results", "papers")),
    ],
    "Explanation": ["explanation/*"],
    "Modules": ["reference/api/*"],
}


def rooms() -> dict[str, list[str]]:
    """Room of gengen -> its modules."""
    found = {}
    for module in pkgutil.walk_packages([str(ROOT / "gengen")], "gengen."):
        found.setdefault(module.name.split(".")[1], []).append(module.name)
    return found


def write_pages(_app) -> None:
    """Writes docs/reference/api/ROOM.rst."""
    FOLDER.mkdir(exist_ok=True)
    for room, modules in rooms().items():
        lines = [f"gengen.{room}", "=" * (len(room) + 7), ""]
        for name in modules:
            if name != f"gengen.{room}":
                lines += [name, "-" * len(name), ""]
            lines += [f".. automodule:: {name}", "   :members:", ""]
        text, path = "\n".join(lines), FOLDER / f"{room}.rst"
        if not path.exists() or path.read_text() != text:  # else built again
            path.write_text(text)


def add_contents(app, name: str, source: list[str]) -> None:
    """The contents, behind the first page, which says the same in words."""
    if name != app.config.root_doc:
        return
    for caption, pages in CONTENTS.items():
        lines = ["```{toctree}", ":hidden:", f":caption: {caption}", ":glob:", ""]
        source[0] += "\n".join(["", *lines, *pages, "```", ""])


def escaped(text: str) -> str:
    """Text whose `name` is code, and whose other signs are themselves."""

    def sign(found):
        code, letter, other = found.groups()
        return f"\\{other}" if other else f"``{code}``" + (letter and f"\\ {letter}")

    return SPECIAL.sub(sign, text)


def fields(section: str, lines: list[str]) -> list[str]:
    """The lines below "Args:" or another such word, as fields."""
    field = {"Args": "param", "Returns": "returns", "Raises": "raises"}[section]
    made = []
    for line in lines:
        begins = not line.startswith(" " * 5) and ": " in line + " "
        name, _, text = line.strip().partition(": ")
        if begins and section != "Returns":
            name = name.rstrip(":").replace(", ", ",")
            made.append(f":{field} {escaped(name)}: {escaped(text)}")
        elif not made:
            made.append(f":{field}: {escaped(line.strip())}")
        else:
            made.append(f"   {escaped(line.strip())}")
    return made


def as_text(_app, _what, _name, _obj, _options, lines: list[str]) -> None:
    """A docstring's lines as reStructuredText, in place."""
    made = []
    for empty, block in itertools.groupby(lines, lambda line: not line.strip()):
        block = list(block)
        if not empty and (section := SECTION.fullmatch(block[0])):
            made += fields(section[1], block[1:])
        elif empty or not any(line.startswith((" ", ">>>")) for line in block):
            made += escaped("\n".join(block)).split("\n")
        else:
            made += ["::", "", *(f"    {line}" for line in block)]
    lines[:] = made


def write_door(app, error: Exception | None) -> None:
    """Writes index.html, which leads to the first page."""
    if error is None:
        page = f"{app.config.root_doc}.html"
        text = f'<meta http-equiv="refresh" content="0; url={page}">\n'
        (Path(app.outdir) / "index.html").write_text(text)


def setup(app) -> dict:
    """The hooks."""
    app.connect("build-finished", write_door)
    app.connect("builder-inited", write_pages)
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-docstring", as_text, priority=100)
    return {"parallel_read_safe": True}
