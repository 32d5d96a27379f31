"""The end of a run: where everything is."""

from pathlib import Path

from . import card
from .pictures import curves
from .report import Report, read_rows


def summarise(report: Report, workdir: Path, checkpoints, model) -> None:
    """Draw the curves, write the card; say where everything is that there is."""
    rows = [("samples", workdir / f"samples{suffix}") for suffix in (".png", ".txt")]
    if seen := read_rows(report.file):
        with report.surviving(workdir / "curves.png"):
            rows.append(("curves", curves(seen, workdir / "curves.png")))
    with report.surviving(workdir / card.FILE):
        rows.append(("card", card.write(workdir, model) or workdir / card.FILE))
    rows.append(("metrics", report.file))
    rows.append(("checkpoint", checkpoints.folder / str(checkpoints.latest())))
    rows.append(("tensorboard", workdir / "tensorboard"))
    for what, where in rows:
        if where.exists():
            report.say(f"{what:>11}  {where}")
