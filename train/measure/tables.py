"""Figures as tables, on a terminal and in Markdown."""

from pathlib import Path
from typing import Any

# ------------------------------------------------------------- the table


def show(result: dict[str, Any], path: Path) -> None:
    """The figures as tables."""
    from rich.table import Table

    from ..progress import wide_console

    console = wide_console()
    table = Table(title=f"{result['experiment']} on {result['dataset']}")
    table.add_column("")
    table.add_column("", justify="right")
    for name in ("bits_per_dim", "bits_per_byte", "accuracy", "cross_entropy"):
        for split, figure in result.get(name, {}).items():
            what = f"{name.replace('_', ' ')} ({figure['kind']})"
            value, error = f"{figure['value']:.4f}", figure["standard_error"]
            value += "" if error is None else f" ± {error:.4f}"
            table.add_row(
                f"{what}, {figure['num']:,} {split} {result['examples']}", value
            )
    if result.get("class_accuracy") is not None:
        share = f"{result['class_accuracy']:.1%}"
        table.add_row("samples of the class asked for", share)
    if (seconds := result.get("seconds_per_sample")) is not None:
        table.add_row("what was drawn", result["samples"])
        table.add_row("milliseconds a sample", f"{1e3 * seconds:.3g}")
        table.add_row(
            "network evaluations a sample",
            str(result["network_evaluations"] or "adaptive"),
        )
    table.add_row("parameters", f"{result['parameter_count']:,}")
    if result["training_seconds"] is not None:
        table.add_row("seconds of training", f"{result['training_seconds']:,.0f}")
    if quality := result.get("sample_quality"):
        columns = {
            "samples against training": quality,
            "samples against test": result.get("against_test"),
            "test against training": result.get("test_images"),
            "training, half against half": result.get("noise_floor"),
        }
        columns = {name: column for name, column in columns.items() if column}
        console.print(quality_table(columns, result["extractor"]))
    console.print(table)
    console.print(str(path))


def quality_table(columns: dict[str, dict], extractor: str):
    """A row a figure, a column a comparison; how many images in the headings."""
    from rich.table import Table

    def heading(figure):
        return f"{figure['n_fake']:,} : {figure['n_real']:,}"

    def words(figure, usual):
        if figure["value"] is None:
            return "not finite"
        error = figure["standard_error"]
        value = f"{figure['value']:.4g}" + ("" if error is None else f" ± {error:.2g}")
        other = figure["n_real"] and heading(figure) != usual
        return f"{value} ({heading(figure)})" if other else value

    table = Table(title=f"images in the features of: {extractor}")
    table.add_column("")
    usual = {n: heading(column["frechet_distance"]) for n, column in columns.items()}
    for name in columns:
        table.add_column(f"{name}, {usual[name]}", justify="right")
    for row in next(iter(columns.values())):
        cells = [words(column[row], usual[n]) for n, column in columns.items()]
        table.add_row(row.replace("_", " "), *cells)
    return table


def aligned(lines: list[list[str]], left: int) -> list[str]:
    """Cells as the lines of a Markdown table: `left` columns of words, then numbers."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return [
        "| " + " | ".join(
            cell.ljust(w) if i < left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ) + " |"
        for line in (lines[0], rule, *lines[1:])
    ]  # fmt: skip
