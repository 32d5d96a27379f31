"""The comparison of families as a table, its notes and its picture."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from gengen.images import to_unit

from ..data.dataset import Dataset
from ..run.pictures import save_grid, to_uint8
from ..run.sampler import COLUMNS, Sampler, given_classes
from ..run.workdir import open_workdir

# Kind of density -> its words, in the order of the rows.
TAXONOMY = {"exact": "exact", "bound": "lower bound", "none": "none: samples only"}
OTHERS = (("test_images", "test images", "training images"),)
OTHERS += (("noise_floor", "training images", "others"),)


def quality_cells(quality: dict | None) -> list[str]:
    """Fréchet distance, precision and recall in words."""
    known = quality or {}
    return [
        "–" if known.get(name) is None else f"{known[name]:.{digits}g}"
        for name, digits in (("frechet_distance", 4), ("precision", 2), ("recall", 2))
    ]


def comparison_lines(result: dict[str, Any]) -> list[list[str]]:
    """The headings, a row per family, and two for what to hold samples against."""
    lines = [["family", "density", "test bits/dim", "Fréchet", "precision", "recall"]]
    lines[0] += ["parameters", "steps", "training s", "ms/sample", "evaluations"]
    for row in result["rows"]:
        bits, seconds = row["test_bits_per_dim"], row["training_seconds"]
        lines.append(
            [
                row["family"] + ("" if row["samples"] == "samples" else " †"),
                TAXONOMY[row["density"]],
                "–" if bits is None else f"{bits:.3f} ({row['kind'].split(',')[0]})",
                *quality_cells(row["quality"]),
                f"{row['parameters']:,}",
                f"{row['steps']:,}",
                "–" if seconds is None else f"{seconds:.1f}",
                f"{row['milliseconds_per_sample']:.3g}",
                str(row["network_evaluations"] or "adaptive"),
            ]
        )
    for name, what, _ in OTHERS:
        if other := result["rows"][0][name]:
            cells = [f"*{what}*", "", "", *quality_cells(other)]
            lines.append(cells + [""] * (len(lines[0]) - len(cells)))
    return lines


def comparison_notes(result: dict[str, Any]) -> list[str]:
    """What the numbers of the table depend on, a sentence each."""
    rows = result["rows"]
    notes = [f"{name} failed: {why}" for name, why in result["failed"].items()]
    notes.append(
        f"{result['dataset']}; each family's default experiment, at most "
        f"{result['budget']} of training. {rows[0]['device']}."
    )
    notes += result["used"]
    reading = [
        f"{row['family']} of {', '.join(row['reads'])}" for row in rows if row["reads"]
    ]
    if reading:
        notes.append(
            "Runs that read another, whose seconds of training are counted in: "
            f"{'; '.join(reading)}."
        )
    if quality := rows[0]["quality"]:
        notes.append(
            f"{quality['n_fake']:,} samples against {quality['n_real']:,} training "
            f"images in the features of: {rows[0]['extractor']}."
        )
    for name, what, others in OTHERS:
        if other := rows[0][name]:
            notes.append(
                f"*{what}*: {other['n_fake']:,} in the place of samples, against "
                f"{other['n_real']:,} {others}."
            )
    mixtures = [row for row in rows if "mixture" in (row["kind"] or "")]
    if mixtures:
        kind = mixtures[0]["kind"].partition(", ")[2]
        families = ", ".join(row["family"] for row in mixtures)
        notes.append(f"The bits of {families} are of the {kind}.")
    notes += {f"†: {row['samples']}." for row in rows if row["samples"] != "samples"}
    return notes


def draw_samples(workdirs: list[Path], dataset: Dataset, path: Path) -> None:
    """Training images, and a row of ten samples per family, classes in turn."""
    some = dataset.fetch(np.arange(min(dataset.size, 1_000)))
    first = np.arange(COLUMNS) % len(some["image"])
    if "label" in some:
        of_class = [np.flatnonzero(some["label"] == i)[:1] for i in range(COLUMNS)]
        first = np.concatenate([*of_class, first])[:COLUMNS]
    rows = [np.asarray(to_unit(some["image"][first], dataset.spec.levels))]
    for workdir in workdirs:
        trained = open_workdir(workdir)
        given = given_classes(trained.model, COLUMNS)
        sampler, key = Sampler(trained.model, COLUMNS), jax.random.key(0)
        rows.append(sampler(trained.params, trained.state, key, COLUMNS, given))
    names = ("data", *(workdir.name for workdir in workdirs))
    save_grid(path, to_uint8(np.concatenate(rows)), COLUMNS, names)
