"""The card of a run: `README.md`, with the head that the Hugging Face Hub reads.

It says what was trained on which data, by which command, and every figure so far; it is
written when a run ends and when it is evaluated. A `README.md` without the card's last
line is somebody's own, and stays as it is.
"""

import contextlib
import json
import math
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gengen.types import draws

from ..cli.config import FACTS, as_arguments
from ..cli.doors import command, version
from ..cli.groups import defaults_of
from ..cli.options import RunOptions
from ..files import write_atomically
from . import record as records
from . import references
from .record import FIT, Record
from .report import HELD_OUT, read_rows

FILE = "README.md"
MADE = "<!-- Made by gengen: without this line, the file is yours and stays. -->"
# Parts of an evaluation beside the figures of the samples and of the splits.
_BESIDE = ("options", "against_test", "test_images", "noise_floor", "disentanglement")


class Figure(NamedTuple):
    """One number of the card."""

    name: str
    of: str
    "A split, or samples."
    step: int
    value: str


def write(workdir: Path, model: Any, license: str | None = None) -> Path | None:
    """Write the card of the run in a workdir; None where a README is somebody's own.

    Without a licence, that of the card which is there stays.
    """
    path = workdir / FILE
    there = path.read_text(errors="replace") if path.exists() else MADE
    if MADE not in there:
        return None
    if license is None and (said := re.search('^license: (".*")$', there, re.M)):
        with contextlib.suppress(ValueError):
            license = json.loads(said[1])
    write_atomically(path, card(workdir, model, license))
    return path


def card(workdir: Path, model: Any, license: str | None = None) -> str:
    """The card as Markdown.

    Args:
        workdir: the run's folder.
        model: the run's.
        license: of the weights, as the Hub calls it; None leaves it out.
    """
    record, rows = records.load(workdir), read_rows(workdir / "metrics.jsonl")
    figures = [*held_out(rows), *evaluated(workdir)]
    name, data = workdir.resolve().name, record.data
    classes = f", {data.num_classes} classes" if data.num_classes else ""
    seconds = rows[-1].get("seconds", 0.0) if rows else 0.0
    lines = [
        head(record, figures, license),
        f"# {name}",
        f"A `{record.experiment}` of {data.name} ({data.examples} {list(data.shape)}"
        f"{classes}), trained with gengen {version()}"
        f"{f' in {seconds:,.0f} s' if seconds else ''}.",
    ]
    if (workdir / "samples.png").exists():
        lines += ["![samples](samples.png)"]
    if record.experiment != FIT:
        lines += ["## Command", fenced(command_of(record, workdir))]
    if figures:
        lines += ["## Figures", table(figures)]
    use = command("sample" if draws(model) else "evaluate")
    lines += ["## Use", fenced(f"{use} --workdir {shlex.quote(name)}")]
    return "\n\n".join([*lines, MADE]) + "\n"


def head(record: Record, figures: list[Figure], license: str | None) -> str:
    """The YAML between two rules. Its values are JSON's, which YAML reads."""
    entries = {"library_name": "gengen", "license": license}
    entries["datasets"] = [record.data.name]
    entries["metrics"] = list(dict.fromkeys(figure.name for figure in figures))
    entries["tags"] = ["jax", "generative-model", record.experiment]
    lines = [f"{k}: {json.dumps(v)}" for k, v in entries.items() if v]
    return "\n".join(["---", *lines, "---"])


def fenced(line: str) -> str:
    """A line of the shell."""
    return f"```bash\n{line}\n```"


def table(figures: list[Figure]) -> str:
    """A Markdown table."""
    rows = [("figure", "of", "step", "value"), ("---",) * 4]
    rows += [(f.name, f.of, str(f.step), f.value) for f in figures]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def command_of(record: Record, workdir: Path) -> str:
    """The command line that trains a run like this one, defaults left out."""
    from ..experiments import DATASETS, EXPERIMENTS

    experiment = EXPERIMENTS[record.experiment]
    usual = defaults_of(RunOptions) | defaults_of(experiment.options)
    usual["dataset"] = DATASETS.get(record.experiment, usual["dataset"])
    asked = {**record.data_options, **record.options}
    asked |= references.places_of(record, workdir)
    if (start := record.initial) is not None:
        asked["init_from"] = f"{os.path.normpath(workdir / start.workdir)}@{start.step}"
    words = [command(record.experiment), "--workdir", shlex.quote(workdir.name)]
    for name, value in asked.items():
        if name not in FACTS and value != usual.get(name):
            value = list(value) if isinstance(value, tuple) else value
            words += map(shlex.quote, as_arguments(name.replace("_", "-"), value))
    return " ".join(words)


def held_out(rows: list[dict]) -> list[Figure]:
    """The last of each figure that was measured while the run trained."""
    last = {}
    for row in rows:
        for name, value in row.items():
            if any(kind in name for kind in HELD_OUT) and math.isfinite(value):
                split, _, metric = name.rpartition("/")
                last[name] = Figure(metric, split, row["step"], f"{value:.4g}")
    return list(last.values())


def evaluated(workdir: Path) -> list[Figure]:
    """The figures in `evaluation.json`; none of one that is not there, or not ours."""
    try:
        result = json.loads((workdir / "evaluation.json").read_text())
        return list(numbers(result, result["step"], ()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []


def numbers(result: Any, step: int, path: tuple[str, ...]) -> Iterator[Figure]:
    """Every value with its error, under its name; of a split, if it is one's."""
    if not isinstance(result, dict):
        return
    if isinstance(value := result.get("value"), int | float):
        error, (name, *of) = result.get("standard_error"), path
        errors = f" ± {error:.2g}" if error is not None else ""
        name = f"{name} ({kind})" if (kind := result.get("kind")) else name
        yield Figure(name.replace("_", " "), *of, step, f"{value:.4g}{errors}")
        return
    for name, inner in result.items():
        if name == "sample_quality":
            for metric, each in inner.items():
                yield from numbers(each, step, (metric, "samples"))
        elif name not in _BESIDE and len(path) < 2:
            yield from numbers(inner, step, (*path, name))
