"""python -m tests.pages: the pages of docs/reference/ that are made, not written.

results     a page for each folder of results/, and a list of all tables
options     every option of every command, from the dataclasses that define them
papers      which paper's equation is which name, from the docstrings
"""

import json
from pathlib import Path

from tests import options, papers
from tests.markdown import MADE, WIDTH, wrapped
from tests.record import RESULTS, ROOT

REFERENCE = ROOT / "docs/reference"
PAGES = {  # folder of results/ -> title
    "digits": "Digits: training, density, one table across families",
    "representations": "Digits and Fashion-MNIST: labels, outliers, representations",
    "latent-variables": "Latent variables: priors, posteriors, hierarchies, flows",
    "autoregression": "Autoregression: images, decoding, text",
    "adversarial": "Adversarial networks: modes, losses, what a step costs",
    "styles": "StyleGAN2 and CycleGAN: truncation, translations",
    "diffusion": "Diffusion: published choices, predictions, couplings",
    "guidance": "Diffusion: network evaluations and guidance",
    "few-steps": "Few steps, one step: flow maps, consistency, distillation",
    "bounds": "Diffusion's bound: its estimate, and where it ends",
    "sampling-speed": "Speed: samplers",
    "exports": "Exported samplers: sizes, and how equal they are",
    "training-speed": "Speed: layers, dispatches, data",
    "guard": "Scaling: what the guard costs",
    "scaling": "Scaling: several devices, the loop",
    "reliability": "Reliability: kill -9",
    "captions": "Captions, and first stages of latent models",
}


def cell(value) -> str:
    """A value as a table shows it."""
    if value is None:
        return "–"
    if isinstance(value, bool | str):
        return str(value).replace("|", "\\|")
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def table(rows: list[dict]) -> str:
    """A Markdown table; a column that a row lacks is empty. Printed lines stay so."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if names == ["printed"]:
        lines = [wrapped(row["printed"], "  ") for row in rows]
        return "\n".join(["```text", *lines, "```"])
    lines = [[name.replace("_", " ") for name in names]]
    lines += [[cell(row.get(name, "")) for name in names] for row in rows]
    made = grid(lines)
    if max(map(len, made)) > WIDTH:  # few rows of many columns: upright
        made = grid(
            [["", *map(str, range(1, len(rows) + 1))], *zip(*lines, strict=True)]
        )
    assert max(map(len, made)) <= WIDTH, f"too wide, --select fewer columns: {made[0]}"
    return "\n".join(made)


def grid(lines: list) -> list[str]:
    """Lines of cells as Markdown, the first of them a heading."""
    head, *rest = lines
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rest)]


def provenance(run: dict) -> str:
    """When, where and, if it was recorded, how long."""
    told = f"{run['date']}, commit {run['commit'][:7]}, {run['device']}"
    return told if run["seconds"] is None else f"{told}, {run['seconds']:,.0f} s"


def section(told: dict) -> str:
    """A heading, the rows of all runs, what they say, and where they are from."""
    runs = told["runs"]
    several = len(runs) > 1
    rows = [
        {"": str(i), **row} if several else row
        for i, run in enumerate(runs, 1)
        for row in run["rows"]
    ]
    by = [f"`{run['command']}` ({provenance(run)})" for run in runs]
    if several:
        by = [wrapped(f"{i}. {line}", "   ") for i, line in enumerate(by, 1)]
    else:
        by = [wrapped(*by)]
    notes = [n if n.startswith("!") else wrapped(n) for n in told["note"]]
    return "\n\n".join([f"## {told['title']}", table(rows), "\n".join(by), *notes])


def results(folder: Path = RESULTS) -> dict[str, str]:
    """File below docs/reference/ -> its text."""
    pages, index = {}, []
    for name, title in PAGES.items():
        tables = [json.loads(p.read_text()) for p in sorted(folder.glob(f"{name}/*"))]
        back = "[All results](../results.md)"
        text = [f"# {title}", MADE, back, *map(section, tables)]
        pages[f"results/{name}.md"] = "\n\n".join(text) + "\n"
        titles = "; ".join(told["title"] for told in tables)
        index.append(wrapped(f"- [{title}](results/{name}.md): {titles}", "  "))
    intro = (
        "Every figure was said by a command. It is in `results/` with the command, "
        "the commit, the device, the date and the seconds that it took. `python -m "
        "tests.record PAGE/NAME -- python -m …` runs a command and keeps its figures; "
        "`make results` renders these pages. Timings on CPU vary by some 10 %. "
        "Rows without seconds were measured before these were kept: what they say of "
        "speed is true of the commit beside them, not of later ones."
    )
    text = ["# Results", MADE, wrapped(intro), "\n".join(index)]
    return {"results.md": "\n\n".join(text) + "\n"} | pages


def made() -> dict[str, str]:
    """All pages: file below docs/reference/ -> its text."""
    return results() | options.pages() | papers.pages()


def main() -> None:
    """Write the pages."""
    for name, text in made().items():
        path = REFERENCE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
