"""Pages of docs/reference/papers/: which paper's equation is which name of gengen.

They are made from the docstrings, which name their sources as "authors year, arXiv:
number, equation n".
"""

import ast
import collections
import re
from pathlib import Path

from tests.markdown import MADE, wrapped

ROOT = Path(__file__).parents[1]
NUMBER = r"arXiv:\s?(\d{4}\.\d{4,5})"
NAME = r"(?:[A-Z][a-zà-ž][\w'’-]*|et al\.|and|van|den|von|de|der|[,&])"
AUTHORS = re.compile(rf"\b({NAME}(?: {NAME}|,)* \d{{4}}),? {NUMBER}")
PLACE = r"(?:equation|section|appendix|algorithm|table|figure|theorem|proposition)s?"
ONE = r"[A-Z\d](?:\.?\w)*"
WHERE = re.compile(
    rf"{NUMBER}((?:,? (?:and )?{PLACE} {ONE}(?:(?:,| and| to) \d(?:\.?\d)*)*)*)"
)
PARTS = {"until 2017": "17", "2018 to 2021": "21", "since 2022": "99"}  # -> last year


def sources() -> dict[str, dict[str, list[str]]]:
    """{number: {name of gengen: places in the paper}}; authors under the name ""."""
    found = collections.defaultdict(lambda: collections.defaultdict(list))
    for path in sorted((ROOT / "gengen").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        module = module.removesuffix(".__init__")
        for name, text in docstrings(ast.parse(path.read_text()), module):
            text = " ".join(text.split())
            for authors, number in AUTHORS.findall(text):
                found[number][""].append(authors)
            for number, places in WHERE.findall(text):
                found[number][name].append(places.strip(" ,"))
    return found


def docstrings(tree: ast.Module, module: str):
    """(public name of the module, docstring): of what is in it, and in that."""
    yield module, ast.get_docstring(tree) or ""
    for top in tree.body:
        name = getattr(top, "name", "_")
        name = module if name.startswith("_") else f"{module}.{name}"
        for node in ast.walk(top):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                yield name, ast.get_docstring(node) or ""


def line(number: str, names: dict[str, list[str]]) -> str:
    """A paper: its authors, its number, and what is where."""
    authors = collections.Counter(names.get("", [""])).most_common(1)[0][0]
    said = []
    for name, places in names.items():
        where = ", ".join(dict.fromkeys(filter(None, places)))
        if name:
            said.append(f"{where} → `{name}`" if where else f"`{name}`")
    title = f"{authors}, arXiv:{number}".lstrip(", ")
    return wrapped(f"- {title}: {'; '.join(said)}", "  ")


def pages() -> dict[str, str]:
    """File below docs/reference/ -> its text."""
    found, made, first = sources(), {}, ""
    index = ["# Papers, and what of them is where", MADE]
    index.append(
        wrapped(
            "The names of gengen whose docstrings name a paper, by the paper's number "
            "and year; the place in it where one is named."
        )
    )
    names = {part: f"papers/{part.replace(' ', '-')}.md" for part in PARTS}
    index.append("\n".join(f"- [Papers {part}]({names[part]})" for part in PARTS))
    made["papers.md"] = "\n\n".join(index) + "\n"
    for part, last in PARTS.items():
        lines = [
            line(number, found[number])
            for number in sorted(found)
            if first < number[:2] <= last
        ]
        text = [f"# Papers {part}", MADE, "[All papers](../papers.md)"]
        made[names[part]] = "\n\n".join([*text, "\n".join(lines)]) + "\n"
        first = last
    return made
