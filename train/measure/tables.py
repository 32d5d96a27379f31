"""Metrics as tables, on a terminal and in Markdown."""

from pathlib import Path
from typing import Any

from ..progress import print_table

COMPARISONS = {
    "sample_quality": "samples against training",
    "against_test": "samples against test",
    "test_images": "test against training",
    "noise_floor": "training, half against half",
}

FIGURES = ("bits_per_dim", "bits_per_byte", "rate", "distortion", "accuracy")
FIGURES += ("cross_entropy", "squared_error")
FIGURES += ("recall_image_to_text", "recall_text_to_image")


def print_evaluation(result: dict[str, Any], path: Path) -> None:
    """The metrics of an evaluation as tables."""
    columns = {title: result.get(name) for name, title in COMPARISONS.items()}
    if columns := {title: column for title, column in columns.items() if column}:
        title = f"images in the features of: {result['extractor']}"
        print_table(quality_lines(columns), title)
    lines = [["", ""]]
    for name in FIGURES:
        for split, metric in result.get(name, {}).items():
            what = f"{name.replace('_', ' ')} ({metric['kind']})"
            what += f", {metric['num']:,} {split} {result['examples']}"
            lines.append([what, with_error(metric, ".4f", ".4f")])
    for name, gap in result.get("disentanglement", {}).items():
        if name != "num":
            parts = ", ".join(f"{k} {v:.2f}" for k, v in gap.items() if k != "value")
            lines.append([f"{name.upper()} ({parts})", f"{gap['value']:.3f}"])
    for split, use in result.get("codebook", {}).items():
        what = f"codes in use, perplexity; {use['num']:,} codes of {split}"
        lines.append(
            [what, f"{use['usage']:.1%} of {use['size']:,}, {use['perplexity']:,.1f}"]
        )
    if (share := result.get("class_accuracy")) is not None:
        lines.append(["samples of the class asked for", f"{share:.1%}"])
    lines += mode_lines(result.get("modes")) + memory_lines(result.get("memory"))
    lines += clip_lines(result) if "clip" in result else []
    for name, value in result.get("critic", {}).items():
        lines.append([f"critic: {name.replace('_', ' ')}", f"{value:.3f}"])
    if (seconds := result.get("seconds_per_sample")) is not None:
        calls = str(result["network_evaluations"] or "adaptive")
        lines.append(["what was drawn", result["samples"]])
        lines.append(["milliseconds per sample", f"{1e3 * seconds:.3g}"])
        lines.append(["network evaluations per sample", calls])
    lines.append(["parameters", f"{result['parameter_count']:,}"])
    if result["training_seconds"] is not None:
        seconds = f"{result['training_seconds']:.3g}"
        lines.append(["seconds of training", seconds])
    print_table(lines, f"{result['experiment']} on {result['dataset']}")
    print(path)


def mode_lines(modes: dict[str, Any] | None) -> list[list[str]]:
    """What samples reach of known modes, in words and numbers."""
    if modes is None:
        return []
    found = f"{modes['found']:,} of {modes['known']:,}"
    kl, chance = f"{modes['reverse_kl']:.4f}", f"{modes['chance_kl']:.4f}"
    return [
        [f"modes found by {modes['num']:,} samples", found],
        ["samples within a mode", f"{modes['good_samples']:.1%}"],
        ["KL of modes from even ones, nats", f"{kl} (of even ones {chance})"],
    ]


def clip_lines(result: dict[str, Any]) -> list[list[str]]:
    """How well samples fit their captions, by a CLIP, in words and numbers."""
    lines = [["the judge of captions", result["clip"]]]
    for name, score in result["clip_score"].items():
        what = f"CLIP score, {name}, {score['num']:,} of them"
        lines.append([what, with_error(score, ".3f", ".2g")])
    recall = result["clip_recall"]["samples"]
    what = f"samples nearest to their own caption {recall['kind']}"
    return [*lines, [what, f"{recall['value']:.1%}"]]


def memory_lines(memory: dict[str, Any] | None) -> list[list[str]]:
    """How near samples are to training images, beside how near held-out ones are."""
    if memory is None:
        return []
    lines = [["distance to the nearest training image", f"{memory['samples']:.4g}"]]
    if memory["test_images"] is not None:
        lines += [["… of test images", f"{memory['test_images']:.4g}"]]
    return lines


def quality_lines(columns: dict[str, dict]) -> list[list[str]]:
    """A row per metric, a column per comparison; how many images in the headings."""

    def sizes(metric):
        return f"{metric['n_fake']:,} : {metric['n_real']:,}"

    def cell(metric, usual):
        if metric is None:
            return "–"
        other = f" ({sizes(metric)})" if sizes(metric) != usual else ""
        return with_error(metric, ".4g", ".2g") + (other if metric["n_real"] else "")

    usual = {title: sizes(next(iter(x.values()))) for title, x in columns.items()}
    names = dict.fromkeys(name for column in columns.values() for name in column)
    lines = [["", *(f"{title}, {usual[title]}" for title in columns)]]
    for name in names:
        cells = (cell(x.get(name), usual[title]) for title, x in columns.items())
        lines.append([name.replace("_", " "), *cells])
    return lines


def with_error(metric: dict[str, Any], value: str, error: str) -> str:
    """ "1.234 ± 0.012": a metric and, where it is known, its standard error."""
    if metric["value"] is None:
        return "not finite"
    known = metric["standard_error"] is not None
    errors = f" ± {metric['standard_error']:{error}}" if known else ""
    return f"{metric['value']:{value}}{errors}"


def markdown(lines: list[list[str]], left: int) -> str:
    """The lines as a Markdown table: `left` columns of words, then numbers."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "".join(
        "| " + " | ".join(
            cell.ljust(w) if i < left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ) + " |\n"
        for line in (lines[0], rule, *lines[1:])
    )  # fmt: skip
