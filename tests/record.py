"""python -m tests.record TABLE -- COMMAND …: run a command, and keep its figures.

TABLE is PAGE/NAME: the rows go to results/PAGE/NAME.json with the command, the commit,
the device, the date and the seconds that it took, in the place of what the same command
said before. `make results` renders all tables to docs/reference/. A command's rows are
the lines of JSON that it prints, or, with --of FILE, the JSON file that it writes; of
anything else, the lines themselves.
"""

import argparse
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
CODE = ("gengen", "train", "tests", "pyproject.toml")


def commit() -> str:
    """The commit whose code is there; SystemExit where the code is another one."""
    git = ["git", "-C", str(ROOT)]
    changed = [*git, "status", "--porcelain", "--untracked-files=no", "--", *CODE]
    if said := subprocess.check_output(changed, text=True).strip():
        sys.exit(f"the code is that of no commit, commit it first:\n{said}")
    return subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()


def device() -> str:
    """The kind of device that JAX computes on."""
    import jax

    first = jax.devices()[0]
    if first.platform == "cpu":
        return f"CPU, {len(os.sched_getaffinity(0))} core(s), {platform.machine()}"
    return f"{len(jax.devices())} × {first.device_kind}"


def flat(row: dict, prefix: str = "") -> dict:
    """Mappings in a row become columns named `outer inner`."""
    columns = {}
    for name, value in row.items():
        if isinstance(value, dict):
            columns |= flat(value, f"{prefix}{name} ")
        else:
            columns[prefix + name] = value
    return columns


def rows_of(printed: str) -> list[dict]:
    """The lines of JSON, or the other lines where there is none."""
    rows, lines = [], []
    for line in filter(str.strip, printed.splitlines()):
        try:
            rows.append(flat(json.loads(line)))
        except (ValueError, AttributeError):
            lines.append({"printed": line.rstrip()})
    return rows or lines


def record(name, rows, command, seconds, *, commit, device, folder=RESULTS) -> Path:
    """Write what a command said into results/`name`.json; title and notes stay."""
    path = folder / f"{name}.json"
    table = {"title": name.split("/")[-1].replace("-", " ").capitalize(), "note": []}
    table |= json.loads(path.read_text()) if path.exists() else {}
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    runs = [run for run in table.get("runs", []) if run["command"] != command]
    run = {"command": command, "commit": commit, "device": device, "date": date}
    table["runs"] = [*runs, {**run, "seconds": seconds, "rows": rows}]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    return path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.record",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", help="PAGE/NAME")
    parser.add_argument("--of", type=Path, help="the JSON file that the command writes")
    parser.add_argument("--select", nargs="+", help="columns to keep; by default all")
    parser.add_argument("command", nargs="+", help="after --, python -m … as one types")
    asked = parser.parse_args()
    code, began = commit(), time.perf_counter()
    program = [sys.executable if w == "python" else w for w in asked.command]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=False)
    seconds = round(time.perf_counter() - began, 1)
    if done.returncode:
        sys.exit(f"exit status {done.returncode}: nothing is recorded")
    if asked.of:
        written = json.loads(asked.of.read_text())
        rows = [flat(row) for row in (written if type(written) is list else [written])]
    else:
        rows = rows_of(done.stdout)
    if asked.select:
        rows = [{name: row[name] for name in asked.select} for row in rows]
    said = {"commit": code, "device": device()}
    print(record(asked.table, rows, shlex.join(asked.command), seconds, **said))


if __name__ == "__main__":
    main()
